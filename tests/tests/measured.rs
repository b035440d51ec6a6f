//! What the packet path measures of each version, against what the clients themselves saw.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_common::abi::reap_op;
use release_tests::observe::Ctl;
use release_tests::scenario::DEADLINE;
use release_tests::sockets::abort;
use release_tests::topology::{Family, Mode, SERVICE, Topology, TopologySpec, frontend};
use release_user::kernel::{Maps, Programs};
use serde::Deserialize;

/// Connections to each version and family; enough that the slowest of them is not the 99th of 100.
const CONNECTIONS: usize = 40;
/// How long the new version takes for each answer.
const DELAY: Duration = Duration::from_millis(60);
/// Of its connections the new version resets one in so many, in place of an answer.
const RESET_EVERY: usize = 20;
/// So many clients of the old version go away by RST.
const CLIENT_RESETS: usize = 3;
/// So many clients find nobody.
const REFUSED: usize = 7;
/// Clients of versions under test.
const SOURCES: &str = r#"test_sources = { v2 = ["10.1.0.3/32", "fd00:1::3/128"] }"#;
const MESSAGE: [u8; 16] = *b"sixteen letters.";

/// A version in `status -o json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Measured {
    connect_p50_us: Option<u64>,
    connect_p99_us: Option<u64>,
    first_byte_p50_us: Option<u64>,
    first_byte_p99_us: Option<u64>,
    syn_failures: u64,
    resets_by_server: u64,
    resets_by_client: u64,
    retransmits: u64,
    segments: u64,
}

/// What is only to be read from the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
struct Counted {
    backend: u32,
    syns: u64,
    opened: u64,
    connects: u64,
    first_bytes: u64,
}

/// How a connection ends after its request was read.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Answered,
    ResetByServer,
    ResetByClient,
}

/// What the clients of one version saw.
#[derive(Default)]
struct Seen {
    connect: Vec<Duration>,
    first_byte: Vec<Duration>,
    resets_by_server: u64,
    resets_by_client: u64,
}

impl Seen {
    fn connections(&self) -> u64 {
        self.connect.len() as u64
    }
}

/// One connection from a client address, both ends played here.
fn exchange(
    topology: &Topology,
    from: IpAddr,
    to: SocketAddr,
    listener: &TcpListener,
    delay: Duration,
    end: End,
    seen: &mut Seen,
) -> Result<()> {
    let begun = Instant::now();
    let mut client = topology.client.connect_from(SocketAddr::new(from, 0), to, DEADLINE)?;
    seen.connect.push(begun.elapsed());
    client.set_read_timeout(Some(DEADLINE))?;
    client.set_nodelay(true)?;
    let mut server: TcpStream = listener.accept()?.0;
    server.set_read_timeout(Some(DEADLINE))?;
    let mut buffer = [0; MESSAGE.len()];
    let asked = Instant::now();
    client.write_all(&MESSAGE)?;
    server.read_exact(&mut buffer)?;
    let is_reset = |stream: &mut TcpStream| {
        let error = stream.read(&mut [0]).err().context("no reset")?;
        ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
        Ok(())
    };
    match end {
        End::Answered => {
            // The time that the new version takes, which is what is measured.
            thread::sleep(delay);
            server.write_all(&MESSAGE)?;
            client.read_exact(&mut buffer)?;
            seen.first_byte.push(asked.elapsed());
            drop(client);
            ensure!(server.read(&mut buffer)? == 0, "data instead of the end");
            Ok(())
        }
        End::ResetByServer => {
            seen.resets_by_server += 1;
            abort(server)?;
            is_reset(&mut client)
        }
        End::ResetByClient => {
            seen.resets_by_client += 1;
            abort(client)?;
            is_reset(&mut server)
        }
    }
}

/// The `percent`-th percentile as the histogram takes it.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[(times.len() * percent).div_ceil(100) - 1]
}

/// Demands that what was measured is no less than `least`, and no more than the client saw, whose
/// time includes it; a bucket is told by its upper end.
fn agrees(what: &str, measured: Option<u64>, least: Duration, seen: Duration) {
    let measured = Duration::from_micros(measured.unwrap());
    let most = seen * 5 / 4 + Duration::from_micros(2);
    println!("{what}: measured {measured:?}, seen {seen:?}, at least {least:?}");
    assert!(measured >= least && measured <= most, "{what}: {least:?} <= {measured:?} <= {most:?}");
}

