//! I6 and I7: a daemon that is killed, at any moment, changes nothing for the clients; what it was
//! doing is done or not done; the next one adopts everything.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::net::{SocketAddrV4, TcpStream};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use release_tests::http;
use release_tests::load::{Group, Load, LoadPlan};
use release_tests::observe::{Counters, Ctl, Dice, Service};
use release_tests::process::Process;
use release_tests::scenario::eventually;
use release_tests::topology::{Daemon, FRONTEND, SERVICE, Topology, TopologySpec};

const DEADLINE: Duration = Duration::from_secs(10);
/// How long cached next hops are valid without a daemon.
const LEASE: Duration = Duration::from_secs(3);

/// A service with servers, weights 60 and 40.
struct Rig {
    topology: Topology,
    _servers: Vec<Process>,
}

impl Rig {
    fn new(more: &str) -> Self {
        let topology =
            Topology::new(&TopologySpec { clients: 3, ..TopologySpec::default() }).unwrap();
        let servers = topology.start_servers().unwrap();
        let rig = Self { topology, _servers: servers };
        rig.configure(more, 1);
        rig
    }

    /// Writes the configuration: `more` are further keys of the service, `weight` that of the
    /// instance v1-1 within its version.
    fn configure(&self, more: &str, weight: u32) {
        let config = self.topology.config(&[("v1", 60), ("v2", 40)]);
        let config = config.replace("mode = \"nat\"\n", &format!("mode = \"nat\"\n{more}\n"));
        let id = "id = \"v1-1\"";
        let config = config.replace(id, &format!("{id}, weight = {weight}"));
        self.topology.lb.write_config(&config).unwrap();
    }

    fn lb(&self) -> Ctl<'_> {
        Ctl(&self.topology.lb)
    }

    /// Connections of every kind, up and running.
    fn load(&self) -> Load {
        let plan = LoadPlan {
            target: FRONTEND,
            sources: self.topology.client_addresses(),
            groups: vec![
                Group::Short { per_second: 150, limit: None, path: "/".into() },
                Group::KeepAlive { connections: 25, pause: Duration::from_millis(50), life: None },
                Group::Stream { connections: 10, length: Duration::from_secs(120) },
            ],
            threads: 1,
        };
        let load = Load::start(&self.topology.client, plan).unwrap();
        let up = load.wait(DEADLINE, |s| s.active("v1") + s.active("v2") >= 35);
        assert!(up, "no load: {:?}", load.snapshot());
        load
    }

    /// Ends the load and demands that its clients noticed nothing, and that everybody counted the
    /// same.
    fn finish(&self, load: Load) {
        let report = load.finish().unwrap();
        assert_eq!(report.totals.moved, 0, "{:?}", report.first_moved);
        assert_eq!(report.totals.errors, 0, "{:?}", report.first_errors);
        let lb = self.lb();
        eventually(DEADLINE, "all flows closed", || lb.service().unwrap().active() == 0);
        lb.check_maps().unwrap();
        for (id, instance) in lb.service().unwrap().instances() {
            let clients: u64 =
                report.totals.versions.values().filter_map(|v| v.instances.get(id)).sum();
            let Counters { opened, adopted, untracked, .. } = instance.counters;
            assert_eq!((opened, adopted, untracked), (clients, 0, 0), "{id}");
        }
    }
}

/// Demands that a new daemon goes on where the last one was: same flows, state and kernel agree.
fn adopted(lb: Ctl<'_>, before: &Service, round: &str) -> Service {
    let now = lb.service().unwrap();
    assert_eq!(lb.kernel_generation().unwrap(), now.generation, "{round}: kernel and state");
    lb.check_maps().unwrap_or_else(|error| panic!("{round}: {error:#}"));
    let instances = now.instances();
    for (id, then) in before.instances() {
        let (now, then) = (&instances[id].counters, &then.counters);
        assert!(now.grown_from(then), "{round}: {id} counted {then:?}, and after that {now:?}");
    }
    now
}

/// What commands change: weights, and which instances are drained.
fn settings(service: &Service) -> (BTreeMap<String, u32>, Vec<String>) {
    let drained = service.instances().into_iter().filter(|(_, i)| i.state != "active");
    (service.weights(), drained.map(|(id, _)| id.to_owned()).collect())
}

