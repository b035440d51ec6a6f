//! Conversation `client`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::topology::{Balancer, Family, Protocol, Topology, TopologySpec, frontend};

use crate::common::{BOTH, Explained, ask, explain, family_of, hold_as, spec, udp};

const TIMEOUT: Duration = Duration::from_secs(4);
/// The kernel counts in jiffies, 10 ms at most.
const TICK: Duration = Duration::from_millis(20);
/// A port that no flow of a test has.
const PORT: u16 = 999;

/// Two instances a version, and sessions that last 4 s.
fn sessions(clients: u8) -> TopologySpec {
    TopologySpec {
        versions: vec![("v1".into(), 2), ("v2".into(), 2)],
        clients,
        conversation: Some("client"),
        ..spec("session_timeout = \"4s\"\n")
    }
}

fn explained(topology: &Topology, client: IpAddr) -> Explained {
    let (from, to) = (SocketAddr::new(client, PORT), frontend(family_of(client)));
    explain(&topology.lb, Protocol::Tcp, from, to)
}

/// Ends connections and waits until no session has a live flow; when that began.
fn close(lb: &Balancer, held: Vec<Held>) -> Instant {
    let closed = Instant::now();
    drop(held);
    eventually(DEADLINE, "no session with a live flow", || {
        let sessions = lb.releasectl_json(&["maps", "dump", "SESSIONS"]).unwrap();
        sessions.as_array().unwrap().iter().all(|session| session["live"] == 0)
    });
    closed
}

/// A client of v1 stays there while v1 is closed to others, until its session ends.
fn stays_until_its_session_ends(family: Family, close_v1: fn(&Ctl<'_>)) {
    let topology = Topology::new(&sessions(2)).unwrap();
    let (lb, ctl) = (&topology.lb, Ctl(&topology.lb));
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let [ours, other] = topology.client_addresses_of(family)[..] else { panic!("two clients") };
    let mut held: Vec<Held> = (0..6).map(|_| hold_as(&topology, ours).unwrap()).collect();
    let home = held[0].first.instance.clone();
    ctl.shift(&["v2=100"]).unwrap();
    close_v1(&ctl);

    // While a connection lives, and others of the client come and go.
    let said = explained(&topology, ours);
    assert!(said.places("v1", "session"), "{said:?}");
    assert!(home == said.instance || format!("{home}-6") == said.instance, "{home}: {said:?}");
    held.extend((0..6).map(|_| hold_as(&topology, ours).unwrap()));
    assert!(held.iter().all(|held| held.first.instance == home), "{held:?}");
    let said = explained(&topology, other);
    assert!(said.places("v2", "") && !said.because.contains("session"), "{said:?}");
    assert_eq!(hold_as(&topology, other).unwrap().first.version, "v2");
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "12 active flows") && said.is("busy", "1 held session"), "{said:?}");

    // After its last connection was closed.
    for held in &mut held {
        held.ask("/").unwrap();
    }
    let closed = close(lb, held);
    let again = hold_as(&topology, ours).unwrap();
    assert!(closed.elapsed() < TIMEOUT, "too slow to tell");
    assert_eq!(again.first.instance, home);
    let closed = close(lb, vec![again]);
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "1 held session"), "{said:?}");
    let idle = || lb.verdict("v1").is_ok_and(|said| said.verdict == "idle");
    eventually(TIMEOUT + DEADLINE, "idle", idle);
    assert!(closed.elapsed() > TIMEOUT - TICK, "idle after {:?}", closed.elapsed());
    let said = explained(&topology, ours);
    assert!(said.places("v2", "") && !said.because.contains("session"), "{said:?}");
    let after = hold_as(&topology, ours).unwrap();
    assert_eq!(after.first.version, "v2");
    assert!(explained(&topology, ours).places("v2", "session"));
    drop(after);
    ctl.check_maps().unwrap();
}

fn by_shift(ctl: &Ctl<'_>) {
    ctl.shift(&["v1=0"]).unwrap();
}

