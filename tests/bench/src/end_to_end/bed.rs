//! A topology with its servers and one peer in front of them, and proof that packets take its way.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use release_tests::observe;
use release_tests::observe::Ctl;
use release_tests::topology::{CLIENT_SIDE, Daemon, FRONTEND, Mode, Topology, TopologySpec};
use serde::Deserialize;
use tempfile::TempDir;

use super::client::{self, CONNECTIONS, Groups, Kind, Run};
use super::peer::Peer;
use super::programs;
use super::service::Service;
use crate::say;

static SERVER: &str = include_str!("../../../peers/nginx-server.conf");
static STREAM: &str = include_str!("../../../peers/nginx-stream.conf");
static HAPROXY: &str = include_str!("../../../peers/haproxy.cfg");
static NFTABLES: &str = include_str!("../../../peers/nftables.nft");
static FLOWTABLE: &str = include_str!("../../../peers/nftables-flowtable.nft");

/// Port of iperf3's server, at the frontend and on the first backend.
const BULK: u16 = 5201;
const SOON: Duration = Duration::from_secs(5);
/// How long daemons may take that start at the same time: the kernel verifies the programs of each.
const START: Duration = Duration::from_secs(300);
/// The least part of all requests that each of the two servers must see.
const SHARE: u64 = 10;

/// A peer, running.
pub struct Bed<'a> {
    /// Who it is.
    pub peer: Peer,
    // In the order of the drop.
    balancing: Balancing<'a>,
    servers: Vec<Service>,
    _bulk: Service,
    folder: TempDir,
    topology: &'a Topology,
}

enum Balancing<'a> {
    Nobody,
    Ours(Daemon<'a>),
    Nftables { flowtable: bool },
    Haproxy(Service),
    Nginx(Service),
}

/// What servers and balancer have counted so far.
struct Counts {
    /// Requests, by server.
    served: Vec<u64>,
    /// Connections that the servers accepted.
    accepted: u64,
    /// Connections that went through the balancer, if there is one.
    balanced: Option<u64>,
}

/// The topology for a peer: two backends, all links alike.
pub fn topology(peer: Peer) -> Result<Topology> {
    Topology::new(&TopologySpec {
        versions: vec![("v1".into(), 2)],
        mode: peer.mode(),
        // As many as the kernel's connection tracking holds.
        daemon: "flow_capacity = 262144\n".into(),
        // Each is taken for a minute and more: a run of connections takes ten thousand.
        snat_ports: Some("1024-32767"),
        ..TopologySpec::default()
    })
}

impl<'a> Bed<'a> {
    /// Starts servers and balancer; see [`Bed::ready`].
    ///
    /// # Errors
    /// Something does not start.
    pub fn new(peer: Peer, topology: &'a Topology) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("release-bench-").tempdir()?;
        let mut servers = Vec::new();
        for backend in &topology.backends {
            let address = backend.serves().first().context("a backend that serves nowhere")?;
            let values = [("ADDRESS", address.to_string())];
            let place = folder.path().join(&backend.id);
            servers.push(nginx(&backend.namespace, place, SERVER, &values)?);
        }
        let first = topology.backends.first().context("no backend")?;
        let arguments = ["-s", "-4", "--forceflush", "-p", &BULK.to_string()];
        let log = folder.path().join("iperf3.log");
        let bulk = Service::start(&first.namespace, "iperf3", &arguments, &log, None)?;
        let balancing = balance(peer, topology, folder.path().join("peer"))?;
        Ok(Self { peer, balancing, servers, _bulk: bulk, folder, topology })
    }

    /// Waits for the balancer, and checks the way that connections take.
    ///
    /// # Errors
    /// It does not start, or the way is another one.
    pub fn ready(&self) -> Result<()> {
        if let Balancing::Ours(daemon) = &self.balancing {
            daemon.wait_ready(START)?;
        }
        self.inspect()?;
        self.demand_way()
    }

    /// Who it is, for people.
    pub fn name(&self) -> String {
        let without = matches!(self.balancing, Balancing::Nftables { flowtable: false });
        let note = if without { " (this kernel has no flowtables)" } else { "" };
        format!("{}{note}", self.peer.name())
    }

    /// Makes requests for some time, and checks that the servers were asked as often, by way of
    /// the balancer.
    ///
    /// # Errors
    /// They were not; a request of ours or of direct ones was lost.
    pub fn requests(&self, kind: Kind, time: Duration) -> Result<Run> {
        let direct: Vec<SocketAddr> =
            self.topology.backends.iter().map(|backend| backend.address.into()).collect();
        let targets = if self.peer == Peer::Direct { direct } else { vec![FRONTEND.into()] };
        let before = self.counts()?;
        let groups = Groups {
            servers: self.servers.iter().map(Service::group).collect(),
            balancer: self.own_group(),
        };
        let client = &self.topology.client;
        let run = client::wrk(client, &targets, kind, time, self.folder.path(), &groups)?;
        self.judge(kind, &run, &before, &self.counts()?)
            .with_context(|| format!("{} ({kind:?})", self.peer.id()))?;
        Ok(run)
    }

