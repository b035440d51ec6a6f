//! What several of these tests say.

use release_tests::scenario::{DEADLINE, Said, eventually};
use release_tests::topology::{Balancer, SERVICE, Topology, TopologySpec};

/// One instance a version.
pub fn small() -> TopologySpec {
    TopologySpec { versions: vec![("v1".into(), 1), ("v2".into(), 1)], ..TopologySpec::default() }
}

/// The configuration with all weight on v1, and v1's sockets asked for at a place.
pub fn config(topology: &Topology, place: &str) -> String {
    let version = "\n[[service.version]]\nname = \"v1\"\n";
    let config = topology.config(&[("v1", 100)]);
    assert!(config.contains(version));
    config.replace(version, &format!("{version}sockets = {place}\n"))
}

/// The namespace of the first backend, as a place.
pub fn netns(topology: &Topology) -> String {
    format!("{{ netns = {:?} }}", topology.backends[0].namespace.name())
}

pub fn shift_away(lb: &Balancer) {
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
}

/// Waits for a verdict on v1, for a reason that contains `why`.
pub fn becomes(lb: &Balancer, verdict: &str, why: &str) -> Said {
    let mut last = lb.verdict("v1").unwrap();
    eventually(DEADLINE * 2, &format!("{verdict} ({why})"), || {
        last = lb.verdict("v1").unwrap();
        let said = last.is(verdict, why);
        if !said {
            eprintln!("{} {}", last.verdict, last.reasons);
        }
        said
    });
    last
}

/// Detail of an item of the evidence, and whether it speaks for `idle`.
pub fn item(said: &Said, name: &str) -> (bool, String) {
    let items = said.report["evidence"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == name).unwrap();
    (item["ok"].as_bool().unwrap(), item["detail"].as_str().unwrap().to_owned())
}
