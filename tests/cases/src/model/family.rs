//! Address families, and how one scene is told in both.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use release_common::abi::{Address, Endpoint, FlowKey};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// This family's place in pairs, as [`Address::INDEX`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The address that plays `ip`'s part in this family. Every word of an IPv6 address depends on
    /// it, and those that IPv4 does not have are not the same for all.
    pub const fn ip(self, ip: Ipv4Addr) -> IpAddr {
        let [a, b, c, d] = ip.octets();
        match self {
            Self::V4 => IpAddr::V4(ip),
            Self::V6 => {
                let (a, b, c, d) = (a as u16, b as u16, c as u16, d as u16);
                let (low, mixed) = (0xff00 | d, a ^ d << 8);
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, b, c, mixed, 0x5a5a, low))
            }
        }
    }

    /// As [`Family::ip`], for an address that may be told in either family already.
    pub const fn retold(self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => self.ip(ip),
            IpAddr::V6(_) => ip,
        }
    }

    /// As [`Family::retold`], with a port.
    pub const fn socket(self, socket: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.retold(socket.ip()), socket.port())
    }
}

/// The first octet of the IPv4 address that an address tells.
pub const fn first_octet(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0],
        IpAddr::V6(ip) => ip.segments()[2] as u8,
    }
}

/// A flow's key in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client.
    pub client: SocketAddr,
    /// The frontend.
    pub frontend: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

impl Key {
    /// The key of family `A`'s tables, if it is of that family.
    pub fn of<A: Address>(&self) -> Option<FlowKey<A>> {
        let client = Endpoint::of(self.client, self.protocol)?;
        Some(FlowKey::between(client, Endpoint::of(self.frontend, self.protocol)?))
    }
}

/// Where a packet's run keeps its flow's key.
#[derive(Debug, Default)]
pub struct Kept(Cell<Option<Key>>);

impl Kept {
    /// Keeps it.
    pub fn keep<'a, A: Address>(&self, key: &'a FlowKey<A>) -> &'a FlowKey<A> {
        let (client, frontend) = (key.client().socket(), key.frontend().socket());
        self.0.set(Some(Key { client, frontend, protocol: key.proto }));
        key
    }

    /// The last one kept, if it is of that family.
    pub fn key<A: Address>(&self) -> Option<FlowKey<A>> {
        self.0.get()?.of()
    }
}