    /// Sends bytes over some connections; Gbit/s.
    ///
    /// # Errors
    /// That fails, or they did not go through the balancer.
    pub fn bulk(&self, streams: u8, bytes: u64) -> Result<f64> {
        let before = self.balanced()?;
        let ip = if self.peer == Peer::Direct {
            *self.topology.backends.first().context("no backend")?.address.ip()
        } else {
            *FRONTEND.ip()
        };
        let to = SocketAddrV4::new(ip, BULK).into();
        let rate = client::iperf(&self.topology.client, to, streams, bytes)
            .with_context(|| self.peer.id())?;
        if let (Some(before), Some(after)) = (before, self.balanced()?) {
            // One more controls the others.
            let least = u64::from(streams) + 1;
            ensure!(after - before >= least, "{}: bulk went another way", self.peer.id());
        }
        Ok(rate)
    }

    /// The group of the balancer's own processes; none where the kernel does it all.
    fn own_group(&self) -> Option<i32> {
        match &self.balancing {
            Balancing::Haproxy(service) | Balancing::Nginx(service) => Some(service.group()),
            Balancing::Ours(daemon) => Some(daemon.process().pid()),
            Balancing::Nobody | Balancing::Nftables { .. } => None,
        }
    }

    /// Checks that nothing else meets packets than what is measured.
    ///
    /// # Errors
    /// Programs, rules or attachments are there that should not, or are not there that should.
    pub fn inspect(&self) -> Result<()> {
        let (lb, id) = (&self.topology.lb, self.peer.id());
        let rules = !lb.namespace.run("nft", "list ruleset")?.trim().is_empty();
        ensure!(rules == (self.peer == Peer::Nftables), "{id}: rules of nftables: {rules}");
        if self.peer.is_ours() {
            for interface in lb.interfaces() {
                let mode = lb.attachment(interface)?;
                ensure!(mode == "native", "{id}: {interface} is attached as {mode:?}");
            }
        } else {
            let links = lb.namespace.ip("-o link")?;
            ensure!(!links.contains("xdp"), "{id}: an XDP program is attached: {links}");
        }
        Ok(())
    }

    fn judge(&self, kind: Kind, run: &Run, before: &Counts, after: &Counts) -> Result<()> {
        let peers_own = !self.peer.is_ours() && self.peer != Peer::Direct;
        ensure!(peers_own || run.lost == 0, "{} requests were lost", run.lost);
        let served: Vec<u64> =
            after.served.iter().zip(&before.served).map(|(after, before)| after - before).collect();
        let all: u64 = served.iter().sum();
        // What was under way at the end: of this run and of the one before.
        let most = run.requests + 2 * CONNECTIONS + run.lost;
        ensure!(
            (run.requests..=most).contains(&all),
            "the servers answered {all} requests, the client counts {}",
            run.requests
        );
        ensure!(
            served.iter().all(|one| one * 100 >= all * SHARE),
            "requests of the servers: {served:?}"
        );
        let accepted = after.accepted - before.accepted;
        let least = if kind == Kind::Connection { run.requests } else { CONNECTIONS };
        ensure!(accepted >= least, "the servers accepted {accepted} connections of {least}");
        if let (Some(before), Some(after)) = (before.balanced, after.balanced) {
            let balanced = after - before;
            ensure!(
                balanced >= accepted,
                "{balanced} of {accepted} connections went through the balancer"
            );
        }
        Ok(())
    }

    fn counts(&self) -> Result<Counts> {
        let mut counts = Counts { served: Vec::new(), accepted: 0, balanced: None };
        for server in &self.servers {
            let (accepted, served) = server.nginx_counts()?;
            counts.accepted += accepted;
            counts.served.push(served);
        }
        // After the servers: what they accepted, it has passed on before.
        counts.balanced = self.balanced()?;
        Ok(counts)
    }

    fn balanced(&self) -> Result<Option<u64>> {
        Ok(match &self.balancing {
            Balancing::Nobody => None,
            Balancing::Ours(_) => Some(opened(&self.topology.lb)?),
            Balancing::Nftables { .. } => Some(dnat_counted(self.topology)?),
            Balancing::Haproxy(proxy) => {
                Some(proxy.haproxy_count("web")? + proxy.haproxy_count("bulk")?)
            }
            Balancing::Nginx(proxy) => Some(proxy.nginx_counts()?.0),
        })
    }

