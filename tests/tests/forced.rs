//! Connections that are ended on order: each is listed, whatever happens to the daemon meanwhile, and
//! where they cannot be ended, that is said first.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::process::Output;
use std::thread::sleep;
use std::time::Duration;

use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::sockets::abort;
use release_tests::topology::{
    Balancer, FRONTEND, Mode, Protocol, SERVICE, Topology, TopologySpec,
};
use serde_json::Value;

/// How long a closed flow stays in the table, with a margin.
const LINGER: Duration = Duration::from_secs(62);

/// The configuration with all weight on v1, whose sockets are looked for in the first backend's
/// namespace.
fn with_sockets(topology: &Topology) -> String {
    let version = "\n[[service.version]]\nname = \"v1\"\n";
    let config = topology.config(&[("v1", 100)]);
    assert!(config.contains(version));
    let namespace = topology.backends[0].namespace.name();
    config.replace(version, &format!("{version}sockets = {{ netns = {namespace:?} }}\n"))
}

fn client(pair: &Pair) -> String {
    pair.client.local_addr().unwrap().to_string()
}

fn clients(pairs: &[Pair]) -> BTreeSet<String> {
    pairs.iter().map(client).collect()
}

fn drain(lb: &Balancer, more: &[&str]) -> Output {
    let arguments = ["drain", SERVICE, "v1", "--allow-empty", "--on-deadline", "force"];
    lb.releasectl(&[&arguments, more].concat()).unwrap()
}

fn ends_by_force(lb: &Balancer) {
    let ended = drain(lb, &["--deadline", "1s"]);
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
}

/// A counter of v1's only instance. Works with the daemon dead.
fn forced(lb: &Balancer) -> u64 {
    let lines = lb.releasectl_json(&["maps", "dump", "COUNTERS"]).unwrap();
    lines.as_array().unwrap().iter().map(|line| line["forced"].as_u64().unwrap()).sum()
}

fn receipt(lb: &Balancer) -> Value {
    lb.releasectl_json(&["idle", "receipt", SERVICE, "v1"]).unwrap()
}

/// The clients that a receipt lists, each once; `how` they all were ended.
fn listed(receipt: &Value, how: &str) -> BTreeSet<String> {
    let forced = receipt["forced"].as_array().unwrap();
    assert!(receipt["forced_not_listed"].is_null(), "{receipt}");
    let mut found = BTreeSet::new();
    for flow in forced {
        assert_eq!(flow["how"], how, "{flow}");
        assert_eq!(flow["frontend"], FRONTEND.to_string());
        assert_eq!((&flow["instance"], &flow["protocol"]), (&"v1-1".into(), &"tcp".into()));
        assert!(found.insert(flow["client"].as_str().unwrap().to_owned()), "twice: {flow}");
    }
    found
}

fn error_of(mut stream: &TcpStream) -> Option<ErrorKind> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.read(&mut [0; 16]).err().map(|error| error.kind())
}

/// As the VIP is on every backend, in one-way modes.
fn listen_at_frontend(topology: &Topology) -> TcpListener {
    topology.backends[0].namespace.listen(FRONTEND).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_receipt_lists_who_was_ended_and_nobody_else() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let probes = "probes = { after = \"300ms\", every = \"100ms\", tries = 2 }\n";
    let config = topology.config(&[("v1", 100)]);
    lb.write_config(&config.replace("drain = {", &format!("{probes}drain = {{"))).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let pair = || topology.pair(&listener).unwrap();
    let lost = pair();
    let port = lost.client.local_addr().unwrap().port();
    topology.client.block("input", &format!("tcp dport {port}")).unwrap();
    let pairs: Vec<Pair> = (0..20).map(|_| pair()).collect();
    // Ended by themselves, either way.
    drop(pair());
    abort(pair().client).unwrap();
    let ended = drain(lb, &["--deadline", "3s"]);
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    let receipt = receipt(lb);
    let mut all = clients(&pairs);
    all.insert(client(&lost));
    assert_eq!(listed(&receipt, "reset"), all);
    assert_eq!(receipt["report"]["counts"]["forced"], 21);
    for flow in receipt["forced"].as_array().unwrap() {
        let end = if flow["client"] == client(&lost) { "unreachable" } else { "alive" };
        assert_eq!(flow["client_end"], end, "{flow}");
        // The deadline is 3 s after the drain began, and nobody has said anything since.
        assert!(flow["last_data_age_ms"].as_u64().unwrap() >= 3000, "{flow}");
        assert!(flow["at"].as_str().unwrap() <= receipt["at"].as_str().unwrap(), "{flow}");
    }
    // As text, one line each.
    let id = receipt["id"].to_string();
    let text = lb.releasectl_ok(&["idle", "receipts", SERVICE, "--id", &id]).unwrap();
    assert!(text.contains("21 connections were ended on order\nAT "), "{text}");
    for client in all {
        let lines = text.lines().filter(|line| line.contains(&format!(" {client} ")));
        assert_eq!(lines.count(), 1, "{client}: {text}");
    }
    // An instance that takes connections again, and is drained again: what was ended then, too.
    lb.releasectl_ok(&["undrain", SERVICE, "v1"]).unwrap();
    let later = pair();
    ends_by_force(lb);
    let again = self::receipt(lb);
    assert_eq!(again["forced"].as_array().unwrap().len(), 22);
    assert_eq!(again["forced"][21]["client"], client(&later), "the oldest first");
}

