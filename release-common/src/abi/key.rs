//! Addresses, ports and the keys built from them.
//!
//! An address family is its address type: [`Be32`] is IPv4, [`Addr6`] IPv6. Keys are generic over
//! it, so that one table of each kind exists per family and neither pays for the other.

use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytemuck::{Pod, Zeroable};

/// IP protocol number of ICMP (RFC 792).
pub const IPPROTO_ICMP: u8 = 1;
/// IP protocol number of IPv4 in IP (RFC 2003).
pub const IPPROTO_IPIP: u8 = 4;
/// IP protocol number of TCP (RFC 9293).
pub const IPPROTO_TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const IPPROTO_UDP: u8 = 17;
/// IP protocol number of IPv6 in IP (RFC 2473).
pub const IPPROTO_IPV6: u8 = 41;
/// IP protocol number of ICMPv6 (RFC 4443).
pub const IPPROTO_ICMPV6: u8 = 58;

/// A 16-bit value in network byte order, as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct Be16(pub u16);

impl Be16 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }
    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// A 32-bit value in network byte order, as it stands in the packet. As an address: IPv4.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct Be32(pub u32);

impl Be32 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }
    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }
}

/// An IPv6 address: four words as they stand in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct Addr6(pub [u32; 4]);

impl From<Ipv4Addr> for Be32 {
    fn from(addr: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<Be32> for Ipv4Addr {
    fn from(addr: Be32) -> Self {
        Self::from(addr.0.to_ne_bytes())
    }
}

impl From<Ipv6Addr> for Addr6 {
    fn from(addr: Ipv6Addr) -> Self {
        Self(bytemuck::cast(addr.octets()))
    }
}

impl From<Addr6> for Ipv6Addr {
    fn from(addr: Addr6) -> Self {
        Self::from(bytemuck::cast::<_, [u8; 16]>(addr.0))
    }
}

/// An address family, named by its address type.
pub trait Address: Pod + Eq + Debug + Default {
    /// 4 or 6.
    const VERSION: u8;
    /// Place of this family in pairs such as [`super::SplitEntry::rings`].
    const INDEX: usize;
    /// The address as four words, an IPv4 address in the first.
    fn words(self) -> [u32; 4];
    /// The address that starts in the first of four words.
    fn from_words(words: [u32; 4]) -> Self;
    /// As the standard library has it.
    fn ip(self) -> IpAddr;
    /// The standard library's address, if it is of this family.
    fn from_ip(ip: IpAddr) -> Option<Self>;
}

impl Address for Be32 {
    const VERSION: u8 = 4;
    const INDEX: usize = 0;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words[0])
    }

    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(ip.into()),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for Addr6 {
    const VERSION: u8 = 6;
    const INDEX: usize = 1;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V6(ip) => Some(ip.into()),
            IpAddr::V4(_) => None,
        }
    }
}

/// A transport address: key of `FRONTENDS4/6` and `BACKEND_IDS4/6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Endpoint<A> {
    /// Address.
    pub addr: A,
    /// Port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

impl<A: Address> Endpoint<A> {
    /// An endpoint of protocol `proto`.
    #[inline(always)]
    pub const fn new(addr: A, port: Be16, proto: u8) -> Self {
        Self { addr, port, proto, pad: 0 }
    }

    /// Address and port as the standard library has them.
    pub fn socket(self) -> SocketAddr {
        SocketAddr::new(self.addr.ip(), self.port.get())
    }

    /// The endpoint of a socket, if it is of this family.
    pub fn of(socket: SocketAddr, proto: u8) -> Option<Self> {
        Some(Self::new(A::from_ip(socket.ip())?, Be16::new(socket.port()), proto))
    }
}

/// The 5-tuple of a flow as the client sends it: key of `FLOWS4/6` and `EMBRYOS4/6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey<A> {
    /// The client's address.
    pub client: A,
    /// The frontend's address.
    pub frontend: A,
    /// The client's port.
    pub client_port: Be16,
    /// The frontend's port.
    pub frontend_port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// Zero. Not three bytes in one array: those the compiler fills by a call.
    pub pad_end: u16,
}

