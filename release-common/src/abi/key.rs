//! Addresses, ports and the keys built from them.

use bytemuck::{Pod, Zeroable};

/// IP protocol number of TCP (RFC 9293).
pub const IPPROTO_TCP: u8 = 6;

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

/// A 32-bit value in network byte order, as it stands in the packet.
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

impl From<core::net::Ipv4Addr> for Be32 {
    fn from(addr: core::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<Be32> for core::net::Ipv4Addr {
    fn from(addr: Be32) -> Self {
        Self::from(addr.0.to_ne_bytes())
    }
}

/// An IPv4 transport address: key of `FRONTENDS` and `BACKEND_IDS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct Endpoint4 {
    /// IPv4 address.
    pub addr: Be32,
    /// Port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

impl Endpoint4 {
    /// A TCP endpoint.
    #[inline(always)]
    pub const fn tcp(addr: Be32, port: Be16) -> Self {
        Self { addr, port, proto: IPPROTO_TCP, pad: 0 }
    }
}

impl From<core::net::SocketAddrV4> for Endpoint4 {
    fn from(addr: core::net::SocketAddrV4) -> Self {
        Self::tcp((*addr.ip()).into(), Be16::new(addr.port()))
    }
}

impl From<Endpoint4> for core::net::SocketAddrV4 {
    fn from(endpoint: Endpoint4) -> Self {
        Self::new(endpoint.addr.into(), endpoint.port.get())
    }
}

/// The 5-tuple of a flow as the client sends it: key of `FLOWS4` and `EMBRYOS4`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable, Default)]
pub struct FlowKey4 {
    /// The client's address.
    pub client: Be32,
    /// The frontend's address.
    pub frontend: Be32,
    /// The client's port.
    pub client_port: Be16,
    /// The frontend's port.
    pub frontend_port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl FlowKey4 {
    /// The key of a TCP flow from a client to a frontend.
    #[inline(always)]
    pub const fn tcp(client: Be32, client_port: Be16, frontend: Be32, frontend_port: Be16) -> Self {
        Self { client, frontend, client_port, frontend_port, proto: IPPROTO_TCP, pad: [0; 3] }
    }
}
