//! The verdict with sockets that this host's kernel tells of.

use std::fs;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::time::Duration;

use release_tests::conditions::refuse_sock_diag;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::sockets::abort;
use release_tests::topology::{FRONTEND, Mode, Protocol, SERVICE, Topology, TopologySpec};

use crate::common::{config, item, netns, shift_away};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reset_that_the_server_never_got_is_busy() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    lb.write_config(&config(&topology, &netns(&topology))).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let backend = &topology.backends[0].namespace;
    let listener = topology.backends[0].listen().unwrap();
    let client = topology.client.connect(SocketAddr::V4(FRONTEND), DEADLINE).unwrap();
    shift_away(lb);
    lb.becomes("v1", "busy", "1 active flow");
    // The client's reset passes the balancer and is lost behind it.
    backend.block("input", "tcp flags & rst == rst").unwrap();
    abort(client).unwrap();
    let said = lb.becomes("v1", "busy", "1 socket remains: 1 in accept queue");
    assert!(said.is("busy", "(the flow table shows none)"), "{said:?}");
    let (server, _) = listener.accept().unwrap();
    let said =
        lb.becomes("v1", "busy", "1 socket remains: 1 ESTABLISHED (the flow table shows none)");
    let (ok, detail) = item(&said, "sockets");
    assert!(!ok && detail.starts_with("1 socket remains: 1 ESTABLISHED (3 samples"), "{detail}");
    assert_eq!(said.report["sockets"]["peers"][0]["state"], "ESTABLISHED");
    let text = lb.releasectl(&["idle", "check", SERVICE, "v1", "--explain"]).unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("10.2.1.2:8080/tcp") && text.contains("10.1.0.2:"), "{text}");
    backend.unblock().unwrap();
    drop(server);
    let said = lb.becomes("v1", "idle", "");
    assert!(item(&said, "sockets").1.starts_with("no socket remains (3 samples"));
    drop(listener);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn handshakes_and_half_closed_connections_are_sockets() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    lb.write_config(&config(&topology, &netns(&topology))).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    // A server that never closes.
    let pair = topology.pair(&listener).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    // A client that never hears of the answer to its SYN.
    topology.client.block("input", "tcp sport 80 tcp flags & (syn|ack) == syn|ack").unwrap();
    let frontend = SocketAddr::V4(FRONTEND);
    topology.client.connect(frontend, Duration::from_millis(200)).unwrap_err();
    shift_away(lb);
    let said = lb.becomes("v1", "busy", "2 sockets remain: 1 SYN_RECV, 1 CLOSE_WAIT");
    assert!(said.is("busy", "1 active flow") && said.is("busy", "1 handshake"), "{said:?}");
    drop(pair.server);
    lb.becomes("v1", "busy", "1 socket remains: 1 SYN_RECV");
    drop(pair.client);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_flow_that_expired_is_resolved_by_its_socket() {
    let service = "idle_timeout = \"2s\"\nprobes = { enabled = false }".to_owned();
    let topology = Topology::new(&TopologySpec { service, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    lb.write_config(&config(&topology, &netns(&topology))).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let pair = topology.pair(&listener).unwrap();
    shift_away(lb);
    // Silent for longer than the timer allows, and there all the same.
    let said =
        lb.becomes("v1", "busy", "1 socket remains: 1 ESTABLISHED (the flow table shows none)");
    let lasting = "1 flow ended by a timer, which proves no close (the sockets do not answer it: \
                   some remain)";
    assert!(said.is("busy", lasting), "{said:?}");
    assert_eq!(lb.counter("v1-1", "expired").unwrap(), 1);
    // Nothing of the client's end comes through any more; the server gives up.
    topology.client.block("output", "ip daddr 10.1.0.100").unwrap();
    abort(pair.server).unwrap();
    let said = lb.becomes("v1", "idle", "");
    assert_eq!(
        item(&said, "expired-unproven"),
        (true, "1 flow; answered by the sockets".to_owned())
    );
    assert_eq!(said.report["counts"]["expired_unproven"], 1);
    drop(pair.client);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn sockets_know_the_past_of_tables_made_anew() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    lb.write_config(&config(&topology, &netns(&topology))).unwrap();
    let daemon = lb.start_daemon().unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let pair = topology.pair(&listener).unwrap();
    shift_away(lb);
    lb.releasectl_ok(&["detach"]).unwrap();
    drop(daemon);
    let _daemon = lb.start_daemon().unwrap();
    lb.becomes("v1", "busy", "1 socket remains: 1 ESTABLISHED (the flow table shows none)");
    drop(pair);
    let said = lb.becomes("v1", "idle", "");
    let (ok, detail) = item(&said, "known-since-start");
    assert!(ok && detail.ends_with("; answered by the sockets"), "{detail}");
}

/// Asked in the wrong place, or in none, nothing is known; and nothing lost by a reload.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_wrong_place_is_unknown() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let places = [
        ("\"host\"", "sockets: this host: 10.2.1.2 is no address there"),
        ("{ netns = \"no-such\" }", "sockets: netns no-such: /run/netns/no-such: No such file"),
        ("{ pid_file = \"/no/such.pid\" }", "sockets: netns of /no/such.pid: /no/such.pid: No"),
    ];
    lb.write_config(&config(&topology, places[0].0)).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    shift_away(lb);
    for (place, why) in places {
        lb.write_config(&config(&topology, place)).unwrap();
        lb.releasectl_ok(&["reload"]).unwrap();
        let said = lb.becomes("v1", "unknown", why);
        assert!(!item(&said, "sockets").0);
    }
    // Right, and gone while it is asked about.
    let backend = &topology.backends[0].namespace;
    let process = backend.spawn("sleep", backend.command("sleep").arg("60")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.pid");
    fs::write(&file, process.pid().to_string()).unwrap();
    let place = format!("{{ pid_file = {file:?} }}");
    lb.write_config(&config(&topology, &place)).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    lb.becomes("v1", "idle", "");
    process.kill().unwrap();
    lb.becomes("v1", "unknown", "/ns/net: No such file");
    // Nobody is asked, by choice: the tables alone are enough in this mode.
    lb.write_config(&config(&topology, "\"none\"")).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    let said = lb.becomes("v1", "idle", "");
    assert_eq!(item(&said, "sockets"), (true, "not asked".to_owned()));
}

/// The kernel here does not tell: whatever the table says, somebody may be there.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_kernel_that_refuses_is_unknown() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    lb.write_config(&config(&topology, &netns(&topology))).unwrap();
    let daemon = lb.start_daemon_under(refuse_sock_diag).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    let pair = topology.pair(&listener).unwrap();
    shift_away(lb);
    let why = "sock_diag: netlink socket: EPERM";
    let said = lb.becomes("v1", "busy", "1 active flow");
    assert!(said.is("busy", why), "{said:?}");
    drop(pair);
    lb.becomes("v1", "unknown", why);
    daemon.kill().unwrap();
    let _daemon = lb.start_daemon().unwrap();
    lb.becomes("v1", "idle", "");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn in_mode_local_this_host_is_asked_by_itself() {
    for mode in [Mode::Host, Mode::Container] {
        let topology = Topology::new(&TopologySpec { mode, ..TopologySpec::small() }).unwrap();
        let lb = &topology.lb;
        let _daemon = topology.up(&[("v1", 100)]).unwrap();
        let listener = topology.backends[0].listen().unwrap();
        let client = topology.client.connect(SocketAddr::V4(FRONTEND), DEADLINE).unwrap();
        shift_away(lb);
        let said = lb.becomes("v1", "busy", "1 active flow");
        let asked = mode == Mode::Host;
        assert_eq!(said.is("busy", "1 in accept queue"), asked, "{mode:?}: {said:?}");
        drop(client);
        drop(listener.accept().unwrap());
        let said = lb.becomes("v1", "idle", "");
        let detail = item(&said, "sockets").1;
        assert_eq!(detail.starts_with("no socket remains"), asked, "{mode:?}: {detail}");
        assert_eq!(detail == "not asked", !asked, "{mode:?}: {detail}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_that_nobody_has_read_are_busy() {
    let topology = Topology::new(&TopologySpec {
        mode: Mode::Host,
        protocols: vec![Protocol::Udp],
        service: "udp_timeout = \"1s\"\nunreplied_timeout = \"1s\"".to_owned(),
        ..TopologySpec::small()
    })
    .unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let backend = &topology.backends[0];
    let server = backend.namespace.udp(backend.address).unwrap();
    let send = || {
        let socket = UdpSocket::bind("10.1.0.2:0")?;
        socket.send_to(b"question", FRONTEND)
    };
    topology.client.enter(send).unwrap().unwrap();
    shift_away(lb);
    // Its flow is long forgotten.
    let why = "1 socket remains: 1 UDP with unread datagrams (the flow table shows none)";
    eventually(Duration::from_secs(20), why, || lb.verdict("v1").unwrap().is("busy", why));
    server.recv_from(&mut [0; 16]).unwrap();
    let said = lb.becomes("v1", "idle", "");
    assert!(item(&said, "sockets").1.starts_with("no socket remains"));
}
