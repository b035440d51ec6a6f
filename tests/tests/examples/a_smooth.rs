//! A: servers are upgraded where they are, none while somebody uses it.

use release_tests::lab::Lab;
use release_tests::scenario::{DEADLINE, eventually};

use super::{clean, entries, hold, load, release, state, typed};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_smooth_upgrade() {
    let lab = Lab::new("a").unwrap();
    let lb = &lab.topology.lb;
    let _daemon = lab.up().unwrap();
    let load = load(&lab);

    // Each part alone (R8).
    typed(&lab, 0, "releasectl drain web web-1 --no-wait");
    let check = || lab.types("releasectl idle check web web-1").unwrap().code;
    eventually(DEADLINE, "web-1 idle", || check() == 0);
    typed(&lab, 0, "releasectl undrain web web-1");

    // What would be done; what cannot be (R1).
    let client = lab.topology.client_addresses()[1];
    let mut held = hold(&lab, client);
    let on = held.first.instance.clone();
    let line = "releasectl release start web --data '{\"image\": \"web:2\"}'";
    let dry = typed(&lab, 0, &format!("{line} --dry-run"));
    assert!(["web-1", "web-2", "web-3"].iter().all(|id| dry.contains(id)), "{dry}");
    let unknown = typed(&lab, 2, &format!("{line} --instance web-9"));
    assert!(unknown.contains("instance web-9: no such instance"), "{unknown}");
    assert!(lb.releasectl_json(&["release", "list"]).unwrap().as_array().unwrap().is_empty());

    // It comes to the instance that is in use, and no further (R3, R4).
    typed(&lab, 0, line);
    let waited = typed(&lab, 4, "releasectl release wait web");
    assert!(waited.contains("held") && waited.contains("1 active flow"), "{waited}");
    assert_eq!(held.ask("/").unwrap().version, "web:1");
    typed(&lab, 0, "releasectl release show web");
    let held_now = release(&lab, "web");
    assert_eq!(entries(&held_now, "alarm").len(), 1, "{held_now:#}");
    eventually(DEADLINE, "the alarm", || !lab.posted("/alarms").is_empty());
    let alarms = lab.posted("/alarms");
    assert!(alarms.len() == 1 && alarms[0]["state"] == "raised", "{alarms:?}");
    let terminal = typed(&lab, 0, "cat terminal");
    assert!(terminal.starts_with("raised: release 1 of web is held"), "{terminal}");
    assert_eq!(terminal.lines().count(), 1, "{terminal}");
    // Whoever connects meanwhile goes elsewhere (R2).
    let placed = lb.counter(&on, "placed").unwrap();
    let before = load.snapshot().connections;
    assert!(load.wait(DEADLINE, |now| now.connections > before + 100));
    assert_eq!(lb.counter(&on, "placed").unwrap(), placed);

    // It is over: the release goes on by itself (R5, R6).
    held.ask("/").unwrap();
    drop(held);
    let over = state(&lab, "web", "succeeded");
    assert_eq!(entries(&over, "alarm-cleared").len(), 1, "{over:#}");
    let upgraded = load.snapshot().connections_to("web:2");
    assert!(load.wait(DEADLINE, |now| {
        let new = now.versions.get("web:2");
        let all = new.is_some_and(|new| new.instances.len() == 3);
        all && now.active("web:1") == 0 && now.connections_to("web:2") > upgraded + 100
    }));
    eventually(DEADLINE, "cleared", || lab.posted("/alarms").len() == 2);
    // One number all the way (R7).
    let events = typed(&lab, 0, "releasectl events | grep 'release 1'");
    assert!(events.matches("release 1").count() > 5, "{events}");

    // An upgrade that fails: its instance stays out (R5).
    typed(&lab, 0, "releasectl release start web --data '{\"image\": \"\"}'");
    typed(&lab, 7, "releasectl release wait web");
    let status = typed(&lab, 0, "releasectl status web");
    assert!(status.contains("draining") || status.contains("idle"), "{status}");
    let paused = release(&lab, "web");
    assert!(paused["reasons"][0].as_str().unwrap().contains("which image?"), "{paused:#}");
    typed(&lab, 0, "releasectl release abort web");
    state(&lab, "web", "rolled-back");
    eventually(DEADLINE, "idle", || lb.instance_status("web-1").unwrap()["state"] == "idle");
    typed(&lab, 0, "releasectl undrain web web-1");
    assert_eq!(lb.instance_status("web-1").unwrap()["state"], "active");
    clean(load);
}