fn compare(what: &str, measured: &Measured, seen: &Seen, delay: Duration) {
    let (connect, first) = (&seen.connect, &seen.first_byte);
    let zero = Duration::ZERO;
    agrees(&format!("{what} connect"), measured.connect_p50_us, zero, percentile(connect, 50));
    agrees(&format!("{what} connect"), measured.connect_p99_us, zero, percentile(connect, 99));
    agrees(&format!("{what} answer"), measured.first_byte_p50_us, delay, percentile(first, 50));
    agrees(&format!("{what} answer"), measured.first_byte_p99_us, delay, percentile(first, 99));
    assert_eq!(measured.resets_by_server, seen.resets_by_server, "{what}");
    assert_eq!(measured.resets_by_client, seen.resets_by_client, "{what}");
    assert_eq!(measured.syn_failures, 0, "{what}");
    // A request each, and an answer to those that got one.
    let messages = seen.connections() + first.len() as u64;
    assert_eq!(measured.segments - measured.retransmits, messages, "{what}: {measured:?}");
}

struct Rig {
    topology: Topology,
    families: Vec<Family>,
}

impl Rig {
    fn measured(&self, version: &str) -> Measured {
        let status = self.topology.lb.version_status(version).unwrap();
        serde_json::from_value(status["measured"].clone()).unwrap()
    }

    /// Of all instances of a version.
    fn counted(&self, version: &str) -> Counted {
        let ctl = Ctl(&self.topology.lb);
        let ids = ctl.backends().unwrap();
        let lines: Vec<Counted> = ctl.answer(&["maps", "dump", "LATENCY"]).unwrap();
        let lines: BTreeMap<u32, Counted> = lines.into_iter().map(|l| (l.backend, l)).collect();
        let mut sum = Counted::default();
        for backend in self.topology.backends_of(version) {
            for family in &self.families {
                let one = lines[&ids[&backend.instance(*family).to_string()]];
                sum.syns += one.syns;
                sum.opened += one.opened;
                sum.connects += one.connects;
                sum.first_bytes += one.first_bytes;
            }
        }
        sum
    }

    /// Connections of client `client` to a version that alone is reached, over all families.
    fn talk(
        &self,
        version: &str,
        client: usize,
        delay: Duration,
        end: impl Fn(usize) -> End,
    ) -> Seen {
        let mut seen = Seen::default();
        for family in &self.families {
            let backend = self.topology.backends_of(version).next().unwrap();
            let listener = backend.listen_over(*family).unwrap();
            let from = self.topology.client_addresses_of(*family)[client];
            let to = frontend(*family);
            for number in 0..CONNECTIONS {
                let end = end(number);
                exchange(&self.topology, from, to, &listener, delay, end, &mut seen).unwrap();
            }
        }
        seen
    }

    fn is_conserved(&self, version: &str, seen: &Seen) {
        let Counted { syns, opened, connects, first_bytes, .. } = self.counted(version);
        let connections = seen.connections();
        assert_eq!((syns, opened, connects), (connections, connections, connections), "{version}");
        assert_eq!(first_bytes, seen.first_byte.len() as u64, "{version}");
    }
}

