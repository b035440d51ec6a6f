//! The daemon killed, the medium full, the balancer rebooted: the release goes on where it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{Mode, SERVICE, Topology, TopologySpec};

use crate::harness::{Hooks, clean, entries, load, plain, release, say, start, state, up};

/// Killed as soon as each state is seen, it comes to the same end, with each hook run once or, where
/// nobody knows, asked about.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn killed_in_every_state() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let hooks = Hooks::new();
    let all = ["start", "pre_step", "promote", "pre_drain", "stop", "post_release"];
    let table = hooks.table(&all.map(|name| (name, "sleep 0.3")));
    let plan = "steps = [{ test = { sources = [\"10.9.0.0/24\"], for = \"300ms\" } }, \
                { weight = 50, hold = \"1s\" }]\n";
    let plan = plain(&format!("{plan}{table}")).replace("\"0s\"", "\"1s\"");
    let mut daemon = up(&topology, &plan);
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "plain");
    let mut seen = Vec::new();
    let mut asked = 0;
    loop {
        let now = release(&topology);
        let word = now["state"].as_str().unwrap().to_owned();
        if word == "paused" {
            let why = now["reasons"][0].as_str().unwrap();
            assert!(why.contains("nobody knows whether it was done"), "{why}");
            say(&topology, "resume");
            asked += 1;
        } else if !seen.contains(&word) {
            eprintln!("killed while {word}");
            seen.push(word);
            daemon = daemon.crash_and_restart().unwrap();
        } else if now["over"] == true {
            break;
        }
    }
    let run = hooks.run();
    eprintln!("{seen:?}; asked {asked} times; {run:?}");
    assert!(seen.len() >= 6 && seen.last().unwrap() == "succeeded", "{seen:?}");
    // `pre_step` is run for each of two steps; all others once, or again when somebody said so.
    let once = run.iter().collect::<BTreeSet<_>>().len();
    assert!(run.len() - once <= asked + 1, "{run:?}");
    clean(load);
}

/// A hook that a killed daemon has left behind: it is waited for, and asked about unless the plan
/// says that it may be run again.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_hook_in_the_dark() {
    for idempotent in [false, true] {
        let topology = Topology::new(&TopologySpec::small()).unwrap();
        let hooks = Hooks::new();
        let mut hook = hooks.hook(&format!("sleep 1; echo >> {}", hooks.path("done").display()));
        if idempotent {
            hook = hook.replace(" }", ", idempotent = true }");
        }
        let daemon = up(&topology, &plain(&format!("[plan.hooks]\nstop = {hook}\n")));
        let _servers = topology.start_servers().unwrap();
        start(&topology, "plain");
        eventually(3 * DEADLINE, "the hook runs", || !hooks.told().is_empty());
        let _daemon = daemon.crash_and_restart().unwrap();
        if !idempotent {
            let paused = state(&topology, "paused");
            // It has ended: nothing runs twice at once.
            assert_eq!(fs::read_to_string(hooks.path("done")).unwrap().lines().count(), 1);
            let why = paused["reasons"][0].as_str().unwrap();
            assert!(why.contains("hook stop of v1-1: begun at "), "{why}");
            say(&topology, "resume");
        }
        state(&topology, "succeeded");
        assert_eq!(fs::read_to_string(hooks.path("done")).unwrap().lines().count(), 2);
        assert_eq!(hooks.run(), ["stop v1-1", "stop v1-1"]);
    }
}

/// A stop of the daemon lets the hook end that runs.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stop_waits_for_the_hook() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let hooks = Hooks::new();
    let table = hooks.table(&[("stop", "sleep 1")]);
    let daemon = up(&topology, &plain(&table));
    let _servers = topology.start_servers().unwrap();
    start(&topology, "plain");
    eventually(3 * DEADLINE, "the hook runs", || !hooks.told().is_empty());
    daemon.stop().unwrap();
    let _daemon = topology.lb.start_daemon().unwrap();
    state(&topology, "succeeded");
    assert_eq!(hooks.run(), ["stop v1-1"]);
}

