//! The named end of every packet's journey. Each reason has a counter in `REASONS`.

/// Declares the reasons with their names and what each means.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal),+ $(,)?) => {
        /// Why a packet was passed, dropped or sent on.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name),+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The name shown to people and scripts.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text),+ }
            }

            /// One line of explanation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

reasons! {
    /// Sent to the flow's instance.
    Forwarded => "forwarded",
    /// Sent back to the client.
    Replied => "replied",
    /// Rewritten, then left to the kernel, which knows the way or can find the neighbour.
    HandedToKernel => "handed_to_kernel",
    /// A SYN, or the first datagram, was placed and sent to an instance.
    Placed => "placed",
    /// A SYN on a flow or handshake in progress was sent to its instance.
    SynRepeated => "syn_repeated",
    /// A mid-flow packet without an entry was tried on an instance.
    Tried => "tried",
    /// Dropped: the answer to a probe of this tool, taken as evidence.
    ProbeAnswered => "probe_answered",
    /// Passed: shorter than the headers it announces.
    Truncated => "truncated",
    /// Passed: neither IPv4 nor IPv6, behind one VLAN tag at most.
    NotIp => "not_ip",
    /// Passed: neither TCP nor UDP nor an ICMP error about one.
    NotOurProtocol => "not_our_protocol",
    /// Passed: IPv6 extension headers beyond what is looked through, or not at their destination.
    ExtensionHeaders => "extension_headers",
    /// Passed: a fragment whose first fragment was not seen, or did not belong to a flow.
    FragmentUnknown => "fragment_unknown",
    /// Passed: lengths in the IP, TCP or UDP header that contradict each other.
    BadLength => "bad_length",
    /// Passed: neither port is in use by a service.
    NotOurPort => "not_our_port",
    /// Passed: a port in use, but no such frontend and no such instance.
    NotOurAddress => "not_our_address",
    /// Passed: from an instance, but of no flow of ours.
    NotOurFlow => "not_our_flow",
    /// Dropped: flags that begin nothing and belong to nothing.
    BadFlags => "bad_flags",
    /// Dropped: an answer that only told us to try the next version.
    TrialRefused => "trial_refused",
    /// Dropped: the entry was being removed at this very moment.
    DeadEntry => "dead_entry",
    /// Dropped: the handshake was being changed by another CPU at this very moment.
    EmbryoBusy => "embryo_busy",
    /// An ICMP error was sent on to the flow it is about.
    IcmpForwarded => "icmp_forwarded",
    /// A later fragment was sent after its first.
    FragmentForwarded => "fragment_forwarded",
    /// A datagram was sent by the ring in force.
    Datagram => "datagram",
    /// A QUIC packet was sent to the instance that its connection id names.
    Migrated => "migrated",
    /// Sent without an entry: one-way modes, mid-flow or table full.
    Untracked => "untracked",
    /// Refused: no version of the service has weight.
    NoVersion => "no_version",
    /// Refused: the version chosen has no serving instance.
    NoInstance => "no_instance",
    /// Refused: the flow table is full.
    TableFull => "table_full",
    /// Refused: the service has as many flows as it may have.
    MaxFlows => "max_flows",
    /// Refused: flows begin faster than they may.
    FlowRate => "flow_rate",
    /// Refused: no source port is free (mode `snat`).
    NoSourcePort => "no_source_port",
    /// Refused: every instance tried already serves this client port for a sibling frontend.
    PortCollision => "port_collision",
    /// Dropped: the table refused the entry; the client will try again.
    InsertFailed => "insert_failed",
    /// TTL used up: answered with ICMP time exceeded, or in replies left to the kernel to answer.
    TtlExceeded => "ttl_exceeded",
    /// Larger than the way takes: answered with ICMP fragmentation needed, or in replies left to the
    /// kernel to answer.
    TooBig => "too_big",
    /// Dropped: the neighbour's MAC is not known yet (mode `dsr`).
    NoNeighbour => "no_neighbour",
    /// Dropped: no room to build the answer.
    NoRoom => "no_room",
    /// Dropped: an id led nowhere; a sign of a damaged map.
    BrokenReference => "broken_reference",
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}
