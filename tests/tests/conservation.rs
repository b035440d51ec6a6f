//! I3: conservation holds exactly per instance, however connections end; clients, counters and
//! the flow table agree.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use release_tests::netns::NsHandle;
use release_tests::observe::{Counters, Ctl, Dice, eventually};
use release_tests::sockets::{abort, connect_from, half_close};
use release_tests::topology::{Backend, FRONTEND, Topology, TopologySpec};

const DEADLINE: Duration = Duration::from_secs(10);
const CONNECTIONS: u32 = 50_000;
/// Client addresses, with a thread each.
const CLIENTS: u8 = 6;
/// What a server says when the client has finished first.
const LATE: &[u8] = b"late";

/// Who ends a connection, and how. Its number goes to the server as the only byte it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The client's FIN, then the server's.
    ClientFirst,
    /// The server's FIN, then the client's.
    ServerFirst,
    /// The client finishes, the server goes on sending and then finishes too.
    HalfClosed,
    /// RST by the client.
    ClientAborts,
    /// RST by the server.
    ServerAborts,
}

const ENDINGS: [Ending; 5] = [
    Ending::ClientFirst,
    Ending::ServerFirst,
    Ending::HalfClosed,
    Ending::ClientAborts,
    Ending::ServerAborts,
];

impl Ending {
    fn is_abort(self) -> bool {
        matches!(self, Self::ClientAborts | Self::ServerAborts)
    }
}

/// What the clients know of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    connected: u64,
    by_fin: u64,
    by_rst: u64,
}

/// Serves one connection after the other: says its number, is told how it shall end.
fn serve(listener: &TcpListener, number: u8, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // Errors are the client's to notice.
        let _ = stream.and_then(|stream| serve_one(stream, number));
    }
}

fn serve_one(mut stream: TcpStream, number: u8) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(&[number])?;
    let mut order = [0];
    stream.read_exact(&mut order)?;
    match ENDINGS[usize::from(order[0])] {
        Ending::HalfClosed => {
            stream.read_to_end(&mut Vec::new())?;
            stream.write_all(LATE)?;
        }
        Ending::ServerFirst => {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        // Until the client's FIN or RST.
        Ending::ClientFirst | Ending::ClientAborts => {
            stream.read_to_end(&mut Vec::new())?;
        }
        Ending::ServerAborts => abort(stream)?,
    }
    Ok(())
}

