//! C: a version is brought up beside the old one and takes over, on an indication, by a deadline.

use std::fmt::Write as _;

use release_tests::lab::Lab;
use release_tests::scenario::{DEADLINE, eventually};

use super::{clean, entries, hold, load, release, state, typed};

/// How many flows instances were given.
fn placed(lab: &Lab, ids: &[&str]) -> u64 {
    ids.iter().map(|id| lab.topology.lb.counter(id, "placed").unwrap()).sum()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_cloud_release() {
    const NEW: [&str; 5] = ["web-21", "web-22", "web-23", "web-24", "web-25"];
    let lab = Lab::new("c").unwrap();
    let lb = &lab.topology.lb;
    let _daemon = lab.up().unwrap();
    let load = load(&lab);
    let clients = lab.topology.client_addresses();
    let (user, tester) = (clients[1], *clients.last().unwrap());
    let mut held = hold(&lab, user);

    // One below the threshold waits (R15, R16), and v1 serves (R14).
    typed(&lab, 0, "ssh 10.2.6.2 server break web-24");
    typed(&lab, 0, "ssh 10.2.7.2 server break web-25");
    let start = "releasectl release start web --to v2";
    let dry = typed(&lab, 0, &format!("{start} --dry-run"));
    assert!(dry.contains("wait until 4 of 5 instances of v2 are live"), "{dry}");
    typed(&lab, 0, start);
    eventually(DEADLINE, "three live", || release(&lab, "web")["live"] == 3);
    let before = load.snapshot().connections;
    assert!(load.wait(DEADLINE, |now| now.connections > before + 100));
    let shown = typed(&lab, 0, "releasectl release show web");
    assert!(shown.contains("staging") && shown.contains("3/5 instances live, 4 needed"), "{shown}");
    typed(&lab, 0, "ssh 10.2.6.2 server repair web-24");

    // The tester alone reaches v2 (R17).
    let doing = |what: &str| {
        let now = release(&lab, "web");
        now["doing"].as_str().is_some_and(|doing| doing.starts_with(what))
    };
    eventually(DEADLINE, "the test", || doing("test for"));
    let (mut tests, mut reached) = (0, 0);
    while doing("test for") {
        let by = hold(&lab, tester).first.version;
        tests += u64::from(by == "v2");
        let others = load.snapshot().connections_to("v2");
        if doing("test for") {
            assert_eq!((by.as_str(), others), ("v2", 0));
            reached += 1;
        }
    }
    assert!(reached > 0);

    // Warm (R18), and nobody has counted that; it goes on when somebody says so (R19).
    eventually(2 * DEADLINE, "the approval", || lab.posted("/approve").len() > 1);
    let waiting = release(&lab, "web");
    let warm = entries(&waiting, "warm-up");
    let after =
        |count: usize, what: &str| warm.iter().filter(|o| o.contains(what)).count() == count;
    assert!(after(4, "warm after 50") && after(1, "web-25: "), "{warm:?}");
    assert_eq!(placed(&lab, &NEW), tests);
    assert_eq!(lb.version_status("v2").unwrap()["weight"], 0);
    assert_eq!(lab.posted("/approve")[0]["service"], "web");
    assert!(waiting["reasons"][0].as_str().unwrap().contains("says 403"), "{waiting:#}");
    typed(&lab, 0, "touch approved");

    // What v2 gets (R21): a share of the new ones, measured.
    eventually(DEADLINE, "shifted", || lb.version_status("v2").unwrap()["weight"] == 20);
    assert!(load.wait(DEADLINE, |now| now.connections_to("v2") > 0));
    let new = || lb.version_status("v2").unwrap();
    eventually(DEADLINE, "measured", || new()["weight_actual"].as_f64().is_some_and(|w| w > 0.0));
    let now = new();
    assert!(now["first_flow_at"].is_string(), "{now:#}");
    typed(&lab, 0, "releasectl status web");

    // A deadline (R22), after which v1's last connection is ended (R24) and v1 stopped (R23).
    state(&lab, "web", "draining");
    let deadline = &release(&lab, "web")["deadline"];
    assert!(deadline["at"].is_string() && deadline["remaining_s"].is_number(), "{deadline}");
    let ended = typed(&lab, 5, "releasectl release wait web");
    assert!(ended.contains("succeeded, by force, receipt "), "{ended}");
    held.ask("/").unwrap_err();
    typed(&lab, 0, "releasectl idle receipts web");
    for id in ["web-11", "web-12"] {
        assert_eq!(lab.file(&format!("run/{id}.running")), "", "{id} still runs");
    }
    // The one that never lived got nothing (R20).
    assert_eq!(placed(&lab, &["web-25"]), 0);

    // With what the old version knew, and a secret that is nowhere else (R25).
    let asked = "postgresql://release@10.2.1.2/web_v1 (with a password) DROP SCHEMA web CASCADE\n";
    assert_eq!(typed(&lab, 0, "cat psql.log"), asked);
    let mut told = release(&lab, "web").to_string();
    write!(told, "{}", lb.releasectl_ok(&["events"]).unwrap()).unwrap();
    assert!(!told.contains("password-of-the-lab"));
    clean(load);

    // Another service by the same plan (R26): nothing can be said of it, so somebody decides.
    typed(&lab, 0, "releasectl release start api --to v2");
    let paused = typed(&lab, 4, "releasectl release wait api");
    assert!(paused.contains("paused"), "{paused}");
    typed(&lab, 0, "releasectl release promote api");
    state(&lab, "api", "succeeded");
    assert!(lab.file("psql.log").contains("/api_v1 (with a password) DROP SCHEMA api CASCADE"));
}
