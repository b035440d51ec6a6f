//! What people and webhooks say to a release.

use release_tests::http;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{FRONTEND, SERVICE, Topology, TopologySpec};

use crate::harness::{
    Hooks, Webhook, clean, entries, load, plain, release, say, start, state, states, up,
};

fn weight(topology: &Topology, version: &str) -> u64 {
    topology.lb.version_status(version).unwrap()["weight"].as_u64().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_webhook_approves() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let webhook = Webhook::new(&topology, 403);
    let secret = Hooks::new();
    std::fs::write(secret.path("token"), "s3cret\n").unwrap();
    let plan = plain(&format!(
        "steps = [{{ approve = {{ webhook = {:?}, token_file = {:?} }} }}]\n",
        webhook.url,
        secret.path("token"),
    ));
    let _daemon = up(&topology, &plan);
    let _servers = topology.start_servers().unwrap();
    start(&topology, "plain");
    eventually(DEADLINE, "asked twice", || webhook.seen().len() > 1);
    let asked = webhook.seen().pop().unwrap();
    assert_eq!((&asked["service"], &asked["id"]), (&"web".into(), &1.into()));
    let now = release(&topology);
    assert_eq!(now["state"], "testing");
    assert!(now["reasons"][0].as_str().unwrap().contains("says 403"), "{}", now["reasons"]);
    assert_eq!(weight(&topology, "v2"), 0);
    webhook.says(204);
    state(&topology, "succeeded");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_word_it_waits_and_says_so() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let alarms = Webhook::new(&topology, 200);
    let pager = Hooks::new();
    let page = format!("cat >> {}; echo $RELEASE_ALARM >&2", pager.path("log").display());
    let spec = format!(
        "alarms = {{ webhook = {:?}, argv = [\"/bin/sh\", \"-c\", {page:?}] }}\n",
        alarms.url
    );
    let plan = plain(
        "steps = [{ approve = { webhook = \"http://127.0.0.1:9/no\", timeout = \"500ms\" } }]\n",
    );
    let config = format!("{}\n{plan}", topology.config(&[("v1", 100)]));
    let config = config.replacen("[daemon]\n", &format!("[daemon]\n{spec}"), 1);
    topology.lb.write_config(&config).unwrap();
    let daemon = topology.lb.start_daemon().unwrap();
    let _servers = topology.start_servers().unwrap();
    start(&topology, "plain");
    let paused = state(&topology, "paused");
    assert!(paused["reasons"][0].as_str().unwrap().contains("nobody has approved"));
    let waited = topology.lb.releasectl(&["release", "wait", SERVICE]).unwrap();
    assert_eq!(waited.status.code(), Some(4), "{waited:?}");
    eventually(DEADLINE, "an alarm", || !alarms.seen().is_empty());
    // Once, also for a daemon that is started again.
    let _daemon = daemon.crash_and_restart().unwrap();
    assert_eq!(state(&topology, "paused")["id"], 1);
    say(&topology, "promote");
    state(&topology, "succeeded");
    eventually(DEADLINE, "cleared", || alarms.seen().len() == 2);
    let seen = alarms.seen();
    assert_eq!((&seen[0]["state"], &seen[1]["state"]), (&"raised".into(), &"cleared".into()));
    assert!(seen[0]["message"].as_str().unwrap().contains("nobody has approved"), "{seen:?}");
    assert_eq!(pager.told(), seen);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn it_stays_goes_on_and_is_given_up_as_it_is_told() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let hooks = Hooks::new();
    let table = hooks.table(&[("abort", "true")]);
    let plan =
        plain(&format!("steps = [{{ weight = 50, hold = \"1h\" }}, {{ pause = {{}} }}]\n{table}"));
    let _daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "plain");
    eventually(DEADLINE, "shifted", || weight(&topology, "v2") == 50);
    say(&topology, "pause");
    assert_eq!(state(&topology, "paused")["reasons"][0], "as was said");
    // Somebody operates: by hand is allowed.
    lb.releasectl_ok(&["shift", SERVICE, "v1=90", "v2=10"]).unwrap();
    let again = lb.refused(&["release", "pause", SERVICE]).unwrap();
    assert!(again.says(8, &["release 1: is paused"]), "{again:?}");
    say(&topology, "resume");
    eventually(DEADLINE, "shifted again", || weight(&topology, "v2") == 50);
    let back = lb.refused(&["release", "rollback", SERVICE]).unwrap();
    assert!(back.says(8, &["is shifting", "releasectl release abort"]), "{back:?}");
    assert!(load.wait(DEADLINE, |now| now.active("v2") > 0));
    lb.releasectl_ok(&["release", "abort", SERVICE, "--reason", "wrong image"]).unwrap();
    let waited = lb.releasectl(&["release", "wait", SERVICE]).unwrap();
    assert_eq!(waited.status.code(), Some(3), "{waited:?}");
    let over = state(&topology, "rolled-back");
    assert_eq!(over["reasons"][0], "wrong image");
    assert_eq!((weight(&topology, "v1"), weight(&topology, "v2")), (100, 0));
    assert_eq!(hooks.run(), ["abort"]);
    clean(load);
    let late = lb.refused(&["release", "resume", "1"]).unwrap();
    assert!(late.says(8, &["release 1: is rolled-back"]), "{late:?}");
}