fn versions_are_measured(mode: Mode, families: &[Family]) {
    let spec = TopologySpec {
        versions: ["v1", "v2", "v3"].map(|version| (version.to_owned(), 1)).to_vec(),
        families: families.to_vec(),
        clients: 2,
        mode,
        service: SOURCES.to_owned(),
        ..TopologySpec::default()
    };
    let topology = Topology::new(&spec).unwrap();
    let rig = Rig { topology, families: families.to_vec() };
    let lb = &rig.topology.lb;
    let _daemon = rig.topology.up(&[("v1", 100)]).unwrap();

    let aborts = |number| if number < CLIENT_RESETS { End::ResetByClient } else { End::Answered };
    let old = rig.talk("v1", 0, Duration::ZERO, aborts);
    compare("v1", &rig.measured("v1"), &old, Duration::ZERO);
    rig.is_conserved("v1", &old);

    // A test client of v2 leaves no trace, whatever happens to it.
    let untouched = (rig.measured("v2"), rig.counted("v2"));
    let resets = |number| match number % 3 {
        0 => End::ResetByServer,
        1 => End::ResetByClient,
        _ => End::Answered,
    };
    let tested = rig.talk("v2", 1, Duration::ZERO, resets);
    assert_eq!(lb.counter("v2-1", "ruled").unwrap(), tested.connections() / families.len() as u64);
    assert_eq!((rig.measured("v2"), rig.counted("v2")), untouched);

    Ctl(lb).shift(&["v1=0", "v2=100", "v3=0"]).unwrap();
    let resets = |number: usize| {
        if (number + 1).is_multiple_of(RESET_EVERY) { End::ResetByServer } else { End::Answered }
    };
    let new = rig.talk("v2", 0, DELAY, resets);
    assert_eq!(new.resets_by_server as usize, families.len() * CONNECTIONS / RESET_EVERY);
    compare("v2", &rig.measured("v2"), &new, DELAY);
    rig.is_conserved("v2", &new);

    // Nobody listens on v3.
    Ctl(lb).shift(&["v1=0", "v2=0", "v3=100"]).unwrap();
    for family in families {
        for _ in 0..REFUSED {
            let from = SocketAddr::new(rig.topology.client_addresses_of(*family)[0], 0);
            let refused = rig.topology.client.connect_from(from, frontend(*family), DEADLINE);
            let error = refused.unwrap_err();
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{error}");
        }
    }
    let (measured, counted) = (rig.measured("v3"), rig.counted("v3"));
    let refused = (families.len() * REFUSED) as u64;
    assert_eq!((measured.syn_failures, counted.syns), (refused, refused));
    assert_eq!((counted.opened, counted.connects, measured.segments), (0, 0, 0));
    assert_eq!((measured.connect_p50_us, measured.first_byte_p50_us), (None, None));

    // What v1 and v2 did stands; people are told when they ask for the service.
    compare("v1", &rig.measured("v1"), &old, Duration::ZERO);
    let text = lb.releasectl_ok(&["status", SERVICE]).unwrap();
    assert!(text.contains("\nMEASURED  CONNECT P50"), "{text}");
    assert!(text.lines().skip_while(|l| !l.starts_with("MEASURED")).all(|l| l.len() <= 100));
    assert!(!lb.releasectl_ok(&["status"]).unwrap().contains("MEASURED"));
    Ctl(lb).check_maps().unwrap();
}

/// Handshakes that end by their time, which is shortened here to nothing: a SYN that nobody
/// answered is a failure of its instance, unless it was a test client's; a client that went away
/// after the SYN-ACK is none.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn syns_that_nobody_answers_are_failures() {
    let families = [Family::V4, Family::V6];
    let spec = TopologySpec {
        families: families.to_vec(),
        clients: 2,
        service: SOURCES.to_owned(),
        ..TopologySpec::small()
    };
    let topology = Topology::new(&spec).unwrap();
    let rig = Rig { topology, families: families.to_vec() };
    let (lb, client) = (&rig.topology.lb, &rig.topology.client);
    let _daemon = rig.topology.up(&[("v2", 100)]).unwrap();
    let (maps, programs) = (Maps::open(lb.bpffs()).unwrap(), Programs::open(lb.bpffs()).unwrap());
    let backend = rig.topology.backends_of("v2").next().unwrap();
    let try_from = |number: usize, family: Family| {
        let from = SocketAddr::new(rig.topology.client_addresses_of(family)[number], 0);
        client.connect_from(from, frontend(family), Duration::from_millis(100)).unwrap_err();
    };
    let expire = || {
        let mut all = Vec::new();
        maps.walk_embryos(|key, _| all.push(*key)).unwrap();
        assert_eq!(programs.reap(reap_op::EMBRYOS, &all, 0, 0).unwrap().len(), all.len());
        all.len()
    };

    backend.namespace.block("input", "tcp flags syn").unwrap();
    for family in families {
        (0..3).for_each(|_| try_from(0, family));
        try_from(1, family);
    }
    assert_eq!(expire(), 8);
    assert_eq!((rig.measured("v2").syn_failures, rig.counted("v2").syns), (6, 6));
    backend.namespace.unblock().unwrap();

    // The SYN-ACK reaches the balancer, but not the client.
    let _listeners = families.map(|family| backend.listen_over(family).unwrap());
    client.block("input", "tcp flags syn,ack / syn,ack").unwrap();
    families.into_iter().for_each(|family| try_from(0, family));
    client.unblock().unwrap();
    assert_eq!(expire(), 2);
    let counted = rig.counted("v2");
    assert_eq!((rig.measured("v2").syn_failures, counted.syns, counted.connects), (6, 8, 2));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn measured_in_mode_nat_over_both_families() {
    versions_are_measured(Mode::Nat, &[Family::V4, Family::V6]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn measured_in_mode_snat() {
    versions_are_measured(Mode::Snat, &[Family::V4]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn measured_in_mode_local_on_the_way_out() {
    versions_are_measured(Mode::Host, &[Family::V4, Family::V6]);
}
