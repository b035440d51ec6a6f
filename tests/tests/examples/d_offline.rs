//! D: instances leave on their own request, and end when nobody loses anything.

use nix::sys::signal::Signal;
use release_tests::lab::Lab;
use release_tests::scenario::{DEADLINE, Held, eventually};
use serde_json::Value;

use super::{clean, hold, load, typed};

/// A connection to one instance.
fn hold_on(lab: &Lab, id: &str) -> Held {
    let client = lab.topology.client_addresses()[1];
    let mut held = None;
    eventually(DEADLINE, &format!("a connection to {id}"), || {
        held = Some(hold(lab, client)).filter(|held| held.first.instance == id);
        held.is_some()
    });
    held.unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn offline_on_request() {
    let lab = Lab::new("d").unwrap();
    let lb = &lab.topology.lb;
    let _daemon = lab.up().unwrap();
    let load = load(&lab);
    let mut held = hold_on(&lab, "web-1");

    // The handshake (R27, R28), as often as it is asked.
    let placed = || lb.counter("web-1", "placed").unwrap();
    let mut first = None;
    for _ in 0..2 {
        let said = typed(&lab, 4, "releasectl instance offline web web-1 --no-wait -o json");
        // Behind it stands why the exit code is not 0.
        let mut answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        let answer = answers.next().unwrap().unwrap();
        assert_eq!(answer["shutdown"], true, "{answer:#}");
        assert_eq!(*first.get_or_insert_with(placed), placed());
    }
    let before = load.snapshot().connections;
    assert!(load.wait(DEADLINE, |now| now.connections > before + 100));
    assert_eq!(first, Some(placed()));
    // The condition, and on what grounds (R29, R30).
    let why = typed(&lab, 4, "releasectl idle check web web-1 --explain");
    assert!(why.contains("active flow") && why.contains("flow-table"), "{why}");
    let late = typed(&lab, 9, "releasectl instance offline web web-1 --timeout 2s");
    assert!(late.contains("active flow"), "{late}");
    eventually(DEADLINE, "the alarm", || !lab.posted("/alarms").is_empty());
    held.ask("/").unwrap();
    drop(held);
    let offline = "releasectl instance offline web web-1";
    let said = typed(&lab, 0, &format!("{offline} && ssh 10.2.1.2 server stop web-1"));
    assert!(said.contains("receipt"), "{said}");
    assert_eq!(lab.file("run/web-1.running"), "");
    let back = "server start web-1 v1 10.2.1.2:8080 && releasectl undrain web web-1";
    typed(&lab, 0, &format!("ssh 10.2.1.2 {back}"));
    assert_eq!(lb.instance_status("web-1").unwrap()["state"], "active");

    // By itself.
    let wrapper = lab
        .starts(
            "ssh 10.2.3.2 releasectl run --service web --version v1 --addr 10.2.3.2:8080 \
             --id web-3 -- server run web-3 v1 10.2.3.2:8080",
        )
        .unwrap();
    eventually(DEADLINE, "registered", || lb.instance_status("web-3").is_ok());
    let list = typed(&lab, 0, "releasectl instance list");
    assert!(list.contains("web-3"), "{list}");
    let mut held = hold_on(&lab, "web-3");
    wrapper.signal(Signal::SIGTERM).unwrap();
    eventually(DEADLINE, "offline", || {
        lb.instance_status("web-3").is_ok_and(|status| status["state"] == "offline")
    });
    held.ask("/").unwrap();
    assert!(wrapper.is_running());
    drop(held);
    let ended = wrapper.wait(DEADLINE).unwrap().unwrap();
    // What the signal ended in the end: 128 + 15.
    assert_eq!(ended.code(), Some(143), "{}", lab.file("background"));
    let said = lab.file("background");
    assert!(said.contains("nobody loses anything: receipt"), "{said}");
    eventually(DEADLINE, "its end noticed", || {
        let events = typed(&lab, 0, "releasectl events | grep offline");
        events.contains("web/web-3 has gone offline")
    });
    clean(load);
}
