//! A new version beside the old one.

use release_tests::scenario::DEADLINE;
use release_tests::topology::{SERVICE, Topology, TopologySpec};

use crate::harness::{Hooks, clean, entries, load, state, states, up};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn it_goes_all_the_way_unattended() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let hooks = Hooks::new();
    let all = ["start", "pre_step", "test", "promote", "pre_drain", "stop", "post_release"];
    let table = hooks.table(&all.map(|name| (name, "true")));
    let plan = format!(
        "[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\nrollback_window = \"500ms\"\n\
         ready = {{ threshold = \"100%\", timeout = \"20s\" }}\n\
         steps = [\n{{ test = {{ sources = [\"10.9.0.0/24\"], for = \"200ms\" }} }},\n\
         {{ warmup = {{ requests = 10, path = \"/\", concurrency = 2 }} }},\n\
         {{ weight = 10, hold = \"500ms\" }},\n{{ weight = 50, hold = \"500ms\" }},\n]\n{table}"
    );
    let _daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    let mut held = topology.hold().unwrap();

    let start = ["release", "start", SERVICE, "--to", "v2", "--plan", "gray"];
    let dry = lb.releasectl_ok(&[&start[..], &["--dry-run"]].concat()).unwrap();
    assert!(dry.contains("v2 gets 10 % of new flows"), "{dry}");
    assert!(lb.releasectl_json(&["release", "list"]).unwrap().as_array().unwrap().is_empty());
    let data = ["--data", "{\"image\": \"web:2\"}"];
    let begun = lb.releasectl_ok(&[&start[..], &data].concat()).unwrap();
    assert!(begun.starts_with("web: release 1: v1 → v2, plan gray: begun\n"), "{begun}");
    let second = lb.refused(&start).unwrap();
    assert!(second.says(8, &["release 1 is under way"]), "{second:?}");

    // Nobody moves what lives.
    state(&topology, "draining");
    let shift = lb.refused(&["shift", SERVICE, "v1=100"]).unwrap();
    assert!(shift.says(8, &["release 1 is draining"]), "{shift:?}");
    held.ask("/").unwrap();
    assert!(load.wait(DEADLINE, |now| now.active("v1") == 0), "{:?}", load.snapshot());
    held.ask("/").unwrap();
    assert!(!hooks.run().iter().any(|hook| hook.starts_with("stop")), "{:?}", hooks.run());
    drop(held);
    let ended = lb.releasectl_ok(&["release", "wait", SERVICE, "--timeout", "30s"]).unwrap();
    assert_eq!(ended, "web: release 1: v1 → v2: succeeded, receipt 1\n");
    clean(load);

    let ids = |name: &str| [1, 2].map(|number| format!("{name}-{number}"));
    let [a, b] = ids("v2");
    let [c, d] = ids("v1");
    let run = [
        &format!("start {a}"),
        &format!("start {b}"),
        "pre_step",
        "test",
        "pre_step",
        "pre_step",
        "pre_step",
        "promote",
        "pre_drain",
        &format!("stop {c}"),
        &format!("stop {d}"),
        "post_release",
    ];
    assert_eq!(hooks.run(), run);
    let told = hooks.told();
    let stop = told.iter().find(|told| told["point"] == "stop").unwrap();
    assert_eq!(stop["data"]["image"], "web:2");
    assert_eq!(stop["receipts"][0]["report"]["verdict"], "idle");
    let shown = state(&topology, "succeeded");
    let way = [
        "pending",
        "staging",
        "testing",
        "shifting",
        "promoting",
        "promoted",
        "draining",
        "idle",
        "stopping",
        "post-release",
        "succeeded",
    ];
    assert_eq!(states(&shown), way);
    assert_eq!(entries(&shown, "shift").len(), 3, "{:?}", entries(&shown, "shift"));
    assert_eq!(lb.version_status("v1").unwrap()["state"], "retired");
}