impl<A: Address> FlowKey<A> {
    /// The key of a flow between two endpoints of one protocol.
    #[inline(always)]
    pub const fn between(client: Endpoint<A>, frontend: Endpoint<A>) -> Self {
        Self {
            client: client.addr,
            frontend: frontend.addr,
            client_port: client.port,
            frontend_port: frontend.port,
            proto: frontend.proto,
            pad: 0,
            pad_end: 0,
        }
    }

    /// The client's end.
    #[inline(always)]
    pub const fn client(&self) -> Endpoint<A> {
        Endpoint::new(self.client, self.client_port, self.proto)
    }

    /// The frontend's end.
    #[inline(always)]
    pub const fn frontend(&self) -> Endpoint<A> {
        Endpoint::new(self.frontend, self.frontend_port, self.proto)
    }
}

/// A reply to a flow with a translated source (mode `snat`): key of `SNAT4/6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SnatKey<A> {
    /// The address that stands for the client.
    pub source: A,
    /// The instance's address.
    pub instance: A,
    /// The port that stands for the client's.
    pub source_port: Be16,
    /// The instance's port.
    pub instance_port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// Zero. Not three bytes in one array: those the compiler fills by a call.
    pub pad_end: u16,
}

/// Value of `SNAT4/6`: whose port it is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SnatOwner<A> {
    /// The flow.
    pub key: FlowKey<A>,
    /// Low 32 bits of jiffies when the port was claimed.
    pub claimed: u32,
    /// Instance that the flow is pinned to.
    pub backend: u32,
}

/// What the fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5): key of
/// `FRAGMENTS4/6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Identification.
    pub ident: u32,
    /// IPv4: protocol number. IPv6: 0.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// Zero. Not three bytes in one array: those the compiler fills by a call.
    pub pad_end: u16,
}

/// Declares that generic map types have no padding for either family: the sum of their fields is
/// their size.
macro_rules! padding_free {
    ($($type:ident: $addresses:literal addresses, $rest:literal bytes;)+) => { $(
        const _: () = assert!(size_of::<$type<Be32>>() == $addresses * 4 + $rest);
        const _: () = assert!(size_of::<$type<Addr6>>() == $addresses * 16 + $rest);
        // SAFETY: `repr(C)`, every field is Zeroable.
        unsafe impl<A: Address> Zeroable for $type<A> {}
        // SAFETY: `repr(C)`, every field is Pod, and by the assertions above there is no padding.
        unsafe impl Pod for $type<Be32> {}
        // SAFETY: as above.
        unsafe impl Pod for $type<Addr6> {}
    )+ };
}

padding_free! {
    Endpoint: 1 addresses, 4 bytes;
    FlowKey: 2 addresses, 8 bytes;
    SnatKey: 2 addresses, 8 bytes;
    SnatOwner: 2 addresses, 16 bytes;
    FragmentKey: 2 addresses, 8 bytes;
}

/// A client of a service with conversation `client`: key of `SESSIONS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct SessionKey {
    /// The client's address; IPv4 in the first word.
    pub client: Addr6,
    /// Index in `SERVICES`.
    pub service: u32,
    /// 4 or 6.
    pub version: u32,
}

impl SessionKey {
    /// The session of a client with a service.
    #[inline(always)]
    pub fn new<A: Address>(client: A, service: u32) -> Self {
        Self { client: Addr6(client.words()), service, version: u32::from(A::VERSION) }
    }
}

/// A server id of a QUIC service (draft-ietf-quic-load-balancers §3): key of `QUIC_IDS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct QuicKey {
    /// Index in `SERVICES`.
    pub service: u32,
    /// Place of the address family ([`Address::INDEX`]).
    pub family: u32,
    /// The server id, zeros behind it.
    pub id: [u8; 8],
}

/// A source prefix whose clients reach one version: key of the LPM tries `RULES4/6`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RuleKey<A> {
    /// Index in `SERVICES`, in network order: tries compare bytes.
    pub service: Be32,
    /// Source address.
    pub source: A,
}

padding_free! {
    RuleKey: 1 addresses, 4 bytes;
}