/// Killed twice in the middle, and the second time away until closed flows may be removed: what the
/// next daemon's first look at the table does.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_daemon_killed_while_it_forces_loses_none() {
    const CONNECTIONS: u64 = 40;
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pairs: Vec<Pair> =
        (0..CONNECTIONS).map(|_| topology.pair(&listener).unwrap()).collect();
    let slowly = ["--deadline", "1s", "--force-rate", "12", "--no-wait"];
    assert!(drain(lb, &slowly).status.success());
    eventually(DEADLINE, "begun", || forced(lb) >= 6);
    let daemon = daemon.crash_and_restart().unwrap();
    let then = forced(lb);
    eventually(DEADLINE, "gone on", || forced(lb) > then + 6);
    daemon.kill().unwrap();
    let then = forced(lb);
    assert!(then < CONNECTIONS, "killed too late");
    // Time itself is what is waited for.
    sleep(LINGER);
    let before = forced(lb);
    assert!(before <= then + 3, "nobody ends connections without a daemon: {then}, {before}");
    let _daemon = lb.start_daemon().unwrap();
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
    let receipt = receipt(lb);
    assert_eq!(listed(&receipt, "reset"), clients(&pairs));
    assert_eq!(receipt["report"]["counts"]["forced"], CONNECTIONS);
    let closing = lb.version_status("v1").unwrap()["flows"]["closing"].as_u64().unwrap();
    assert!(closing <= CONNECTIONS - before, "the reaper has removed none: {closing}");
    for pair in &mut pairs {
        assert_eq!(error_of(&pair.client), Some(ErrorKind::ConnectionReset));
    }
    Ctl(lb).check_maps().unwrap();
}

/// An instance that is gone takes its list along: its id in the maps is the next one's.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_was_ended_of_another_instance_is_not_listed() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let [one, two] = [0, 1].map(|index| topology.backends[index].listen().unwrap());
    let from = SocketAddrV4::new(topology.client_addresses()[0], 40_000);
    let connect = || topology.client.connect_from(from, FRONTEND, DEADLINE).unwrap();
    let first = (connect(), one.accept().unwrap());
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    ends_by_force(lb);
    assert_eq!(listed(&receipt(lb), "reset"), BTreeSet::from([from.to_string()]));
    drop(first);
    // The next connection of the same ends takes the place of the closed one.
    let _second = (connect(), two.accept().unwrap());
    let id = || Ctl(lb).backends().unwrap().get("10.2.1.2:8080").copied();
    let before = id();
    let config = topology.config(&[("v2", 100)]);
    let instance = "    { id = \"v1-1\", addr = \"10.2.1.2:8080\" },\n";
    assert!(config.contains(instance));
    lb.write_config(&config.replace(instance, "")).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    eventually(DEADLINE, "gone", || lb.instance_status("v1-1").is_err());
    lb.write_config(&config).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    assert_eq!(id(), before);
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
    let receipt = receipt(lb);
    assert!(receipt["forced"].is_null(), "{receipt}");
}

