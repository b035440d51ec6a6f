//! Every mode in one data plane, between real sockets: a service for each, in both families and
//! protocols. Tunnels end in the kernel's own devices, set up by the commands of `docs/modes.md`.
//!
//! Many kernels have no such devices (those that this project is mostly tested on among them), so
//! that `cargo xtask vm` runs this in kernels that have, and `cargo xtask test` leaves it out. It
//! is one test since loading the programs is most of the time there.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use release_tests::drive::Drive;
use release_tests::http;
use release_tests::process::Process;
use release_tests::scenario::DEADLINE;
use release_tests::server::{self, ServerSpec};
use release_tests::topology::Family::{self, V4, V6};
use release_tests::topology::Protocol::{Tcp, Udp};
use release_tests::topology::{
    BACKEND_PORT, Backend, Mode, Topology, TopologySpec, TunnelEnds, frontend,
};

const FLOWS: u32 = 48;
const EXCHANGES: u32 = 2;
/// Bytes of a request that takes many packets as long as the path allows.
const LARGE: usize = 20_000;
/// The backends' table of routes for what goes back through the balancer.
const BACK: u32 = 100;

/// What mode `snat` sends from.
const SNAT: [&str; 2] = ["10.5.0.1", "fd00:5::1"];

/// One way to an instance.
struct Way {
    mode: Mode,
    /// Family of the outer header, in tunnels.
    outer: Option<Family>,
    /// Of the frontend: each way has its own.
    port: u16,
    /// What fits inside a tunnel, of 1500 bytes.
    mtu: u32,
}

/// Each tunnel leaves less room than the one before: what a client has learned of one is too much
/// for the next.
const WAYS: [Way; 8] = [
    Way { mode: Mode::Nat, outer: None, port: 80, mtu: 1500 },
    Way { mode: Mode::Host, outer: None, port: 81, mtu: 1500 },
    Way { mode: Mode::Snat, outer: None, port: 82, mtu: 1500 },
    Way { mode: Mode::Dsr, outer: None, port: 83, mtu: 1500 },
    Way { mode: Mode::Ipip, outer: Some(V4), port: 84, mtu: 1480 },
    Way { mode: Mode::Gue, outer: Some(V4), port: 85, mtu: 1472 },
    Way { mode: Mode::Ipip, outer: Some(V6), port: 86, mtu: 1460 },
    Way { mode: Mode::Gue, outer: Some(V6), port: 87, mtu: 1452 },
];

impl Way {
    fn name(&self) -> String {
        let outer = self.outer.map(|family| format!("-in-{family:?}")).unwrap_or_default();
        format!("{}{outer}", self.mode.name())
    }

    fn frontend(&self, inner: Family) -> SocketAddr {
        SocketAddr::new(frontend(inner).ip(), self.port)
    }

    /// The instance of a backend, for clients of a family.
    fn instance(&self, backend: &Backend, inner: Family) -> SocketAddr {
        match self.mode {
            Mode::Host => SocketAddr::new(frontend(inner).ip(), BACKEND_PORT + number(backend)),
            Mode::Nat => SocketAddr::new(backend.instance(inner).ip(), BACKEND_PORT),
            // An instance of `nat` is of no other service.
            Mode::Snat => SocketAddr::new(backend.instance(inner).ip(), BACKEND_PORT + 1),
            _ => SocketAddr::new(backend.instance(self.outer.unwrap_or(inner)).ip(), self.port),
        }
    }

    /// The instances of a backend, each once.
    fn instances(&self, backend: &Backend) -> Vec<SocketAddr> {
        let mut all = [V4, V6].map(|inner| self.instance(backend, inner)).to_vec();
        all.dedup();
        all
    }

    /// Where the instances of a backend listen.
    fn serves(&self, backend: &Backend) -> [SocketAddr; 2] {
        [V4, V6].map(|inner| {
            let as_frontend = self.mode.is_one_way();
            if as_frontend { self.frontend(inner) } else { self.instance(backend, inner) }
        })
    }

