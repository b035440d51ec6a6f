//! What goes wrong on the way: each has its outcome, an alarm, and costs no connection.

use std::fs;

use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{SERVICE, Topology, TopologySpec};

use crate::harness::{Hooks, clean, entries, load, plain, release, say, start, state, up};

/// Whatever a hook does before the promotion, the release is given up.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn hooks_that_fail_early_give_it_up() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let hooks = Hooks::new();
    let mut config = format!("{}\n", topology.config(&[("v1", 100)]));
    let failing = [
        ("fails", hooks.hook("echo no disk >&2; exit 3"), "exit status: 3: no disk"),
        ("missing", "{ argv = [\"/nowhere/hook\"] }".to_owned(), "cannot be run: No such file"),
        (
            "hangs",
            "{ argv = [\"/bin/sleep\", \"1000\"], timeout = \"300ms\" }".to_owned(),
            "terminated after 300ms",
        ),
        ("chatters", hooks.hook("head -c 5000000 /dev/zero; exit 4"), "exit status: 4"),
    ];
    for (name, hook, _) in &failing {
        let plan = plain(&format!("[plan.hooks]\nstart = {hook}\n"));
        config += &plan.replace("\"plain\"", &format!("{name:?}"));
    }
    topology.lb.write_config(&config).unwrap();
    let _daemon = topology.lb.start_daemon().unwrap();
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    for (name, _, why) in &failing {
        start(&topology, name);
        let over = state(&topology, "rolled-back");
        let reason = over["reasons"][0].as_str().unwrap();
        assert!(reason.starts_with("hook start of v2-1: ") && reason.contains(why), "{reason}");
        assert_eq!(entries(&over, "alarm").len(), 1, "{over:#}");
        // That is told right after the state.
        let cleared = || entries(&release(&topology), "alarm-cleared").len() == 1;
        eventually(DEADLINE, "cleared", cleared);
        let output = over["hooks"][0]["output"].as_str().unwrap();
        assert!(output.len() <= 16 * 1024, "{}", output.len());
    }
    clean(load);
}

/// After the promotion somebody has to look; a hook that failed is run again then.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn hooks_that_fail_late_wait_for_somebody() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let hooks = Hooks::new();
    let mended = hooks.path("mended");
    let table = hooks.table(&[("stop", &format!("test -e {}", mended.display()))]);
    let _daemon = up(&topology, &plain(&table));
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "plain");
    let waited = lb.releasectl(&["release", "wait", SERVICE, "--timeout", "60s"]).unwrap();
    assert_eq!(waited.status.code(), Some(7), "{waited:?}");
    let paused = state(&topology, "paused");
    assert!(paused["reasons"][0].as_str().unwrap().contains("exit status: 1"));
    assert_eq!(lb.version_status("v1").unwrap()["state"], "idle");
    fs::write(mended, "").unwrap();
    say(&topology, "resume");
    state(&topology, "succeeded");
    assert_eq!(hooks.run(), ["stop v1-1", "stop v1-1"]);
    clean(load);
}

/// One instance too few is live: the release waits, and is given up when it has waited long enough.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_new_version_that_does_not_come_up_is_given_up() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let plan = plain("ready = { threshold = 2, timeout = \"1s\" }\n");
    let _daemon = up(&topology, &plan);
    let _old = topology.start_servers_of("v1").unwrap();
    let new = topology.start_servers_of("v2").unwrap();
    let _one = new.into_iter().next();
    start(&topology, "plain");
    let over = state(&topology, "rolled-back");
    assert_eq!(over["reasons"][0], "not 2 instances were live in time");
    let live = entries(&over, "live");
    assert!(live[0].starts_with("1/2 instances live, 2 needed: v2-2: connect"), "{live:?}");
    assert_eq!(topology.lb.version_status("v2").unwrap()["weight"], 0);
}

/// The new version dies in the middle of a step.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_new_version_that_dies_is_given_up() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let plan = plain(
        "analysis = { min_flows = 0, every = \"200ms\" }\n\
         steps = [{ weight = 10, hold = \"1h\" }]\n",
    );
    let _daemon = up(&topology, &plan);
    let _old = topology.start_servers_of("v1").unwrap();
    let new = topology.start_servers_of("v2").unwrap();
    start(&topology, "plain");
    eventually(DEADLINE, "shifted", || topology.lb.version_status("v2").unwrap()["weight"] == 10);
    drop(new);
    let over = state(&topology, "rolled-back");
    let why = over["reasons"][0].as_str().unwrap();
    assert!(why.contains("0 instances live of 1 needed: v2-1: connect"), "{why}");
    assert_eq!(topology.lb.version_status("v1").unwrap()["weight"], 100);
}

/// The old version dies while it drains: its connections are over, whatever it has not said.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_old_version_that_dies_is_over() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let _daemon = up(&topology, &plain(""));
    let old = topology.start_servers_of("v1").unwrap();
    let _new = topology.start_servers_of("v2").unwrap();
    let mut held = topology.hold().unwrap();
    start(&topology, "plain");
    state(&topology, "draining");
    drop(old);
    // Its client sees that, and goes.
    held.ask("/").unwrap_err();
    drop(held);
    state(&topology, "succeeded");
}

/// A reload changes no release that runs, and cannot take its versions away.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reload_leaves_it_what_it_is_about() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let plan = plain("steps = [{ weight = 50, hold = \"1h\" }]\n");
    let daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "plain");
    eventually(DEADLINE, "shifted", || lb.version_status("v2").unwrap()["weight"] == 50);
    let all = format!("{}\n{plan}", topology.config(&[("v1", 100)]));
    let (before, after) = all.split_once("\n[[service.version]]\nname = \"v2\"").unwrap();
    let rest = after.split_once("]\n").unwrap().1;
    lb.write_config(&format!("{before}\n{rest}")).unwrap();
    let refused = lb.refused(&["reload"]).unwrap();
    assert!(refused.says(8, &["version web/v2: release 1 is about it"]), "{refused:?}");
    daemon.kill().unwrap();
    let refused = lb.refused(&["daemon"]).unwrap();
    assert!(refused.says(8, &["version web/v2: release 1 is about it"]), "{refused:?}");
    // The plan may go: the release has its own copy.
    lb.write_config(&topology.config(&[("v1", 100)])).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    assert_eq!(release(&topology)["state"], "shifting");
    say(&topology, "promote");
    state(&topology, "succeeded");
    clean(load);
}

/// Two operators at once: one order counts, the other is refused.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn of_two_operators_one_is_heard() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let _daemon = up(&topology, &plain("steps = [{ weight = 50, hold = \"1h\" }]\n"));
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let start = ["release", "start", SERVICE, "--to", "v2", "--plan", "plain"];
    let both = |arguments: &[&str]| {
        let codes = std::thread::scope(|scope| {
            let one = || scope.spawn(|| lb.releasectl(arguments).unwrap().status.code());
            [one(), one()].map(|thread| thread.join().unwrap())
        });
        let mut codes = codes.map(Option::unwrap);
        codes.sort_unstable();
        codes
    };
    assert_eq!(both(&start), [0, 8]);
    eventually(DEADLINE, "shifted", || lb.version_status("v2").unwrap()["weight"] == 50);
    assert_eq!(both(&["release", "abort", SERVICE]), [0, 8]);
    state(&topology, "rolled-back");
    assert_eq!(lb.releasectl_json(&["release", "history"]).unwrap().as_array().unwrap().len(), 1);
}
