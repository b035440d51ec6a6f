//! Test sources and test frontends.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{Family, Protocol, SERVICE, Topology, TopologySpec, frontend};

use crate::common::{
    BOTH, all, explain, family_of, frontend_at, hold_as, is_reset, reached, refusals, spec,
};

const CONNECTIONS: u32 = 100;
/// A port that no flow of a test has.
const PORT: u16 = 999;
/// Clients 2 and 3 of four: 10.1.0.4 and 10.1.0.5.
const SOURCES: &str = r#"test_sources = { v2 = ["10.1.0.4/31", "fd00:1::4/127"] }"#;

fn tcp(topology: &Topology, client: IpAddr, port: u16) -> crate::common::Explained {
    let (from, to) = (SocketAddr::new(client, PORT), frontend_at(family_of(client), port));
    explain(&topology.lb, Protocol::Tcp, from, to)
}

/// Demands that all clients but these two, and all of these, reach the versions.
fn split_by_source(topology: &Topology, others: &str, tested: &str, why: &str) {
    for client in BOTH.iter().flat_map(|family| topology.client_addresses_of(*family)) {
        let to = frontend(family_of(client));
        let is_tested = ["10.1.0.4", "10.1.0.5", "fd00:1::4", "fd00:1::5"]
            .contains(&client.to_string().as_str());
        let (version, why) = if is_tested { (tested, why) } else { (others, "") };
        let said = tcp(topology, client, to.port());
        assert!(said.places(version, why), "{client}: {said:?}");
        assert_eq!(said.because.contains("test source"), is_tested && !why.is_empty(), "{said:?}");
        let seen = reached(topology, client, to, CONNECTIONS / 2).unwrap();
        assert_eq!(seen, all(version, CONNECTIONS / 2), "{client}");
    }
}