    /// The backend's device that takes outer headers off.
    fn device(&self, inner: Family) -> Option<&'static str> {
        Some(match (self.outer?, inner) {
            (V4, V4) => "rel4",
            (V4, V6) => "rel6",
            (V6, _) => "rel",
        })
    }
}

#[test]
#[ignore = "needs the kernel's tunnel devices: cargo xtask vm"]
fn every_mode_in_one_data_plane() {
    let begun = Instant::now();
    let topology = Topology::new(&TopologySpec {
        versions: vec![("v1".into(), 1), ("v2".into(), 1)],
        clients: 2,
        mode: Mode::Ipip,
        tunnel_ends: TunnelEnds::Devices,
        families: vec![V4, V6],
        ..TopologySpec::default()
    })
    .unwrap();
    topology.backends.iter().for_each(|backend| way_back(backend).unwrap());
    for source in SNAT {
        topology.lb.namespace.ip(&format!("addr add {source} dev lo")).unwrap();
    }
    let _servers: Vec<Process> =
        topology.backends.iter().flat_map(|backend| serve(&topology, backend).unwrap()).collect();
    topology.lb.write_config(&config(&topology)).unwrap();
    println!("set up in {:.1} s", begun.elapsed().as_secs_f32());
    let begun = Instant::now();
    let _daemon = topology.lb.start_daemon().unwrap();
    println!("daemon ready in {:.1} s", begun.elapsed().as_secs_f32());
    let mut failed = Vec::new();
    for way in &WAYS {
        for inner in [V4, V6] {
            let (begun, name) = (Instant::now(), format!("{}, {inner:?}", way.name()));
            match release(&topology, way, inner) {
                Ok(()) => println!("{name}: {:.1} s", begun.elapsed().as_secs_f32()),
                Err(error) => failed.push(format!("{name}: {error:#}")),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    topology.lb.releasectl_ok(&["maps", "check"]).unwrap();
}

/// Real connections and datagrams through one service, each with a shift in its middle.
fn release(topology: &Topology, way: &Way, inner: Family) -> Result<()> {
    let (name, target) = (way.name(), way.frontend(inner));
    too_big(topology, way, inner).context("a packet that is too big")?;
    let before = received(topology, way, inner)?;
    let mut exchanges = 0;
    for (protocol, from, to) in [(Tcp, "v1", "v2"), (Udp, "v2", "v1")] {
        let sources = topology.client_addresses_of(inner);
        let (flows, datagram) = (FLOWS, None);
        let drive = Drive { target, protocol, sources, flows, exchanges: EXCHANGES, datagram };
        let shift = || {
            let weights = [format!("{from}=0"), format!("{to}=100")];
            topology.lb.releasectl_ok(&["shift", &name, &weights[0], &weights[1]]).map(drop)
        };
        let outcome = drive.run(&topology.client, shift)?;
        outcome.is_clean(FLOWS, from, to).with_context(|| protocol.to_string())?;
        exchanges += outcome.exchanges;
    }
    let mut sum = 0;
    for ((id, after), (_, before)) in received(topology, way, inner)?.into_iter().zip(before) {
        ensure!(after > before, "nothing came out of the tunnel to {id}");
        sum += after - before;
    }
    ensure!(way.outer.is_none() || sum >= exchanges, "{sum} out of tunnels for {exchanges}");
    Ok(())
}

/// A request arrives whose packets are as long as the client may make them: it heeds what it is
/// told of a tunnel.
fn too_big(topology: &Topology, way: &Way, inner: Family) -> Result<()> {
    let target = way.frontend(inner);
    let mut stream = topology.client.connect(target, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let reply = http::request(&mut stream, &format!("/?{}", "x".repeat(LARGE)))?;
    ensure!(reply.version == "v1", "{reply:?}");
    let route = topology.client.ip(&format!("route get {}", target.ip()))?;
    let learned = route.split_once(" mtu ").and_then(|(_, rest)| rest.split(' ').next());
    let learned = learned.map_or(Ok(1500), |mtu| mtu.trim().parse());
    ensure!(learned == Ok(way.mtu), "{route}");
    Ok(())
}

/// Packets that the backends' tunnel devices have received, by backend; none without tunnels.
fn received(topology: &Topology, way: &Way, inner: Family) -> Result<Vec<(String, u64)>> {
    let Some(device) = way.device(inner) else { return Ok(Vec::new()) };
    let count = |backend: &Backend| {
        let text =
            backend.namespace.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let figures = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{device}:")));
        let packets = figures.and_then(|figures| figures.split_whitespace().nth(1));
        let packets = packets.with_context(|| format!("no {device} on {}", backend.id))?;
        Ok((backend.id.clone(), packets.parse()?))
    };
    topology.backends.iter().map(count).collect()
}

/// What a backend's own addresses send goes back through the balancer, as mode `nat` needs it;
/// what the frontend's send goes straight to clients, whose packets come by another link in `dsr`.
fn way_back(backend: &Backend) -> Result<()> {
    backend.namespace.sysctl("ipv4/conf/eth0/rp_filter", "2")?;
    for own in [V4, V6].map(|family| backend.instance(family).ip()) {
        let (own, gateway) = (own.to_string(), own.to_string());
        let gateway = gateway.strip_suffix('2').context("backends are number 2")?;
        let family = if own.contains(':') { "-6" } else { "-4" };
        backend.namespace.ip(&format!("{family} rule add from {own} table {BACK}"))?;
        backend.namespace.ip(&format!("route add default via {gateway}1 table {BACK}"))?;
    }
    Ok(())
}

/// Servers of a backend's version and id: its own, and one on the balancer's host.
fn serve(topology: &Topology, backend: &Backend) -> Result<[Process; 2]> {
    let start = |namespace, on_host: bool| {
        let ways = WAYS.iter().filter(|way| (way.mode == Mode::Host) == on_host);
        let all: Vec<SocketAddr> = ways.flat_map(|way| way.serves(backend)).collect();
        let (version, id) = (backend.version.clone(), backend.id.clone());
        server::start(namespace, &ServerSpec { tcp: all.clone(), udp: all, version, id })
    };
    Ok([start(&backend.namespace, false)?, start(&topology.lb.namespace, true)?])
}

/// A backend's number.
fn number(backend: &Backend) -> u16 {
    u16::from(backend.address.ip().octets()[2])
}

/// A service for each way, all on the same backends.
fn config(topology: &Topology) -> String {
    let mut text = format!(
        "schema = 1\n[daemon]\ninterfaces = {:?}\nflow_capacity = 4096\nembryo_capacity = 1024\n",
        topology.lb.interfaces()
    );
    for way in &WAYS {
        let frontends: Vec<String> = [V4, V6]
            .into_iter()
            .flat_map(|inner| [Tcp, Udp].map(|proto| format!("{}/{proto}", way.frontend(inner))))
            .collect();
        let (name, mode) = (way.name(), way.mode.name());
        let _ = write!(
            text,
            "[[service]]\nname = {name:?}\nfrontends = {frontends:?}\nmode = {mode:?}\n\
             ring_size = 1009\n"
        );
        if way.mode == Mode::Snat {
            let _ = writeln!(text, "snat = {{ addresses = {SNAT:?} }}");
        }
        for (backend, weight) in topology.backends.iter().zip([100, 0]) {
            let instances: Vec<String> =
                way.instances(backend).iter().map(ToString::to_string).collect();
            let _ = write!(
                text,
                "[[service.version]]\nname = {:?}\nweight = {weight}\ninstances = {instances:?}\n",
                backend.version
            );
        }
    }
    text
}
