//! Addresses that traffic can go to and come from: families, protocols, sockets.

use super::error::Invalid;
use super::suggest::did_you_mean;
use super::text::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The word that stands for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The number that stands for it in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Reads its word.
    ///
    /// # Errors
    /// When it is another one.
    pub fn parse(word: &str) -> Result<Self, Invalid> {
        match word {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(Invalid::new(format!("unknown protocol {other:?}")).hint(
                did_you_mean(other, &["tcp", "udp"])
                    .unwrap_or("supported: `tcp`, `udp`".to_owned()),
            )),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What keeps an address from being forwarded to or from; loopback is not asked here.
fn not_unicast(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) if ip.is_multicast() => Some("multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("broadcast address"),
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Some("unspecified address"),
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) if ip.is_multicast() => Some("multicast address"),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some("unspecified address"),
        IpAddr::V6(_) => None,
    }
}

/// Refuses what packets cannot come from or go to, each with its reason.
pub(super) fn unicast(ip: IpAddr, shown: &dyn fmt::Display) -> Result<(), Invalid> {
    if let IpAddr::V6(v6) = ip {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return Err(Invalid::new(format!("{shown}: IPv4-mapped address"))
                .hint(format!("no packet carries it; write {v4}")));
        }
        if v6.is_unicast_link_local() {
            return Err(Invalid::new(format!("{shown}: link-local address"))
                .hint("it means something on one link only, and a packet does not say on which"));
        }
    }
    match not_unicast(ip) {
        None => Ok(()),
        Some(kind) => Err(Invalid::new(format!("{shown}: {kind}"))
            .hint("traffic is forwarded to and from unicast addresses only")),
    }
}

/// Zone ids are no part of a packet.
pub(super) fn no_zone(text: &str) -> Result<(), Invalid> {
    if text.contains('%') {
        return Err(Invalid::new(format!("{text:?}: zone ids are not supported"))
            .hint("an address that needs one cannot be forwarded to"));
    }
    Ok(())
}

/// Reads an address without a port that packets can come from, such as that of this host.
///
/// # Errors
/// When it is something else, or loopback, multicast, link-local (IPv6) and the like.
pub(super) fn host_address(text: &str) -> Result<IpAddr, Invalid> {
    no_zone(text)?;
    let ip: IpAddr = text.parse().map_err(|_| {
        Invalid::new(format!("{text:?} is not an address"))
            .hint("IPv4 or IPv6 address without a port, such as \"10.0.0.5\" or \"fd00::5\"")
    })?;
    unicast(ip, &ip)?;
    if ip.is_loopback() {
        return Err(Invalid::new(format!("{ip}: loopback address"))
            .hint("a reply to it would never leave its host"));
    }
    Ok(ip)
}

/// A socket that a service or an instance can have: port 1 to 65535, and a unicast address that
/// says by itself where it is (IPv6: not link-local, no zone, not IPv4-mapped).
///
/// It can be a loopback address: instances of mode `local` may have one, and a [`Frontend`] none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(SocketAddr);

impl Endpoint {
    /// Checks a socket address.
    ///
    /// # Errors
    /// When the port is 0, or the address cannot be forwarded to.
    pub fn new(socket: SocketAddr) -> Result<Self, Invalid> {
        if socket.port() == 0 {
            return Err(Invalid::new(format!("{socket}: port 0")));
        }
        unicast(socket.ip(), &socket)?;
        // Without scope and flow label: neither is part of what a packet is addressed to.
        Ok(Self(SocketAddr::new(socket.ip(), socket.port())))
    }

    /// Reads `ip:port` or `[ip]:port`.
    ///
    /// # Errors
    /// When it is something else, or not a legal endpoint.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        no_zone(text)?;
        if let Ok(socket) = text.parse() {
            return Self::new(socket);
        }
        let invalid = Invalid::new(format!("{text:?} is not an address"));
        // `2001:db8::1:80` reads as an address without a port as well.
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(invalid.hint("IPv6 needs brackets and a port: \"[2001:db8::1]:80\""));
        }
        Err(invalid.hint("address and port, such as \"192.0.2.10:80\" or \"[2001:db8::1]:80\""))
    }

    /// The socket address.
    pub const fn socket(self) -> SocketAddr {
        self.0
    }

    /// Its family.
    pub const fn family(self) -> Family {
        Family::of(self.0.ip())
    }

    /// The same with a protocol, whether or not it could be a frontend.
    pub(super) const fn with(self, protocol: Protocol) -> Frontend {
        Frontend { endpoint: self, protocol }
    }

    /// Whether it is reachable on its own host only.
    pub const fn is_loopback(self) -> bool {
        self.0.ip().is_loopback()
    }
}

/// Where a service listens: an endpoint that is not loopback, and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    endpoint: Endpoint,
    protocol: Protocol,
}

impl Frontend {
    /// Reads `ip:port/tcp`, `[ip]:port/udp` and the like.
    ///
    /// # Errors
    /// When the protocol is missing or unknown, or the rest is not a legal endpoint.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let Some((endpoint, protocol)) = text.rsplit_once('/') else {
            return Err(Invalid::new(format!("{text:?} names no protocol"))
                .hint("such as \"192.0.2.10:80/tcp\""));
        };
        let protocol = Protocol::parse(protocol)?;
        let endpoint = Endpoint::parse(endpoint)?;
        if endpoint.is_loopback() {
            return Err(Invalid::new(format!("{endpoint}: loopback address"))
                .hint("only this host itself could reach it"));
        }
        Ok(Self { endpoint, protocol })
    }

    /// The endpoint, without the protocol.
    pub const fn endpoint(self) -> Endpoint {
        self.endpoint
    }

    /// The socket address.
    pub const fn socket(self) -> SocketAddr {
        self.endpoint.socket()
    }

    /// The protocol.
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// Its family.
    pub const fn family(self) -> Family {
        self.endpoint.family()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.endpoint, self.protocol)
    }
}

as_text!(Endpoint, Frontend);