fn counter(topology: &Topology, instance: &str, counter: &str) -> u64 {
    ["", "-6"]
        .iter()
        .map(|suffix| topology.lb.counter(&format!("{instance}{suffix}"), counter).unwrap())
        .sum()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn test_sources_reach_their_version_and_nobody_else_does() {
    let topology = Topology::new(&TopologySpec { clients: 4, ..spec(SOURCES) }).unwrap();
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    split_by_source(&topology, "v1", "v2", "a test source of version v2");
    let connections = u64::from(CONNECTIONS) * 2;
    for (instance, ruled) in [("v1-1", 0), ("v2-1", connections)] {
        assert_eq!(counter(&topology, instance, "placed"), connections, "{instance}");
        assert_eq!(counter(&topology, instance, "ruled"), ruled, "{instance}");
    }
    // Weights have no say in it.
    Ctl(&topology.lb).shift(&["v1=0", "v2=100"]).unwrap();
    Ctl(&topology.lb).shift(&["v1=100", "v2=0"]).unwrap();
    split_by_source(&topology, "v1", "v2", "a test source of version v2");
    Ctl(&topology.lb).check_maps().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn of_several_test_sources_the_longest_wins() {
    // From .2 on: nobody's, nobody's, v3's, v3's, v2's, v1's, each inside the one before.
    let sources = r#"test_sources = { v3 = ["10.1.0.4/30", "fd00:1::4/126"],
        v1 = ["10.1.0.7/32", "fd00:1::7/128"], v2 = ["10.1.0.6/31", "fd00:1::6/127"] }"#
        .replace('\n', " ");
    let versions = ["v1", "v2", "v3", "v4"].map(|version| (version.to_owned(), 1)).to_vec();
    let spec = TopologySpec { versions, clients: 6, ..spec(&sources) };
    let topology = Topology::new(&spec).unwrap();
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v4", 100)]).unwrap();
    let expected = ["v4", "v4", "v3", "v3", "v2", "v1"];
    let whose = ["", "", "/30", "/30", "/31", "/32"];
    let whose6 = ["", "", "/126", "/126", "/127", "/128"];
    for (family, whose) in [(Family::V4, whose), (Family::V6, whose6)] {
        let clients = topology.client_addresses_of(family);
        for ((client, version), whose) in clients.into_iter().zip(expected).zip(whose) {
            let to = frontend(family);
            assert_eq!(reached(&topology, client, to, 20).unwrap(), all(version, 20), "{client}");
            let said = tcp(&topology, client, to.port());
            assert!(said.places(version, whose), "{client}: {said:?}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_drain_suspends_test_sources() {
    let topology = Topology::new(&TopologySpec { clients: 4, ..spec(SOURCES) }).unwrap();
    let (lb, ctl) = (&topology.lb, Ctl(&topology.lb));
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    // A version that is being tested is not idle, though nobody has been there.
    let said = lb.verdict("v2").unwrap();
    assert!(said.is("busy", "takes new flows"), "{said:?}");

    let tested = |family| topology.client_addresses_of(family)[2];
    let mut held = BOTH.map(|family| hold_as(&topology, tested(family)).unwrap());
    assert!(held.iter().all(|held| held.first.version == "v2"), "{held:?}");
    ctl.drain("v2").unwrap();
    split_by_source(&topology, "v1", "v1", "");
    assert!(lb.verdict("v2").unwrap().is("busy", "2 active flows"));
    let talk = |held: &mut release_tests::scenario::Held| -> Result<()> { held.ask("/").map(drop) };
    held.iter_mut().try_for_each(talk).unwrap();
    drop(held);
    eventually(DEADLINE, "idle", || lb.verdict("v2").is_ok_and(|said| said.verdict == "idle"));

    ctl.undrain("v2").unwrap();
    assert!(lb.verdict("v2").unwrap().is("busy", "takes new flows"));
    split_by_source(&topology, "v1", "v2", "a test source of version v2");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_version_has_a_test_frontend() {
    let frontends = r#"test_frontends = { v1 = ["10.1.0.100:81/tcp", "[fd00:1::100]:81/tcp"],
        v2 = ["10.1.0.100:82/tcp", "[fd00:1::100]:82/tcp"] }"#
        .replace('\n', " ");
    let topology = Topology::new(&spec(&frontends)).unwrap();
    let (lb, ctl) = (&topology.lb, Ctl(&topology.lb));
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let lead = |to: [(u16, &str, &str); 3]| {
        for (family, (port, version, why)) in
            BOTH.iter().flat_map(|family| to.map(|to| (*family, to)))
        {
            let client = topology.client_addresses_of(family)[0];
            let said = tcp(&topology, client, port);
            assert!(said.places(version, why), "{family:?} {port}: {said:?}");
            assert_eq!(said.because.contains("test frontend"), !why.is_empty(), "{said:?}");
            let seen = reached(&topology, client, frontend_at(family, port), 20).unwrap();
            assert_eq!(seen, all(version, 20), "{family:?} {port}");
        }
    };
    let (first, second) = ("a test frontend of version v1", "a test frontend of version v2");
    lead([(80, "v1", ""), (81, "v1", first), (82, "v2", second)]);
    assert_eq!(counter(&topology, "v1-1", "ruled"), 40);
    assert_eq!(counter(&topology, "v2-1", "ruled"), 40);
    assert!(lb.verdict("v2").unwrap().is("busy", "takes new flows"));
    ctl.shift(&["v1=0", "v2=100"]).unwrap();
    lead([(80, "v2", ""), (81, "v1", first), (82, "v2", second)]);
    assert!(lb.verdict("v1").unwrap().is("busy", "takes new flows"));

    // Nobody but v1 may answer there.
    ctl.drain("v1").unwrap();
    for family in BOTH {
        let from = SocketAddr::new(topology.client_addresses_of(family)[0], PORT);
        assert!(is_reset(&topology, from, frontend_at(family, 81)).unwrap(), "{family:?}");
        let said = tcp(&topology, from.ip(), 81);
        assert!(said.refuses("no_instance"), "{said:?}");
        assert!(said.because.contains("a test frontend"), "{said:?}");
    }
    assert_eq!(refusals(lb, "empty"), 2);
    let idle = || lb.verdict("v1").is_ok_and(|said| said.verdict == "idle");
    eventually(DEADLINE, "idle", idle);
    lb.releasectl_ok(&["undrain", SERVICE, "v1"]).unwrap();
    lead([(80, "v2", ""), (81, "v1", first), (82, "v2", second)]);
}