/// RSTs that do not arrive end nothing; the instance's kernel does.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn sockets_here_are_ended_where_resets_do_not_arrive() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    lb.write_config(&with_sockets(&topology)).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let pairs: Vec<Pair> = (0..5).map(|_| topology.pair(&listener).unwrap()).collect();
    topology.backends[0].namespace.block("input", "tcp flags & rst == rst").unwrap();
    ends_by_force(lb);
    for pair in &pairs {
        assert_eq!(error_of(&pair.server), Some(ErrorKind::ConnectionAborted));
        assert_eq!(error_of(&pair.client), Some(ErrorKind::ConnectionReset));
    }
    // What the kernel told the clients passed here.
    assert_eq!(listed(&receipt(lb), "reset"), clients(&pairs));
    assert_eq!(forced(lb), 5);
    Ctl(lb).check_maps().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_way_modes_end_sockets_on_this_host() {
    for mode in [Mode::Dsr, Mode::Ipip, Mode::Gue] {
        let topology = Topology::new(&TopologySpec { mode, ..TopologySpec::small() }).unwrap();
        let lb = &topology.lb;
        lb.write_config(&with_sockets(&topology)).unwrap();
        let _daemon = lb.start_daemon().unwrap();
        let listener = listen_at_frontend(&topology);
        let pairs: Vec<Pair> = (0..10).map(|_| topology.pair(&listener).unwrap()).collect();
        // Its end does not pass here, either; it is nobody's order.
        let gone = topology.pair(&listener).unwrap();
        abort(gone.server).unwrap();
        assert_eq!(error_of(&gone.client), Some(ErrorKind::ConnectionReset));
        ends_by_force(lb);
        for pair in &pairs {
            assert_eq!(error_of(&pair.server), Some(ErrorKind::ConnectionAborted));
            assert_eq!(error_of(&pair.client), Some(ErrorKind::ConnectionReset));
        }
        let receipt = receipt(lb);
        assert_eq!(listed(&receipt, "socket-destroyed"), clients(&pairs), "{mode:?}");
        let counts = &receipt["report"]["counts"];
        assert_eq!((&counts["destroyed"], &counts["forced"]), (&10.into(), &0.into()));
        drop(listener);
    }
}

/// The table does not see the ends of sockets: they are written down before.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_daemon_killed_while_it_ends_sockets_loses_none() {
    let topology =
        Topology::new(&TopologySpec { mode: Mode::Dsr, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    lb.write_config(&with_sockets(&topology)).unwrap();
    let mut daemon = lb.start_daemon().unwrap();
    let listener = listen_at_frontend(&topology);
    let pairs: Vec<Pair> = (0..40).map(|_| topology.pair(&listener).unwrap()).collect();
    let slowly = ["--deadline", "1s", "--force-rate", "4", "--no-wait"];
    assert!(drain(lb, &slowly).status.success());
    let destroyed = || {
        let report = lb.verdict("v1").unwrap().report;
        report["counts"]["destroyed"].as_u64().unwrap_or(0)
    };
    for count in [3, 8, 13] {
        eventually(DEADLINE, "some", || destroyed() >= count);
        daemon = daemon.crash_and_restart().unwrap();
    }
    let before = destroyed();
    assert!((13..40).contains(&before), "{before}");
    eventually(2 * DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
    assert_eq!(listed(&receipt(lb), "socket-destroyed"), clients(&pairs));
    for pair in &pairs {
        assert_eq!(error_of(&pair.client), Some(ErrorKind::ConnectionReset));
    }
    drop(daemon);
}

/// Said before anything is done.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn force_is_refused_where_it_can_do_nothing() {
    let udp = TopologySpec { protocols: vec![Protocol::Udp], ..TopologySpec::small() };
    let dsr = TopologySpec { mode: Mode::Dsr, ..TopologySpec::small() };
    let words = ["sockets of v1-1 are on this host", "`sockets`", "--on-deadline hold"];
    for (spec, words) in [(dsr, &words[..]), (udp, &["datagrams have none", "UDP flows end by"])] {
        let topology = Topology::new(&spec).unwrap();
        let lb = &topology.lb;
        let _daemon = topology.up(&[("v1", 100)]).unwrap();
        let before = lb.service_status().unwrap()["generation"].clone();
        let force = ["--deadline", "1s", "--on-deadline", "force"];
        let refused = |target| {
            let arguments = ["drain", SERVICE, target, "--allow-empty"];
            lb.refused(&[&arguments[..], &force].concat()).unwrap()
        };
        for target in ["v1", "v1-1"] {
            let refused = refused(target);
            assert!(refused.says(2, &[&[target], words].concat()), "{refused:?}");
        }
        assert_eq!(lb.service_status().unwrap()["generation"], before);
        assert_eq!(lb.version_status("v1").unwrap()["state"], "active");
        // Without force it is a drain like any other.
        lb.releasectl_ok(&["drain", SERVICE, "v1", "--allow-empty", "--no-wait"]).unwrap();
    }
}
