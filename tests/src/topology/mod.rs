//! The one topology of all tests and of the demo: a client, a balancer and backends, each in a
//! namespace of its own.
//!
//! ```text
//! client 10.1.0.2 (, .3, …) ── 10.1.0.1 lb 10.2.i.1 ── 10.2.i.2:8080 backend i = 1, 2, …
//!   │                        VIP 10.1.0.100:80/tcp                         │
//!   └ 10.4.i.1 ──────────── only in one-way modes ─────────────── 10.4.i.2 ┘
//! ```
//! The same over IPv6 with fd00:1:: and so on, if the spec asks for it. The balancer routes, so
//! that every backend can also be reached directly (but not in modes whose backends must not know
//! the way back through it). Instances of mode `local` that are sockets of the balancer's host have
//! 10.3.0.i there.

mod addresses;
mod balancer;
mod bpffs;
mod config;
mod daemon;
mod hop;
mod spec;
mod tunnel_ends;
mod wiring;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use anyhow::{Result, bail};

pub use self::bpffs::PinDirectory;
pub use addresses::{BACKEND_PORT, BALANCER, FRONTEND, FRONTEND6, balancer, frontend};
pub use balancer::Balancer;
pub use daemon::Daemon;
pub use hop::{BEHIND, far_client};
pub use spec::{Family, Mode, Protocol, TopologySpec, TunnelEnds};

use crate::netns::Netns;
use crate::process::Process;
use crate::server::{self, ServerSpec};
use crate::wire::Wire;
use addresses::MOST_CLIENTS;

/// Name of the service in [`Topology::config`].
pub const SERVICE: &str = "web";
/// The balancer's interface towards the client.
pub const CLIENT_SIDE: &str = "client0";

/// One backend: a place where a server can be started.
#[derive(Debug)]
pub struct Backend {
    /// Its namespace, where its interface is `eth0`; the balancer's in mode [`Mode::Host`].
    pub namespace: Arc<Netns>,
    /// The version its instance is on.
    pub version: String,
    /// Instance id: `v1-1`, `v1-2`, …
    pub id: String,
    /// Its instance's address.
    pub address: SocketAddrV4,
    /// Its instance's address over IPv6, if the topology has that.
    pub address6: SocketAddrV6,
    /// The balancer's interface towards it.
    pub balancer_side: String,
    /// What stands at its end of the wire, if the spec asks for it.
    pub wire: Option<Wire>,
    serves: Vec<SocketAddr>,
    udp: bool,
}

impl Backend {
    /// Its instance's address of a family.
    #[must_use]
    pub fn instance(&self, family: Family) -> SocketAddr {
        match family {
            Family::V4 => self.address.into(),
            Family::V6 => self.address6.into(),
        }
    }

    /// Where its server listens: the instance's addresses, or the VIPs in one-way modes.
    #[must_use]
    pub fn serves(&self) -> &[SocketAddr] {
        &self.serves
    }

    /// Starts its server, stamped with its version and id, and waits until it listens.
    ///
    /// # Errors
    /// As [`server::start`].
    pub fn start_server(&self) -> Result<Process> {
        let spec = ServerSpec {
            tcp: self.serves.clone(),
            udp: if self.udp { self.serves.clone() } else { Vec::new() },
            version: self.version.clone(),
            id: self.id.clone(),
        };
        server::start(&self.namespace, &spec)
    }
}

/// Client, balancer and backends, connected and routed. Dropping it takes everything down: data
/// plane, pins, processes, namespaces, files.
#[derive(Debug)]
pub struct Topology {
    // In the order of the drop: the balancer detaches its programs while its interfaces exist.
    /// The balancer.
    pub lb: Balancer,
    /// The client; its interface is `eth0`.
    pub client: Netns,
    /// What stands at the client's end of the wire, if the spec asks for it.
    pub client_wire: Option<Wire>,
    /// All backends, by version in configuration order.
    pub backends: Vec<Backend>,
    /// What was asked for.
    pub spec: TopologySpec,
}

impl Topology {
    /// Builds what the spec asks for.
    ///
    /// # Errors
    /// No root, missing tools (`ip`, `ethtool`), numbers out of range.
    pub fn new(spec: &TopologySpec) -> Result<Self> {
        if !(1..=MOST_CLIENTS).contains(&spec.clients) {
            bail!("{} client addresses: between 1 and {MOST_CLIENTS} fit", spec.clients);
        }
        let lb = Arc::new(wiring::balancer(spec)?);
        let (client, client_wire) = wiring::client(spec, &lb)?;
        let mut backends = Vec::new();
        for (version, count) in &spec.versions {
            for number in 1..=*count {
                let index = u8::try_from(backends.len() + 1)?;
                backends.push(wiring::backend(spec, &lb, &client, index, (version, number))?);
            }
        }
        let mut interfaces = vec![CLIENT_SIDE.to_owned()];
        if !spec.mode.is_local() {
            interfaces.extend(backends.iter().map(|b| b.balancer_side.clone()));
        }
        if spec.loopback {
            interfaces.push("lo".to_owned());
        }
        let lb = Balancer::new(lb, interfaces)?;
        Ok(Self { lb, client, client_wire, backends, spec: spec.clone() })
    }

    /// All IPv4 addresses of the client.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<Ipv4Addr> {
        let of = |address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        self.client_addresses_of(Family::V4).into_iter().filter_map(of).collect()
    }

    /// All addresses of the client of a family.
    #[must_use]
    pub fn client_addresses_of(&self, family: Family) -> Vec<IpAddr> {
        (0..self.spec.clients).map(|index| addresses::client(family, index)).collect()
    }

    /// The backends of one version.
    pub fn backends_of<'a>(&'a self, version: &'a str) -> impl Iterator<Item = &'a Backend> {
        self.backends.iter().filter(move |backend| backend.version == version)
    }

    /// Starts the servers of one version.
    ///
    /// # Errors
    /// As [`Backend::start_server`].
    pub fn start_servers_of(&self, version: &str) -> Result<Vec<Process>> {
        self.backends_of(version).map(Backend::start_server).collect()
    }

    /// Starts all servers.
    ///
    /// # Errors
    /// As [`Backend::start_server`].
    pub fn start_servers(&self) -> Result<Vec<Process>> {
        self.backends.iter().map(Backend::start_server).collect()
    }
}
