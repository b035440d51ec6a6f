//! Floods for 10 s, as fast as one core can send: those who are connected go on undisturbed, none
//! is moved or forgotten, and no table grows beyond its capacity.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_tests::flood::{Flood, Packet, SOURCES};
use release_tests::observe::{Counters, Ctl};
use release_tests::packet_socket::mac;
use release_tests::scenario::{DEADLINE, Held};
use release_tests::server::udp::{question, stamped};
use release_tests::topology::{CLIENT_SIDE, Daemon, FRONTEND, Protocol, Topology, TopologySpec};
use serde::Deserialize;

const FLOOD: Duration = Duration::from_secs(10);
/// Small tables: a flood of a few thousand packets is larger than they are.
const CAPACITY: u64 = 1024;
const EMBRYOS: u64 = 4096;
/// Those who are connected before.
const HELD: usize = 60;
/// How long an exchange may take while queues are full.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much a flood may add to the daemon's memory.
const GROWTH_KIB: u64 = 64 << 10;

/// A topology whose tables are small and whose balancer knows a way to the flood's sources.
fn topology(protocols: Vec<Protocol>) -> Topology {
    let daemon = format!("flow_capacity = {CAPACITY}\nembryo_capacity = {EMBRYOS}\n");
    let topology =
        Topology::new(&TopologySpec { protocols, daemon, ..TopologySpec::default() }).unwrap();
    let client = topology.client_addresses()[0];
    topology.lb.namespace.ip(&format!("route add {SOURCES} via {client}")).unwrap();
    topology
}

fn flood(topology: &Topology, packet: Packet) -> Flood {
    let gateway = mac(&topology.lb.namespace, CLIENT_SIDE).unwrap();
    Flood::start(packet, (&topology.client, "eth0"), gateway, FRONTEND, FLOOD).unwrap()
}

/// Someone who is connected.
trait Connected: Send {
    /// Exchanges data with the server that it has always been.
    fn ask(&mut self) -> Result<()>;
}

impl Connected for Held {
    fn ask(&mut self) -> Result<()> {
        let reply = Self::ask(self, "/bytes?n=2000")?;
        ensure!(reply.body.len() == 2000, "{} bytes", reply.body.len());
        Ok(())
    }
}

/// A UDP flow, and who answers.
struct Flow {
    socket: UdpSocket,
    owner: (String, String),
}

