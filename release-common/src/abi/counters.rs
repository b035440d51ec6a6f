//! Counters and gauges.

use bytemuck::{Pod, Zeroable};

use crate::shared::shared_fields;

/// Per-CPU element of `COUNTERS`, by instance id. Written by the packet path alone; each step of a
/// flow's life is counted exactly once. Reset only together with the data plane.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Counters {
    /// Handshakes begun (embryos created by a SYN that a split placed).
    pub placed: u64,
    /// Embryos created otherwise: mid-flow trials, and SYNs on a live flow.
    pub trials: u64,
    /// Embryos that ended without a flow: refused, aborted, replaced, moved to another version.
    pub embryos_ended: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// Mid-flow connections taken over.
    pub adopted: u64,
    /// Closed by both FINs acknowledged.
    pub closed_fin: u64,
    /// Closed by an acceptable RST.
    pub closed_rst: u64,
    /// Closed because the instance answered a new SYN on the same tuple with a SYN-ACK.
    pub superseded: u64,
    /// Closed flows that valid traffic of the instance proved alive.
    pub reopened: u64,
    /// SYNs the instance answered with RST.
    pub refused: u64,
    /// Flows forwarded without an entry.
    pub untracked: u64,
    /// Segments whose numbers fit neither end; forwarded, changed nothing.
    pub unverified: u64,
    /// Of those placed: by a test rule or a test frontend.
    pub ruled: u64,
    /// Of those placed: by the client's session.
    pub sticky: u64,
    /// Datagrams placed one by one (conversation `datagram`).
    pub datagrams: u64,
    /// QUIC connections that came from another address; begun as `trials`.
    pub migrated: u64,
    /// Closed by a RST after the operator ordered it.
    pub forced: u64,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes of those (IP length).
    pub bytes: u64,
    /// Jiffies at the last packet; not a count, take the maximum over CPUs.
    pub last_packet: u64,
}

impl Counters {
    /// Number of 64-bit fields.
    pub const FIELDS: usize = size_of::<Self>() / 8;
}

/// Element of `USER_COUNTERS`, by instance id: what programs run from user space count. A map of
/// its own, because such a run may be interrupted by the packet path on the same CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct UserCounters {
    /// Live TCP flows removed because they were silent too long: no proof of a close.
    pub expired: u64,
    /// UDP flows removed because they were silent for their timeout, which is how they end.
    pub timed_out: u64,
    /// Closed entries removed after lingering.
    pub purged: u64,
    /// Embryos removed because they were too old.
    pub embryos_expired: u64,
}

/// Per-CPU element of `SERVICE_COUNTERS`: new flows refused.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct ServiceCounters {
    /// No version has weight, or the version chosen has no instance.
    pub empty: u64,
    /// The flow table was full.
    pub full: u64,
    /// `limits.max_flows` was reached.
    pub max_flows: u64,
    /// `limits.new_flows_per_second` was reached.
    pub rate: u64,
    /// Nothing to tell the flow by was free: no source port (mode `snat`), or every instance tried
    /// serves this client port already.
    pub ports: u64,
}

impl ServiceCounters {
    /// Number of 64-bit fields.
    pub const FIELDS: usize = size_of::<Self>() / 8;
}

/// Element of `GAUGES`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Gauge {
    /// Current value.
    pub value: u64,
}

shared_fields!(UserCounters {
    /// Live TCP flows removed because they were silent too long.
    expired => expired: u64,
    /// UDP flows removed after their timeout.
    timed_out => timed_out: u64,
    /// Closed entries removed after lingering.
    purged => purged: u64,
    /// Embryos removed because they were too old.
    embryos_expired => embryos_expired: u64,
});

shared_fields!(Gauge {
    /// Current value.
    value => value: u64,
});
