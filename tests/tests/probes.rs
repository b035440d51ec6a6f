//! Silent connections are asked whether they are still there, and ended where that is ordered.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::process::Output;
use std::time::Duration;

use anyhow::Result;
use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::sockets::abort;
use release_tests::topology::{
    Balancer, Daemon, Family, Mode, SERVICE, Topology, TopologySpec, frontend,
};
use serde_json::Value;

const DRAIN: &str = "drain = {";
const SETTLE: &str = "settle = \"500ms\", samples = 3, every = \"100ms\"";
const PROBES: &str = "probes = { after = \"500ms\", every = \"200ms\", tries = 3 }";

fn small() -> Topology {
    Topology::new(&TopologySpec::small()).unwrap()
}

/// A daemon that asks soon.
fn up<'a>(topology: &'a Topology, more: &str) -> Daemon<'a> {
    let config = topology.config(&[("v1", 100)]);
    assert!(config.contains(SETTLE));
    let with = config.replace(DRAIN, &format!("{PROBES}\n{more}\n{DRAIN}"));
    topology.lb.write_config(&with).unwrap();
    topology.lb.start_daemon().unwrap()
}

fn flows(lb: &Balancer) -> Vec<Value> {
    let text = lb.releasectl_ok(&["flows", "-o", "jsonl"]).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is known of the only flow's ends.
fn ends(lb: &Balancer) -> (String, String) {
    let flows = flows(lb);
    assert_eq!(flows.len(), 1, "{flows:?}");
    let word = |key: &str| flows[0][key].as_str().unwrap().to_owned();
    (word("client_end"), word("server_end"))
}

/// Probes answered so far.
fn answers(lb: &Balancer) -> u64 {
    let reasons = lb.releasectl_json(&["maps", "dump", "REASONS"]).unwrap();
    let lines = reasons.as_array().unwrap().iter();
    let found = lines.filter(|line| line["reason"] == "probe_answered");
    found.map(|line| line["packets"].as_u64().unwrap()).sum()
}

fn drain(lb: &Balancer) {
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--no-wait", "--allow-empty"]).unwrap();
}

fn idle_in(lb: &Balancer, deadline: Duration) {
    eventually(deadline, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}

fn counters(lb: &Balancer) -> Value {
    lb.version_status("v1").unwrap()["instances"][0]["counters"].clone()
}

/// The next thing that a socket says is that its connection was reset.
fn is_reset(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    match stream.read(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => anyhow::bail!("not reset: {other:?}"),
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_silent_connection_is_not_harmed() {
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "");
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    let before = counters(lb);
    drain(lb);
    let alive = ("alive".to_owned(), "alive".to_owned());
    eventually(DEADLINE, "both alive", || ends(lb) == alive);
    // Nothing of it was traffic, neither in the counts nor for the two ends.
    assert_eq!(counters(lb)["packets"], before["packets"]);
    assert!(lb.verdict("v1").unwrap().is("busy", "1 active flow"));
    pair.talk().unwrap();
    // Half-closed, either way.
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(pair.server.read(&mut [0; 16]).unwrap(), 0);
    let answered = answers(lb);
    eventually(DEADLINE, "asked again", || answers(lb) >= answered + 2);
    assert_eq!(ends(lb), alive);
    assert_eq!(flows(lb)[0]["state"], "half-closed");
    drop(pair);
    idle_in(lb, DEADLINE);
    Ctl(lb).check_maps().unwrap();
}

/// The instance lost the connection without a word: it says so when asked, and the client hears it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_instance_that_lost_its_socket() {
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "");
    let listener = topology.backends[0].listen().unwrap();
    let Pair { mut client, server } = topology.pair(&listener).unwrap();
    vanish(&topology.backends[0].namespace, server);
    drain(lb);
    is_reset(&mut client).unwrap();
    idle_in(lb, DEADLINE);
    assert_eq!(counters(lb)["closed_rst"], 1);
}

/// The client's process died, and its last words were lost: its host says so when asked, and the
/// instance hears it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_client_that_died() {
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "");
    let listener = topology.backends[0].listen().unwrap();
    let Pair { client, mut server } = topology.pair(&listener).unwrap();
    vanish(&topology.client, client);
    drain(lb);
    is_reset(&mut server).unwrap();
    idle_in(lb, DEADLINE);
    assert_eq!(counters(lb)["closed_rst"], 1);
}

/// Closes a socket, and nobody hears of it.
fn vanish(namespace: &release_tests::netns::Netns, stream: TcpStream) {
    namespace.block("output", "tcp flags & (fin|rst) != 0").unwrap();
    abort(stream).unwrap();
    namespace.unblock().unwrap();
}

/// A client that no packet reaches any more is told apart, stays busy, and is the first to be ended.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_client_host_that_vanished() {
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "");
    let listener = topology.backends[0].listen().unwrap();
    let Pair { client: _client, mut server } = topology.pair(&listener).unwrap();
    topology.client.block("input", "tcp sport 80").unwrap();
    drain(lb);
    let lost = ("unreachable".to_owned(), "alive".to_owned());
    eventually(DEADLINE, "told apart", || ends(lb) == lost);
    assert!(lb.verdict("v1").unwrap().is("busy", "1 active flow"));
    let ended = force(lb);
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    is_reset(&mut server).unwrap();
    assert_eq!(counters(lb)["forced"], 1);
    Ctl(lb).check_maps().unwrap();
}

