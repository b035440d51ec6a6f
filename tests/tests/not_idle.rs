//! Where `idle` must not be said.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use release_cases::frames::{Segment, flags};
use release_tests::netns::Netns;
use release_tests::scenario::{DEADLINE, eventually, send};
use release_tests::sockets::send_packet;
use release_tests::topology::{Balancer, FRONTEND, SERVICE, Topology, TopologySpec};

/// Longer than `settle`.
const A_WHILE: Duration = Duration::from_millis(900);

/// One instance a version.
fn small() -> TopologySpec {
    TopologySpec { versions: vec![("v1".into(), 1), ("v2".into(), 1)], ..TopologySpec::default() }
}

/// Demands the same verdict for a while, longer than it would take to settle.
fn stays(lb: &Balancer, verdict: &str, why: &str) {
    let start = Instant::now();
    while start.elapsed() < A_WHILE {
        match lb.verdict("v1") {
            Ok(said) => assert!(said.is(verdict, why), "not {verdict} ({why}): {said:?}"),
            Err(error) => panic!("{error:#}"),
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn open_silent_and_half_closed_connections_are_busy() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();

    // Weight alone, without any connection.
    stays(lb, "busy", "takes new flows");

    // Silent, but open. Shifted, not drained: that makes no difference.
    let mut held = topology.hold().unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    stays(lb, "busy", "1 active flow");
    held.ask("/").unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_half_closed_connection_is_busy_as_long_as_the_server_sends() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(pair.server.read(&mut [0; 16]).unwrap(), 0);
    for round in 0..4 {
        send(&mut pair.server, &mut pair.client, b"still here").unwrap();
        if round == 2 {
            // Silent for longer than `settle`, too.
            stays(lb, "busy", "1 active flow");
        }
        let said = lb.verdict("v1").unwrap();
        assert!(said.is("busy", "1 active flow"), "{said:?}");
        let flows = &lb.version_status("v1").unwrap()["flows"];
        assert_eq!((&flows["active"], &flows["half_closed"]), (&1.into(), &1.into()));
    }
    drop(pair.server);
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_packet_just_now_is_not_yet_idle() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let settle = "settle = \"500ms\", samples = 3, every = \"100ms\"";
    let config = topology.config(&[("v1", 100)]);
    assert!(config.contains(settle));
    lb.write_config(&config.replace(settle, "settle = \"3s\", samples = 1, every = \"1ms\""))
        .unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let _servers = topology.start_servers().unwrap();
    let held = topology.hold().unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    drop(held);
    let closed = Instant::now();
    eventually(DEADLINE, "closed", || lb.version_status("v1").unwrap()["flows"]["active"] == 0);
    // Everything is closed and counted, but something was there a moment ago.
    while closed.elapsed() < Duration::from_millis(2700) {
        let said = lb.verdict("v1").unwrap();
        assert!(said.is("unknown", "not settled"), "{said:?}");
    }
    eventually(Duration::from_secs(1), "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_client_that_vanished_is_busy_then_unknown() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let mode = "mode = \"nat\"\n";
    let config = topology.config(&[("v1", 100)]);
    lb.write_config(&config.replace(
        mode,
        "mode = \"nat\"\nidle_timeout = \"2s\"\nprobes = { every = \"200ms\", tries = 2 }\n",
    ))
    .unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    // Nothing comes from it any more, no FIN and no RST.
    topology.client.block("output", "ip daddr 10.1.0.100").unwrap();
    stays(lb, "busy", "1 active flow");
    let mut last = lb.verdict("v1").unwrap();
    // The reaper looks every 5 s: the first time it has the client asked, then it gives it up.
    eventually(DEADLINE, "expired", || {
        last = lb.verdict("v1").unwrap();
        last.verdict != "busy"
    });
    assert!(last.is("unknown", "1 flow ended by a timer, which proves no close"), "{last:?}");
    assert_eq!(lb.counter("v1-1", "expired").unwrap(), 1);
    stays(lb, "unknown", "ended by a timer");

    // It was there all the time: the flow is taken over again, by the same instance.
    topology.client.unblock().unwrap();
    pair.talk().unwrap();
    assert_eq!(lb.counter("v1-1", "adopted").unwrap(), 1);
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "1 active flow"), "{said:?}");
    drop(pair);
    eventually(DEADLINE, "closed", || lb.verdict("v1").unwrap().verdict != "busy");
    stays(lb, "unknown", "ended by a timer");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_handshake_alone_is_busy() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _listener = topology.backends[0].listen().unwrap();
    // The SYN goes out, the SYN-ACK never arrives.
    topology.client.block("input", "tcp sport 80").unwrap();
    let frontend = SocketAddr::V4(FRONTEND);
    let error = topology.client.connect(frontend, Duration::from_millis(200)).unwrap_err();
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(kind, Some(ErrorKind::TimedOut));
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    stays(lb, "busy", "1 handshake in progress");
    let flows = &lb.version_status("v1").unwrap()["flows"];
    assert_eq!((&flows["embryonic"], &flows["active"]), (&1.into(), &0.into()));
}

/// Sends a segment from where it claims to come from, as a forger on the way would.
fn forge(at: &Netns, segment: &Segment) -> Result<()> {
    let SocketAddr::V4(to) = segment.destination else { bail!("not IPv4") };
    at.enter(|| send_packet(&segment.packet(), *to.ip()))??;
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn blind_segments_do_not_end_a_connection() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    let SocketAddr::V4(client) = pair.client.local_addr().unwrap() else { panic!("not IPv4") };
    let backend = topology.backends[0].address;
    let before = lb.counter("v1-1", "unverified").unwrap();
    let mut sent = 0;
    // Every 2^28 or so: a guesser never hits one number of 2^32 here, and if one falls into a
    // window it must still not count as a close.
    for guess in (0..16u32).map(|i| i.wrapping_mul(0x1000_0061).wrapping_add(7)) {
        for kind in [flags::RST, flags::RST | flags::ACK, flags::FIN | flags::ACK] {
            let segment = |from: SocketAddrV4, to: SocketAddrV4| {
                let segment = Segment::tcp(from.into(), to.into(), kind);
                segment.numbers(guess, guess.wrapping_mul(3))
            };
            forge(&topology.client, &segment(client, FRONTEND)).unwrap();
            forge(&topology.backends[0].namespace, &segment(backend, client)).unwrap();
            sent += 2;
        }
    }
    let mut seen = 0;
    eventually(DEADLINE, "all forged segments", || {
        seen = lb.counter("v1-1", "unverified").unwrap() - before;
        seen >= sent - 2
    });
    stays(lb, "busy", "1 active flow");
    let flows = &lb.version_status("v1").unwrap()["flows"];
    assert_eq!((&flows["active"], &flows["half_closed"]), (&1.into(), &0.into()));
    pair.talk().unwrap();
    // The real thing does.
    drop(pair);
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn tables_made_anew_know_nothing_of_the_past() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    lb.releasectl_ok(&["detach"]).unwrap();
    drop(daemon);
    let _daemon = lb.start_daemon().unwrap();
    // Weights and drains are state: they are still there. The connection, silent, is in no table.
    assert_eq!(lb.version_status("v1").unwrap()["weight"], 0);
    assert_eq!(lb.version_status("v1").unwrap()["flows"]["active"], 0);
    stays(lb, "unknown", "the flow table was made anew while in service: v1-1");
    let refused = lb.refused(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    assert!(refused.says(6, &["made anew"]), "{refused:?}");
    let refused = lb.refused(&["drain", SERVICE, "v1", "--deadline", "300ms"]).unwrap();
    assert!(refused.says(6, &["made anew"]), "{refused:?}");
    // It speaks again, is taken over, and ends: others may be there that were silent all the time.
    pair.talk().unwrap();
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "1 active flow"), "{said:?}");
    drop(pair);
    eventually(DEADLINE, "closed", || lb.verdict("v1").unwrap().verdict != "busy");
    stays(lb, "unknown", "made anew");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_program_taken_off_by_hand_is_noticed() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let mut pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();
    for device in lb.interfaces() {
        let index = lb.namespace.enter(|| nix::net::if_::if_nametoindex(device.as_str())).unwrap();
        let pin = lb.bpffs().join("links").join(index.unwrap().to_string());
        // By removing the pin, and by detaching the link behind its back.
        for by_pin in [true, false] {
            assert_eq!(lb.attachment(device).unwrap(), "native");
            if by_pin {
                fs::remove_file(&pin).unwrap();
            } else {
                lb.namespace
                    .run("bpftool", &format!("link detach pinned {}", pin.display()))
                    .unwrap();
            }
            let attached =
                || lb.namespace.ip(&format!("link show {device}")).unwrap().contains("xdp");
            assert!(!attached() || lb.attachment(device).unwrap() == "native");
            stays(lb, "busy", "1 active flow");
            eventually(DEADLINE, "attached again", attached);
            assert_eq!(lb.attachment(device).unwrap(), "native");
            pair.talk().unwrap();
        }
    }
    drop(pair);
    eventually(DEADLINE, "closed", || lb.verdict("v1").unwrap().verdict != "busy");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn nothing_idle_is_said_while_a_program_is_missing() {
    let topology = Topology::new(&small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v2", 100)]).unwrap();
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
    // Somebody takes the program off and puts another one in its place.
    let device = &lb.interfaces()[0];
    let index = lb.namespace.enter(|| nix::net::if_::if_nametoindex(device.as_str())).unwrap();
    let pin = lb.bpffs().join("links").join(index.unwrap().to_string());
    fs::remove_file(&pin).unwrap();
    let program = lb.bpffs().join("programs/release_reap");
    let attach = format!("net attach xdpdrv pinned {} dev {device}", program.display());
    lb.namespace.run("bpftool", &attach).unwrap();
    stays(lb, "unknown", &format!("not attached to {device}"));
    assert_eq!(lb.attachment(device).unwrap(), "detached");
    lb.namespace.ip(&format!("link set dev {device} xdp off")).unwrap();
    eventually(DEADLINE, "attached again", || lb.attachment(device).unwrap() == "native");
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}