/// Test clients, and nobody else, reach the new version; neither they nor the warm-up are measured.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_test_reaches_the_new_version_and_leaves_no_trace() {
    let topology = Topology::new(&TopologySpec { clients: 2, ..TopologySpec::small() }).unwrap();
    let plan = plain(
        "steps = [{ warmup = { requests = 30, path = \"/\", concurrency = 4 } }, \
         { test = { sources = [\"10.1.0.3/32\"], for = \"1h\" } }]\n",
    );
    let _daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    start(&topology, "plain");
    eventually(DEADLINE, "the test", || {
        let doing = release(&topology)["doing"].clone();
        doing == "test for 1h"
    });
    assert_eq!(lb.counter("v2-1", "packets").unwrap(), 0, "of the warm-up");
    let [ordinary, tester] = topology.client_addresses()[..] else { panic!() };
    let who = |client| {
        let from = std::net::SocketAddrV4::new(client, 0);
        let mut stream = topology.client.connect_from(from, FRONTEND, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        http::request(&mut stream, "/").unwrap()
    };
    for _ in 0..20 {
        assert_eq!((&*who(ordinary).version, &*who(tester).version), ("v1", "v2"));
    }
    // The server has seen the warm-up.
    assert!(who(tester).connection > 30);
    let measured = lb.version_status("v2").unwrap()["measured"].clone();
    assert_eq!(measured["segments"], 0, "{measured:#}");
    lb.releasectl_ok(&["release", "abort", SERVICE]).unwrap();
    state(&topology, "rolled-back");
    assert_eq!(who(tester).version, "v1");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn after_the_promotion_another_release_goes_back() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let plan =
        "[[plan]]\nname = \"plain\"\nstrategy = \"side-by-side\"\nrollback_window = \"2s\"\n";
    let _daemon = up(&topology, plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "plain");
    state(&topology, "idle");
    let abort = lb.refused(&["release", "abort", SERVICE]).unwrap();
    assert!(abort.says(8, &["is idle", "rollback goes back"]), "{abort:?}");
    let back = lb.releasectl_ok(&["release", "rollback", SERVICE, "--wait"]).unwrap();
    assert!(back.contains("web: release 2: v2 → v1: succeeded"), "{back}");
    assert_eq!((weight(&topology, "v1"), weight(&topology, "v2")), (100, 0));
    assert_eq!(lb.version_status("v2").unwrap()["state"], "retired");
    let first = lb.releasectl_json(&["release", "show", "1"]).unwrap();
    assert_eq!(first["state"], "reversed");
    assert_eq!(states(&first).last().unwrap(), "reversed");
    clean(load);
    // Nothing to go back to.
    let late = lb.refused(&["release", "rollback", "2"]).unwrap();
    assert!(late.says(8, &[]), "{late:?}");
    let history = lb.releasectl_json(&["release", "history", SERVICE]).unwrap();
    let ids: Vec<_> = history.as_array().unwrap().iter().map(|r| r["id"].clone()).collect();
    assert_eq!(ids, [2, 1]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let versions = vec![("v1".into(), 2), ("v2".into(), 1), ("v3".into(), 0)];
    let spec = TopologySpec { versions, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let rolling = "[[plan]]\nname = \"rolling\"\nstrategy = \"in-place\"\nmin_serving = 2\n\
                   [plan.hooks]\nupgrade = { argv = [\"/bin/true\"] }\n";
    let _daemon = up(&topology, &format!("{}{rolling}", plain("")));
    let lb = &topology.lb;
    let refused =
        |more: &[&str]| lb.refused(&[&["release", "start", SERVICE], more].concat()).unwrap();
    for (arguments, code, parts) in [
        (&["--to", "v2"][..], 2, &["names no plan", "there are plain, rolling"][..]),
        (&["--to", "v2", "--plan", "gray"], 2, &["plan gray: no such plan"]),
        (&["--plan", "plain"], 2, &["takes a new version", "--to VERSION"]),
        (&["--to", "v9", "--plan", "plain"], 2, &["version v9: no such version"]),
        (&["--to", "v1", "--plan", "plain"], 8, &["v1: serves already"]),
        (&["--to", "v3", "--plan", "plain"], 8, &["v3: has no instance"]),
        (&["--from", "v2", "--to", "v1", "--plan", "plain"], 8, &["v2: does not serve"]),
        (&["--to", "v2", "--plan", "rolling"], 2, &["in place, there is no other version"]),
        (&["--plan", "rolling"], 8, &["2 instances serve; 2 must while 1 are upgraded"]),
        (&["--plan", "rolling", "--instance", "v1-9"], 2, &["instance v1-9", "v1-1, v1-2"]),
        (&["--to", "v2", "--plan", "plain", "--data", "x"], 2, &["--data: not JSON"]),
    ] {
        let said = refused(arguments);
        assert!(said.says(code, parts), "{arguments:?}: {said:?}");
    }
    let unknown = lb.refused(&["release", "show", SERVICE]).unwrap();
    assert!(unknown.says(2, &["service web: had no release"]), "{unknown:?}");
    let unknown = lb.refused(&["release", "pause", "7"]).unwrap();
    assert!(unknown.says(2, &["release 7: no such release"]), "{unknown:?}");
    assert!(entries_of_events(lb).is_empty());
}

fn entries_of_events(lb: &release_tests::topology::Balancer) -> Vec<String> {
    let events = lb.releasectl_ok(&["events"]).unwrap();
    events.lines().filter(|line| line.contains("  release  ")).map(str::to_owned).collect()
}

/// One connection is left at the deadline: it is ended, and that is said.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn force_is_another_end() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let plan = plain("drain = { deadline = \"1s\", on_deadline = \"force\" }\n");
    let _daemon = up(&topology, &plan);
    let _servers = topology.start_servers().unwrap();
    let mut held = topology.hold().unwrap();
    start(&topology, "plain");
    let waited = topology.lb.releasectl(&["release", "wait", SERVICE, "--timeout", "60s"]).unwrap();
    assert_eq!(waited.status.code(), Some(5), "{waited:?}");
    let said = String::from_utf8_lossy(&waited.stdout);
    assert!(said.contains("succeeded, by force, receipt 1"), "{said}");
    held.ask("/").unwrap_err();
    let over = state(&topology, "succeeded");
    assert_eq!(entries(&over, "alarm").len(), 1);
    let receipt = topology.lb.releasectl_json(&["idle", "receipts", SERVICE, "--id", "1"]).unwrap();
    assert_eq!(receipt["forced"].as_array().unwrap().len(), 1, "{receipt:#}");
}