fn force(lb: &Balancer) -> Output {
    let deadline = ["--deadline", "1s", "--on-deadline", "force"];
    let arguments = ["drain", SERVICE, "v1", "--allow-empty", "-o", "json"];
    lb.releasectl(&[&arguments[..], &deadline].concat()).unwrap()
}

/// Connections that nobody would ever close are ended, at both ends and exactly once each; those of
/// another version are left alone.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_forced_drain() {
    const CONNECTIONS: usize = 20;
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "");
    let listener = topology.backends[0].listen().unwrap();
    let mut pairs: Vec<Pair> =
        (0..CONNECTIONS).map(|_| topology.pair(&listener).unwrap()).collect();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    let other = topology.backends[1].listen().unwrap();
    let mut kept = topology.pair(&other).unwrap();
    let ended = force(lb);
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["idle"]["counts"]["forced"], CONNECTIONS);
    for pair in &mut pairs {
        is_reset(&mut pair.client).unwrap();
        is_reset(&mut pair.server).unwrap();
    }
    assert_eq!(counters(lb)["forced"], CONNECTIONS);
    kept.talk().unwrap();
    Ctl(lb).check_maps().unwrap();
}

/// Without data for long enough, a connection is ended while its instance drains; one that talks is
/// not.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_without_data_are_ended() {
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "keepalive_only = { after = \"2s\", action = \"reset\" }");
    let listener = topology.backends[0].listen().unwrap();
    let mut quiet = topology.pair(&listener).unwrap();
    let mut talks = topology.pair(&listener).unwrap();
    drain(lb);
    eventually(DEADLINE, "ended", || {
        talks.talk().unwrap();
        counters(lb)["forced"] == 1
    });
    is_reset(&mut quiet.client).unwrap();
    is_reset(&mut quiet.server).unwrap();
    talks.talk().unwrap();
    let report = lb.releasectl(&["idle", "check", SERVICE, "v1", "-o", "json"]).unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["busy_with"]["with_data"], 1, "{report}");
}

/// A connection that has been silent for its whole `idle_timeout` is asked before it is given up.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn nothing_healthy_expires() {
    let topology = small();
    let lb = &topology.lb;
    let _daemon = up(&topology, "idle_timeout = \"1s\"");
    let listener = topology.backends[0].listen().unwrap();
    let mut healthy = topology.pair(&listener).unwrap();
    let gone = topology.pair(&listener).unwrap();
    let Pair { client, mut server } = gone;
    vanish(&topology.client, client);
    // The reaper looks every 5 s, and asks first.
    server.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    assert_eq!(server.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // By then the other one was asked too.
    assert!(answers(lb) >= 2, "{}", answers(lb));
    healthy.talk().unwrap();
    assert_eq!(counters(lb)["expired"], 0);
    assert_eq!(counters(lb)["closed_rst"], 1);
}

/// A connection of a family, both ends in the hands of the test.
fn pair_of(topology: &Topology, family: Family) -> Pair {
    let backend = &topology.backends[0];
    let at = backend.instance(family);
    let listener = backend.namespace.listen(at).unwrap();
    let client = topology.client.connect(frontend(family), DEADLINE).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut pair = Pair { client, server };
    pair.talk().unwrap();
    pair
}

/// Both families: silent connections are alive, talk on, and end where that is ordered.
fn asked_and_ended(mode: Mode) {
    let versions = vec![("v1".into(), 1), ("v2".into(), 1)];
    let families = vec![Family::V4, Family::V6];
    let spec = TopologySpec { versions, families, mode, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = &topology.lb;
    let _daemon = up(&topology, "");
    let mut pairs = [Family::V4, Family::V6].map(|family| pair_of(&topology, family));
    drain(lb);
    eventually(DEADLINE, "all alive", || {
        let alive = |flow: &Value| flow["client_end"] == "alive" && flow["server_end"] == "alive";
        let flows = flows(lb);
        assert_eq!(flows.len(), 2, "{flows:?}");
        flows.iter().all(alive)
    });
    for pair in &mut pairs {
        pair.talk().unwrap();
    }
    let ended = force(lb);
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    for pair in &mut pairs {
        is_reset(&mut pair.client).unwrap();
        is_reset(&mut pair.server).unwrap();
    }
    // An instance of each family.
    let version = lb.version_status("v1").unwrap();
    let forced = version["instances"].as_array().unwrap().iter();
    let forced: Vec<&Value> = forced.map(|instance| &instance["counters"]["forced"]).collect();
    assert_eq!(forced, [1, 1]);
    Ctl(lb).check_maps().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn nat() {
    asked_and_ended(Mode::Nat);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn snat() {
    asked_and_ended(Mode::Snat);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn local_host() {
    asked_and_ended(Mode::Host);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn local_container() {
    asked_and_ended(Mode::Container);
}
