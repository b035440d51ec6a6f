//! I2: after a shift has returned, no flow is placed where the weight is 0; and a handshake that
//! began before it ends where it began.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use release_tests::http;
use release_tests::netns::{Netns, NsHandle, Receiving, VethEnd, veth};
use release_tests::observe::{Ctl, InForce};
use release_tests::packet_socket::PacketSocket;
use release_tests::scenario::eventually;
use release_tests::slow::Slow;
use release_tests::sockets::{abort, connect_from};
use release_tests::topology::{FRONTEND, SERVICE, Topology, TopologySpec};
use release_user::kernel::visit_cpus;

const DEADLINE: Duration = Duration::from_secs(10);
/// Threads that connect, spread over the CPUs.
const CALLERS: usize = 4;
/// Pause of a caller after each connection.
const BREATH: Duration = Duration::from_micros(400);
/// Connections that must have come after each change before the next one.
const BETWEEN: u64 = 12;

/// One connection: when its SYN was about to be sent, when it was there, and who answered.
#[derive(Debug)]
struct Call {
    begun: Instant,
    connected: Instant,
    instance: String,
}

/// A change of the split: the command's begin and end, and the instances that it left closed.
#[derive(Debug)]
struct Change {
    called: Instant,
    returned: Instant,
    closed: BTreeSet<String>,
}

/// What the calling threads share.
#[derive(Debug, Default)]
struct Calls {
    stop: AtomicBool,
    done: AtomicU64,
    list: Mutex<Vec<Call>>,
    errors: Mutex<Vec<String>>,
}

impl Calls {
    /// Connects, asks once and closes (every other time by RST), until told to stop.
    fn run(&self, namespace: &NsHandle, number: usize, source: Ipv4Addr) {
        namespace.join().expect("namespace");
        pin_to_cpu(number);
        let mut calls = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            match call(source) {
                Ok((call, stream)) => {
                    if calls.len() % 2 == 0 {
                        abort(stream).expect("abort");
                    }
                    calls.push(call);
                    self.done.fetch_add(1, Ordering::Relaxed);
                    // Room for the commands, which have to share the CPUs.
                    thread::sleep(BREATH);
                }
                Err(error) => self.errors.lock().unwrap().push(format!("{error:#}")),
            }
        }
        self.list.lock().unwrap().extend(calls);
    }
}

fn call(source: Ipv4Addr) -> anyhow::Result<(Call, TcpStream)> {
    let begun = Instant::now();
    let mut stream = connect_from(SocketAddrV4::new(source, 0), FRONTEND, DEADLINE)?;
    let connected = Instant::now();
    stream.set_read_timeout(Some(DEADLINE))?;
    let instance = http::request(&mut stream, "/")?.instance;
    Ok((Call { begun, connected, instance }, stream))
}

/// A packet's XDP program runs on the CPU that sent it: the callers use all of them.
fn pin_to_cpu(number: usize) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(number % cpus).expect("cpu");
    sched_setaffinity(Pid::from_raw(0), &set).expect("affinity");
}

