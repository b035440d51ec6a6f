//! Sending whole IP packets with any source address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::segment::Segment;

/// Raw sockets of both families. The kernel finds the way; what is sent passes no XDP program.
#[derive(Debug)]
pub struct Injector {
    v4: Socket,
    v6: Socket,
}

impl Injector {
    /// Opens them.
    ///
    /// # Errors
    /// The kernel's: needs CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW: the header is ours (raw(7), ipv6(7) since Linux 4.5).
        let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let (v4, v6) = (open(Domain::IPV4)?, open(Domain::IPV6)?);
        for socket in [&v4, &v6] {
            socket.set_nonblocking(true)?;
        }
        Ok(Self { v4, v6 })
    }

    /// Sends a segment.
    ///
    /// # Errors
    /// The kernel's, e.g. no route.
    pub fn send(&self, segment: &Segment) -> io::Result<()> {
        let packet = segment
            .packet()
            .ok_or_else(|| io::Error::other("the two ends are of different families"))?;
        let to = segment.destination.ip();
        let socket = match to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        // The port has no meaning here, and IPv6 refuses others than 0.
        socket.send_to(&packet, &SocketAddr::new(to, 0).into())?;
        Ok(())
    }
}