/// A small file system, for as long as this lives.
struct Medium(PathBuf);

impl Medium {
    fn new(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "release-test"]).arg(&at);
        assert!(mount.status().unwrap().success());
        Self(at)
    }

    fn fill(&self) {
        // Until nothing fits any more.
        let full = fs::write(self.0.join("filler"), vec![0; 8 << 20]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Nothing is done that cannot be written down before; when there is room again it goes on.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_medium_stands_still() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let medium = Medium::new(topology.lb.state_dir());
    let hooks = Hooks::new();
    let table = hooks.table(&[("promote", "true")]);
    let plan = plain(&format!("steps = [{{ weight = 50, hold = \"1h\" }}]\n{table}"));
    let daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "plain");
    eventually(DEADLINE, "shifted", || lb.version_status("v2").unwrap()["weight"] == 50);
    medium.fill();
    let mut refused = lb.releasectl(&["release", "promote", SERVICE]).unwrap();
    // What the journal has room for in its last page it may take.
    for word in ["pause", "resume", "pause", "resume", "pause", "resume"] {
        if !refused.status.success() {
            break;
        }
        refused = lb.releasectl(&["release", word, SERVICE]).unwrap();
    }
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("the order could not be written down"), "{error}");
    let events = lb.releasectl_ok(&["events"]).unwrap();
    assert!(events.contains("alarm  web release 1: release 1 stands still: "), "{events}");
    assert!(hooks.run().is_empty(), "{:?}", hooks.run());
    medium.free();
    eventually(DEADLINE, "promoted", || {
        lb.releasectl(&["release", "promote", SERVICE]).unwrap().status.success()
    });
    state(&topology, "succeeded");
    assert_eq!(hooks.run(), ["promote"]);
    clean(load);
    daemon.stop().unwrap();
    lb.releasectl_ok(&["detach"]).unwrap();
}

/// A reboot takes all maps and programs away. The release goes on, connections are taken over by
/// trial and stay with their instances, and what was proven before is void.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reboot_voids_receipts_and_loses_no_connection() {
    let spec = TopologySpec { mode: Mode::Host, ..TopologySpec::small() };
    let topology = Topology::new(&spec).unwrap();
    let hooks = Hooks::new();
    let table = hooks.table(&[("stop", "true")]);
    let plan = plain(&format!("steps = [{{ pause = {{}} }}]\n{table}"));
    let daemon = up(&topology, &plan.replace("\"0s\"", "\"4s\""));
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let mut old = topology.hold().unwrap();
    start(&topology, "plain");
    state(&topology, "paused");
    let daemon = reboot(&topology, daemon);
    assert_eq!(release(&topology)["state"], "paused");
    old.ask("/").unwrap();
    assert_eq!(old.first.version, "v1");
    say(&topology, "promote");
    state(&topology, "draining");
    let mut new = topology.hold().unwrap();
    assert_eq!(new.first.version, "v2");
    old.ask("/").unwrap();
    drop(old);
    let idle = state(&topology, "idle");
    assert_eq!(idle["receipts"], serde_json::json!([1]));
    let _daemon = reboot(&topology, daemon);
    new.ask("/").unwrap();
    let over = state(&topology, "succeeded");
    let void = entries(&over, "state");
    assert!(void.iter().any(|text| text.contains("its receipts hold no more")), "{void:#?}");
    let stop = hooks.told().into_iter().find(|told| told["point"] == "stop").unwrap();
    assert_eq!(stop["receipts"][0]["id"], 2, "{stop:#}");
    new.ask("/").unwrap();
    assert_eq!(lb.version_status("v1").unwrap()["state"], "retired");
}

fn reboot<'t>(
    topology: &'t Topology,
    daemon: release_tests::topology::Daemon<'t>,
) -> release_tests::topology::Daemon<'t> {
    daemon.kill().unwrap();
    topology.lb.releasectl_ok(&["detach"]).unwrap();
    topology.lb.start_daemon().unwrap()
}
