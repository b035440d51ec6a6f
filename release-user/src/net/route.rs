//! What the routing table says, asked by an ordinary socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// This host's own address towards `destination`, as the kernel would choose it. No packet is sent.
/// `None`: there is no way.
pub fn source_towards(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The port means nothing: connecting only looks the route up.
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
