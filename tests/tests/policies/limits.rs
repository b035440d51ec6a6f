//! `limits`: live flows at once, new flows a second.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::topology::{Balancer, Family, Protocol, Topology, TopologySpec, frontend};

use crate::common::{
    BOTH, ask, explain, explain_anew, hold, is_refused, is_reset, refusals, spec, udp,
};

const MOST: u16 = 16;
/// A port that no held flow has, and one that the last let in has.
const PORT: u16 = 999;
const LATE_PORT: u16 = 998;

fn from(topology: &Topology, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(topology.client_addresses_of(family)[0], port)
}

fn active(lb: &Balancer) -> u64 {
    Ctl(lb).service().unwrap().active()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn live_flows_are_limited_over_all_versions() {
    let topology = Topology::new(&spec(&format!("limits = {{ max_flows = {MOST} }}"))).unwrap();
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    // Half of them over IPv4, half over IPv6.
    let mut held: Vec<Held> = (0..MOST)
        .map(|index| {
            let family = BOTH[usize::from(index % 2)];
            hold(&topology, from(&topology, family, 20_000 + index * 613), frontend(family))
                .unwrap()
        })
        .collect();
    let versions: BTreeSet<&str> = held.iter().map(|held| &*held.first.version).collect();
    assert_eq!(Vec::from_iter(versions), ["v1", "v2"]);
    assert_eq!((active(lb), refusals(lb, "max_flows")), (u64::from(MOST), 0));

    let refused = |family, count| {
        let (from, to) = (from(&topology, family, PORT), frontend(family));
        let said = explain(lb, Protocol::Tcp, from, to);
        assert!(said.refuses("max_flows"), "{said:?}");
        assert!(is_reset(&topology, from, to).unwrap(), "{family:?}: let in");
        assert_eq!(refusals(lb, "max_flows"), count, "{family:?}");
    };
    refused(Family::V4, 1);
    refused(Family::V6, 2);
    // Those that live do not notice.
    for held in &mut held {
        held.ask("/").unwrap();
    }
    // One goes, one comes, of whatever family.
    for (family, count) in [(Family::V6, 3), (Family::V4, 4)] {
        drop(held.remove(0));
        let (from, to) = (from(&topology, family, LATE_PORT), frontend(family));
        let admits = || explain_anew(lb, Protocol::Tcp, from, to).decision == "placement";
        eventually(DEADLINE, "room for one", admits);
        held.push(hold(&topology, from, to).unwrap());
        refused(if family == Family::V4 { Family::V6 } else { Family::V4 }, count);
    }
    assert_eq!(active(lb), u64::from(MOST));
    for held in &mut held {
        held.ask("/").unwrap();
    }
    assert_eq!(refusals(lb, "empty") + refusals(lb, "full") + refusals(lb, "rate"), 0);
    Ctl(lb).check_maps().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn live_udp_flows_are_limited_too() {
    let protocols = vec![Protocol::Udp];
    let limit = "limits = { max_flows = 2 }";
    let topology = Topology::new(&TopologySpec { protocols, ..spec(limit) }).unwrap();
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let sockets = BOTH.map(|family| {
        let socket = udp(&topology.client, from(&topology, family, 0)).unwrap();
        ask(&socket, frontend(family), 0).unwrap();
        (socket, frontend(family))
    });
    assert_eq!(active(lb), 2);
    for (count, family) in (1..).zip(BOTH) {
        let socket = udp(&topology.client, from(&topology, family, PORT)).unwrap();
        let said = explain(lb, Protocol::Udp, socket.local_addr().unwrap(), frontend(family));
        assert!(said.refuses("max_flows"), "{said:?}");
        socket.connect(frontend(family)).unwrap();
        socket.send(b"one too many").unwrap();
        let refused = socket.recv(&mut [0; 16]).unwrap_err();
        assert!(is_refused(&refused.into()), "{family:?}");
        assert_eq!(refusals(lb, "max_flows"), count);
    }
    for (socket, to) in &sockets {
        ask(socket, *to, 1).unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_burst_of_new_flows_is_cut() {
    const BURST: u64 = 200;
    const RATE: f64 = 10.0;
    let limit = "limits = { new_flows_per_second = 10 }";
    let topology = Topology::new(&spec(limit)).unwrap();
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let attempt = |number: u64| {
        let family = BOTH[usize::from(number % 2 == 1)];
        is_reset(&topology, from(&topology, family, 0), frontend(family)).unwrap()
    };
    let began = Instant::now();
    let refused = (0..BURST).filter(|number| attempt(*number)).count() as u64;
    let took = began.elapsed();
    let admitted = BURST - refused;
    assert_eq!(refusals(lb, "rate"), refused);
    assert!(refused > 0, "{admitted} in {took:?}");
    // Two may come at once: the first, and one that is ahead of its time by a tenth of a second.
    assert!(admitted >= 2, "{admitted} in {took:?}");
    let most = 3.0 + RATE * took.as_secs_f64();
    assert!(admitted as f64 <= most, "{admitted} in {took:?}");

    // The limit is over all versions and families, and it is one on the rate alone.
    let to = frontend(Family::V6);
    let from = from(&topology, Family::V6, PORT);
    let says = || explain_anew(lb, Protocol::Tcp, from, to);
    eventually(DEADLINE, "its turn", || says().decision == "placement");
    eventually(DEADLINE * 2, "refused for the rate", || {
        (0..100).any(|number| attempt(number) && attempt(number + 1)) && says().refuses("flow_rate")
    });
    let lets_in = || hold(&topology, from, to).is_ok();
    eventually(Duration::from_secs(10), "let in again", lets_in);
    Ctl(lb).check_maps().unwrap();
}
