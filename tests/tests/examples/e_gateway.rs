//! E: sessions stay on their version, single questions go to the new one at once.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use release_tests::lab::Lab;
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::server::udp::{question, stamped};
use release_tests::topology::FRONTEND;
use serde_json::Value;

use super::{hold, release, state, typed};

/// As in release.toml.
const MOST: usize = 10;
const QUESTIONS: u32 = 200;

/// One version of a service as it is now.
fn version(lab: &Lab, service: &str, version: usize) -> Value {
    lab.topology.lb.releasectl_json(&["status", service]).unwrap()["services"][0]["versions"]
        [version]
        .clone()
}

/// How many new flows of all services were refused for a limit.
fn refused(lab: &Lab) -> u64 {
    let lines = lab.topology.lb.releasectl_json(&["maps", "dump", "SERVICE_COUNTERS"]).unwrap();
    lines.as_array().unwrap().iter().map(|line| line["max_flows"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn sessions_stay_and_end() {
    let lab = Lab::new("e").unwrap();
    let daemon = lab.up().unwrap();
    let [_, ours, others @ ..] = &lab.topology.client_addresses()[..] else { panic!() };
    let mut old = vec![hold(&lab, *ours), hold(&lab, *ours)];
    typed(&lab, 0, "releasectl release start sessions --to v2");
    eventually(DEADLINE, "both serve", || version(&lab, "sessions", 1)["weight"] == 50);
    // Side by side (R31).
    let status = typed(&lab, 0, "releasectl status sessions");
    assert!(status.contains("v1") && status.contains("v2"), "{status}");
    state(&lab, "sessions", "draining");

    // The session decides, not the weight (R33).
    old.push(hold(&lab, *ours));
    assert!(old.iter().all(|held| held.first.instance == old[0].first.instance), "{old:?}");
    let mut new: Vec<Held> = Vec::new();
    for client in others.iter().cycle().take(MOST - old.len()) {
        new.push(hold(&lab, *client));
    }
    assert!(new.iter().all(|held| held.first.version == "v2"), "{new:?}");
    let versions: BTreeSet<&str> =
        old.iter().chain(&new).map(|held| held.first.version.as_str()).collect();
    assert_eq!(Vec::from_iter(versions), ["v1", "v2"]);
    // One limit for both (R36).
    assert_eq!(refused(&lab), 0);
    for client in [*ours, others[0]] {
        lab.topology.client.connect_from((client, 0), FRONTEND, DEADLINE).unwrap_err();
    }
    assert_eq!(refused(&lab), 2);

    // The daemon dies, the state does not (R35, R38).
    daemon.kill().unwrap();
    for held in old.iter_mut().chain(&mut new) {
        held.ask("/").unwrap();
    }
    let _daemon = lab.up().unwrap();
    typed(&lab, 0, "releasectl release show sessions");
    assert_eq!(release(&lab, "sessions")["state"], "draining");
    for held in old.iter_mut().chain(&mut new) {
        held.ask("/").unwrap();
    }

    // The last session ends, and so does v1 (R37).
    drop(old);
    let ended = typed(&lab, 0, "releasectl release wait sessions");
    assert!(ended.contains("v1 → v2: succeeded, receipt "), "{ended}");
    typed(&lab, 0, "releasectl status sessions");
    assert_eq!(version(&lab, "sessions", 0)["state"], "retired");
    for held in &mut new {
        held.ask("/").unwrap();
    }
    assert_eq!(hold(&lab, *ours).first.version, "v2");
    let terminal = typed(&lab, 0, "cat terminal");
    for state in ["shifting", "draining", "succeeded"] {
        assert!(terminal.contains(&format!("release 1 of sessions: {state}")), "{terminal}");
    }
}

/// The version that answers one question.
fn ask(socket: &UdpSocket, number: u32) -> String {
    let question = question(1, number);
    socket.send(question.as_bytes()).unwrap();
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer).unwrap();
    stamped(&answer[..length], &question).unwrap().unwrap().0
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn questions_go_to_the_new_version_at_once() {
    let lab = Lab::new("e").unwrap();
    let _daemon = lab.up().unwrap();
    let client = lab.topology.client_addresses()[1];
    let socket = |address: Ipv4Addr| UdpSocket::bind((address, 0));
    let socket = lab.topology.client.enter(|| socket(client)).unwrap().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(SocketAddr::from(FRONTEND)).unwrap();
    assert!((0..QUESTIONS).all(|number| ask(&socket, number) == "v1"));

    typed(&lab, 0, "releasectl release start questions --to v2");
    eventually(2 * DEADLINE, "taken over", || version(&lab, "questions", 1)["weight"] == 100);
    // That is in force: on every CPU (R34).
    assert!((0..QUESTIONS).all(|number| ask(&socket, number) == "v2"));
    typed(&lab, 0, "releasectl release wait questions");
    typed(&lab, 0, "releasectl instance list");
    let old = version(&lab, "questions", 0);
    assert_eq!(old["state"], "retired");
}
