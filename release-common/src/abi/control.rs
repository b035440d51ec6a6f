//! What user space tells the packet path: services, versions, instances.

use bytemuck::{Pod, Zeroable};

use super::{Addr6, Address, Be16, Be32, Endpoint};

/// Most frontends of one service in one address family: a reply tries them in turn.
pub const FRONTENDS_PER_FAMILY: usize = 8;
/// Most source addresses of one service in one address family (mode `snat`).
pub const SNAT_ADDRESSES: usize = 8;
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

/// Value of `FRONTENDS4/6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct FrontendRef {
    /// Index in `SERVICES`.
    pub service: u32,
    /// A test frontend: the ring of the version it always reaches. 0: by the split.
    pub ring: u32,
}

/// Value of `BACKEND_IDS4/6`.
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
    /// TCP RST (RFC 9293 §3.10.7.1) or ICMP port unreachable.
    pub const REJECT: u8 = 0;
    /// Silence.
    pub const DROP: u8 = 1;
    /// Leave the packet to the host's own stack.
    pub const PASS: u8 = 2;
}

/// How packets reach an instance.
pub mod mode {
    /// The destination is rewritten; replies return through this host.
    pub const NAT: u8 = 0;
    /// Both ends are rewritten.
    pub const SNAT: u8 = 1;
    /// The MACs are rewritten; the instance answers the client itself.
    pub const DSR: u8 = 2;
    /// IP in IP (RFC 2003, RFC 2473); the instance answers the client itself.
    pub const IPIP: u8 = 3;
    /// IP in UDP (GUE variant 1, draft-ietf-intarea-gue §3.1); the instance answers the client
    /// itself.
    pub const GUE: u8 = 4;
    /// The destination is rewritten and this host's stack delivers.
    pub const LOCAL: u8 = 5;

    /// Whether packets are routed to the instance, and so need a TTL above 1.
    #[inline(always)]
    pub const fn routed(mode: u8) -> bool {
        matches!(mode, NAT | SNAT)
    }

    /// Whether only the client's half of a flow passes here.
    #[inline(always)]
    pub const fn one_way(mode: u8) -> bool {
        matches!(mode, DSR | IPIP | GUE)
    }
}

/// What stays together on one instance.
pub mod conversation {
    /// Each flow by itself.
    pub const FLOW: u8 = 0;
    /// All flows of a client, see [`super::super::Session`].
    pub const CLIENT: u8 = 1;
    /// Nothing: each datagram goes by the ring in force.
    pub const DATAGRAM: u8 = 2;
    /// QUIC connections, also when the client's address changes.
    pub const QUIC: u8 = 3;
}

/// Bits of [`Service::flags`].
pub mod service_flag {
    /// There are test rules for it in `RULES4/6`.
    pub const RULES: u8 = 1;
    /// Sessions stay with an instance that takes no new flows (`drain.sessions = "hold"`).
    pub const HOLD_SESSIONS: u8 = 2;
}

/// Element of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Service {
    /// One of [`mode`].
    pub mode: u8,
    /// One of [`conversation`].
    pub conversation: u8,
    /// One of [`refusal`]: no serving instance.
    pub when_empty: u8,
    /// One of [`refusal`]: flow table full, or a limit reached.
    pub when_full: u8,
    /// Bits of [`service_flag`].
    pub flags: u8,
    /// Number of IPv4 frontends in use.
    pub frontend_count4: u8,
    /// Number of IPv6 frontends in use.
    pub frontend_count6: u8,
    /// Mode `snat`: number of IPv4 source addresses.
    pub snat_count4: u8,
    /// Mode `snat`: number of IPv6 source addresses.
    pub snat_count6: u8,
    /// Conversation `quic`: bytes of a server id, 1 to 8.
    pub quic_id_len: u8,
    /// Conversation `quic`: config id, 0 to 6.
    pub quic_config: u8,
    /// Zero.
    pub pad: u8,
    /// Mode `snat`: first source port (host order).
    pub snat_port: u16,
    /// Mode `snat`: number of source ports.
    pub snat_ports: u16,
    /// Mode `gue`: destination port (host order).
    pub tunnel_port: u16,
    /// Zero.
    pub pad2: u16,
    /// Most live flows; 0: no limit.
    pub max_flows: u32,
    /// Nanoseconds between two new flows at the highest rate allowed; 0: no limit.
    pub flow_interval: u32,
    /// Nanoseconds that new flows may be ahead of that rate.
    pub flow_burst: u32,
    /// Conversation `client`: jiffies that a session outlives its last flow.
    pub session_timeout: u32,
    /// The IPv4 frontends.
    pub frontends4: [Endpoint<Be32>; FRONTENDS_PER_FAMILY],
    /// The IPv6 frontends.
    pub frontends6: [Endpoint<Addr6>; FRONTENDS_PER_FAMILY],
    /// Mode `snat`: IPv4 source addresses.
    pub snat4: [Be32; SNAT_ADDRESSES],
    /// Mode `snat`: IPv6 source addresses.
    pub snat6: [Addr6; SNAT_ADDRESSES],
}

impl Service {
    /// The `index`-th frontend of family `A`.
    #[inline(always)]
    pub fn frontend<A: Address>(&self, index: usize) -> Option<Endpoint<A>> {
        let (count, addr, port, proto) = if A::INDEX == 0 {
            let at = self.frontends4.get(index)?;
            (self.frontend_count4, A::from_words(at.addr.words()), at.port, at.proto)
        } else {
            let at = self.frontends6.get(index)?;
            (self.frontend_count6, A::from_words(at.addr.words()), at.port, at.proto)
        };
        if index < usize::from(count) { Some(Endpoint::new(addr, port, proto)) } else { None }
    }

