//! Live connections survive the total loss of the balancer's tables.

use std::time::Duration;

use anyhow::Context as _;
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::topology::{Balancer, SERVICE, Topology, TopologySpec};

/// Takes the data plane down and up again: all tables are new.
fn lose_everything<'a>(
    topology: &'a Topology,
    daemon: release_tests::topology::Daemon<'a>,
) -> anyhow::Result<release_tests::topology::Daemon<'a>> {
    topology.lb.releasectl_ok(&["detach"])?;
    eventually(DEADLINE, "the daemon ended", || !daemon.process().is_running());
    anyhow::ensure!(!topology.lb.bpffs().exists(), "pins are left");
    topology.lb.start_daemon()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_go_on_where_they_were() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let instances = ["v1-1", "v1-2", "v2-1", "v2-2"];
    let count = |held: &[Held], instance: &str| {
        held.iter().filter(|held| held.first.instance == instance).count() as u64
    };
    let mut held: Vec<Held> = Vec::new();
    while instances.iter().any(|instance| count(&held, instance) < 3) {
        assert!(held.len() < 200, "an instance gets nothing");
        held.push(topology.hold().unwrap());
    }
    // New flows go to v2 alone; half of the connections are on v1.
    lb.releasectl_ok(&["shift", SERVICE, "v1=0"]).unwrap();
    let _daemon = lose_everything(&topology, daemon).unwrap();
    assert_eq!(lb.version_status("v1").unwrap()["weight"], 0);

    // Each asks and is answered by its own instance on its own connection; a RST would be an error.
    for held in &mut held {
        held.ask("/").unwrap();
    }
    for held in &mut held {
        assert_eq!(held.ask("/bytes?n=100000").unwrap().body.len(), 100_000);
    }
    for instance in instances {
        let status = lb.instance_status(instance).unwrap();
        let expected = count(&held, instance);
        assert_eq!(status["counters"]["adopted"], expected, "{instance}");
        assert_eq!(status["counters"]["opened"], 0, "{instance}");
        assert_eq!(status["flows"]["active"], expected, "{instance}");
        assert_eq!(status["flows"]["embryonic"], 0, "{instance}");
        assert_eq!(status["counters"]["closed_rst"], 0, "{instance}");
    }
    assert_eq!(topology.hold().unwrap().first.version, "v2");
    // They end as any other, each counted once.
    let before = held.len();
    held.clear();
    eventually(DEADLINE, "all closed", || {
        let closed = |instance| lb.counter(instance, "closed_fin").unwrap();
        instances.into_iter().map(closed).sum::<u64>() == before as u64 + 1
    });
    for line in lb.releasectl_json(&["maps", "check"]).unwrap().as_array().unwrap() {
        assert_eq!(line["ok"], true, "{line}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_connection_that_nobody_knows_is_reset() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let servers = topology.start_servers().unwrap();
    let mut held: Vec<Held> = (0..6).map(|_| topology.hold().unwrap()).collect();
    lb.releasectl_ok(&["detach"]).unwrap();
    drop(daemon);
    // The servers begin anew as well. (Their FINs find no way to the client.)
    drop(servers);
    let _servers = topology.start_servers().unwrap();
    let _daemon = lb.start_daemon().unwrap();
    for held in &mut held {
        held.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let error = held.ask("/").unwrap_err();
        let kind = error.chain().find_map(|e| e.downcast_ref::<std::io::Error>()).map(|e| e.kind());
        // The second, if the RST was there before the request.
        let reset = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
        assert!(kind.is_some_and(|kind| reset.contains(&kind)), "{error:#}");
    }
    for instance in ["v1-1", "v1-2", "v2-1", "v2-2"] {
        assert_eq!(lb.counter(instance, "adopted").unwrap(), 0);
    }
    // Nothing of it is left under way.
    eventually(Duration::from_secs(2), "no trial", || {
        lb.releasectl_json(&["flows"]).unwrap().as_array().unwrap().is_empty()
    });
    topology.hold().unwrap();
}

/// An instance that is drained alone is off its version's ring: its connections are found all the
/// same, and it gets no new ones.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn instances_drained_alone_are_asked_too() {
    let spec = TopologySpec { versions: vec![("v1".to_owned(), 3)], ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let drained = "v1-2";
    let on_drained = |held: &[Held]| held.iter().filter(|h| h.first.instance == drained).count();
    let mut held: Vec<Held> = Vec::new();
    while on_drained(&held) < 4 {
        assert!(held.len() < 200, "an instance gets nothing");
        held.push(topology.hold().unwrap());
    }
    let expected = on_drained(&held) as u64;
    assert_eq!(former(lb).unwrap(), 0);
    lb.releasectl_ok(&["drain", SERVICE, drained, "--no-wait"]).unwrap();
    assert_eq!(former(lb).unwrap(), 1);
    daemon.kill().unwrap();
    lb.releasectl_ok(&["detach"]).unwrap();
    assert!(!lb.bpffs().exists(), "pins are left");
    let _daemon = lb.start_daemon().unwrap();

    // A RST would be an error; the answer comes on the connection itself.
    for held in &mut held {
        held.ask("/").unwrap();
    }
    assert_eq!(lb.counter(drained, "adopted").unwrap(), expected);
    let said = lb.verdict(drained).unwrap();
    assert_eq!(
        (said.verdict.as_str(), &said.report["counts"]["active"]),
        ("busy", &expected.into())
    );
    for _ in 0..200 {
        assert_ne!(topology.hold().unwrap().first.instance, drained);
    }
    for counter in ["placed", "opened"] {
        assert_eq!(lb.counter(drained, counter).unwrap(), 0, "{counter}");
    }
    // Back on its ring, nothing is left of the way that was kept for it.
    lb.releasectl_ok(&["undrain", SERVICE, drained]).unwrap();
    assert_eq!(former(lb).unwrap(), 0);
    for line in lb.releasectl_json(&["maps", "check"]).unwrap().as_array().unwrap() {
        assert_eq!(line["ok"], true, "{line}");
    }
}

/// How many entries of the one split are for mid-flow packets alone.
fn former(lb: &Balancer) -> anyhow::Result<usize> {
    let splits = lb.releasectl_json(&["maps", "dump", "SPLITS"])?;
    splits[0]["former"].as_array().map(Vec::len).context("no split")
}
