//! What user space tells the packet path: services, versions, instances, routing.

use bytemuck::{Pod, Zeroable};

use super::{Be16, Be32, Endpoint4, IPPROTO_TCP};

/// Most frontends of one service: a reply tries them in turn.
pub const FRONTENDS_PER_SERVICE: usize = 8;
/// Most versions of one service.
pub const VERSIONS_PER_SERVICE: usize = 16;
/// Ring slots packed into one map element: writing a ring of 65537 slots takes 0.9 ms this way
/// and 49 ms one by one.
pub const RING_BLOCK: usize = 16;

/// A flat bitmap of ports: element of `PORTS` (0: frontends', 1: instances').
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct PortBits {
    /// Bit `port % 64` of word `port / 64`.
    pub words: [u64; 1024],
}

impl PortBits {
    /// Index of the frontends' bitmap in `PORTS`.
    pub const FRONTENDS: u32 = 0;
    /// Index of the instances' bitmap in `PORTS`.
    pub const BACKENDS: u32 = 1;

    /// Whether `port` (host order) is set.
    #[inline(always)]
    pub fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port >> 6)] >> (port & 63) & 1 == 1
    }

    /// Sets `port` (host order).
    pub fn insert(&mut self, port: u16) {
        self.words[usize::from(port >> 6)] |= 1 << (port & 63);
    }
}

/// Value of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct FrontendRef {
    /// Index in `SERVICES`.
    pub service: u32,
    /// Zero; room for flags.
    pub flags: u32,
}

/// Value of `BACKEND_IDS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct BackendRef {
    /// Index in `BACKENDS`.
    pub backend: u32,
    /// Index in `SERVICES`.
    pub service: u32,
}

/// How a new flow is refused.
pub mod refusal {
    /// TCP RST (RFC 9293 §3.10.7.1).
    pub const REJECT: u8 = 0;
    /// Silence.
    pub const DROP: u8 = 1;
    /// Leave the packet to the host's own stack.
    pub const PASS: u8 = 2;
}

/// Element of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Service {
    /// Number of frontends in use.
    pub frontend_count: u32,
    /// One of [`refusal`]: no serving instance.
    pub when_empty: u8,
    /// One of [`refusal`]: flow table full.
    pub when_full: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// The frontends.
    pub frontends: [Endpoint4; FRONTENDS_PER_SERVICE],
}

/// States of a [`Backend`].
pub mod backend_state {
    /// The id is free.
    pub const FREE: u32 = 0;
    /// The id names an instance.
    pub const USED: u32 = 1;
}

/// Element of `BACKENDS`: one instance. Address and port stand as people read them, for
/// `bpftool map dump`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Backend {
    /// The instance's IPv4 address.
    pub addr: [u8; 4],
    /// Its port, in host order.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// Index in `SERVICES`.
    pub service: u32,
    /// The version's ring (index in `RINGS`), which stands for the version here.
    pub ring: u32,
    /// One of [`backend_state`].
    pub state: u32,
}

impl Backend {
    /// An instance in use.
    pub fn used(socket: core::net::SocketAddrV4, service: u32, ring: u32) -> Self {
        Self {
            addr: socket.ip().octets(),
            port: socket.port(),
            proto: IPPROTO_TCP,
            pad: 0,
            service,
            ring,
            state: backend_state::USED,
        }
    }

    /// The instance's socket.
    #[inline(always)]
    pub const fn endpoint(&self) -> Endpoint4 {
        Endpoint4 {
            addr: Be32(u32::from_ne_bytes(self.addr)),
            port: Be16::new(self.port),
            proto: self.proto,
            pad: 0,
        }
    }
}

/// One version's part of a [`Split`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct SplitEntry {
    /// Flows whose 32-bit hash is below this and not below an earlier bound are this version's.
    /// At most [`SplitEntry::END`]; entries not in use have that.
    pub bound: u64,
    /// The version's ring.
    pub ring: u32,
    /// Zero.
    pub pad: u32,
}

impl SplitEntry {
    /// One more than the greatest hash.
    pub const END: u64 = 1 << 32;
    /// An entry not in use.
    pub const UNUSED: Self = Self { bound: Self::END, ring: 0, pad: 0 };
}

/// How new flows are divided among a service's versions: the only element of an inner map of
/// `SPLITS`. Replaced whole; replacing it is the barrier of a shift.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Split {
    /// Number of this split, stamped into every flow it places.
    pub generation: u32,
    /// Number of entries in use.
    pub count: u32,
    /// Set of the versions whose ring has an instance: bit 0 is the first.
    pub occupied: u32,
    /// Zero.
    pub pad: u32,
    /// The versions in configuration order; a version of weight 0 has an empty share and is here
    /// for mid-flow packets only.
    pub entries: [SplitEntry; VERSIONS_PER_SERVICE],
}

impl Split {
    /// A split without versions.
    pub const fn empty(generation: u32) -> Self {
        Self {
            generation,
            count: 0,
            occupied: 0,
            pad: 0,
            entries: [SplitEntry::UNUSED; VERSIONS_PER_SERVICE],
        }
    }
}

/// Element of an inner map of `RINGS`. Element 0 is the head: `[size, fingerprint low, fingerprint
/// high, 0…]`; slots follow in element 1 and on, as instance ids.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct RingBlock {
    /// Packed slots.
    pub slots: [u32; RING_BLOCK],
}

/// The only element of `META`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Meta {
    /// [`super::ABI_VERSION`].
    pub abi: u32,
    /// Jiffies a second of this kernel, measured by the daemon.
    pub hz: u32,
    /// Capacity of the flow table.
    pub flow_capacity: u32,
    /// Flow table entries at which new flows are refused.
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
    /// Jiffies at which the evidence epoch began.
    pub epoch_at: u64,
}

/// How a cached next hop is used.
pub mod next_hop {
    /// Nothing cached.
    pub const EMPTY: u32 = 0;
    /// Send out of `ifindex` with the MACs given.
    pub const SEND: u32 = 1;
}

/// Element of `NEXT_HOPS`, a direct-mapped per-CPU cache of the FIB's answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct NextHop {
    /// Destination address.
    pub destination: Be32,
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
    /// Zero.
    pub pad: u32,
}
