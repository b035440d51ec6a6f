//! The one topology of all tests and of the demo: a client, a balancer and backends, each in a
//! namespace of its own.
//!
//! ```text
//! client 10.1.0.2 (, .3, …) ── 10.1.0.1 lb 10.2.i.1 ── 10.2.i.2:8080 backend i = 1, 2, …
//!                            VIP 10.1.0.100:80/tcp
//! ```
//! The balancer routes, so that every backend can also be reached directly.

mod balancer;
mod bpffs;
mod daemon;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Result, bail};

pub use balancer::Balancer;
pub use daemon::Daemon;

use crate::netns::{Netns, Receiving, VethEnd, veth};
use crate::process::Process;
use crate::server::{self, ServerSpec};

/// Name of the service in [`Topology::config`].
pub const SERVICE: &str = "web";
/// The service's frontend.
pub const FRONTEND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 100), 80);
/// The balancer's address towards the client.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Port of every backend's server.
pub const BACKEND_PORT: u16 = 8080;
/// The balancer's interface towards the client.
pub const CLIENT_SIDE: &str = "client0";

/// First host number of client addresses in 10.1.0.0/24, and how many fit before the VIP.
const FIRST_CLIENT: u8 = 2;
const MOST_CLIENTS: u8 = 90;

/// What to build. [`Default`]: two backends on v1, two on v2, one client address.
#[derive(Debug, Clone)]
pub struct TopologySpec {
    /// Versions in configuration order, each with its number of backends.
    pub versions: Vec<(String, u8)>,
    /// Number of client addresses, 1 to 90: 10.1.0.2, 10.1.0.3, …
    pub clients: u8,
    /// Leave IPv6 on. Off by default: router solicitations and the like would be counted.
    pub ipv6: bool,
}

impl Default for TopologySpec {
    fn default() -> Self {
        Self { versions: vec![("v1".into(), 2), ("v2".into(), 2)], clients: 1, ipv6: false }
    }
}

/// One backend: a namespace with one address, where a server can be started.
#[derive(Debug)]
pub struct Backend {
    /// Its namespace; its interface is `eth0`.
    pub namespace: Netns,
    /// The version its instance is on.
    pub version: String,
    /// Instance id: `v1-1`, `v1-2`, …
    pub id: String,
    /// Where its server listens.
    pub address: SocketAddrV4,
    /// The balancer's interface towards it.
    pub balancer_side: String,
}

impl Backend {
    /// Starts its server, stamped with its version and id, and waits until it listens.
    ///
    /// # Errors
    /// As [`server::start`].
    pub fn start_server(&self) -> Result<Process> {
        server::start(
            &self.namespace,
            &ServerSpec {
                listen: SocketAddr::V4(self.address),
                version: self.version.clone(),
                id: self.id.clone(),
            },
        )
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
    /// All backends, by version in configuration order.
    pub backends: Vec<Backend>,
    clients: u8,
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
        let lb = Netns::new("rt-lb")?;
        settle(&lb, spec.ipv6)?;
        lb.sysctl("ipv4/ip_forward", "1")?;
        let client = client(spec, &lb)?;
        let mut backends = Vec::new();
        for (version, count) in &spec.versions {
            for number in 1..=*count {
                let index = u8::try_from(backends.len() + 1)?;
                backends.push(backend(spec, &lb, index, version, number)?);
            }
        }
        let mut interfaces = vec![CLIENT_SIDE.to_owned()];
        interfaces.extend(backends.iter().map(|b| b.balancer_side.clone()));
        let lb = Balancer::new(lb, interfaces)?;
        Ok(Self { lb, client, backends, clients: spec.clients })
    }

    /// All addresses of the client.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<Ipv4Addr> {
        (0..self.clients).map(client_address).collect()
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

    /// A configuration with the service `web` at [`FRONTEND`], mode `nat`, and these initial
    /// weights; versions not named get 0. Drains settle fast (0.5 s, 3 samples 100 ms apart).
    #[must_use]
    pub fn config(&self, weights: &[(&str, u32)]) -> String {
        let interfaces: Vec<String> =
            self.lb.interfaces().iter().map(|name| format!("{name:?}")).collect();
        let mut text = format!(
            "schema = 1\n\n[daemon]\ninterfaces = [{}]\n\n[[service]]\nname = {SERVICE:?}\n\
             frontends = [\"{FRONTEND}/tcp\"]\nmode = \"nat\"\n\
             drain = {{ settle = \"500ms\", samples = 3, every = \"100ms\" }}\n",
            interfaces.join(", ")
        );
        let mut names: Vec<&str> = self.backends.iter().map(|b| b.version.as_str()).collect();
        names.dedup();
        for name in names {
            let weight = weights.iter().find(|(version, _)| *version == name).map_or(0, |w| w.1);
            let instances: Vec<String> = self
                .backends_of(name)
                .map(|b| format!("    {{ id = {:?}, addr = \"{}\" }},\n", b.id, b.address))
                .collect();
            let _ = write!(
                text,
                "\n[[service.version]]\nname = {name:?}\nweight = {weight}\ninstances = [\n{}]\n",
                instances.concat()
            );
        }
        text
    }
}

fn client_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, FIRST_CLIENT + index)
}

fn client(spec: &TopologySpec, lb: &Netns) -> Result<Netns> {
    let client = Netns::new("rt-client")?;
    settle(&client, spec.ipv6)?;
    // Many connections from few addresses: more ports, and no port blocked by a bind.
    client.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
    client.sysctl("ipv4/tcp_tw_reuse", "1")?;
    veth(
        VethEnd {
            namespace: &client,
            device: "eth0",
            address: &format!("{}/24", client_address(0)),
            receiving: Receiving::FromXdp,
        },
        VethEnd {
            namespace: lb,
            device: CLIENT_SIDE,
            address: &format!("{BALANCER}/24"),
            receiving: Receiving::IntoXdp,
        },
    )?;
    for index in 1..spec.clients {
        client.ip(&format!("addr add {}/24 dev eth0", client_address(index)))?;
    }
    client.ip(&format!("route add default via {BALANCER}"))?;
    lb.ip(&format!("addr add {}/32 dev {CLIENT_SIDE}", FRONTEND.ip()))?;
    Ok(client)
}

fn backend(
    spec: &TopologySpec,
    lb: &Netns,
    index: u8,
    version: &str,
    number: u8,
) -> Result<Backend> {
    let namespace = Netns::new("rt-back")?;
    settle(&namespace, spec.ipv6)?;
    namespace.sysctl("core/somaxconn", "65535")?;
    let address = Ipv4Addr::new(10, 2, index, 2);
    let gateway = Ipv4Addr::new(10, 2, index, 1);
    let balancer_side = format!("back{index}");
    veth(
        VethEnd {
            namespace: &namespace,
            device: "eth0",
            address: &format!("{address}/24"),
            receiving: Receiving::FromXdp,
        },
        VethEnd {
            namespace: lb,
            device: &balancer_side,
            address: &format!("{gateway}/24"),
            receiving: Receiving::IntoXdp,
        },
    )?;
    namespace.ip(&format!("route add default via {gateway}"))?;
    Ok(Backend {
        namespace,
        version: version.to_owned(),
        id: format!("{version}-{number}"),
        address: SocketAddrV4::new(address, BACKEND_PORT),
        balancer_side,
    })
}

fn settle(namespace: &Netns, ipv6: bool) -> Result<()> {
    if !ipv6 {
        namespace.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    }
    Ok(())
}
