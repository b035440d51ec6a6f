//! A topology with plans, hooks that write down what they were told, and a load.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use release_tests::load::{Group, Load, LoadPlan};
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{Daemon, FRONTEND, SERVICE, Topology};
use serde_json::Value;

/// Where hooks of a test write, a line of JSON each.
pub struct Hooks {
    folder: tempfile::TempDir,
}

impl Hooks {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A hook that writes down what it reads, and then does something more.
    pub fn hook(&self, more: &str) -> String {
        let log = self.path("log");
        let script = format!("cat >> {}; {more}", log.display());
        format!("{{ argv = [\"/bin/sh\", \"-c\", {script:?}], timeout = \"20s\" }}")
    }

    /// `[plan.hooks]` with all these, each as [`Hooks::hook`].
    pub fn table(&self, hooks: &[(&str, &str)]) -> String {
        let lines = hooks.iter().map(|(name, more)| format!("{name} = {}\n", self.hook(more)));
        format!("[plan.hooks]\n{}", lines.collect::<String>())
    }

    /// What hooks were told so far.
    pub fn told(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Which hooks were run for which instance, in turn.
    pub fn run(&self) -> Vec<String> {
        let name = |told: &Value| {
            let point = told["point"].as_str().unwrap();
            let of = told["instance"]["id"].as_str();
            of.map_or(point.to_owned(), |id| format!("{point} {id}"))
        };
        self.told().iter().map(name).collect()
    }
}

/// The daemon with a plan besides the service.
pub fn up<'t>(topology: &'t Topology, plan: &str) -> Daemon<'t> {
    let config = format!("{}\n{plan}", topology.config(&[("v1", 100)]));
    topology.lb.write_config(&config).unwrap();
    topology.lb.start_daemon().unwrap()
}

/// A plan side by side without steps, with what more is said of it.
pub fn plain(more: &str) -> String {
    format!(
        "[[plan]]\nname = \"plain\"\nstrategy = \"side-by-side\"\nrollback_window = \"0s\"\n{more}"
    )
}

/// Starts a release of v2 by a plan.
pub fn start(topology: &Topology, plan: &str) {
    let arguments = ["release", "start", SERVICE, "--to", "v2", "--plan", plan];
    topology.lb.releasectl_ok(&arguments).unwrap();
}

/// Says something to the release under way.
pub fn say(topology: &Topology, word: &str) -> String {
    topology.lb.releasectl_ok(&["release", word, SERVICE]).unwrap()
}

/// Short and kept connections, that last for the whole test.
pub fn load(topology: &Topology) -> Load {
    let short = Group::Short { per_second: 100, limit: None, path: "/".into() };
    let pause = Duration::from_millis(100);
    let life = Some(Duration::from_secs(1));
    let plan = LoadPlan {
        target: FRONTEND,
        sources: topology.client_addresses(),
        groups: vec![short, Group::KeepAlive { connections: 10, pause, life }],
        threads: 1,
    };
    let load = Load::start(&topology.client, plan).unwrap();
    assert!(load.wait(DEADLINE, |now| now.connections_to("v1") > 20), "{:?}", load.snapshot());
    load
}

/// Ends a load of which no client saw anything.
pub fn clean(load: Load) {
    let report = load.finish().unwrap();
    assert!(report.is_clean(), "{:?} {:?}", report.first_errors, report.first_moved);
}

/// The newest release of the service.
pub fn release(topology: &Topology) -> Value {
    topology.lb.releasectl_json(&["release", "show", SERVICE]).unwrap()
}

/// Waits until the newest release is in a state.
pub fn state(topology: &Topology, state: &str) -> Value {
    let mut last = Value::Null;
    let deadline = 3 * DEADLINE;
    let text = format!("release is {state}");
    eventually(deadline, &text, || {
        let now = release(topology);
        if now["state"] != last["state"] {
            eprintln!("{}: {}", now["state"], now["reasons"]);
        }
        last = now;
        let over = last["over"] == true && last["state"] != state;
        assert!(!over, "{last:#}");
        last["state"] == state
    });
    last
}

/// All states that a release has had, each once, in turn.
pub fn states(release: &Value) -> Vec<String> {
    let history = release["history"].as_array().unwrap();
    let mut states: Vec<String> =
        history.iter().map(|entry| entry["state"].as_str().unwrap().to_owned()).collect();
    states.dedup();
    states
}

/// Entries of a kind in a release's timeline.
pub fn entries(release: &Value, kind: &str) -> Vec<String> {
    let history = release["history"].as_array().unwrap();
    let of_kind = history.iter().filter(|entry| entry["kind"] == kind);
    of_kind.map(|entry| entry["text"].as_str().unwrap().to_owned()).collect()
}

/// A webhook in the balancer's namespace.
pub struct Webhook {
    pub url: String,
    status: Arc<AtomicU16>,
    webhook: release_tests::webhook::Webhook,
}

impl Webhook {
    /// Answers everything with this status.
    pub fn new(topology: &Topology, status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let said = Arc::clone(&status);
        let webhook = release_tests::webhook::Webhook::start(
            &topology.lb.namespace,
            "127.0.0.1:0".parse().unwrap(),
            move |_| said.load(Ordering::SeqCst),
        )
        .unwrap();
        Self { url: format!("http://{}/hook", webhook.address()), status, webhook }
    }

    pub fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What was posted to it.
    pub fn seen(&self) -> Vec<Value> {
        self.webhook.posted().into_iter().map(|posted| posted.body).collect()
    }
}