/// One connection from its begin to its end. Returns the server's number.
fn connection(source: Ipv4Addr, ending: Ending) -> Result<u8> {
    let mut stream = connect_from(SocketAddrV4::new(source, 0), FRONTEND, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut number = [0];
    stream.read_exact(&mut number)?;
    stream.write_all(&[ending as u8])?;
    let mut rest = Vec::new();
    match ending {
        Ending::ClientFirst => {
            half_close(&stream)?;
            stream.read_to_end(&mut rest)?;
        }
        Ending::ServerFirst => {
            stream.read_to_end(&mut rest)?;
        }
        Ending::HalfClosed => {
            half_close(&stream)?;
            stream.read_to_end(&mut rest)?;
            ensure!(rest == LATE, "got {rest:?} after the half-close");
        }
        Ending::ClientAborts => abort(stream)?,
        Ending::ServerAborts => {
            let error = stream.read(&mut number).err().context("no RST came")?;
            ensure!(error.kind() == io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    Ok(number[0])
}

/// A client thread: makes its connections until all clients' together are enough.
fn client(
    namespace: &NsHandle,
    source: Ipv4Addr,
    begun: &AtomicU32,
) -> Result<BTreeMap<u8, Count>> {
    namespace.join()?;
    let mut dice = Dice::new(u64::from(source.octets()[3]));
    let mut counts = BTreeMap::<u8, Count>::new();
    while begun.fetch_add(1, Ordering::Relaxed) < CONNECTIONS {
        let ending = ENDINGS[dice.below(5) as usize];
        let number = connection(source, ending)
            .with_context(|| format!("{ending:?} from {source}, after {counts:?}"))?;
        let count = counts.entry(number).or_default();
        count.connected += 1;
        *(if ending.is_abort() { &mut count.by_rst } else { &mut count.by_fin }) += 1;
    }
    Ok(counts)
}

/// Runs servers and clients; returns the clients' counts by instance id.
fn run(topology: &Topology, during: impl FnOnce()) -> BTreeMap<String, Count> {
    let stop = AtomicBool::new(false);
    let listeners: Vec<TcpListener> = topology.backends.iter().map(listen).collect();
    let begun = AtomicU32::new(0);
    let counts = Mutex::new(BTreeMap::<String, Count>::new());
    thread::scope(|scope| {
        let _stop = StopServers { topology, stop: &stop };
        for (number, listener) in (0..).zip(&listeners) {
            let stop = &stop;
            scope.spawn(move || serve(listener, number, stop));
        }
        let clients: Vec<_> = topology
            .client_addresses()
            .into_iter()
            .map(|source| {
                let (namespace, begun) = (topology.client.handle(), &begun);
                scope.spawn(move || client(&namespace, source, begun))
            })
            .collect();
        during();
        for client in clients {
            for (number, count) in client.join().unwrap().unwrap() {
                let id = topology.backends[usize::from(number)].id.clone();
                let mut counts = counts.lock().unwrap();
                let sum = counts.entry(id).or_default();
                sum.connected += count.connected;
                sum.by_fin += count.by_fin;
                sum.by_rst += count.by_rst;
            }
        }
    });
    counts.into_inner().unwrap()
}

fn listen(backend: &Backend) -> TcpListener {
    backend.namespace.enter(|| TcpListener::bind(backend.address)).unwrap().unwrap()
}

/// Ends the servers' threads, also when the clients panic: each is woken by a connection.
struct StopServers<'a> {
    topology: &'a Topology,
    stop: &'a AtomicBool,
}

impl Drop for StopServers<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for backend in &self.topology.backends {
            let _ = backend.namespace.connect(backend.address.into(), DEADLINE);
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn clients_counters_and_table_agree_after_fifty_thousand_connections() {
    let spec = TopologySpec { clients: CLIENTS, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = Ctl(&topology.lb);
    lb.0.write_config(&topology.config(&[("v1", 70), ("v2", 30)])).unwrap();
    let _daemon = lb.0.start_daemon().unwrap();
    let opened = || lb.placed().unwrap().values().sum::<u64>();

    let counts = run(&topology, || {
        // Weights change meanwhile, one version is even closed for a time.
        for (after, weights) in
            [(10_000, ["v1=0", "v2=10"]), (20_000, ["v1=10", "v2=90"]), (40_000, ["v1=1", "v2=0"])]
        {
            eventually(DEADLINE * 3, "connections", || opened() >= after);
            lb.shift(&weights).unwrap();
        }
    });
    let total: u64 = counts.values().map(|count| count.connected).sum();
    assert_eq!(total, u64::from(CONNECTIONS), "{counts:?}");
    assert_eq!(counts.len(), 4, "every instance had connections: {counts:?}");

    eventually(DEADLINE, "all flows closed", || lb.service().unwrap().active() == 0);
    let service = lb.service().unwrap();
    for (id, instance) in service.instances() {
        let Count { connected, by_fin, by_rst } = counts[id];
        let counters = instance.counters;
        let wanted = Counters {
            placed: connected,
            opened: connected,
            closed_fin: by_fin,
            closed_rst: by_rst,
            // Not known to clients.
            unverified: counters.unverified,
            packets: counters.packets,
            bytes: counters.bytes,
            ..Counters::default()
        };
        assert_eq!(counters, wanted, "{id}, by its clients' count");
        let flows = instance.flows;
        assert_eq!((flows.embryonic, flows.active, flows.half_closed), (0, 0, 0), "{id}");
        assert!(flows.closing <= connected, "{id}: {flows:?}");
        assert_eq!(counters.live(), 0, "{id}");
    }
    // Every entry is a closed one that lingers, and the gauge of live flows says so too.
    let flows = lb.0.releasectl_json(&["flows"]).unwrap();
    let flows = flows.as_array().unwrap();
    let other: Vec<_> = flows.iter().filter(|flow| flow["state"] != "closed").collect();
    assert!(other.is_empty(), "{} live entries, such as {}", other.len(), other[0]);
    let gauges = lb.0.releasectl_json(&["maps", "dump", "GAUGES"]).unwrap();
    let entries = serde_json::json!([{ "of": "entries of FLOWS4", "value": flows.len() }]);
    assert_eq!(gauges, entries, "only the number of entries is not 0");
    lb.check_maps().unwrap();
}
