//! Looking into the data plane: maps, explanations, events, flows.

use std::fs::{self, File};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use release_tests::command;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::sockets::half_close;
use release_tests::topology::{FRONTEND, SERVICE, Topology, TopologySpec};
use serde_json::Value;

/// Maps without a dump of their own.
const SILENT: &[&str] = &[
    "NEXT_HOPS4",
    "NEXT_HOPS6",
    "SNAT4",
    "SNAT6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "RATES",
    "EXPLAINED",
    "EVENTS",
    "EVENT_LIMIT",
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn maps_can_be_read_without_the_daemon() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held = topology.hold().unwrap();
    daemon.kill().unwrap();

    // By name in the kernel's own tool.
    let pin = lb.bpffs().join("BACKENDS");
    let text = command::words("bpftool", &format!("map dump pinned {}", pin.display())).unwrap();
    for field in ["\"addr\"", "\"port\"", "\"version\"", "\"service\"", "\"ring\"", "\"state\""] {
        assert!(text.contains(field), "{field} in {}", &text[..text.len().min(600)]);
    }

    let list = lb.releasectl_json(&["maps", "list"]).unwrap();
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|map| map["name"].as_str().unwrap()).collect();
    for name in &names {
        assert!(lb.bpffs().join(name).exists(), "{name}");
        let output = lb.releasectl(&["maps", "dump", name, "-o", "json"]).unwrap();
        match output.status.code() {
            Some(0) => assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap().is_array()),
            // Streams and caches say that they have nothing to show.
            code => assert!(
                code == Some(2) && SILENT.contains(name),
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }
    for name in ["FLOWS4", "EMBRYOS4", "SPLITS", "RINGS", "BACKENDS", "COUNTERS", "REASONS"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let backends = lb.releasectl_json(&["maps", "dump", "BACKENDS"]).unwrap();
    let addresses: Vec<&Value> =
        backends.as_array().unwrap().iter().map(|backend| &backend["addr"]).collect();
    for backend in &topology.backends {
        assert!(addresses.contains(&&backend.address.to_string().into()), "{backends}");
    }
    let flows = lb.releasectl_json(&["maps", "dump", "flows4"]).unwrap();
    let client = held.stream.local_addr().unwrap().to_string();
    assert_eq!((&flows[0]["client"], flows.as_array().unwrap().len()), (&client.into(), 1));
    for line in lb.releasectl_json(&["maps", "check"]).unwrap().as_array().unwrap() {
        assert_eq!(line["ok"], true, "{line}");
    }
    held.ask("/").unwrap();
    // A pin that is gone is found.
    fs::remove_file(lb.bpffs().join("GAUGES")).unwrap();
    let refused = lb.refused(&["maps", "check"]).unwrap();
    assert!(refused.error.contains("GAUGES"), "{refused:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn explain_says_where_connections_go() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let client = topology.client_addresses()[0];
    let explain = |port: u16| {
        let (src, dst) = (format!("{client}:{port}"), FRONTEND.to_string());
        lb.releasectl_json(&["explain", "tcp", &src, &dst]).unwrap()
    };
    let before = lb.frozen().unwrap();
    let ports: Vec<u16> = (0..50).map(|i| 20_000 + i * 613).collect();
    let said: Vec<Value> = ports.iter().map(|port| explain(*port)).collect();
    // Asking changed nothing.
    assert_eq!(lb.frozen().unwrap(), before);
    let mut held = Vec::new();
    for (port, said) in ports.iter().zip(&said) {
        let connection = topology.hold_from(*port).unwrap();
        assert_eq!(said["decision"], "placement", "{said}");
        assert_eq!(said["instance"], *connection.first.instance, "{port}: {said}");
        assert_eq!(said["version"], *connection.first.version, "{port}: {said}");
        held.push(connection);
    }
    for version in ["v1", "v2"] {
        assert!(held.iter().any(|held| held.first.version == version), "{version}");
    }
    // After a shift, connections that live stay, and others go elsewhere.
    lb.releasectl_ok(&["shift", SERVICE, "v1=0"]).unwrap();
    for (port, held) in ports.iter().zip(&held) {
        let said = explain(*port);
        assert_eq!((&said["decision"], &said["generation"]), (&"flow".into(), &1.into()), "{said}");
        assert_eq!(said["instance"], *held.first.instance);
    }
    let said = explain(60_001);
    assert_eq!((&said["version"], &said["generation"]), (&"v2".into(), &2.into()));
    let said = lb.releasectl_json(&["explain", "tcp", "10.1.0.2:1", "10.1.0.1:80"]).unwrap();
    assert_eq!(said["decision"], "not-ours");
    lb.releasectl_ok(&["drain", SERVICE, "v2", "--no-wait", "--allow-empty"]).unwrap();
    assert_eq!(explain(60_001)["decision"], "refused");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn events_tell_of_shifts_and_flows() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let path = lb.config_path().with_file_name("events");
    let mut command = lb.releasectl_command(&["events", "-f", "-o", "jsonl"]).unwrap();
    command.stdin(Stdio::null()).stdout(File::create(&path).unwrap());
    let follower = lb.namespace.spawn("events", &mut command).unwrap();
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let seen = |kind: &str, what: &str| {
        let fits = |event: &Value| {
            event["kind"] == kind && event["message"].as_str().unwrap_or_default().contains(what)
        };
        eventually(DEADLINE, kind, || lines().iter().any(fits));
    };
    seen("interface", "client0: attached, native");
    let held = topology.hold().unwrap();
    let client = held.stream.local_addr().unwrap().to_string();
    seen("flow-opened", &client);
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=7"]).unwrap();
    seen("shift", "generation 2 in force");
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--no-wait"]).unwrap();
    drop(held);
    seen("flow-closed", &client);
    seen("idle", "web/v1 is idle");
    let numbers: Vec<u64> = lines().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(follower.is_running());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn flows_can_be_filtered() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let listeners: Vec<_> = topology.backends.iter().map(|b| b.listen().unwrap()).collect();
    let to = std::net::SocketAddr::V4(FRONTEND);
    let connect = |_| topology.client.connect(to, DEADLINE).unwrap();
    let mut streams = vec![connect(0)];
    // Ages are in jiffies.
    thread::sleep(Duration::from_millis(30));
    streams.extend((1..16).map(connect));
    let flows = |arguments: &[&str]| -> Vec<Value> {
        let all = lb.releasectl_json(&[&["flows"], arguments].concat()).unwrap();
        all.as_array().unwrap().clone()
    };
    eventually(DEADLINE, "all there", || flows(&["--state", "established"]).len() == 16);
    let oldest = streams[0].local_addr().unwrap().to_string();
    half_close(&streams[3]).unwrap();
    drop(streams.pop());
    drop(listeners);
    let closed = || flows(&["--state", "closed"]).len();
    eventually(DEADLINE, "reset by the listeners' end", || closed() == 16);
    assert_eq!(flows(&[SERVICE]).len(), 16);
    assert_eq!(flows(&["--version", "v1"]).len() + flows(&["--version", "v2"]).len(), 16);
    assert!(flows(&["--version", "v1"]).iter().all(|flow| flow["version"] == "v1"));
    let of = |id: &str| flows(&["--instance", id]);
    assert_eq!(topology.backends.iter().map(|b| of(&b.id).len()).sum::<usize>(), 16);
    assert!(of("v2-1").iter().all(|flow| flow["instance"] == "v2-1"));
    let one = flows(&["--oldest", "1"]);
    // Ages are known to a few hundredths of a second: others may be as old.
    let age = |flow: &Value| flow["age_s"].as_f64().unwrap();
    let all = flows(&[]);
    let first = all.iter().find(|flow| flow["client"] == oldest).unwrap();
    assert_eq!(one.len(), 1);
    assert!(
        age(&one[0]) <= age(first) + 1.0 && all.iter().all(|flow| age(flow) < age(&one[0]) + 1.0)
    );
    assert_eq!(one[0]["frontend"], FRONTEND.to_string());
    assert!(flows(&["--state", "embryonic"]).is_empty());
    assert_eq!(flows(&["--version", "v1", "--state", "established"]).len(), 0);
    let refused = lb.refused(&["flows", "--oldest", "0"]).unwrap();
    assert_eq!(refused.code, 2);
    let refused = lb.refused(&["flows", "--state", "open"]).unwrap();
    assert!(refused.says(2, &["open", "half-closed"]), "{refused:?}");
    let lines = lb.releasectl_ok(&["flows", "-o", "jsonl"]).unwrap();
    assert_eq!(lines.lines().count(), 16);
    let keys = ["client", "frontend", "version", "instance", "state", "generation", "age_s"];
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(keys.iter().all(|key| line.get(key).is_some()), "{line}");
}

/// A gauge that was changed from outside is noticed, said, and makes verdicts `unknown`.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_gauge_that_is_off_is_noticed() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let held = topology.hold().unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    let set = |gauge: u8| {
        let path = lb.bpffs().join("GAUGES").display().to_string();
        let line = format!("map update pinned {path} key 0 0 0 0 value {gauge} 0 0 0 0 0 0 0");
        topology.lb.namespace.run("bpftool", &line).unwrap();
    };
    let alarms = |kind: &str| {
        let text = lb.releasectl_ok(&["events", "-o", "jsonl"]).unwrap();
        text.lines().filter(|line| line.contains("gauge") && line.contains(kind)).count()
    };
    set(3);
    eventually(3 * DEADLINE, "an alarm", || alarms("off by 2") == 1);
    let said = lb.verdict("v2").unwrap();
    assert!(said.is("busy", "takes new flows"), "{said:?}");
    drop(held);
    let off = "gauge is off by 2";
    eventually(DEADLINE, "unknown", || lb.verdict("v1").unwrap().is("unknown", off));
    set(0);
    eventually(3 * DEADLINE, "the all-clear", || alarms("agree again") == 1);
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}
