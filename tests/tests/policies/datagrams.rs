//! Conversation `datagram`: nothing is kept, each datagram is placed by the split in force.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{Family, Protocol, SERVICE, Topology, TopologySpec, frontend};

use crate::common::{ask, explain, spec, udp};

const SOCKETS: u32 = 100;
const DATAGRAMS: u32 = 10_000;
/// Of so many sockets it is asked where they lead: that takes a while.
const EXPLAINED: usize = 6;

/// Asks in turn with all sockets until so many questions were asked after the shift returned; all
/// of those must be answered by v2. Returns how many were answered by v1.
fn ask_across(sockets: &[UdpSocket], to: SocketAddr, shifted: &AtomicBool) -> Result<u32> {
    let (mut after, mut by_v1) = (0, 0);
    for (number, socket) in (0..).zip(sockets.iter().cycle()) {
        let is_after = shifted.load(Ordering::Acquire);
        let (version, _) = ask(socket, to, number)?;
        by_v1 += u32::from(version == "v1");
        ensure!(!is_after || version == "v2", "datagram {after} after the shift: {version}");
        after += u32::from(is_after);
        if after == DATAGRAMS {
            break;
        }
    }
    Ok(by_v1)
}

fn are_placed_one_by_one(family: Family) {
    let topology = Topology::new(&TopologySpec {
        families: vec![family],
        protocols: vec![Protocol::Udp],
        conversation: Some("datagram"),
        ..spec("")
    })
    .unwrap();
    let (lb, ctl) = (&topology.lb, Ctl(&topology.lb));
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let (client, to) = (topology.client_addresses_of(family)[0], frontend(family));
    let sockets: Vec<UdpSocket> =
        (0..SOCKETS).map(|_| udp(&topology.client, SocketAddr::new(client, 0)).unwrap()).collect();
    let explained = |socket: &UdpSocket| {
        let said = explain(lb, Protocol::Udp, socket.local_addr().unwrap(), to);
        assert_eq!(said.decision, "placement", "{said:?}");
        said.version
    };
    let before: Vec<String> = sockets.iter().take(EXPLAINED).map(explained).collect();
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for (index, socket) in sockets.iter().enumerate() {
        let (version, _) = ask(socket, to, 0).unwrap();
        assert!(before.get(index).is_none_or(|said| *said == version), "{version}: {before:?}");
        *shares.entry(version).or_default() += 1;
    }
    // Half of them each; less than 20 of 100 would be six standard deviations away.
    assert!(shares.len() == 2 && shares.values().all(|share| *share >= 20), "{shares:?}");

    let shifted = AtomicBool::new(false);
    let by_v1 = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_across(&sockets, to, &shifted));
        let placed = || lb.counter("v1-1", "datagrams").unwrap();
        let begun = u64::from(shares["v1"]);
        eventually(DEADLINE, "asking", || placed() > begun);
        ctl.shift(&["v1=0", "v2=100"]).unwrap();
        shifted.store(true, Ordering::Release);
        asking.join().unwrap()
    });
    let by_v1 = u64::from(by_v1.context("across the shift").unwrap());
    let counter = |name: &str, counter: &str| lb.counter(name, counter).unwrap();
    assert!(by_v1 > 0);
    assert_eq!(counter("v1-1", "datagrams"), u64::from(shares["v1"]) + by_v1);
    assert!(counter("v2-1", "datagrams") >= u64::from(DATAGRAMS + shares["v2"]));
    assert!(sockets.iter().take(EXPLAINED).map(explained).all(|version| version == "v2"));
    // Nothing of them was kept.
    assert_eq!(counter("v1-1", "opened") + counter("v1-1", "placed"), 0);
    assert_eq!(lb.releasectl_json(&["flows", SERVICE]).unwrap().as_array().map(Vec::len), Some(0));
    eventually(DEADLINE, "idle", || lb.verdict("v1").is_ok_and(|said| said.verdict == "idle"));
    assert!(lb.verdict("v2").unwrap().is("busy", "takes new flows"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_are_placed_one_by_one_ipv4() {
    are_placed_one_by_one(Family::V4);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_are_placed_one_by_one_ipv6() {
    are_placed_one_by_one(Family::V6);
}
