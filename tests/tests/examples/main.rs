//! The examples of `examples/`, each typed as its README says: its configuration and hooks as they
//! stand there, real servers and clients, on hosts that are namespaces.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod a_smooth;
mod b_gray;
mod c_cloud;
mod d_offline;
mod e_gateway;

use std::net::Ipv4Addr;
use std::time::Duration;

use release_tests::http;
use release_tests::lab::Lab;
use release_tests::load::{Group, Load, LoadPlan};
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::topology::FRONTEND;
use serde_json::Value;

/// What a line of the README says; it must end with this code.
fn typed(lab: &Lab, code: i32, line: &str) -> String {
    let ended = lab.types(line).unwrap();
    assert_eq!(ended.code, code, "{line}: {}", ended.said);
    ended.said
}

/// Short and kept connections of clients that must not notice anything.
fn load(lab: &Lab) -> Load {
    let short = Group::Short { per_second: 100, limit: None, path: "/".into() };
    let pause = Duration::from_millis(100);
    let life = Some(Duration::from_secs(1));
    let plan = LoadPlan {
        target: FRONTEND,
        sources: lab.topology.client_addresses()[..1].to_vec(),
        groups: vec![short, Group::KeepAlive { connections: 10, pause, life }],
        threads: 1,
    };
    let load = Load::start(&lab.topology.client, plan).unwrap();
    assert!(load.wait(DEADLINE, |now| now.connections > 50), "{:?}", load.snapshot());
    load
}

/// Ends a load of which no client saw anything (R32).
fn clean(load: Load) {
    let report = load.finish().unwrap();
    assert!(report.is_clean(), "{:?} {:?}", report.first_errors, report.first_moved);
    println!("{} connections, 0 errors, 0 moved", report.totals.connections);
}

/// Opens a connection from a client's address, makes a request and keeps it.
fn hold(lab: &Lab, from: Ipv4Addr) -> Held {
    let mut stream = lab.topology.client.connect_from((from, 0), FRONTEND, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let first = http::request(&mut stream, "/").unwrap();
    Held { stream, first }
}

/// The newest release of a service.
fn release(lab: &Lab, service: &str) -> Value {
    lab.topology.lb.releasectl_json(&["release", "show", service]).unwrap()
}

/// Waits until the newest release of a service is in a state.
fn state(lab: &Lab, service: &str, state: &str) -> Value {
    let mut last = Value::Null;
    eventually(3 * DEADLINE, &format!("release is {state}"), || {
        last = release(lab, service);
        assert!(last["over"] != true || last["state"] == state, "{last:#}");
        last["state"] == state
    });
    last
}

/// Entries of a kind in a release's timeline.
fn entries(release: &Value, kind: &str) -> Vec<String> {
    let history = release["history"].as_array().unwrap();
    let of_kind = history.iter().filter(|entry| entry["kind"] == kind);
    of_kind.map(|entry| entry["text"].as_str().unwrap().to_owned()).collect()
}
