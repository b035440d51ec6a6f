//! The kernel programs' places, their settings, and what they keep for themselves.

use bytemuck::{Pod, Zeroable};

use super::{Addr6, Address, Be32};

/// The only element of `META`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Meta {
    /// [`super::ABI_VERSION`].
    pub abi: u32,
    /// Jiffies a second of this kernel, measured by the daemon.
    pub hz: u32,
    /// Capacity of each family's flow table.
    pub flow_capacity: u32,
    /// Entries of one flow table at which new flows are refused.
    pub flow_limit: u32,
    /// Number of the routing state; a cached next hop of another epoch is not used.
    pub routing_epoch: u32,
    /// Low 32 bits of jiffies until which cached next hops may be used at all.
    pub routing_lease: u32,
    /// Number of the evidence epoch: raised when the data plane was absent or replaced.
    pub evidence_epoch: u32,
    /// Zero.
    pub pad: u32,
    /// Kernel boot id (16 bytes of /proc/sys/kernel/random/boot_id).
    pub boot_id: [u8; 16],
    /// Jiffies when the tables were made.
    pub tables_made_at: u64,
}

/// The kernel programs that others go on in, and their places in `PROGRAMS` and `TC_PROGRAMS`.
pub mod stages {
    /// Names of the stages of [`crate::pipeline::Stage`] from number 1 on, as they stand in program
    /// names; the last stage is to do what was decided.
    pub const NAMES: [&str; 10] =
        ["tcp", "udp", "place", "siblings", "reply", "answer", "adopt", "icmp", "fragment", "act"];
    /// Number of the stage that does what was decided.
    pub const ACT: u32 = 10;
    /// Number of places for one family and kind of run.
    pub const COUNT: u32 = NAMES.len() as u32;
    /// Kinds of runs: what came in, and what would become of a packet.
    pub const RUNS: [&str; 2] = ["xdp", "explain"];
    /// Stages that TC programs have.
    pub const TC: [&str; 6] = ["reply", "answer", "adopt", "icmp", "fragment", "act"];
    /// Places in `PROGRAMS`.
    pub const PLACES: u32 = 2 * 2 * COUNT;

    /// Place of a stage, whose number is at least 1; `run` is 0 for what came in, 1 for explaining;
    /// `family` is the [`super::Address::INDEX`]. In `TC_PROGRAMS`, `run` is 0.
    pub const fn place(run: u32, family: usize, stage: u32) -> u32 {
        (run * 2 + family as u32) * COUNT + stage - 1
    }
}

/// What the explaining program says of a packet: the only element of `EXPLAINED`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Explained {
    /// A [`crate::pipeline::Action`].
    pub action: u32,
    /// A [`crate::reason::Reason`].
    pub reason: u32,
    /// Instance it would go to or come from, 0 if none.
    pub backend: u32,
    /// Interface it would leave by, if another than it came in by; else 0.
    pub ifindex: u32,
}

/// How a cached next hop is used.
pub mod next_hop {
    /// Nothing cached.
    pub const EMPTY: u32 = 0;
    /// Send out of `ifindex` with the MACs given.
    pub const SEND: u32 = 1;
}

/// Element of `NEXT_HOPS4/6`, a direct-mapped per-CPU cache of the FIB's answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NextHop<A> {
    /// Destination address.
    pub destination: A,
    /// One of [`next_hop`].
    pub kind: u32,
    /// Routing epoch the answer belongs to.
    pub epoch: u32,
    /// Interface to send out of.
    pub ifindex: u32,
    /// Interface the packet came in by (the answer may depend on it).
    pub ingress: u32,
    /// Largest IP packet the route takes, in bytes.
    pub mtu: u32,
    /// Destination MAC.
    pub dmac: [u8; 6],
    /// Source MAC.
    pub smac: [u8; 6],
}

const _: () = assert!(size_of::<NextHop<Be32>>() == 4 + 32);
const _: () = assert!(size_of::<NextHop<Addr6>>() == 16 + 32);
// SAFETY: `repr(C)`, every field is Zeroable.
unsafe impl<A: Address> Zeroable for NextHop<A> {}
// SAFETY: `repr(C)`, every field is Pod, and by the assertions above there is no padding.
unsafe impl Pod for NextHop<Be32> {}
// SAFETY: as above.
unsafe impl Pod for NextHop<Addr6> {}