/// Makes `changes` while all callers are calling, and checks every one of their connections
/// against what was open at its time.
fn change_under_traffic(changes: usize, change: impl Fn(Ctl<'_>, usize) -> (InForce, Vec<String>)) {
    let clients = u8::try_from(CALLERS).unwrap();
    let topology = Topology::new(&TopologySpec { clients, ..TopologySpec::default() }).unwrap();
    let _servers = topology.start_servers().unwrap();
    let lb = Ctl(&topology.lb);
    lb.0.write_config(&topology.config(&[("v1", 100), ("v2", 100)])).unwrap();
    let _daemon = lb.0.start_daemon().unwrap();

    let ids = lb.backends().unwrap();
    let of = |id: &String| topology.backends.iter().find(|backend| backend.id == *id);
    let placed = |closed: &BTreeSet<String>| -> Vec<u64> {
        let all = lb.placed().unwrap();
        let addresses = closed.iter().map(|id| of(id).unwrap().address.to_string());
        addresses.map(|address| all[&ids[&address]]).collect()
    };
    let calls = Calls::default();
    let mut history = Vec::new();
    thread::scope(|scope| {
        // Told to stop also when an assertion below fails.
        let stop = StopOnDrop(&calls.stop);
        for (number, source) in topology.client_addresses().into_iter().enumerate() {
            let (calls, namespace) = (&calls, topology.client.handle());
            scope.spawn(move || calls.run(&namespace, number, source));
        }
        let more = |than: u64| calls.done.load(Ordering::Relaxed) >= than + BETWEEN;
        eventually(DEADLINE, "first connections", || more(0));
        let mut generation = lb.service().unwrap().generation;
        for number in 0..changes {
            let called = Instant::now();
            let (in_force, closed) = change(lb, number);
            let returned = Instant::now();
            generation += 1;
            assert_eq!((in_force.changed, in_force.generation), (true, generation));
            let closed: BTreeSet<String> = closed.into_iter().collect();
            let before = placed(&closed);
            let done = calls.done.load(Ordering::Relaxed);
            eventually(DEADLINE, "more connections", || more(done));
            let after = placed(&closed);
            assert_eq!(after, before, "placed on {closed:?} after generation {generation}");
            history.push(Change { called, returned, closed });
        }
        drop(stop);
    });
    let errors = calls.errors.into_inner().unwrap();
    assert!(errors.is_empty(), "{} errors, such as {}", errors.len(), errors[0]);
    let list = calls.list.into_inner().unwrap();
    let checked = check(&list, &history);
    println!("{} connections, {checked} of them at a time of one split alone", list.len());
    assert!(checked > changes, "only {checked} of {} connections tell anything", list.len());
    eventually(DEADLINE, "all flows closed", || lb.service().unwrap().active() == 0);
    lb.check_maps().unwrap();
    let opened: u64 = lb.service().unwrap().versions.iter().map(|v| v.opened()).sum();
    assert_eq!(opened, list.len() as u64, "opened, against the clients' own count");
}

/// A connection may be on an instance if that was open at any time while it was being made; a
/// split is in force at some time between its command's begin and the end of the next one's.
/// Returns how many connections fell into the time of one split alone.
fn check(list: &[Call], history: &[Change]) -> usize {
    let mut alone = 0;
    for call in list {
        let Some(first) = history.first().filter(|first| call.begun > first.returned) else {
            continue;
        };
        let next = history.iter().skip(1).map(|change| Some(change.returned)).chain([None]);
        let possible: Vec<&Change> = history
            .iter()
            .zip(next)
            .filter(|(change, end)| {
                change.called <= call.connected && end.is_none_or(|end| call.begun <= end)
            })
            .map(|(change, _)| change)
            .collect();
        assert!(
            possible.iter().any(|change| !change.closed.contains(&call.instance)),
            "a connection begun {:?} after the first change reached {}, which was closed then: \
             {possible:?}",
            call.begun - first.returned,
            call.instance,
        );
        alone += usize::from(possible.len() == 1);
    }
    alone
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_hundred_flips_place_nobody_on_the_closed_version() {
    change_under_traffic(200, |lb, number| {
        let (open, closed) = if number % 2 == 0 { ("v2", "v1") } else { ("v1", "v2") };
        let done = lb.shift(&[&format!("{open}=100"), &format!("{closed}=0")]).unwrap();
        (done, vec![format!("{closed}-1"), format!("{closed}-2")])
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_drained_instance_gets_no_flow_once_the_drain_returned() {
    change_under_traffic(60, |lb, number| match number % 4 {
        0 => (lb.drain("v1-1").unwrap(), vec!["v1-1".into()]),
        1 => (lb.drain("v2-2").unwrap(), vec!["v1-1".into(), "v2-2".into()]),
        2 => (lb.undrain("v1-1").unwrap(), vec!["v2-2".into()]),
        _ => (lb.undrain("v2-2").unwrap(), Vec::new()),
    });
}

/// What a shift waits for: a thread that was on every CPU has seen all programs of packets end, on
/// whichever CPU they run.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn who_was_on_every_cpu_has_seen_programs_end() {
    let [client, host] = ["slow-client", "slow-host"].map(|name| Netns::new(name).unwrap());
    for namespace in [&client, &host] {
        namespace.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
        namespace.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
    }
    let end = |namespace, device, address| VethEnd {
        namespace,
        device,
        address,
        receiving: Receiving::IntoXdp,
    };
    veth(end(&client, "fast", "10.9.0.1/24"), end(&host, "slow", "10.9.0.2/24")).unwrap();
    let slow = Slow::attach(&host, "slow").unwrap();
    let sender = PacketSocket::sender(&client, "fast").unwrap();
    let cpus = thread::available_parallelism().unwrap().get();
    assert!(cpus > 1, "with one CPU nobody can look while a program runs");
    for cpu in 0..cpus {
        thread::scope(|scope| {
            scope.spawn(|| {
                pin_to_cpu(cpu);
                assert_eq!(sender.send(&[vec![0; 64]]).unwrap(), 1);
            });
            let begun = slow.at_work().unwrap();
            scope.spawn(visit_cpus).join().unwrap().unwrap();
            let ended = slow.ended().unwrap();
            assert!(ended >= begun, "CPU {cpu}: {ended} of {begun} have ended");
        });
    }
}

/// Drops packets in the client's namespace until dropped itself.
struct Blocked<'a>(&'a Netns);

impl<'a> Blocked<'a> {
    fn new(client: &'a Netns, hook: &str, rule: &str) -> Self {
        client.run("nft", "add table ip hold").unwrap();
        let chain = format!("{{ type filter hook {hook} priority 0 ; }}");
        client.run("nft", &format!("add chain ip hold c {chain}")).unwrap();
        client.run("nft", &format!("add rule ip hold c {rule} counter drop")).unwrap();
        Self(client)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let _ = self.0.run("nft", "delete table ip hold");
    }
}

/// Connections that are held in their handshake while the weight goes from v1 to v2.
fn handshakes_across_a_shift(hook: &str, rule: &str) {
    const HELD: usize = 20;
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let _servers = topology.start_servers().unwrap();
    let lb = Ctl(&topology.lb);
    lb.0.write_config(&topology.config(&[("v1", 100)])).unwrap();
    let _daemon = lb.0.start_daemon().unwrap();
    let source = topology.client_addresses()[0];
    let old = lb.service().unwrap().generation;

    let blocked = Blocked::new(&topology.client, hook, rule);
    thread::scope(|scope| {
        let dial = || {
            let namespace = topology.client.handle();
            move || {
                namespace.join().unwrap();
                call(source)
            }
        };
        let held: Vec<_> = (0..HELD).map(|_| scope.spawn(dial())).collect();
        let embryos = || lb.service().unwrap().version("v1").unwrap().flows.embryonic;
        eventually(DEADLINE, "handshakes held", || embryos() == HELD as u64);
        let shifted = lb.shift(&["v1=0", "v2=100"]).unwrap();
        assert_eq!(shifted.generation, old + 1);
        assert_eq!(embryos(), HELD as u64, "a shift touches no handshake");
        drop(blocked);
        // New ones go to v2 at once; the held ones go on where they began.
        let (new, _stream) = scope.spawn(dial()).join().unwrap().unwrap();
        assert_eq!(new.instance.split('-').next(), Some("v2"));
        let done: Vec<_> = held.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        for (call, _) in &done {
            assert!(call.begun < new.begun && call.instance.starts_with("v1-"), "{call:?}");
        }
        let service = lb.service().unwrap();
        let [v1, v2] = ["v1", "v2"].map(|name| service.version(name).unwrap());
        assert_eq!((v1.placed(), v1.opened(), v1.flows.active), (20, 20, 20));
        assert_eq!((v2.placed(), v2.opened(), v2.flows.active), (1, 1, 1));
        assert_eq!(v1.flows.embryonic, 0);
        for (version, generation) in [("v1", old), ("v2", old + 1)] {
            let flows = lb.0.releasectl_json(&["flows", SERVICE, "--version", version]).unwrap();
            for flow in flows.as_array().unwrap() {
                assert_eq!(flow["generation"], generation, "{flow}");
            }
        }
    });
    eventually(DEADLINE, "all flows closed", || lb.service().unwrap().active() == 0);
    lb.check_maps().unwrap();
}

/// The client never sees a SYN-ACK before the shift: its SYN comes again after it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_syn_repeated_after_the_shift_stays_with_its_instance() {
    handshakes_across_a_shift("input", "tcp flags syn,ack / syn,ack");
}

/// The client's ACK and request are lost before the shift: both come again after it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_ack_that_comes_after_the_shift_stays_with_its_instance() {
    let port = FRONTEND.port();
    let rule = format!("tcp dport {port} tcp flags & (syn|ack) == ack");
    handshakes_across_a_shift("output", &rule);
}
