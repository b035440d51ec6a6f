//! Who has which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::spec::Family;

/// The service's frontend.
pub const FRONTEND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 100), 80);
/// The service's frontend over IPv6.
pub const FRONTEND6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x100), 80, 0, 0);
/// The balancer's address towards the client.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Port of every backend's server, where ports can be rewritten.
pub const BACKEND_PORT: u16 = 8080;

/// First host number of client addresses in 10.1.0.0/24 and fd00:1::/64, and how many fit before
/// the VIP.
const FIRST_CLIENT: u8 = 2;
pub(super) const MOST_CLIENTS: u8 = 90;

/// The frontend of a family.
#[must_use]
pub fn frontend(family: Family) -> SocketAddr {
    match family {
        Family::V4 => FRONTEND.into(),
        Family::V6 => FRONTEND6.into(),
    }
}

/// Network of the clients, with prefix length.
pub(super) fn client_network(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.1.0.0/24",
        Family::V6 => "fd00:1::/64",
    }
}

/// The client's address number `index`, from 0.
pub(super) fn client(family: Family, index: u8) -> IpAddr {
    in_network(family, 1, 0, FIRST_CLIENT + index)
}

/// The balancer's address towards the client.
#[must_use]
pub fn balancer(family: Family) -> IpAddr {
    in_network(family, 1, 0, 1)
}

/// The balancer's address towards backend `index`, from 1.
pub(super) fn gateway(family: Family, index: u8) -> IpAddr {
    in_network(family, 2, index, 1)
}

/// Address of backend `index`, from 1.
pub(super) fn backend(family: Family, index: u8) -> IpAddr {
    in_network(family, 2, index, 2)
}

/// Address of instance `index`, from 1, that is a socket of the balancer's host.
pub(super) fn on_host(family: Family, index: u8) -> IpAddr {
    in_network(family, 3, 0, index)
}

/// The client's end (1) and the backend's (2) of the wire that bypasses the balancer.
pub(super) fn direct(family: Family, index: u8, end: u8) -> IpAddr {
    in_network(family, 4, index, end)
}

/// What mode `snat` sends from.
pub(super) fn snat(family: Family) -> IpAddr {
    in_network(family, 5, 0, 1)
}

/// The router's end (1) and the far client's (2) of the wire behind the client's host.
pub(super) fn behind_client(family: Family, end: u8) -> IpAddr {
    in_network(family, 6, 0, end)
}

/// The router's end (1) and the server's (2) of the wire behind the host of backend `index`.
pub(super) fn behind_backend(family: Family, index: u8, end: u8) -> IpAddr {
    in_network(family, 7, index, end)
}

/// Prefix length of all networks of a family.
pub(super) fn prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// 10.A.B.C or fd00:A:B::C.
fn in_network(family: Family, a: u8, b: u8, c: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, a, b, c).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, a.into(), b.into(), 0, 0, 0, 0, c.into()).into(),
    }
}
