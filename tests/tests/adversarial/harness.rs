//! The one question of all scenarios. A scenario has a target that somebody uses in some odd way, and
//! knows the truth about it; while it is played, a watcher goes on asking for the verdict, and never
//! may that be `idle` before the scenario says that the target is. Then it must be within
//! `settle` + 1 s.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use release_tests::cases::say;
use release_tests::conditions::shift_clocks;
use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, Pair, Said};
use release_tests::topology::{
    Backend, Balancer, Daemon, Family, Mode, SERVICE, Topology, TopologySpec, frontend,
};

/// What `settle` is in [`config`].
pub const SETTLE: Duration = Duration::from_millis(250);
/// How soon `idle` must be said when nothing is there any more: within `settle` and a second.
pub const SOON: Duration = Duration::from_millis(1250);
/// Longer than `settle` and all samples take.
const A_WHILE: Duration = Duration::from_millis(600);
/// Pause between two of the watcher's questions.
const PAUSE: Duration = Duration::from_millis(50);

/// As [`small`], in a mode, for a family of addresses.
pub fn over(mode: Mode, family: Family) -> TopologySpec {
    TopologySpec { mode, families: vec![family], ..TopologySpec::small() }
}

/// The configuration with all weight on v1, which settles sooner than others do.
pub fn config(topology: &Topology) -> String {
    const OTHERS: &str = "settle = \"500ms\", samples = 3, every = \"100ms\"";
    let config = topology.config(&[("v1", 100)]);
    assert!(config.contains(OTHERS), "{config}");
    config.replace(OTHERS, "settle = \"250ms\", samples = 3, every = \"50ms\"")
}

/// Starts the daemon with [`config`].
pub fn up(topology: &Topology) -> Daemon<'_> {
    topology.lb.write_config(&config(topology)).unwrap();
    topology.lb.start_daemon().unwrap()
}

/// Where scenarios are played one after the other: a balancer that runs.
pub struct Stage<'a> {
    pub topology: &'a Topology,
    played: Cell<u32>,
    asked: Cell<u32>,
}

/// A scenario that is being played.
pub struct Scene<'a> {
    pub topology: &'a Topology,
    pub lb: &'a Balancer,
    target: &'a str,
    truth: &'a Truth,
}

/// Whether the target is idle in truth, told to the watcher.
#[derive(Default)]
struct Truth(AtomicU32);

impl Truth {
    const NOBODY: u32 = 0;
    const SOMEBODY: u32 = 1;
    const ENDED: u32 = 2;

    fn is(&self, truth: u32) -> bool {
        self.0.load(Ordering::Acquire) == truth
    }

    fn becomes(&self, truth: u32) {
        self.0.store(truth, Ordering::Release);
    }
}

/// Ends the watcher, also when a scenario panics.
struct Ends<'a>(&'a Truth);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.becomes(Truth::ENDED);
    }
}

/// A daemon that scenarios kill, and start again.
pub struct Mortal<'a> {
    lb: &'a Balancer,
    daemon: RefCell<Option<Daemon<'a>>>,
}

impl<'a> Mortal<'a> {
    pub fn new(lb: &'a Balancer, daemon: Daemon<'a>) -> Self {
        Self { lb, daemon: RefCell::new(Some(daemon)) }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.daemon.borrow_mut().take().unwrap().kill().unwrap();
    }

    /// Starts it again after [`Mortal::kill`].
    pub fn start(&self) {
        *self.daemon.borrow_mut() = Some(self.lb.start_daemon().unwrap());
    }

    /// As [`Mortal::start`], with its clocks so many seconds off.
    pub fn start_shifted(&self, seconds: i64) {
        let shifted = self.lb.start_daemon_under(|command| shift_clocks(command, seconds));
        *self.daemon.borrow_mut() = Some(shifted.unwrap());
    }

    /// Kills it and starts it again.
    pub fn again(&self) {
        self.kill();
        self.start();
    }
}

impl<'a> Stage<'a> {
    pub fn new(topology: &'a Topology) -> Self {
        Self { topology, played: Cell::new(0), asked: Cell::new(0) }
    }

    /// Plays a scenario about version v1, which takes all new flows when it begins.
    pub fn play(&self, name: &str, scenario: impl FnOnce(&Scene<'_>)) {
        self.play_about("v1", name, |scene| {
            scene.open();
            scene.somebody_is_there();
            scenario(scene);
        });
    }

    /// Plays a scenario about a version or an instance, with everything left as it is: it is watched
    /// from when the scenario says that [somebody is there](Scene::somebody_is_there).
    pub fn play_about(&self, target: &str, name: &str, scenario: impl FnOnce(&Scene<'_>)) {
        let (lb, truth, begun) = (&self.topology.lb, Truth::default(), Instant::now());
        say(format!("  {name} …"));
        let asked = thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(lb, target, &truth, name));
            let ends = Ends(&truth);
            scenario(&Scene { topology: self.topology, lb, target, truth: &truth });
            drop(ends);
            watcher.join().unwrap()
        });
        self.played.set(self.played.get() + 1);
        self.asked.set(self.asked.get() + asked);
        say(format!("  {name}: {asked} verdicts in {:?}", begun.elapsed()));
    }

    /// Demands that tables and counters agree, and says how many scenarios were played.
    pub fn end(self, theme: &str) {
        Ctl(&self.topology.lb).check_maps().unwrap();
        self.end_unchecked(theme);
    }

    /// As [`Stage::end`], where something was broken on purpose.
    pub fn end_unchecked(self, theme: &str) {
        static ALL: AtomicU32 = AtomicU32::new(0);
        let played = self.played.get();
        let all = ALL.fetch_add(played, Ordering::Relaxed) + played;
        let asked = self.asked.get();
        say(format!("{theme}: {played} scenarios, {asked} verdicts; {all} scenarios in all"));
    }
}

