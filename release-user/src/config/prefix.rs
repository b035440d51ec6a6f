//! Prefixes: sets of addresses that begin alike.

use super::address::{Family, no_zone, unicast};
use super::error::Invalid;
use super::text::as_text;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// An IPv4 or IPv6 prefix without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpNet);

impl Prefix {
    /// Reads `address/length`.
    ///
    /// # Errors
    /// When it is something else, has host bits (the hint has the prefix meant), or is IPv4-mapped.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        no_zone(text)?;
        let Ok(net) = text.parse::<IpNet>() else {
            let invalid = Invalid::new(format!("{text:?} is not a prefix"));
            return Err(match text.parse::<IpAddr>() {
                Ok(ip) => invalid.hint(format!("for this address alone: \"{}\"", IpNet::from(ip))),
                Err(_) => invalid.hint("such as \"198.51.100.0/24\" or \"2001:db8:1::/48\""),
            });
        };
        if net != net.trunc() {
            return Err(Invalid::new(format!("{text:?} has bits behind its length"))
                .hint(format!("the prefix is \"{}\"", net.trunc())));
        }
        if let IpAddr::V6(v6) = net.addr()
            && v6.to_ipv4_mapped().is_some()
        {
            return Err(Invalid::new(format!("{net}: IPv4-mapped addresses"))
                .hint("no packet carries them; write the IPv4 prefix"));
        }
        Ok(Self(net))
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Reads a prefix whose addresses can all be a packet's source: at least 8 bits (IPv4) or
    /// 16 (IPv6) long, so that it is of one kind, and that kind is unicast.
    ///
    /// # Errors
    /// As [`Prefix::parse`], and when it is shorter or of another kind.
    pub(super) fn parse_sources(text: &str) -> Result<Self, Invalid> {
        let prefix = Self::parse(text)?;
        let shortest = match prefix.family() {
            Family::V4 => 8,
            Family::V6 => 16,
        };
        if prefix.0.prefix_len() < shortest {
            let what = format!("{prefix} is too wide");
            return Err(Invalid::new(what).hint(format!("/{shortest} or longer")));
        }
        let first = prefix.0.addr();
        unicast(first, &prefix)?;
        if first.is_loopback() {
            return Err(Invalid::new(format!("{prefix}: loopback addresses"))
                .hint("no other host accepts them as a source"));
        }
        Ok(prefix)
    }

    /// The prefix.
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// Its family.
    pub fn family(self) -> Family {
        Family::of(self.0.addr())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_text!(Prefix);
