//! I3: conservation holds exactly per instance, however connections end. After every quarter of
//! 100,000 connections, with thousands of them still open, all who can count agree: the clients, the
//! gauge in the kernel, a walk of the flow table, and the sockets on the backends.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_tests::cases::say;
use release_tests::netns::NsHandle;
use release_tests::observe::{Counters, Ctl, Dice};
use release_tests::process::allow_descriptors;
use release_tests::scenario::eventually;
use release_tests::sockets::{abort, connect_from};
use release_tests::topology::{Backend, FRONTEND, Topology, TopologySpec};
use release_user::config::Protocol;
use release_user::net::namespace::Namespace;
use release_user::sockets::{Question, Target, ask};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream as Accepted};
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 100_000;
/// Client addresses, with a thread each.
const CLIENTS: u8 = 6;
/// Connections that each client keeps open, while others come and go.
const OPEN: usize = 500;
const QUARTERS: usize = 4;
/// What a server says when the client has finished first.
const LATE: &[u8] = b"late";
/// More than windows and queues hold.
const BULK: usize = 1 << 20;

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
    /// RST by the client while it sends.
    ClientAbortsSending,
    /// RST by the client while the server sends.
    ClientAbortsReading,
    /// RST by the server while it sends.
    ServerAbortsSending,
    /// RST by the server after the client has finished.
    ServerAbortsHalfClosed,
}

const ENDINGS: [Ending; 9] = [
    Ending::ClientFirst,
    Ending::ServerFirst,
    Ending::HalfClosed,
    Ending::ClientAborts,
    Ending::ServerAborts,
    Ending::ClientAbortsSending,
    Ending::ClientAbortsReading,
    Ending::ServerAbortsSending,
    Ending::ServerAbortsHalfClosed,
];

impl Ending {
    fn is_abort(self) -> bool {
        !matches!(self, Self::ClientFirst | Self::ServerFirst | Self::HalfClosed)
    }
}

/// Serves connections: says its number, is told how each shall end, long after it was accepted.
/// Ends when nobody can say `stop` any more.
async fn serve_all(
    listener: std::net::TcpListener,
    number: u8,
    mut stop: watch::Receiver<()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                // Errors are the client's to notice.
                tokio::spawn(async move { serve(stream, number).await.ok() });
            }
        }
    }
}

async fn serve(mut stream: Accepted, number: u8) -> io::Result<()> {
    stream.write_all(&[number]).await?;
    let mut order = [0];
    stream.read_exact(&mut order).await?;
    let mut rest = Vec::new();
    match ENDINGS[usize::from(order[0])] {
        Ending::HalfClosed => {
            stream.read_to_end(&mut rest).await?;
            stream.write_all(LATE).await?;
        }
        Ending::ServerFirst => {
            stream.shutdown().await?;
            stream.read_to_end(&mut rest).await?;
        }
        // Until the client's FIN or RST.
        Ending::ClientFirst | Ending::ClientAborts | Ending::ClientAbortsSending => {
            stream.read_to_end(&mut rest).await?;
        }
        Ending::ClientAbortsReading => stream.write_all(&vec![b'x'; BULK]).await?,
        Ending::ServerAborts => abort(stream.into_std()?)?,
        Ending::ServerAbortsSending => {
            // As much as goes out at once.
            stream.write_all(&[b'x'; 20_000]).await?;
            abort(stream.into_std()?)?;
        }
        Ending::ServerAbortsHalfClosed => {
            stream.read_to_end(&mut rest).await?;
            abort(stream.into_std()?)?;
        }
    }
    Ok(())
}

/// What a client knows of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    connected: u64,
    by_fin: u64,
    by_rst: u64,
}

impl Count {
    const fn open(&self) -> u64 {
        self.connected - self.by_fin - self.by_rst
    }
}

/// A client, with what it has open and what it has counted, by the server's number.
struct Client {
    namespace: NsHandle,
    source: Ipv4Addr,
    dice: Dice,
    open: Vec<(TcpStream, u8)>,
    counts: BTreeMap<u8, Count>,
}

