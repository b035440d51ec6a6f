//! A version is retired, and the id of an instance is used again, by a receipt or by force alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use release_tests::scenario::{DEADLINE, eventually, without};
use release_tests::topology::{Balancer, SERVICE, Topology, TopologySpec};
use serde_json::Value;

fn versions(first: u8) -> TopologySpec {
    let versions = vec![("v1".into(), first), ("v2".into(), 1)];
    TopologySpec { versions, ..TopologySpec::default() }
}

fn state(lb: &Balancer) -> Value {
    lb.version_status("v1").unwrap()["state"].clone()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_version_is_retired_by_a_receipt_that_holds() {
    let topology = Topology::new(&versions(1)).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let servers = topology.start_servers().unwrap();
    let retire = || lb.releasectl_ok(&["retire", SERVICE, "v1"]);
    let refused = || lb.refused(&["retire", SERVICE, "v1"]).unwrap();
    let held = topology.hold().unwrap();
    assert!(refused().says(8, &["version v1: takes new flows, weight 100", "drain it first"]));
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    let busy = refused();
    assert!(busy.says(4, &["retire v1: it is busy: 1 active flow", "--force"]), "{busy:?}");
    drop(held);
    lb.releasectl_ok(&["idle", "wait", SERVICE, "v1", "--timeout", "5s"]).unwrap();
    lb.releasectl_ok(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    // By the receipt its servers may be stopped; it goes on to hold.
    drop(servers);
    assert_eq!(retire().unwrap(), "web/v1: retired, receipt 1\n");
    assert_eq!(state(lb), "retired");
    let again = retire().unwrap();
    assert!(again.contains("retired since ") && again.contains(", receipt 1"), "{again}");
    let shift = lb.refused(&["shift", SERVICE, "v1=1"]).unwrap();
    assert!(shift.says(8, &["is retired", "releasectl undrain web v1"]), "{shift:?}");
    let _daemon = daemon.crash_and_restart().unwrap();
    assert_eq!(state(lb), "retired");

    // Taken back and used again, it needs another receipt.
    lb.releasectl_ok(&["undrain", SERVICE, "v1"]).unwrap();
    assert_eq!(state(lb), "standby");
    let _servers = topology.start_servers().unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=1", "v2=0"]).unwrap();
    let held = topology.hold().unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=1"]).unwrap();
    assert!(refused().says(4, &["1 active flow"]));
    drop(held);
    lb.releasectl_ok(&["idle", "wait", SERVICE, "v1", "--timeout", "5s"]).unwrap();
    assert_eq!(retire().unwrap(), "web/v1: retired, receipt 2\n");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_not_proven_is_retired_by_force_alone() {
    let topology = Topology::new(&versions(1)).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    lb.releasectl_ok(&["idle", "wait", SERVICE, "v1", "--timeout", "5s"]).unwrap();
    lb.releasectl_ok(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    lb.releasectl_ok(&["detach"]).unwrap();
    drop(daemon);
    let _daemon = lb.start_daemon().unwrap();
    // The receipt was another data plane's.
    let refused = lb.refused(&["retire", SERVICE, "v1"]).unwrap();
    assert!(refused.says(6, &["retire v1: it is unknown", "made anew"]), "{refused:?}");
    let forced = lb.releasectl(&["retire", SERVICE, "v1", "--force"]).unwrap();
    let said = String::from_utf8_lossy(&forced.stdout);
    assert_eq!(forced.status.code(), Some(5), "{forced:?}");
    assert!(said.starts_with("web/v1: retired by force\n  not proven: "), "{said}");
    assert!(said.contains("made anew") && state(lb) == "retired", "{said}");
    let events = lb.releasectl_ok(&["events"]).unwrap();
    assert!(events.contains("web/v1 is retired by force: "), "{events}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_id_is_used_again_only_after_a_receipt() {
    let topology = Topology::new(&versions(2)).unwrap();
    let lb = &topology.lb;
    let config = topology.config(&[("v1", 100)]);
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let refused = lb.refused(&["retire", SERVICE, "v1-2", "--force"]).unwrap();
    assert!(refused.says(8, &["instance v1-2: is in the configuration"]), "{refused:?}");
    let refused = lb.refused(&["retire", SERVICE, "v9"]).unwrap();
    assert!(refused.says(2, &["target v9", "it has v1, v2"]), "{refused:?}");

    let fewer = without(&config, "id = \"v1-2\"");
    lb.write_config(&fewer).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    assert!(lb.releasectl_ok(&["idle", "receipts", SERVICE, "v1-2"]).is_ok());
    eventually(Duration::from_secs(15), "gone", || lb.instance_status("v1-2").is_err());
    let receipts = lb.releasectl_json(&["idle", "receipts", SERVICE, "v1-2"]).unwrap();
    let receipts = receipts.as_array().unwrap();
    assert_eq!((receipts.len(), &receipts[0]["report"]["verdict"]), (1, &"idle".into()));
    // Back, it is another one.
    lb.write_config(&config).unwrap();
    assert!(lb.releasectl_ok(&["reload"]).unwrap().contains("instance web/v1/v1-2 added"));
    eventually(DEADLINE, "there", || lb.instance_status("v1-2").is_ok());
}
