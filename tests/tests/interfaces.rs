//! Interfaces that vanish and return, and programs that run in the network stack.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use release_tests::netns::{Receiving, VethEnd, veth};
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::topology::{FRONTEND, SERVICE, Topology, TopologySpec};

/// Large answers, whole, on connections old and new.
fn large(topology: &Topology, held: &mut Held) -> Result<()> {
    const LENGTH: usize = 1_000_000;
    let path = format!("/bytes?n={LENGTH}");
    for _ in 0..3 {
        let reply = held.ask(&path)?;
        anyhow::ensure!(reply.body.len() == LENGTH && reply.body.bytes().all(|byte| byte == b'x'));
    }
    let to = SocketAddr::V4(FRONTEND);
    let reply = release_tests::http::get(&topology.client, to, &path, DEADLINE)?;
    anyhow::ensure!(reply.body.len() == LENGTH);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn native_and_generic_programs_do_the_same() {
    for mode in ["native", "generic"] {
        let topology = Topology::new(&TopologySpec::default()).unwrap();
        let lb = &topology.lb;
        let config = topology.config(&[("v1", 100)]);
        let config = config.replace("[daemon]\n", &format!("[daemon]\nxdp_mode = {mode:?}\n"));
        lb.write_config(&config).unwrap();
        let daemon = lb.start_daemon().unwrap();
        let _servers = topology.start_servers().unwrap();
        for device in lb.interfaces() {
            assert_eq!(lb.attachment(device).unwrap(), mode, "{device}");
            let word = if mode == "generic" { "xdpgeneric" } else { "xdp" };
            let link = lb.namespace.ip(&format!("link show {device}")).unwrap();
            assert!(link.split_whitespace().any(|w| w == word), "{link}");
        }
        assert!(lb.releasectl_ok(&["status"]).unwrap().contains(mode));
        let mut held = topology.hold().unwrap();
        large(&topology, &mut held).unwrap();
        // A shift and a restart later it is the same connection.
        lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
        let _daemon = daemon.crash_and_restart().unwrap();
        assert_eq!(lb.attachment("client0").unwrap(), mode);
        assert_eq!(topology.hold().unwrap().first.version, "v2");
        large(&topology, &mut held).unwrap();
        drop(held);
        lb.releasectl_ok(&["idle", "wait", SERVICE, "v1", "--timeout", "5s"]).unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interface_that_returns_is_taken_up_again() {
    let spec = TopologySpec { versions: vec![("v1".into(), 2)], ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held: Vec<Held> = (0..24).map(|_| topology.hold().unwrap()).collect();
    let (mut cut, mut others): (Vec<_>, Vec<_>) =
        held.drain(..).partition(|held| held.first.instance == "v1-1");
    assert!(!cut.is_empty() && !others.is_empty());
    let all_answer = |held: &mut [Held]| held.iter_mut().all(|held| held.ask("/").is_ok());

    let device = topology.backends[0].balancer_side.as_str();
    lb.namespace.ip(&format!("link del {device}")).unwrap();
    eventually(DEADLINE, "absent", || lb.attachment(device).unwrap() == "absent");
    assert!(all_answer(&mut others));
    assert_eq!(lb.attachment("client0").unwrap(), "native");
    // Nobody knows whether the connections behind it live.
    let said = lb.verdict("v1-1").unwrap();
    assert_eq!(said.verdict, "busy", "{said:?}");

    // Meanwhile the daemon is restarted: an interface that is managed may be away.
    let _daemon = _daemon.restart().unwrap();
    assert_eq!(lb.attachment(device).unwrap(), "absent");
    assert!(all_answer(&mut others));

    let backend = &topology.backends[0].namespace;
    veth(
        VethEnd {
            namespace: backend,
            device: "eth0",
            address: "10.2.1.2/24",
            receiving: Receiving::FromXdp,
        },
        VethEnd {
            namespace: &lb.namespace,
            device,
            address: "10.2.1.1/24",
            receiving: Receiving::IntoXdp,
        },
    )
    .unwrap();
    backend.ip("route add default via 10.2.1.1").unwrap();
    let returned = Instant::now();
    eventually(DEADLINE, "native", || lb.attachment(device).unwrap() == "native");
    assert!(returned.elapsed() < Duration::from_secs(2), "{:?}", returned.elapsed());
    assert!(all_answer(&mut others));
    // The connections that were cut go on where they were.
    for held in &mut cut {
        held.ask("/").unwrap();
    }
    for instance in ["v1-1", "v1-2"] {
        let on_it = || topology.hold().unwrap().first.instance == instance;
        eventually(DEADLINE, "a new flow on each", on_it);
        assert_eq!(lb.counter(instance, "adopted").unwrap(), 0);
    }
    let events = lb.releasectl_ok(&["events"]).unwrap();
    assert!(events.contains(&format!("{device}: attached, native")), "{events}");
}