/// The commands of the test below; each changes something, whatever the ones before did.
fn command(rig: &Rig, round: u32, now: &Service, dice: &mut Dice) -> Vec<String> {
    let drained = now.instances()["v1-2"].state != "active";
    let words = match round % 4 {
        0 | 1 => {
            let weights = (now.weights()["v1"] % 90 + 1 + dice.below(9), 1 + dice.below(90));
            format!("shift {SERVICE} v1={} v2={}", weights.0, weights.1)
        }
        2 if drained => format!("undrain {SERVICE} v1-2"),
        2 => format!("drain {SERVICE} v1-2 --no-wait"),
        _ => {
            // Another ring.
            rig.configure("", 2 + round);
            "reload".to_owned()
        }
    };
    words.split(' ').map(ToOwned::to_owned).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_during_commands_each_is_done_or_not_done() {
    let rig = Rig::new("");
    let lb = rig.lb();
    let mut daemon = lb.0.start_daemon().unwrap();
    let load = rig.load();
    let mut dice = Dice::new(0x2020);
    let (mut answered, mut done) = (0, 0);
    for round in 0..20 {
        let before = lb.service().unwrap();
        let words = command(&rig, round, &before, &mut dice);
        let mut call = lb.0.releasectl_command(&words).unwrap();
        let call = call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let call = Process::spawn("command", call).unwrap();
        sleep(dice.within(Duration::from_millis(30)));
        daemon.kill().unwrap();
        let ok = call.wait(DEADLINE).unwrap().expect("the command hangs").success();
        daemon = lb.0.start_daemon().unwrap();

        let round = format!("round {round}, {words:?}, answered: {ok}");
        let after = adopted(lb, &before, &round);
        let changed = after.generation - before.generation;
        assert!(changed <= 1, "{round}: generation {} → {}", before.generation, after.generation);
        assert_eq!(settings(&after) != settings(&before), changed == 1 && words[0] != "reload");
        if words[0] == "shift" && changed == 1 {
            let wanted: Vec<String> =
                after.weights().iter().map(|(name, weight)| format!("{name}={weight}")).collect();
            assert_eq!(wanted, words[2..], "{round}");
        }
        assert!(!ok || changed == 1, "{round}: answered but lost");
        // The next start reads the configuration as well.
        assert!(changed == 1 || words[0] != "reload", "{round}: not read");
        answered += u32::from(ok);
        done += changed;
    }
    println!("20 rounds: {answered} commands answered, {done} done");
    rig.finish(load);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_while_starting_the_next_start_adopts() {
    let rig = Rig::new("");
    let lb = rig.lb();
    let begin = Instant::now();
    let daemon = lb.0.start_daemon().unwrap();
    let start = begin.elapsed();
    let load = rig.load();
    lb.shift(&["v1=10", "v2=90"]).unwrap();
    let before = lb.service().unwrap();
    daemon.kill().unwrap();
    let mut dice = Dice::new(0x5747);
    for round in 0..12 {
        let starting = lb.0.spawn_daemon(&["daemon"]).unwrap();
        let delay = dice.within(start);
        sleep(delay);
        starting.kill().unwrap();
        if round % 4 == 3 {
            let daemon = lb.0.start_daemon().unwrap();
            let after = adopted(lb, &before, &format!("round {round}, killed after {delay:?}"));
            assert_eq!(after.generation, before.generation);
            assert_eq!(settings(&after), settings(&before));
            daemon.kill().unwrap();
        }
    }
    let _daemon = lb.0.start_daemon().unwrap();
    rig.finish(load);
}

/// Nothing is pinned yet, or half of it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_in_its_first_start_the_next_one_starts() {
    let rig = Rig::new("");
    let lb = rig.lb();
    let begin = Instant::now();
    lb.0.start_daemon().unwrap().stop().unwrap();
    let start = begin.elapsed();
    let mut dice = Dice::new(0xf125);
    for round in 0..10 {
        lb.0.releasectl_ok(&["detach"]).unwrap();
        let starting = lb.0.spawn_daemon(&["daemon"]).unwrap();
        let delay = dice.within(start);
        sleep(delay);
        starting.kill().unwrap();
        let daemon = lb.0.start_daemon().unwrap_or_else(|error| {
            panic!("round {round}, killed {delay:?} after its first start: {error:#}")
        });
        lb.check_maps().unwrap();
        let reply = http::get(&rig.topology.client, FRONTEND.into(), "/", DEADLINE).unwrap();
        assert_eq!(reply.status, 200);
        daemon.stop().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_graceful_stop_leaves_everything_as_it_is() {
    let rig = Rig::new("");
    let lb = rig.lb();
    let mut daemon = lb.0.start_daemon().unwrap();
    let load = rig.load();
    lb.shift(&["v1=30", "v2=70"]).unwrap();
    lb.drain("v1-2").unwrap();
    let mut before = lb.service().unwrap();
    for round in 0..5 {
        let status = daemon.stop().unwrap();
        assert!(status.success(), "SIGTERM: {status}");
        lb.check_maps().unwrap();
        daemon = lb.0.start_daemon().unwrap();
        let after = adopted(lb, &before, &format!("restart {round}"));
        assert_eq!(after.generation, before.generation);
        assert_eq!(settings(&after), settings(&before));
        before = after;
    }
    rig.finish(load);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_daemon_the_last_split_goes_on() {
    let rig = Rig::new("");
    let lb = rig.lb();
    let daemon = lb.0.start_daemon().unwrap();
    let load = rig.load();
    let in_force = lb.shift(&["v1=0", "v2=100"]).unwrap();
    let shifted = load.started().elapsed();
    let before = lb.service().unwrap();
    daemon.kill().unwrap();
    // Nobody renews the lease any more; this is about the time after that.
    sleep(LEASE + Duration::from_secs(1));
    let begun = load.snapshot().connections_to("v2");
    assert!(load.wait(DEADLINE, |s| s.connections_to("v2") >= begun + 200), "no new connections");
    let snapshot = load.snapshot();
    let last = snapshot.versions["v1"].last_begun.unwrap();
    assert!(last <= shifted, "{last:?} after the shift had returned at {shifted:?}");
    assert!(snapshot.active("v1") > 0, "connections to v1 live on");
    assert_eq!(lb.kernel_generation().unwrap(), in_force.generation);
    lb.check_maps().unwrap();
    let _daemon = lb.0.start_daemon().unwrap();
    let after = adopted(lb, &before, "restart");
    assert_eq!((after.generation, settings(&after)), (before.generation, settings(&before)));
    let [then, now] = [&before, &after].map(|s| s.version("v1").unwrap().placed());
    assert_eq!(now, then, "handshakes begun on v1");
    rig.finish(load);
}

/// Silent connections are removed in two steps, and a daemon may die between them.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_during_expiry_nothing_is_counted_twice() {
    const SILENT: usize = 300;
    // Nobody is asked: these are healthy.
    let rig = Rig::new("idle_timeout = \"1s\"\nprobes = { enabled = false }");
    let lb = rig.lb();
    let begin = Instant::now();
    let daemon = lb.0.start_daemon().unwrap();
    let start = begin.elapsed();
    let mut silent: Vec<(TcpStream, http::Reply)> = (0..SILENT).map(|n| open(&rig, n)).collect();
    assert_eq!(lb.service().unwrap().active(), SILENT as u64);
    daemon.kill().unwrap();
    sleep(Duration::from_millis(1200));
    let expired = |service: &Service| -> u64 {
        service.instances().values().map(|instance| instance.counters.expired).sum()
    };
    // Expiry is the first thing that a daemon does after its start.
    let mut dice = Dice::new(0xe7);
    for _ in 0..10 {
        let daemon: Daemon<'_> = lb.0.spawn_daemon(&["daemon"]).unwrap();
        sleep(start.mul_f64(0.7) + dice.within(start.mul_f64(0.5)));
        daemon.kill().unwrap();
        lb.check_maps().unwrap();
    }
    let _daemon = lb.0.start_daemon().unwrap();
    eventually(DEADLINE, "all expired", || expired(&lb.service().unwrap()) >= SILENT as u64);
    let service = lb.service().unwrap();
    assert_eq!((expired(&service), service.active()), (SILENT as u64, 0));
    lb.check_maps().unwrap();
    // Each is taken up again where it was.
    for (stream, first) in silent.iter_mut().take(20) {
        let again = http::request(stream, "/").unwrap();
        assert_eq!(&again, first, "the same server's same connection");
    }
    lb.check_maps().unwrap();
}

fn open(rig: &Rig, number: usize) -> (TcpStream, http::Reply) {
    let addresses = rig.topology.client_addresses();
    let from = SocketAddrV4::new(addresses[number % addresses.len()], 0);
    let mut stream = rig.topology.client.connect_from(from, FRONTEND, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let reply = http::request(&mut stream, "/").unwrap();
    (stream, reply)
}
