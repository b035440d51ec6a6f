//! Counters and gauges.

use bytemuck::{Pod, Zeroable};

use crate::measure::BUCKETS;
use crate::shared::{Field, Shared, shared_fields};
use crate::verifier::opaque;

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
    /// Of those opened and adopted: not measured.
    pub unmeasured: u64,
    /// Measured: SYNs the instance answered with RST.
    pub syns_refused: u64,
    /// Measured flows closed by a RST of the client. Some may have been re-opened.
    pub client_resets: u64,
    /// Measured flows closed by a RST of the instance.
    pub server_resets: u64,
    /// Measured flows: segments with data, both directions.
    pub segments: u64,
    /// Of those, whose numbers began before what their sender had sent already.
    pub retransmits: u64,
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
    /// Of those, measured: handshakes whose SYN nobody answered.
    pub unanswered: u64,
}

/// Element of `LATENCY`, by instance id: how long instances took, in buckets of [`crate::measure`].
/// Not per CPU, since that would cost 28 MB for each; so additions are atomic, and a program run from
/// user space may make them, too.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Latency {
    /// From the SYN to the SYN-ACK.
    pub connect: [u64; BUCKETS],
    /// From the first byte of the client's first request to the first byte of the answer.
    pub first_byte: [u64; BUCKETS],
}

impl Shared<'_, Latency> {
    /// A bucket of either histogram, the second behind the first.
    #[inline(always)]
    pub fn bucket(&self, histogram: usize, bucket: usize) -> Field<'_, u64> {
        // The compiler must not compare what the bucket was computed from instead.
        let bucket = opaque(bucket);
        let at = if bucket < BUCKETS { bucket } else { BUCKETS - 1 } + (histogram & 1) * BUCKETS;
        // SAFETY: `at` is below the number of words in a `Latency`.
        unsafe { Field::new(self.as_ptr().cast::<u64>().add(at)) }
    }
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
    /// Of those, measured handshakes that nobody answered.
    unanswered => unanswered: u64,
});

shared_fields!(Gauge {
    /// Current value.
    value => value: u64,
});