impl Client {
    /// Makes so many connections, and ends all but `keep` of those that are open then.
    fn run(&mut self, connections: usize, keep: usize) -> Result<()> {
        self.namespace.join()?;
        for _ in 0..connections {
            self.connect()?;
            if self.open.len() > OPEN {
                self.end_one()?;
            }
        }
        while self.open.len() > keep {
            self.end_one()?;
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        let mut stream = connect_from(SocketAddrV4::new(self.source, 0), FRONTEND, DEADLINE)
            .with_context(|| format!("from {}, after {:?}", self.source, self.counts))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut number = [0];
        stream.read_exact(&mut number)?;
        self.counts.entry(number[0]).or_default().connected += 1;
        self.open.push((stream, number[0]));
        Ok(())
    }

    /// Ends any of those that are open, in any way.
    fn end_one(&mut self) -> Result<()> {
        let place = self.dice.below(u32::try_from(self.open.len())?) as usize;
        let (stream, number) = self.open.swap_remove(place);
        let ending = ENDINGS[self.dice.below(u32::try_from(ENDINGS.len())?) as usize];
        end(stream, ending).with_context(|| format!("{ending:?} from {}", self.source))?;
        let count = self.counts.entry(number).or_default();
        *(if ending.is_abort() { &mut count.by_rst } else { &mut count.by_fin }) += 1;
        Ok(())
    }
}

fn end(mut stream: TcpStream, ending: Ending) -> Result<()> {
    stream.write_all(&[ending as u8])?;
    let mut rest = Vec::new();
    match ending {
        Ending::ClientFirst => {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut rest)?;
        }
        Ending::ServerFirst => drop(stream.read_to_end(&mut rest)?),
        Ending::HalfClosed => {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut rest)?;
            ensure!(rest == LATE, "got {rest:?} after the half-close");
        }
        Ending::ClientAborts => abort(stream)?,
        Ending::ClientAbortsSending => {
            stream.write_all(&[b'x'; 20_000])?;
            abort(stream)?;
        }
        Ending::ClientAbortsReading => {
            stream.read_exact(&mut [0; 1000])?;
            abort(stream)?;
        }
        Ending::ServerAborts | Ending::ServerAbortsSending => is_reset(&mut stream)?,
        Ending::ServerAbortsHalfClosed => {
            stream.shutdown(Shutdown::Write)?;
            is_reset(&mut stream)?;
        }
    }
    Ok(())
}

/// The connection ends by a RST, whatever comes before.
fn is_reset(stream: &mut TcpStream) -> Result<()> {
    let error = stream.read_to_end(&mut Vec::new()).err().context("no RST came")?;
    ensure!(error.kind() == io::ErrorKind::ConnectionReset, "{error}");
    Ok(())
}

/// All clients' counts together, by instance id.
fn sum(topology: &Topology, clients: &[Client]) -> BTreeMap<String, Count> {
    let mut counts = BTreeMap::<String, Count>::new();
    for (number, count) in clients.iter().flat_map(|client| &client.counts) {
        let id = topology.backends[usize::from(*number)].id.clone();
        let sum = counts.entry(id).or_default();
        sum.connected += count.connected;
        sum.by_fin += count.by_fin;
        sum.by_rst += count.by_rst;
    }
    counts
}

/// Sockets that remain at a backend, as its kernel lists them.
fn sockets(backend: &Backend) -> u64 {
    let target = Target { address: backend.address.into(), protocol: Protocol::Tcp };
    let question = Question { own: vec![(*backend.address.ip()).into()], targets: vec![target] };
    let namespace = Namespace::Named(backend.namespace.name().to_owned());
    ask(&namespace, &question).unwrap().remaining()
}

/// The kernel's gauge of the only service's live flows.
fn gauge(lb: Ctl<'_>) -> i64 {
    let gauges = lb.0.releasectl_json(&["maps", "dump", "GAUGES"]).unwrap();
    let services = gauges.as_array().unwrap().iter();
    let services = services.filter(|line| line["of"].as_str().unwrap().starts_with("service"));
    services.map(|line| line["value"].as_i64().unwrap()).sum()
}

/// What each of them says is open, by instance: clients, sockets, table; and the gauge of all.
fn counted(topology: &Topology, clients: &[Client]) -> [(Vec<u64>, i64); 3] {
    let lb = Ctl(&topology.lb);
    let counts = sum(topology, clients);
    let of = |by: &dyn Fn(&Backend) -> u64| {
        let open: Vec<u64> = topology.backends.iter().map(by).collect();
        let all = i64::try_from(open.iter().sum::<u64>()).unwrap();
        (open, all)
    };
    let status = lb.service().unwrap();
    let instances = status.instances();
    let table: Vec<u64> = topology
        .backends
        .iter()
        .map(|backend| instances[backend.id.as_str()].flows.active)
        .collect();
    [
        of(&|backend| counts.get(&backend.id).map_or(0, Count::open)),
        of(&sockets),
        (table, gauge(lb)),
    ]
}

