//! What several of these tests say.

use release_tests::scenario::Said;
use release_tests::topology::{Balancer, SERVICE, Topology};

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

/// Detail of an item of the evidence, and whether it speaks for `idle`.
pub fn item(said: &Said, name: &str) -> (bool, String) {
    let items = said.report["evidence"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == name).unwrap();
    (item["ok"].as_bool().unwrap(), item["detail"].as_str().unwrap().to_owned())
}
