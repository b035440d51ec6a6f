//! What begins an evidence epoch, and what does not.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{SERVICE, Topology, TopologySpec};
use release_user::kernel::{Capacities, load};

/// One instance a version.
fn small() -> Topology {
    Topology::new(&TopologySpec::small()).unwrap()
}

/// Whoever puts another map in a pin's place takes the flows away from the next start.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_map_replaced_from_outside() {
    let topology = small();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    let other = lb.bpffs().join("other");
    fs::create_dir(&other).unwrap();
    drop(load(&other, Capacities::small(65_536, 1024), 0).unwrap());
    fs::rename(other.join("FLOWS4"), lb.bpffs().join("FLOWS4")).unwrap();

    // The data plane has its own map, wherever its pin went.
    let events = || lb.releasectl_ok(&["events"]).unwrap();
    let alarm = || events().contains("pins removed or replaced from outside: FLOWS4");
    eventually(Duration::from_secs(15), "the alarm", alarm);
    pair.talk().unwrap();
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "1 active flow"), "{said:?}");

    let _daemon = daemon.crash_and_restart().unwrap();
    let events = events();
    let begins = "evidence epoch 2 begins: replaced from outside: FLOWS4";
    assert!(events.contains(begins), "{events}");
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("unknown", "made anew while in service: v1-1"), "{said:?}");
}

/// However long the daemon is away, the packet path records.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_daemon_that_was_away_for_longer_than_flows_last() {
    const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
    let topology = small();
    let lb = &topology.lb;
    let mode = "mode = \"nat\"\n";
    let more = format!("{mode}idle_timeout = \"1s\"\nprobes = {{ enabled = false }}\n");
    lb.write_config(&topology.config(&[("v1", 100)]).replace(mode, &more)).unwrap();
    let daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut silent = topology.pair(&listener).unwrap();
    let mut talking = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    daemon.kill().unwrap();
    let back = AtomicBool::new(false);
    let _daemon = thread::scope(|scope| {
        scope.spawn(|| {
            while !back.load(Ordering::Relaxed) {
                talking.talk().unwrap();
                thread::sleep(IDLE_TIMEOUT / 10);
            }
        });
        thread::sleep(IDLE_TIMEOUT * 3);
        // Nobody was there to give it up.
        silent.talk().unwrap();
        drop(silent);
        let daemon = lb.start_daemon();
        let said = lb.verdict("v1");
        back.store(true, Ordering::Relaxed);
        let said = said.unwrap();
        assert!(said.is("busy", "1 active flow"), "{said:?}");
        daemon.unwrap()
    });
    assert_eq!(lb.releasectl_json(&["status"]).unwrap()["data_plane"]["evidence_epoch"], 1);
    drop(talking);
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}
