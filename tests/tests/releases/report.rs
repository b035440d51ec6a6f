//! The report of a release, for people who were not there.

use std::fs;

use release_tests::scenario::DEADLINE;
use release_tests::scenario::eventually;
use release_tests::topology::{SERVICE, Topology, TopologySpec};

use crate::harness::{Hooks, clean, load, start, state, states, up};

/// More than an interval between two samples.
const LONG: &str = "2500ms";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_finished_release_has_a_page_with_all_of_it() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let hooks = Hooks::new();
    let table = hooks.table(&[("start", "echo '<b>up</b> & ready'"), ("stop", "true")]);
    let plan = format!(
        "[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\nrollback_window = \"0s\"\n\
         steps = [{{ weight = 50, hold = \"{LONG}\" }}]\n\
         analysis = {{ min_flows = 10, every = \"500ms\", max_resets = \"50%\" }}\n{table}"
    );
    let daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    start(&topology, "gray");
    let arguments = ["release", "report", SERVICE, "--html"];
    state(&topology, "shifting");
    let under_way = lb.releasectl_ok(&arguments).unwrap();
    assert!(under_way.contains("it is shifting") && under_way.contains("no receipt yet"));
    let shown = state(&topology, "succeeded");
    clean(load);

    let data = || lb.releasectl_json(&["release", "report", "1"]).unwrap();
    // The last one comes when the release has ended.
    eventually(DEADLINE, "the end is measured", || {
        let last = data()["samples"].as_array().unwrap().last().unwrap().clone();
        last["at"].as_str() >= shown["ended_at"].as_str()
    });
    let data = data();
    let samples = data["samples"].as_array().unwrap();
    assert!((3..30).contains(&samples.len()), "{samples:#?}");
    let opened = |sample: usize, version: usize| {
        samples[sample]["versions"][version]["opened"].as_u64().unwrap()
    };
    let last = samples.len() - 1;
    assert!(opened(last, 1) > opened(0, 1) + 50 && opened(last, 0) >= opened(0, 0) + 50);
    let ended = &samples[last]["versions"][0];
    assert_eq!((&ended["active"], &ended["weight"]), (&0.into(), &0.into()), "{ended}");
    let times = samples.iter().filter(|sample| sample["versions"][1]["first_byte"].is_object());
    assert!(times.count() > 0, "{samples:#?}");

    let file = hooks.path("release.html");
    let arguments = ["release", "report", "1", "--html", "-O", file.to_str().unwrap()];
    assert_eq!(lb.releasectl_ok(&arguments).unwrap(), "");
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert_eq!(page, lb.releasectl_ok(&["release", "report", "1", "--html"]).unwrap());
    for state in states(&shown) {
        assert!(page.contains(&format!("<strong>{state}</strong>")), "{state}");
    }
    let receipt = &data["receipts"][0];
    for words in [
        receipt["hash"].as_str().unwrap(),
        ">intact<",
        "v2 of web replaced v1 in ",
        "&lt;b&gt;up&lt;/b&gt; &amp; ready",
        "connections reset by the server",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // Of each version the legends have one of each curve, the charts have at least one more.
    for class in ["old", "new"] {
        let curves = page.matches(&format!("<polyline class=\"curve {class} ")).count();
        assert!(curves >= 2 * 11, "{class}: {curves}");
    }

    // What was measured outlives the daemon.
    let _daemon = daemon.restart().unwrap();
    assert_eq!(
        lb.releasectl_json(&["release", "report", "1"]).unwrap()["samples"],
        data["samples"]
    );
}

/// A restart of the daemon is no end of it, nor a begin.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn samples_go_on_with_the_next_daemon() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let plan = "[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\n\
                steps = [{ weight = 50, hold = \"100ms\" }, { pause = {} }]\n";
    let daemon = up(&topology, plan);
    let _servers = topology.start_servers().unwrap();
    start(&topology, "gray");
    state(&topology, "paused");
    let count = || {
        let data = topology.lb.releasectl_json(&["release", "report", SERVICE]).unwrap();
        data["samples"].as_array().unwrap().len()
    };
    let before = count();
    let _daemon = daemon.restart().unwrap();
    // One at the end of the first daemon, one at the begin of the second, then as before.
    eventually(DEADLINE, "two and more samples", || count() >= before + 3);
    let page = topology.lb.releasectl_ok(&["release", "report", SERVICE, "--html"]).unwrap();
    assert!(page.contains("it is paused and waits for somebody"), "{page}");
}