/// Asks until the scenario ends. Returns how often there was a verdict.
fn watch(lb: &Balancer, target: &str, truth: &Truth, name: &str) -> u32 {
    let mut asked = 0;
    while !truth.is(Truth::ENDED) {
        let before = truth.is(Truth::SOMEBODY);
        // A daemon that is away says nothing, least of all `idle`.
        if let Ok(said) = lb.verdict(target) {
            asked += 1;
            let wrong = before && truth.is(Truth::SOMEBODY) && said.verdict == "idle";
            assert!(!wrong, "{name}: false idle: {said:?}");
        }
        thread::sleep(PAUSE);
    }
    asked
}

impl Scene<'_> {
    /// The verdict.
    pub fn verdict(&self) -> Said {
        self.lb.verdict(self.target).unwrap()
    }

    /// Demands the same verdict for longer than it would take to settle.
    pub fn is(&self, verdict: &str, why: &str) {
        stays(self.lb, self.target, verdict, why);
    }

    /// Waits for a verdict.
    pub fn becomes(&self, verdict: &str, why: &str) -> Said {
        self.lb.becomes(self.target, verdict, why)
    }

    /// From now on the target is not idle in truth.
    pub fn somebody_is_there(&self) {
        self.truth.becomes(Truth::SOMEBODY);
    }

    /// From now on the target is idle in truth, whatever the evidence.
    pub fn nobody_is_there(&self) {
        self.truth.becomes(Truth::NOBODY);
    }

    /// From now on the target is idle in truth: `idle` must be said soon. Returns when it was.
    pub fn is_idle_soon(&self) -> Duration {
        self.is_idle_within(SOON)
    }

    /// As [`Scene::is_idle_soon`], where something else ends only by a timer.
    pub fn is_idle_within(&self, bound: Duration) -> Duration {
        let since = Instant::now();
        self.truth.becomes(Truth::NOBODY);
        let wait = ["idle", "wait", SERVICE, self.target, "--timeout", "30s"];
        let waited = self.lb.releasectl(&wait).unwrap();
        let took = since.elapsed();
        assert!(waited.status.success(), "not idle: {waited:?} {:?}", self.verdict());
        assert!(took <= bound, "idle only after {took:?}");
        took
    }

    /// All new flows go to v1.
    pub fn open(&self) {
        self.lb.releasectl_ok(&["shift", SERVICE, "v1=100", "v2=0"]).unwrap();
    }

    /// All new flows go to v2.
    pub fn shift(&self) {
        self.lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    }

    /// All new flows go to v2, since v1 is drained.
    pub fn drain(&self) {
        self.lb.releasectl_ok(&["shift", SERVICE, "v2=100"]).unwrap();
        self.lb.releasectl_ok(&["drain", SERVICE, "v1", "--no-wait"]).unwrap();
    }

    /// The family of the clients' addresses.
    pub fn family(&self) -> Family {
        self.topology.spec.families[0]
    }

    /// The frontend.
    pub fn frontend(&self) -> SocketAddr {
        frontend(self.family())
    }

    /// The instance of v1.
    pub fn backend(&self) -> &Backend {
        &self.topology.backends[0]
    }

    /// Listens in the place of v1's server.
    pub fn listen(&self) -> TcpListener {
        self.backend().listen_over(self.family()).unwrap()
    }

    /// Listens in the place of v2's server.
    pub fn listen_v2(&self) -> TcpListener {
        self.topology.backends[1].listen_over(self.family()).unwrap()
    }

    /// Connects, whoever may accept.
    pub fn connect(&self) -> TcpStream {
        let stream = self.topology.client.connect(self.frontend(), DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Connects from a port of the first client address.
    pub fn connect_from(&self, port: u16) -> TcpStream {
        let from = self.topology.client_addresses_of(self.family())[0];
        let from = SocketAddr::new(from, port);
        let stream = self.topology.client.connect_from(from, self.frontend(), DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A connection that has carried data both ways.
    pub fn pair(&self, listener: &TcpListener) -> Pair {
        self.topology.pair_over(listener, self.family()).unwrap()
    }

    /// A counter of v1's instance.
    pub fn counter(&self, name: &str) -> u64 {
        self.lb.counter("v1-1", name).unwrap()
    }

    /// Flows of v1 by state.
    pub fn flows(&self, state: &str) -> u64 {
        self.lb.version_status("v1").unwrap()["flows"][state].as_u64().unwrap()
    }
}

/// Demands the same verdict for longer than it would take to settle.
pub fn stays(lb: &Balancer, target: &str, verdict: &str, why: &str) {
    let start = Instant::now();
    while start.elapsed() < A_WHILE {
        let said = lb.verdict(target).unwrap();
        assert!(said.is(verdict, why), "not {verdict} ({why}): {said:?}");
    }
}

/// Accepts a connection that is there already.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Accepts all connections that are there already.
pub fn accept_all(listener: &TcpListener) -> Vec<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    let all: Vec<TcpStream> = std::iter::from_fn(|| Some(listener.accept().ok()?.0)).collect();
    listener.set_nonblocking(false).unwrap();
    for stream in &all {
        stream.set_nonblocking(false).unwrap();
    }
    all
}
