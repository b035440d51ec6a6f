//! Instances that register themselves: they serve, they leave with a receipt, they are lost, and a
//! server under `releasectl run` goes through all of it by itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod run;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use release_tests::process::Process;
use release_tests::scenario::{DEADLINE, Held, eventually, without};
use release_tests::topology::{Backend, Balancer, SERVICE, Topology, TopologySpec};
use serde_json::Value;

/// A service with v1, v2 and v3 of one instance each, of which v1 alone is in the configuration
/// with its instance, and v3 not at all.
struct Rig {
    topology: Topology,
    config: String,
}

impl Rig {
    fn new() -> Self {
        let versions = ["v1", "v2", "v3"].map(|version| (version.into(), 1)).into();
        let service = "registration = \"open\"\n".to_owned();
        let spec = TopologySpec { versions, service, ..TopologySpec::default() };
        let topology = Topology::new(&spec).unwrap();
        let all = topology.config(&[("v1", 100)]);
        let third = all.find("\n[[service.version]]\nname = \"v3\"").unwrap();
        let config = without(&all[..third], "id = \"v2-1\"");
        topology.lb.write_config(&config).unwrap();
        Self { topology, config }
    }

    fn backend(&self, version: &str) -> &Backend {
        self.topology.backends.iter().find(|backend| backend.version == version).unwrap()
    }

    fn address(&self, version: &str) -> String {
        self.backend(version).address.to_string()
    }

    /// Registers the backend of a version under its own id.
    fn register(&self, version: &str, more: &[&str]) -> String {
        let (address, id) = (self.address(version), format!("{version}-1"));
        let arguments = ["instance", "register", SERVICE, version, &address, "--id", &id];
        self.topology.lb.releasectl_ok(&[&arguments, more].concat()).unwrap()
    }

    /// Holds a connection to a version, which has to have weight.
    fn hold_on(&self, version: &str) -> Held {
        let mut held = None;
        eventually(DEADLINE, &format!("a connection to {version}"), || {
            held = self.topology.hold().ok().filter(|held| held.first.version == version);
            held.is_some()
        });
        held.unwrap()
    }
}

fn field(lb: &Balancer, id: &str, key: &str) -> Value {
    lb.instance_status(id).unwrap()[key].clone()
}

fn events(lb: &Balancer) -> String {
    lb.releasectl_ok(&["events"]).unwrap()
}