    /// Number of frontends of family `A`.
    #[inline(always)]
    pub const fn frontend_count<A: Address>(&self) -> u32 {
        (if A::INDEX == 0 { self.frontend_count4 } else { self.frontend_count6 }) as u32
    }

    /// Mode `snat`: number of source addresses of family `A`.
    #[inline(always)]
    pub const fn snat_count<A: Address>(&self) -> u32 {
        (if A::INDEX == 0 { self.snat_count4 } else { self.snat_count6 }) as u32
    }

    /// Mode `snat`: the `index`-th source address of family `A`.
    #[inline(always)]
    pub fn snat_address<A: Address>(&self, index: usize) -> Option<A> {
        let words = if A::INDEX == 0 {
            self.snat4.get(index)?.words()
        } else {
            self.snat6.get(index)?.words()
        };
        Some(A::from_words(words))
    }

    /// Whether all the bits of [`service_flag`] in `mask` are set.
    #[inline(always)]
    pub const fn has(&self, mask: u8) -> bool {
        self.flags & mask == mask
    }
}

/// States of a [`Backend`].
pub mod backend_state {
    /// The id is free.
    pub const FREE: u8 = 0;
    /// The id names an instance that new flows may reach.
    pub const ACCEPTING: u8 = 1;
    /// The id names an instance that no new flow shall reach.
    pub const CLOSED: u8 = 2;
    /// As [`CLOSED`], and of no use to clients that are remembered either.
    pub const DOWN: u8 = 3;
}

/// Element of `BACKENDS`: one instance. Addresses and port stand as people read them, for
/// `bpftool map dump`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Backend {
    /// The instance's address; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// Tunnel modes: the outer source address, of the same family.
    pub tunnel_source: [u8; 16],
    /// Tunnel modes: so many of the source's low bits vary from flow to flow, at most 32.
    pub tunnel_bits: u8,
    /// 4 or 6.
    pub version: u8,
    /// Its port, in host order.
    pub port: u16,
    /// Index in `SERVICES`.
    pub service: u32,
    /// The version's ring (index in `RINGS`), which stands for the version here.
    pub ring: u32,
    /// One of [`backend_state`].
    pub state: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl Backend {
    /// An instance that new flows may reach.
    pub fn accepting(socket: core::net::SocketAddr, service: u32, ring: u32) -> Self {
        let (addr, version) = octets(socket.ip());
        Self {
            addr,
            version,
            port: socket.port(),
            service,
            ring,
            state: backend_state::ACCEPTING,
            ..Self::default()
        }
    }

    /// Whether the id names an instance.
    #[inline(always)]
    pub const fn is_used(&self) -> bool {
        self.state != backend_state::FREE
    }

    /// The instance's address as it stands in a packet.
    #[inline(always)]
    pub fn address<A: Address>(&self) -> A {
        A::from_words(words(&self.addr))
    }

    /// The outer source address as it stands in a packet, before its low bits vary.
    #[inline(always)]
    pub fn tunnel_source<A: Address>(&self) -> A {
        A::from_words(words(&self.tunnel_source))
    }

    /// The instance's socket for protocol `proto`.
    #[inline(always)]
    pub fn endpoint<A: Address>(&self, proto: u8) -> Endpoint<A> {
        Endpoint::new(self.address(), Be16::new(self.port), proto)
    }
}

/// An address as [`Backend`] holds it, and its version.
pub fn octets(ip: core::net::IpAddr) -> ([u8; 16], u8) {
    match ip {
        core::net::IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            (octets, 4)
        }
        core::net::IpAddr::V6(ip) => (ip.octets(), 6),
    }
}

#[inline(always)]
fn words(octets: &[u8; 16]) -> [u32; 4] {
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    [word(0), word(4), word(8), word(12)]
}

/// One version's part of a [`Split`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct SplitEntry {
    /// Flows whose 32-bit hash is below this and not below an earlier bound are this version's.
    /// At most [`SplitEntry::END`]; entries not in use have that.
    pub bound: u64,
    /// The version's rings by [`Address::INDEX`] of the flow; the same one twice in tunnel modes.
    pub rings: [u32; 2],
}

impl SplitEntry {
    /// One more than the greatest hash.
    pub const END: u64 = 1 << 32;
    /// An entry not in use.
    pub const UNUSED: Self = Self { bound: Self::END, rings: [0; 2] };
}

/// How new flows are divided among a service's versions: the only element of an inner map of
/// `SPLITS`. Replaced whole; replacing it is the barrier of a shift.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Split {
    /// Number of this split, stamped into every flow it places.
    pub generation: u32,
    /// Number of versions: new flows are divided among so many entries.
    pub count: u32,
    /// Set of the entries whose ring of that family has an instance: bit 0 is the first. Mid-flow
    /// packets are tried on these.
    pub occupied: [u32; 2],
    /// The versions in configuration order; a version of weight 0 has an empty share and is here
    /// for mid-flow packets only. So is what follows them: former rings, with the instances that
    /// were taken off those of the versions.
    pub entries: [SplitEntry; VERSIONS_PER_SERVICE],
}

impl Split {
    /// A split without versions.
    pub const fn empty(generation: u32) -> Self {
        Self {
            generation,
            count: 0,
            occupied: [0; 2],
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
