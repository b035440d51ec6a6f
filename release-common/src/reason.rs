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
    /// A SYN was placed and sent to an instance.
    Placed => "placed",
    /// A SYN on a flow or handshake in progress was sent to its instance.
    SynRepeated => "syn_repeated",
    /// A mid-flow packet without an entry was tried on an instance.
    Tried => "tried",
    /// Passed: shorter than the headers it announces.
    Truncated => "truncated",
    /// Passed: not IPv4.
    NotIpv4 => "not_ipv4",
    /// Passed: IPv4, not TCP.
    NotTcp => "not_tcp",
    /// Passed: IPv4 options.
    IpOptions => "ip_options",
    /// Passed: a fragment.
    Fragment => "fragment",
    /// Passed: IP or TCP header lengths that contradict each other.
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
    /// Refused: no version of the service has weight.
    NoVersion => "no_version",
    /// Refused: the version chosen has no serving instance.
    NoInstance => "no_instance",
    /// Refused: the flow table is full.
    TableFull => "table_full",
    /// Refused: every instance tried already serves this client port for a sibling frontend.
    PortCollision => "port_collision",
    /// Dropped: the table refused the entry; the client will try again.
    InsertFailed => "insert_failed",
    /// TTL used up: answered with ICMP time exceeded, or in replies left to the kernel to answer.
    TtlExceeded => "ttl_exceeded",
    /// Larger than the way takes: answered with ICMP fragmentation needed, or in replies left to the
    /// kernel to answer.
    TooBig => "too_big",
    /// Dropped: no room to build the answer.
    NoRoom => "no_room",
    /// Dropped: an id led nowhere; a sign of a damaged map.
    BrokenReference => "broken_reference",
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}