fn shift(lb: &Balancer, weights: [&str; 2]) {
    lb.releasectl_ok(&["shift", SERVICE, weights[0], weights[1]]).unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn who_registers_serves_and_nobody_else() {
    let rig = Rig::new();
    let lb = &rig.topology.lb;
    let daemon = lb.start_daemon().unwrap();
    let _servers = rig.topology.start_servers().unwrap();
    for version in ["v2", "v3"] {
        let refused = lb.refused(&["shift", SERVICE, "v1=0", &format!("{version}=1")]).unwrap();
        assert!(refused.says(8, &["unregistered versions cannot be released"]), "{refused:?}");
    }
    let said = rig.register("v2", &["--meta", "build=7", "--weight", "2"]);
    assert!(said.starts_with("web/v2/v2-1: registered at 10.2.2.2:8080, backend "), "{said}");
    assert!(rig.register("v2", &["--meta", "build=7", "--weight", "2"]).contains("renewed"));
    let listed = lb.instance_status("v2-1").unwrap();
    assert_eq!((&listed["source"], &listed["state"]), (&"registered".into(), &"active".into()));
    assert_eq!(listed["registration"]["meta"]["build"], "7");
    assert_eq!(field(lb, "v1-1", "source"), "configured");

    // A name and an address are somebody's; both places are named.
    let register = |version: &str, id: &str, address: &str| {
        lb.refused(&["instance", "register", SERVICE, version, address, "--id", id]).unwrap()
    };
    for (version, id, address, place) in [
        ("v2", "v2-1", "10.2.9.9:8080", "web/v2/v2-1 at 10.2.2.2:8080, registered"),
        ("v3", "other", "10.2.2.2:8080", "web/v2/v2-1 at 10.2.2.2:8080, registered"),
        ("v3", "other", "10.2.1.2:8080", "web/v1/v1-1 at 10.2.1.2:8080, in the configuration"),
    ] {
        let refused = register(version, id, address);
        assert!(refused.says(8, &[id, "there is already", place]), "{refused:?}");
    }
    assert!(register("v3", "other", "[fd00::1]:8080").says(2, &["no frontend is IPv6"]));
    assert!(register("v3", "v1", "10.2.3.2:8080").says(2, &["is also a version"]));

    // What the configuration does not have at all.
    rig.register("v3", &[]);
    shift(lb, ["v1=0", "v3=1"]);
    let mut held = rig.hold_on("v3");
    let before = lb.service_status().unwrap()["versions"].clone();
    assert_eq!(lb.releasectl_ok(&["reload"]).unwrap(), "reloaded: nothing changed\n");
    let _daemon = daemon.crash_and_restart().unwrap();
    let ids = |versions: &Value| -> Vec<Value> {
        let versions = versions.as_array().unwrap().iter();
        versions.flat_map(|v| [v["name"].clone(), v["instances"][0]["id"].clone()]).collect()
    };
    assert_eq!(ids(&lb.service_status().unwrap()["versions"]), ids(&before));
    held.ask("/").unwrap();
    rig.hold_on("v3");
    // A configuration that claims its address is refused, and changes nothing.
    let claimed = rig
        .config
        .replace("id = \"v1-1\"", "id = \"taken\", addr = \"10.2.3.2:8080\" }, { id = \"v1-1\"");
    lb.write_config(&claimed).unwrap();
    let refused = lb.refused(&["reload"]).unwrap();
    let places = ["web/v3/v3-1 at 10.2.3.2:8080, registered", "web/v1/taken at 10.2.3.2:8080"];
    assert!(refused.says(8, &places), "{refused:?}");
    lb.write_config(&rig.config).unwrap();

    // It leaves; its connection stays, and with that it is forgotten, and its version with it.
    let leave = || lb.releasectl(&["instance", "deregister", SERVICE, "v3-1"]).unwrap();
    let last = lb.refused(&["instance", "deregister", SERVICE, "v3-1"]).unwrap();
    assert!(last.says(8, &["is the last serving one of version v3"]), "{last:?}");
    shift(lb, ["v1=1", "v3=0"]);
    assert_eq!(leave().status.code(), Some(0));
    assert_eq!(leave().status.code(), Some(0), "again");
    held.ask("/").unwrap();
    assert_eq!(field(lb, "v3-1", "orphaned"), true);
    drop(held);
    eventually(2 * DEADLINE, "a receipt", || {
        let receipts = lb.releasectl_json(&["idle", "receipts", SERVICE, "v3-1"]).unwrap();
        receipts.as_array().unwrap().iter().any(|r| r["report"]["verdict"] == "idle")
    });
    // By force it is forgotten at once, and what is lost is said.
    shift(lb, ["v1=0", "v2=1"]);
    let held = rig.hold_on("v2");
    shift(lb, ["v1=1", "v2=0"]);
    let forced = lb.releasectl(&["instance", "deregister", SERVICE, "v2-1", "--force"]).unwrap();
    let said = String::from_utf8_lossy(&forced.stdout).into_owned();
    assert_eq!(forced.status.code(), Some(5), "{forced:?}");
    assert!(said.contains("by force\n  not proven: 1 active flow"), "{said}");
    drop(held);
    let refused = lb.refused(&["shift", SERVICE, "v2=1"]).unwrap();
    assert!(refused.says(8, &["unregistered versions cannot be released"]), "{refused:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn who_is_lost_gets_no_new_flows() {
    let rig = Rig::new();
    let lb = &rig.topology.lb;
    let _daemon = lb.start_daemon().unwrap();
    let _servers = rig.topology.start_servers().unwrap();
    let lost = || field(lb, "v2-1", "state") == "offline";
    rig.register("v2", &["--lease", "2s"]);
    shift(lb, ["v1=1", "v2=1"]);
    let mut held = rig.hold_on("v2");
    // Renewed, it stays.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert!(rig.register("v2", &["--lease", "2s"]).contains("renewed"));
        let left = field(lb, "v2-1", "registration")["lease_left_s"].as_f64().unwrap();
        assert!((0.0..=2.0).contains(&left) && !lost(), "{left}");
        thread::sleep(Duration::from_millis(200));
    }
    eventually(DEADLINE, "its lease over", lost);
    assert!(events(lb).contains("web/v2-1 is lost: it did not renew its lease of 2 s"));
    let opened = lb.counter("v2-1", "placed").unwrap();
    // v2 keeps its weight, and its share is refused: nobody is there for it.
    (0..20).for_each(|_| drop(rig.topology.hold()));
    assert_eq!(lb.counter("v2-1", "placed").unwrap(), opened);
    held.ask("/").unwrap();
    assert!(lb.verdict("v2-1").unwrap().is("busy", "1 active flow"));

    // Back in time, it is the same one; now it lives as long as a process.
    let sleeper = Process::spawn("sleep", Command::new("sleep").arg("1000")).unwrap();
    let pid = sleeper.pid().to_string();
    assert!(rig.register("v2", &["--watch-pid", &pid]).contains("registered"));
    assert_eq!(
        (field(lb, "v2-1", "state"), lb.counter("v2-1", "placed").unwrap()),
        ("active".into(), opened)
    );
    rig.hold_on("v2");
    drop(sleeper);
    let took = eventually(DEADLINE, "its process gone", lost);
    eprintln!("noticed after {took:?}");
    assert!(events(lb).contains(&format!("its process {pid} has ended")));
    held.ask("/").unwrap();
    let address = rig.address("v2");
    let gone =
        ["instance", "register", SERVICE, "v2", &address, "--id", "v2-1", "--watch-pid", &pid];
    assert!(lb.refused(&gone).unwrap().says(2, &["there is no process"]));
    // When the last flow ends it is forgotten.
    drop(held);
    eventually(2 * DEADLINE, "a receipt", || {
        let receipts = lb.releasectl_json(&["idle", "receipts", SERVICE, "v2-1"]).unwrap();
        !receipts.as_array().unwrap().is_empty()
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn going_offline_is_over_with_a_receipt() {
    let rig = Rig::new();
    let lb = &rig.topology.lb;
    let daemon = lb.start_daemon().unwrap();
    let _servers = rig.topology.start_servers().unwrap();
    rig.register("v2", &[]);
    shift(lb, ["v1=1", "v2=1"]);
    let mut held = rig.hold_on("v2");
    let offline = |more: &[&str]| {
        lb.releasectl(&[&["instance", "offline", SERVICE, "v2-1"], more].concat()).unwrap()
    };
    let last = offline(&["--no-wait"]);
    assert_eq!(last.status.code(), Some(8), "the last of a version that has weight: {last:?}");
    let held_up = offline(&["--no-wait", "--allow-empty"]);
    let said = String::from_utf8_lossy(&held_up.stderr).into_owned();
    assert_eq!(held_up.status.code(), Some(4), "{said}");
    assert!(said.contains("held: 1 active flow"), "{said}");
    assert_eq!(field(lb, "v2-1", "state"), "offline");
    let placed = lb.counter("v2-1", "placed").unwrap();
    (0..20).for_each(|_| drop(rig.topology.hold()));
    assert_eq!(lb.counter("v2-1", "placed").unwrap(), placed);
    let late = offline(&["--timeout", "1s", "-o", "json"]);
    assert_eq!(late.status.code(), Some(9), "{late:?}");
    let answer: Value = serde_json::from_slice(&late.stdout).unwrap();
    assert_eq!((&answer["shutdown"], &answer["receipt"]), (&true.into(), &Value::Null));
    eventually(DEADLINE, "an alarm", || events(lb).contains("web/v2-1 is busy at its deadline"));
    // A renewal does not bring it back, and neither does another daemon.
    assert!(rig.register("v2", &[]).contains("renewed at 10.2.2.2:8080"));
    let daemon = daemon.crash_and_restart().unwrap();
    assert_eq!(field(lb, "v2-1", "state"), "offline");
    held.ask("/").unwrap();
    let refused = lb.refused(&["instance", "maint", SERVICE, "v2-1", "on"]).unwrap();
    assert!(refused.says(8, &["is going offline"]), "{refused:?}");

    let wait = lb.releasectl_command(&["instance", "offline", SERVICE, "v2-1"]).unwrap();
    let mut wait = wait;
    let waiting =
        Process::spawn("offline", wait.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    thread::sleep(Duration::from_millis(500));
    assert!(waiting.is_running());
    drop(held);
    assert_eq!(waiting.wait(DEADLINE).unwrap().unwrap().code(), Some(0));
    let receipt = |output: std::process::Output| {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("it may stop: receipt ").nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    assert_eq!(receipt(offline(&[])), receipt(offline(&["--no-wait"])), "it holds");

    // Back, and for maintenance, which is no way out.
    lb.releasectl_ok(&["undrain", SERVICE, "v2-1"]).unwrap();
    rig.hold_on("v2");
    let maint =
        |word| lb.releasectl_ok(&["instance", "maint", SERVICE, "v2-1", word, "--allow-empty"]);
    maint("on").unwrap();
    assert!(maint("on").unwrap().contains("nothing had to change"));
    assert_eq!(lb.releasectl_ok(&["reload"]).unwrap(), "reloaded: nothing changed\n");
    let _daemon = daemon.restart().unwrap();
    assert_eq!(field(lb, "v2-1", "state"), "maint");
    let placed = lb.counter("v2-1", "placed").unwrap();
    (0..20).for_each(|_| drop(rig.topology.hold()));
    assert_eq!(lb.counter("v2-1", "placed").unwrap(), placed);
    maint("off").unwrap();
    rig.hold_on("v2");
    // An instance of the configuration can go offline, too, and stays so.
    shift(lb, ["v1=0", "v2=1"]);
    let output = lb.releasectl(&["instance", "offline", SERVICE, "v1-1"]).unwrap();
    receipt(output);
    lb.releasectl_ok(&["reload"]).unwrap();
    assert_eq!(field(lb, "v1-1", "state"), "offline");
}
