//! A reload brings what is new, keeps what is in use, and never touches where traffic goes.

use std::thread;
use std::time::{Duration, Instant};

use release_tests::netns::Netns;
use release_tests::scenario::{DEADLINE, Held, eventually, without};
use release_tests::topology::{CLIENT_SIDE, SERVICE, Topology, TopologySpec};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_added_is_there_and_waits_for_a_shift() {
    let versions = vec![("v1".into(), 2), ("v2".into(), 1), ("v3".into(), 1)];
    let topology = Topology::new(&TopologySpec { versions, ..TopologySpec::default() }).unwrap();
    let lb = &topology.lb;
    let all = topology.config(&[("v1", 100), ("v2", 40)]);
    // At first one instance, one version.
    let version = all.find("\n[[service.version]]\nname = \"v2\"").unwrap();
    let first = without(&all[..version], "id = \"v1-2\"");
    lb.write_config(&first).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held: Vec<Held> = (0..8).map(|_| topology.hold().unwrap()).collect();

    // Another instance, and a version whose configured weight does not count any more.
    let third = all.find("\n[[service.version]]\nname = \"v3\"").unwrap();
    lb.write_config(&all[..third]).unwrap();
    let said = lb.releasectl_ok(&["reload"]).unwrap();
    for line in ["instance web/v1/v1-2 added", "version web/v2 added"] {
        assert!(said.contains(line), "{said}");
    }
    let weight = |version: &str| lb.version_status(version).unwrap()["weight"].as_u64();
    assert_eq!((weight("v1"), weight("v2")), (Some(100), Some(0)));
    held.extend((0..24).map(|_| topology.hold().unwrap()));
    assert!(held.iter().all(|held| held.first.version == "v1"));
    assert!(held.iter().any(|held| held.first.instance == "v1-2"));
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=1"]).unwrap();
    assert_eq!(topology.hold().unwrap().first.version, "v2");

    // Another service.
    lb.namespace.ip(&format!("addr add 10.1.0.101/32 dev {CLIENT_SIDE}")).unwrap();
    let other = format!(
        "{}\n[[service]]\nname = \"other\"\nfrontends = [\"10.1.0.101:80/tcp\"]\n{}",
        &all[..third],
        all[third..].replace("weight = 0", "weight = 1"),
    );
    lb.write_config(&other).unwrap();
    assert!(lb.releasectl_ok(&["reload"]).unwrap().contains("service other added"));
    let to = "10.1.0.101:80".parse().unwrap();
    let get = |from: &Netns| release_tests::http::get(from, to, "/", DEADLINE).unwrap();
    assert_eq!(get(&topology.client).instance, "v3-1");
    // And gone again, with all that was shifted meanwhile as it was.
    lb.write_config(&all[..third]).unwrap();
    assert!(lb.releasectl_ok(&["reload"]).unwrap().contains("service other removed"));
    topology.client.connect(to, Duration::from_millis(500)).unwrap_err();
    assert_eq!((weight("v1"), weight("v2")), (Some(0), Some(1)));
    for held in &mut held {
        held.ask("/").unwrap();
    }
    assert_eq!(lb.releasectl_ok(&["reload"]).unwrap(), "reloaded: nothing changed\n");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_removed_instance_stays_until_its_flows_end() {
    let spec = TopologySpec { versions: vec![("v1".into(), 2)], ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = &topology.lb;
    // A timer is the only end of a flow that leaves no entry behind for a minute.
    let mode = "mode = \"nat\"\n";
    let config = topology.config(&[("v1", 100)]);
    let config = config
        .replace(mode, &format!("{mode}idle_timeout = \"1s\"\nprobes = {{ enabled = false }}\n"));
    let fewer = without(&config, "id = \"v1-2\"");
    lb.write_config(&config).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held: Vec<Held> = (0..12).map(|_| topology.hold().unwrap()).collect();
    held.retain(|held| held.first.instance == "v1-2");
    assert!(!held.is_empty());
    let live = |id: &str| lb.instance_status(id).unwrap()["flows"]["active"].as_u64().unwrap();
    eventually(DEADLINE, "the others closed", || live("v1-1") == 0);
    let count = held.len() as u64;

    lb.write_config(&fewer).unwrap();
    let said = lb.releasectl_ok(&["reload"]).unwrap();
    assert!(said.contains("instance web/v1/v1-2 removed, kept until its flows end"), "{said}");
    for _ in 0..12 {
        assert_eq!(topology.hold().unwrap().first.instance, "v1-1");
    }
    // Longer than any look for what can be forgotten.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5500) {
        for held in &mut held {
            held.ask("/").unwrap();
        }
        let status = lb.instance_status("v1-2").unwrap();
        assert_eq!(
            (&status["orphaned"], &status["flows"]["active"]),
            (&true.into(), &count.into())
        );
        let said = lb.verdict("v1-2").unwrap();
        assert!(said.is("busy", "active flow"), "{said:?}");
        thread::sleep(Duration::from_millis(200));
    }
    // Taken back in time: it is the same instance, with all that was counted.
    lb.write_config(&config).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    let status = lb.instance_status("v1-2").unwrap();
    assert!(status.get("orphaned").is_none() && status["flows"]["active"] == count, "{status}");
    assert!(status["counters"]["opened"].as_u64().unwrap() >= count);

    lb.write_config(&fewer).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    // From here on they are silent. A timer proves no end: nothing but force gives the id free.
    eventually(DEADLINE, "expired", || lb.verdict("v1-2").unwrap().verdict == "unknown");
    let kept = || lb.releasectl_ok(&["events"]).unwrap().contains("web/v1-2 was removed and stays");
    eventually(Duration::from_secs(30), "said that it stays", kept);
    let forced = lb.releasectl(&["retire", SERVICE, "v1-2", "--force"]).unwrap();
    let said = String::from_utf8_lossy(&forced.stdout);
    assert!(forced.status.code() == Some(5) && said.contains("ended by a timer"), "{forced:?}");
    eventually(Duration::from_secs(9), "gone", || lb.instance_status("v1-2").is_err());
    let events = lb.releasectl_ok(&["events"]).unwrap();
    assert!(events.contains("instance web/v1-2 is gone"), "{events}");
    let backends = lb.releasectl_ok(&["maps", "dump", "BACKENDS"]).unwrap();
    assert_eq!(backends.lines().count(), 1, "{backends}");
    // Coming back now, it is a new one.
    lb.write_config(&config).unwrap();
    assert!(lb.releasectl_ok(&["reload"]).unwrap().contains("instance web/v1/v1-2 added"));
    assert_eq!(lb.counter("v1-2", "opened").unwrap(), 0);
    eventually(DEADLINE, "a flow on it", || topology.hold().unwrap().first.instance == "v1-2");
}
