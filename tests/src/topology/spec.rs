//! What a topology shall be like.

use std::fmt;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Length of a prefix that is one address.
    #[must_use]
    pub fn host_prefix(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How packets reach an instance, and where instances are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `nat`: backends return replies through the balancer, their default route.
    Nat,
    /// `snat`: backends know no way to clients, only to the balancer's own addresses.
    Snat,
    /// `dsr`: the VIP is on the backends' `lo`, replies go straight to the client.
    Dsr,
    /// `ipip`: as `dsr`, inside IP.
    Ipip,
    /// `gue`: as `dsr`, inside UDP.
    Gue,
    /// `local`: instances are sockets of the balancer's own host, on further addresses of it.
    Host,
    /// `local`: instances are containers of the balancer's own host, which forwards.
    Container,
}

impl Mode {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Snat => "snat",
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Host | Self::Container => "local",
        }
    }

    /// Whether packets keep the VIP as their destination, and replies bypass the balancer.
    #[must_use]
    pub fn is_one_way(self) -> bool {
        matches!(self, Self::Dsr) || self.is_tunnel()
    }

    /// Whether packets get an outer header.
    #[must_use]
    pub fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Whether instances are on the balancer's own host.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Host | Self::Container)
    }
}

/// What takes outer headers off on backends, in tunnel modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnds {
    /// A [`crate::wire::Wire`], which any kernel has and which counts what it sees.
    Program,
    /// The kernel's tunnel devices, of `ipip` and `gue` in both families, as `docs/modes.md` says;
    /// on links of 1500 bytes, so that clients must heed what they are told of the MTU.
    Devices,
}

/// What to build. [`Default`]: two backends on v1, two on v2, one client address; mode nat, IPv4,
/// TCP.
#[derive(Debug, Clone)]
pub struct TopologySpec {
    /// Versions in configuration order, each with its number of backends.
    pub versions: Vec<(String, u8)>,
    /// Number of client addresses of each family, 1 to 90: 10.1.0.2, 10.1.0.3, …
    pub clients: u8,
    /// Leave IPv6 on though the service has none. Off by default: router solicitations and the
    /// like would be counted.
    pub ipv6: bool,
    /// How packets reach an instance.
    pub mode: Mode,
    /// Families of the frontends, at least one.
    pub families: Vec<Family>,
    /// Protocols of the frontends, at least one.
    pub protocols: Vec<Protocol>,
    /// Family of the instances in tunnel modes, that of the outer header.
    pub outer: Family,
    /// What is at the tunnels' ends.
    pub tunnel_ends: TunnelEnds,
    /// `conversation`, if it shall be given.
    pub conversation: Option<&'static str>,
    /// Source ports of mode `snat`, if others than the default shall be used.
    pub snat_ports: Option<&'static str>,
    /// Further lines of `[daemon]`.
    pub daemon: String,
    /// Further lines of `[[service]]`.
    pub service: String,
    /// Clients on the balancer's host itself: `lo` is managed too.
    pub loopback: bool,
    /// Client and backends get a [`crate::wire::Wire`]: packets can be captured as they come from
    /// the wire, and backends strip outer headers (tunnels that end in it have it in any case).
    pub wired: bool,
}

impl TopologySpec {
    /// One backend on v1 and one on v2.
    #[must_use]
    pub fn small() -> Self {
        Self { versions: vec![("v1".into(), 1), ("v2".into(), 1)], ..Self::default() }
    }
}

impl Default for TopologySpec {
    fn default() -> Self {
        Self {
            versions: vec![("v1".into(), 2), ("v2".into(), 2)],
            clients: 1,
            ipv6: false,
            mode: Mode::Nat,
            families: vec![Family::V4],
            protocols: vec![Protocol::Tcp],
            outer: Family::V4,
            tunnel_ends: TunnelEnds::Program,
            conversation: None,
            snat_ports: None,
            daemon: String::new(),
            service: String::new(),
            loopback: false,
            wired: false,
        }
    }
}

impl TopologySpec {
    /// Families of the instances' addresses.
    #[must_use]
    pub fn instance_families(&self) -> Vec<Family> {
        if self.mode.is_tunnel() { vec![self.outer] } else { self.families.clone() }
    }

    pub(super) fn uses_ipv6(&self) -> bool {
        let outer = self.mode.is_tunnel() && self.outer == Family::V6;
        self.ipv6 || outer || self.has_devices() || self.families.contains(&Family::V6)
    }

    pub(super) fn has_wires(&self) -> bool {
        self.wired || self.mode.is_tunnel() && !self.has_devices()
    }

    pub(super) fn has_devices(&self) -> bool {
        self.mode.is_tunnel() && self.tunnel_ends == TunnelEnds::Devices
    }
}