    /// Asks a server who is asking, and whom.
    fn demand_way(&self) -> Result<()> {
        let backend = self.topology.backends.first().context("no backend")?;
        let to = if self.peer == Peer::Direct { backend.address } else { FRONTEND };
        let mut stream = self.topology.client.connect(to.into(), SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /way HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let way = answer.lines().last().unwrap_or_default();
        let client = self.topology.client_addresses();
        let client = client.first().context("no client")?.to_string();
        let from = match self.peer {
            Peer::Haproxy | Peer::Nginx => "10.2.",
            Peer::Ours(Mode::Snat) => "10.5.0.1",
            Peer::Direct | Peer::Nftables | Peer::Ours(_) => &client,
        };
        ensure!(way.starts_with(from), "{}: the server was asked {way:?}", self.peer.id());
        Ok(())
    }
}

fn balance(peer: Peer, topology: &Topology, place: PathBuf) -> Result<Balancing<'_>> {
    let lb = &topology.lb.namespace;
    let [one, two] = &topology.backends[..] else { anyhow::bail!("not two backends") };
    let devices = [CLIENT_SIDE, &one.balancer_side, &two.balancer_side].join(", ");
    let values = [
        ("VIP", FRONTEND.ip().to_string()),
        ("BACKEND1", one.address.ip().to_string()),
        ("BACKEND2", two.address.ip().to_string()),
        ("PORT", one.address.port().to_string()),
        ("BULK", BULK.to_string()),
        ("DEVICES", devices),
        ("MODULE", programs::stream_module()),
        ("FOLDER", place.display().to_string()),
    ];
    if matches!(peer, Peer::Haproxy | Peer::Nginx) {
        // Room for their own connections to the servers, as both say that busy proxies need.
        lb.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        lb.sysctl("ipv4/tcp_tw_reuse", "1")?;
        lb.sysctl("core/somaxconn", "65535")?;
    }
    Ok(match peer {
        Peer::Direct => Balancing::Nobody,
        Peer::Ours(_) => {
            topology.lb.write_config(&configuration(topology)?)?;
            Balancing::Ours(topology.lb.spawn_daemon(&["daemon"])?)
        }
        Peer::Nftables => {
            let load = |rules| {
                programs::write(&place, rules, &values)?;
                lb.run("nft", &format!("-f {}", place.display()))
            };
            load(NFTABLES)?;
            let flowtable = load(FLOWTABLE);
            if flowtable.is_err() {
                say("end to end: nftables goes without a flowtable, which this kernel has not");
            }
            Balancing::Nftables { flowtable: flowtable.is_ok() }
        }
        Peer::Nginx => Balancing::Nginx(nginx(lb, place, STREAM, &values)?),
        Peer::Haproxy => {
            std::fs::create_dir(&place)?;
            let file = place.join("haproxy.cfg");
            programs::write(&file, HAPROXY, &values)?;
            let file = file.display().to_string();
            let (log, status) = (place.join("log"), place.join("status"));
            let arguments = ["-db", "-f", &file];
            Balancing::Haproxy(Service::start(lb, "haproxy", &arguments, &log, Some(status))?)
        }
    })
}

/// The topology's configuration, and the same service once more for iperf3.
fn configuration(topology: &Topology) -> Result<String> {
    let web = topology.config(&[("v1", 100)]);
    let (_, service) = web.split_once("[[service]]").context("no service")?;
    let one = |line: &&str| !line.contains("\"v1-2\"");
    let bulk: Vec<&str> = service.lines().filter(one).collect();
    let bulk = bulk.join("\n").replace("\"web\"", "\"bulk\"").replace("\"v1-1\"", "\"bulk-1\"");
    let bulk = bulk.replace(":80/tcp", &format!(":{BULK}/tcp"));
    let bulk =
        bulk.replace(":8080\"", &format!(":{BULK}\"")).replace(":80\"", &format!(":{BULK}\""));
    Ok(format!("{web}\n[[service]]{bulk}\n"))
}

/// An nginx in a folder of its own.
fn nginx(
    namespace: &release_tests::netns::Netns,
    place: PathBuf,
    template: &str,
    values: &[(&str, String)],
) -> Result<Service> {
    std::fs::create_dir(&place)?;
    let folder = place.display().to_string();
    let values = [values, &[("FOLDER", folder.clone())]].concat();
    let file = place.join("nginx.conf");
    programs::write(&file, template, &values)?;
    let file = file.display().to_string();
    let arguments = ["-p", &folder, "-e", &format!("{folder}/error.log"), "-c", &file];
    Service::start(namespace, "nginx", &arguments, &place.join("log"), Some(place.join("status")))
}

/// Connections that were opened through our packet path, of all services.
fn opened(lb: &release_tests::topology::Balancer) -> Result<u64> {
    #[derive(Deserialize)]
    struct Status {
        services: Vec<observe::Service>,
    }
    let status: Status = Ctl(lb).answer(&["status"])?;
    let versions = status.services.iter().flat_map(|service| &service.versions);
    Ok(versions.map(observe::Version::opened).sum())
}

/// Connections that nftables' rules have met.
fn dnat_counted(topology: &Topology) -> Result<u64> {
    let text = topology.lb.namespace.run("nft", "-j list counters table ip balance")?;
    let answer: serde_json::Value = serde_json::from_str(&text)?;
    let items = answer["nftables"].as_array().context("nft said nothing")?;
    let packets = items.iter().filter_map(|item| item["counter"]["packets"].as_u64());
    Ok(packets.sum())
}