impl Flow {
    fn open(topology: &Topology) -> Result<Self> {
        let socket = topology.client.enter(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        socket.connect(FRONTEND)?;
        socket.set_read_timeout(Some(DEADLINE / 10))?;
        let owner = answer(&socket)?;
        Ok(Self { socket, owner })
    }
}

impl Connected for Flow {
    fn ask(&mut self) -> Result<()> {
        let owner = answer(&self.socket)?;
        ensure!(owner == self.owner, "moved from {:?} to {owner:?}", self.owner);
        Ok(())
    }
}

/// Who answers. Datagrams may be lost where queues are full, so that a question is repeated.
fn answer(socket: &UdpSocket) -> Result<(String, String)> {
    let question = question(1, 1);
    let mut buffer = [0; 200];
    for _ in 0..40 {
        socket.send(question.as_bytes())?;
        if let Ok(length) = socket.recv(&mut buffer) {
            return stamped(&buffer[..length], &question)?.context("another answer");
        }
    }
    anyhow::bail!("no answer")
}

/// What must be the same after a flood as before it, in the kernel's tables and the counters.
#[derive(Debug, PartialEq)]
struct Standing {
    /// Flows that live, as `status` counts them.
    active: u64,
    /// Lines of `flows --state established`.
    listed: usize,
    opened: u64,
    adopted: u64,
    /// Closed, expired, superseded or forced.
    ended: u64,
}

fn standing(lb: Ctl<'_>) -> Standing {
    let service = lb.service().unwrap();
    let instances = service.instances();
    let sum = |of: fn(&Counters) -> u64| instances.values().map(|i| of(&i.counters)).sum();
    let listed: Vec<serde_json::Value> = lb.answer(&["flows", "--state", "established"]).unwrap();
    Standing {
        active: service.active(),
        listed: listed.len(),
        opened: sum(|c| c.opened),
        adopted: sum(|c| c.adopted),
        ended: sum(|c| c.closed_fin + c.closed_rst + c.superseded + c.expired + c.forced),
    }
}

/// Entries of each table that counts them, and its capacity.
fn tables(lb: Ctl<'_>) -> Vec<(String, u64, u64)> {
    #[derive(Deserialize)]
    struct Map {
        name: String,
        capacity: u64,
        entries: Option<u64>,
    }
    let maps: Vec<Map> = lb.answer(&["maps", "list"]).unwrap();
    maps.into_iter().filter_map(|map| Some((map.name, map.entries?, map.capacity))).collect()
}

fn bounded(lb: Ctl<'_>) {
    for (name, entries, capacity) in tables(lb) {
        assert!(entries <= capacity, "{name}: {entries} of {capacity}");
    }
}

/// Resident memory of a process, in KiB.
fn memory(daemon: &Daemon<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Lets the first of those who are connected talk while the flood lasts, each on its own, with a
/// shift in its middle; then all. Demands that nothing of theirs changes.
fn survive(
    topology: &Topology,
    daemon: &Daemon<'_>,
    (connected, talking): (&mut [Box<dyn Connected>], usize),
    packet: Packet,
) {
    let lb = Ctl(&topology.lb);
    let (before, memory_before) = (standing(lb), memory(daemon));
    assert_eq!((before.active, before.listed), (connected.len() as u64, connected.len()));

    let flood = flood(topology, packet);
    let talking = &mut connected[..talking];
    let exchanges: Vec<u32> = thread::scope(|scope| {
        let talk = |one: &mut Box<dyn Connected>| {
            let mut exchanges = 0;
            while flood.is_running() {
                one.ask().with_context(|| format!("{packet:?} flood, {exchanges}")).unwrap();
                exchanges += 1;
            }
            exchanges
        };
        let talkers: Vec<_> =
            talking.iter_mut().map(|one| scope.spawn(move || talk(one))).collect();
        // The flood's own clock is all there is to wait for.
        thread::sleep(FLOOD / 2);
        bounded(lb);
        assert!(flood.is_running(), "the flood is over already");
        lb.shift(&["v1=0", "v2=100"]).unwrap();
        bounded(lb);
        talkers.into_iter().map(|talker| talker.join().unwrap()).collect()
    });
    let sent = flood.finish().unwrap();
    println!("{packet:?}: {sent:?}, exchanges meanwhile: {exchanges:?}");
    println!("tables: {:?}", tables(lb));
    // Every connection went on, not just some. What the flood crowds out of a queue is sent again
    // ever later, so one of them may be slow.
    assert!(exchanges.iter().all(|count| *count >= 1), "{exchanges:?}");
    assert!(exchanges.iter().sum::<u32>() as usize >= 3 * exchanges.len(), "{exchanges:?}");
    assert!(sent.packets > 4 * EMBRYOS, "{} packets are no flood", sent.packets);

    for one in connected.iter_mut() {
        one.ask().unwrap();
    }
    assert_eq!(standing(lb), before, "after {sent:?}");
    bounded(lb);
    lb.check_maps().unwrap();
    let grown = memory(daemon).saturating_sub(memory_before);
    assert!(grown < GROWTH_KIB, "the daemon grew by {grown} KiB");
}

/// Opens a connection that is patient: where queues are full, TCP repeats its segments after ever
/// longer pauses.
fn hold(topology: &Topology) -> Result<Box<dyn Connected>> {
    let held = topology.hold()?;
    held.stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Box::new(held))
}

fn held(topology: &Topology) -> Vec<Box<dyn Connected>> {
    (0..HELD).map(|_| hold(topology).unwrap()).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn syn_flood() {
    let topology = topology(vec![Protocol::Tcp]);
    let _servers = topology.start_servers().unwrap();
    let daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let mut held = held(&topology);
    survive(&topology, &daemon, (&mut held, HELD), Packet::Syn);
    // The flood was really placed, not just refused.
    let service = Ctl(&topology.lb).service().unwrap();
    let placed: u64 = service.instances().values().map(|i| i.counters.placed).sum();
    assert!(placed > EMBRYOS, "{placed} handshakes");
    // And those who come now are served.
    assert_eq!(topology.hold().unwrap().first.version, "v2");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ack_flood() {
    let topology = topology(vec![Protocol::Tcp]);
    let _servers = topology.start_servers().unwrap();
    let daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let mut held = held(&topology);
    survive(&topology, &daemon, (&mut held, HELD), Packet::Ack);
    assert_eq!(topology.hold().unwrap().first.version, "v2");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn udp_flood() {
    let topology = topology(vec![Protocol::Udp, Protocol::Tcp]);
    // Past the balancer: a server's queue that overflows is not what this is about.
    for backend in &topology.backends {
        for line in [
            "add table ip flood".to_owned(),
            "add chain ip flood in { type filter hook prerouting priority -300 ; }".to_owned(),
            format!("add rule ip flood in ip saddr {SOURCES} drop"),
        ] {
            backend.namespace.run("nft", &line).unwrap();
        }
    }
    let _servers = topology.start_servers().unwrap();
    let daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let mut connected = held(&topology);
    for _ in 0..HELD {
        connected.push(Box::new(Flow::open(&topology).unwrap()));
    }
    survive(&topology, &daemon, (&mut connected, 2 * HELD), Packet::Udp);
    assert_eq!(Flow::open(&topology).unwrap().owner.0, "v2");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_table() {
    let topology = topology(vec![Protocol::Tcp]);
    let _servers = topology.start_servers().unwrap();
    let daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let lb = Ctl(&topology.lb);
    let mut connected = held(&topology);
    // Connections until the table is full; each beyond that is refused by a RST at once.
    let to = SocketAddr::V4(FRONTEND);
    let mut more: Vec<Box<dyn Connected>> = Vec::new();
    let refused = loop {
        assert!(more.len() as u64 <= CAPACITY, "never full");
        match hold(&topology) {
            Ok(held) => more.push(held),
            Err(error) => break error,
        }
    };
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
    connected.extend(more);
    assert!(connected.len() as u64 > CAPACITY * 9 / 10, "{} connections", connected.len());
    let begun = Instant::now();
    for _ in 0..20 {
        let error = topology.client.connect(to, DEADLINE).unwrap_err();
        assert!(format!("{error:#}").contains("refused"), "{error:#}");
    }
    assert!(begun.elapsed() < DEADLINE, "refused, but late: {:?}", begun.elapsed());
    // A full table under a flood is as good as any other.
    survive(&topology, &daemon, (&mut connected, HELD), Packet::Syn);
    let flows = tables(lb).into_iter().find(|(name, ..)| name == "FLOWS4").unwrap();
    assert_eq!(flows.1, connected.len() as u64, "of {}", flows.2);
}