/// Everybody counts the same, as soon as the last closes have arrived.
fn agree(topology: &Topology, clients: &[Client], open: usize) {
    let mut last = counted(topology, clients);
    let begun = Instant::now();
    while last[0] != last[1] || last[0] != last[2] {
        assert!(begun.elapsed() < DEADLINE, "clients, sockets, table and gauge: {last:?}");
        last = counted(topology, clients);
    }
    let kept: usize = clients.iter().map(|client| client.open.len()).sum();
    assert_eq!((last[0].1, kept), (i64::try_from(open).unwrap(), open));
    say(format!("{open} open, by clients, sockets, table and gauge: {:?}", last[0].0));
    Ctl(&topology.lb).check_maps().unwrap();
}

/// Runs the clients for a quarter, with another split in its middle.
fn quarter(lb: Ctl<'_>, clients: &mut [Client], keep: usize, weights: [&str; 2]) {
    let placed = || lb.placed().unwrap().values().sum::<u64>();
    let (before, each) = (placed(), CONNECTIONS / QUARTERS / clients.len() + 1);
    let made: u64 = clients.iter().flat_map(|c| c.counts.values()).map(|c| c.connected).sum();
    let left = CONNECTIONS - usize::try_from(made).unwrap();
    thread::scope(|scope| {
        let mut left = left;
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let mine = each.min(left);
                left -= mine;
                scope.spawn(move || client.run(mine, keep))
            })
            .collect();
        let half = u64::try_from(CONNECTIONS / QUARTERS / 2).unwrap();
        eventually(3 * DEADLINE, "connections", || placed() >= before + half);
        lb.shift(&weights).unwrap();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn all_who_count_agree_on_a_hundred_thousand_connections() {
    allow_descriptors(4 * u64::from(CLIENTS) * OPEN as u64).unwrap();
    let spec = TopologySpec { clients: CLIENTS, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = Ctl(&topology.lb);
    lb.0.write_config(&topology.config(&[("v1", 70), ("v2", 30)])).unwrap();
    let _daemon = lb.0.start_daemon().unwrap();
    let client = |source: Ipv4Addr| Client {
        namespace: topology.client.handle(),
        source,
        dice: Dice::new(u64::from(source.octets()[3])),
        open: Vec::new(),
        counts: BTreeMap::new(),
    };
    let mut clients: Vec<Client> = topology.client_addresses().into_iter().map(client).collect();
    let begun = Instant::now();

    thread::scope(|scope| {
        // Dropped here, also when a client panics.
        let (_stop, stopped) = watch::channel(());
        for (number, backend) in (0..).zip(&topology.backends) {
            let (listener, stop) = (backend.listen().unwrap(), stopped.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            scope.spawn(move || runtime.unwrap().block_on(serve_all(listener, number, stop)));
        }
        // One version is even closed for a time.
        let splits = [["v1=0", "v2=10"], ["v1=10", "v2=90"], ["v1=1", "v2=0"], ["v1=5", "v2=5"]];
        for (number, weights) in (1..).zip(splits) {
            let keep = if number == QUARTERS { 0 } else { OPEN };
            quarter(lb, &mut clients, keep, weights);
            agree(&topology, &clients, keep * clients.len());
        }
    });
    say(format!("{CONNECTIONS} connections in {:?}", begun.elapsed()));
    at_the_end(lb, &sum(&topology, &clients));
}

/// Every counter of every instance is what its clients have counted, and nothing is left but closed
/// entries that linger.
fn at_the_end(lb: Ctl<'_>, counts: &BTreeMap<String, Count>) {
    let total: u64 = counts.values().map(|count| count.connected).sum();
    assert_eq!(total, CONNECTIONS as u64, "{counts:?}");
    assert_eq!(counts.len(), 4, "every instance had connections: {counts:?}");
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
    let flows = lb.0.releasectl_json(&["flows"]).unwrap();
    let other = flows.as_array().unwrap().iter().find(|flow| flow["state"] != "closed");
    assert!(other.is_none(), "{other:?}");
}