fn by_drain(ctl: &Ctl<'_>) {
    ctl.drain("v1").unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_session_outlives_a_shift_ipv4() {
    stays_until_its_session_ends(Family::V4, by_shift);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_session_outlives_a_shift_ipv6() {
    stays_until_its_session_ends(Family::V6, by_shift);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_session_holds_a_drain_ipv4() {
    stays_until_its_session_ends(Family::V4, by_drain);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_session_holds_a_drain_ipv6() {
    stays_until_its_session_ends(Family::V6, by_drain);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_session_moves_with_the_next_connection() {
    for close_v1 in [by_shift, by_drain] {
        let topology = Topology::new(&sessions(1)).unwrap();
        let (lb, ctl) = (&topology.lb, Ctl(&topology.lb));
        let _servers = topology.start_servers().unwrap();
        let hold = "every = \"100ms\" }";
        let config = topology.config(&[("v1", 100)]);
        assert!(config.contains(hold), "{config}");
        let moves = config.replace(hold, "every = \"100ms\", sessions = \"move\" }");
        lb.write_config(&moves).unwrap();
        let _daemon = lb.start_daemon().unwrap();
        let clients = BOTH.map(|family| topology.client_addresses_of(family)[0]);
        let mut old = clients.map(|client| hold_as(&topology, client).unwrap());
        // As long as v1 serves, a session stays: at the same instance.
        for (client, old) in clients.iter().zip(&old) {
            assert!(explained(&topology, *client).places("v1", "session"));
            let more = hold_as(&topology, *client).unwrap();
            assert_eq!(more.first.instance, old.first.instance);
        }
        ctl.shift(&["v2=100"]).unwrap();
        close_v1(&ctl);
        for client in clients {
            let said = explained(&topology, client);
            assert!(said.places("v2", "") && !said.because.contains("session"), "{said:?}");
        }
        let mut new = clients.map(|client| hold_as(&topology, client).unwrap());
        for ((client, old), new) in clients.iter().zip(&mut old).zip(&mut new) {
            assert_eq!(new.first.version, "v2");
            // It took the session along, and the old connection stays where it is.
            assert!(explained(&topology, *client).places("v2", "session"));
            let third = hold_as(&topology, *client).unwrap();
            assert_eq!(third.first.instance, new.first.instance);
            old.ask("/").unwrap();
            new.ask("/").unwrap();
        }
        let said = lb.verdict("v1").unwrap();
        assert!(said.is("busy", "2 active flows") && !said.reasons.contains("session"), "{said:?}");
        // Nothing is held for them: idle when they are closed and settled.
        drop(old);
        let idle = || lb.verdict("v1").is_ok_and(|said| said.verdict == "idle");
        eventually(DEADLINE, "idle", idle);
        for new in &mut new {
            new.ask("/").unwrap();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_session_is_one_for_both_protocols() {
    let protocols = vec![Protocol::Tcp, Protocol::Udp];
    let topology = Topology::new(&TopologySpec { protocols, ..sessions(16) }).unwrap();
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 50), ("v2", 50)]).unwrap();
    let mut seen = BTreeSet::new();
    for client in BOTH.iter().flat_map(|family| topology.client_addresses_of(*family)) {
        let to = frontend(family_of(client));
        let held = hold_as(&topology, client).unwrap();
        // A shift in between would place it elsewhere.
        let here = held.first.version.clone();
        let away = [format!("{here}=0"), format!("{}=50", if here == "v1" { "v2" } else { "v1" })];
        Ctl(&topology.lb).shift(&[&away[0], &away[1]]).unwrap();
        let said = explain(&topology.lb, Protocol::Udp, SocketAddr::new(client, PORT), to);
        assert!(said.places(&here, "session"), "{client}: {said:?}");
        for number in 0..4 {
            let socket = udp(&topology.client, SocketAddr::new(client, 0)).unwrap();
            let (version, instance) = ask(&socket, to, number).unwrap();
            assert_eq!((&version, &instance), (&held.first.version, &held.first.instance));
        }
        Ctl(&topology.lb).shift(&["v1=50", "v2=50"]).unwrap();
        seen.insert(held.first.instance.clone());
    }
    assert!(seen.len() > 1, "all clients on {seen:?}");
}
