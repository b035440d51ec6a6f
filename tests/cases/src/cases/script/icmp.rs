//! ICMP errors about packets of connections.

use std::net::Ipv4Addr;

use release_common::reason::Reason;

use super::{Packet, Sender, Want};
use crate::frames::Error;

/// An ICMP error about a packet of a connection: to its sender, through here. One about a client's
/// packet quotes what was sent to the instance, one about an instance's what was sent to the client.
#[derive(Clone, Debug)]
pub struct Icmp {
    /// The packet.
    pub about: Packet,
    /// What it says.
    pub error: Error,
    /// So many bytes behind the quoted IP header; RFC 792 asks for 8.
    pub quoted: usize,
    /// Who found that: a router, or (`None`) the packet's receiver.
    pub router: Option<Ipv4Addr>,
    /// Time to live of the error.
    pub ttl: u8,
    /// The error goes to somebody else than the packet's sender.
    pub astray: bool,
    /// What must become of it.
    pub want: Want,
}

/// A router's error about a packet, by default sent on to the packet's sender.
pub fn about(packet: Packet, error: Error) -> Icmp {
    let want = match packet.sender {
        Sender::Client => Want::RepliedAs(Reason::IcmpForwarded),
        _ => Want::Pinned(Reason::IcmpForwarded),
    };
    let router = Some(Ipv4Addr::new(203, 0, 113, 77));
    Icmp { about: packet, error, quoted: 8, router, ttl: 64, astray: false, want }
}

impl Icmp {
    /// Quoting so many bytes behind the IP header.
    #[must_use]
    pub const fn quoting(mut self, bytes: usize) -> Self {
        self.quoted = bytes;
        self
    }
    /// By the packet's receiver itself.
    #[must_use]
    pub const fn by_receiver(mut self) -> Self {
        self.router = None;
        self
    }
    /// With this TTL.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    /// To somebody else than the packet's sender.
    #[must_use]
    pub const fn astray(mut self) -> Self {
        self.astray = true;
        self
    }
    /// This must become of it.
    #[must_use]
    pub const fn want(mut self, want: Want) -> Self {
        self.want = want;
        self
    }
}
