//! The same instances, upgraded one after the other.

use release_tests::scenario::DEADLINE;
use release_tests::topology::{SERVICE, Topology, TopologySpec};

use crate::harness::{Hooks, clean, entries, load, state, up};

/// Embodiment A: with traffic on an instance it is not upgraded, and the operator is told once.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_instance_is_upgraded_only_when_it_is_idle() {
    let versions = vec![("v1".into(), 3)];
    let topology = Topology::new(&TopologySpec { versions, ..TopologySpec::default() }).unwrap();
    let hooks = Hooks::new();
    let table = hooks.table(&[("upgrade", "true"), ("probe", "true")]);
    let plan = format!(
        "[[plan]]\nname = \"rolling\"\nstrategy = \"in-place\"\nbatch = 1\nmin_serving = 2\n\
         drain = {{ deadline = \"4s\" }}\n{table}"
    );
    let _daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let load = load(&topology);
    let mut held = topology.hold().unwrap();
    let on = held.first.instance.clone();
    lb.releasectl_ok(&["release", "start", SERVICE, "--plan", "rolling"]).unwrap();
    let waited = lb.releasectl(&["release", "wait", SERVICE, "--timeout", "40s"]).unwrap();
    assert_eq!(waited.status.code(), Some(4), "{waited:?}");
    let shown = state(&topology, "held");
    let alarms = entries(&shown, "alarm");
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].contains("is held") && alarms[0].contains("active flow"), "{alarms:?}");
    assert!(!hooks.run().contains(&format!("upgrade {on}")), "{:?}", hooks.run());
    assert_eq!(lb.instance_status(&on).unwrap()["state"], "draining");
    held.ask("/").unwrap();
    drop(held);
    let ended = lb.releasectl_ok(&["release", "wait", SERVICE, "--timeout", "60s"]);
    // Held it waits for idle, too: it goes on by itself.
    let ended = ended.unwrap_or_else(|_| {
        state(&topology, "succeeded");
        String::new()
    });
    eprintln!("{ended}");
    let shown = state(&topology, "succeeded");
    assert_eq!(entries(&shown, "alarm-cleared").len(), 1);
    let mut run = hooks.run();
    run.sort();
    let all =
        ["probe v1-1", "probe v1-2", "probe v1-3", "upgrade v1-1", "upgrade v1-2", "upgrade v1-3"];
    assert_eq!(run, all);
    for told in hooks.told().iter().filter(|told| told["point"] == "upgrade") {
        assert_eq!(told["receipts"][0]["report"]["target"], told["instance"]["id"]);
    }
    assert!(load.wait(DEADLINE, |now| now.versions["v1"].instances.len() == 3));
    clean(load);
    for id in ["v1-1", "v1-2", "v1-3"] {
        assert_eq!(lb.instance_status(id).unwrap()["state"], "active");
    }
}
