//! Datagrams have no end but a timeout: drains of UDP end by it, and say so.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::{SocketAddr, TcpListener, UdpSocket};

use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{Backend, FRONTEND, Mode, Protocol, SERVICE, Topology, TopologySpec};
use serde_json::Value;

const TIMEOUTS: &str = "udp_timeout = \"2s\"\nunreplied_timeout = \"1s\"\n";
const DEFINITION: &str =
    "ended by the timeout of 2 s (1 s unanswered), which is the definition for datagrams";

fn service(protocols: &[Protocol], mode: Mode, more: &str) -> Topology {
    let versions = vec![("v1".into(), 1), ("v2".into(), 1)];
    let (protocols, service) = (protocols.to_vec(), format!("{TIMEOUTS}{more}"));
    let spec = TopologySpec { versions, protocols, mode, service, ..TopologySpec::default() };
    Topology::new(&spec).unwrap()
}

/// A question and its answer: a flow.
fn talk(topology: &Topology, server: &UdpSocket) -> UdpSocket {
    let client = topology.client.udp(([10, 1, 0, 2], 0)).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.connect(FRONTEND).unwrap();
    client.send(b"question").unwrap();
    let mut data = [0; 16];
    let (_, from) = server.recv_from(&mut data).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv(&mut data).unwrap(), 6);
    client
}

fn bind(backend: &Backend, at: impl Into<SocketAddr>) -> UdpSocket {
    let at = at.into();
    let socket = backend.namespace.udp(at).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn detail<'a>(report: &'a Value, name: &str) -> &'a str {
    let items = report["evidence"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap()["detail"].as_str().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_udp_drain_ends_by_its_timeout_and_the_receipt_says_so() {
    let topology = service(&[Protocol::Udp], Mode::Nat, "");
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let server = bind(&topology.backends[0], topology.backends[0].address);
    let clients: Vec<UdpSocket> = (0..3).map(|_| talk(&topology, &server)).collect();
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--allow-empty", "--no-wait"]).unwrap();
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "3 active flows"), "{said:?}");
    assert_eq!(detail(&said.report, "datagrams"), format!("0 flows {DEFINITION}"));
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
    let receipt = lb.releasectl_json(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    let report = &receipt["report"];
    assert_eq!(detail(report, "datagrams"), format!("3 flows {DEFINITION}"));
    let counts = &report["counts"];
    assert_eq!((&counts["timed_out"], &counts["expired_unproven"]), (&3.into(), &0.into()));
    assert_eq!(receipt["counters"]["v1-1"]["timed_out"], 3);
    let text = lb.releasectl_ok(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    assert!(text.contains(&format!("datagrams: 3 flows {DEFINITION}")), "{text}");
    drop(clients);
}

/// With both protocols, each ends by its own rules: TCP's timer proves nothing.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_that_timed_out_do_not_prove_tcp() {
    let both = [Protocol::Tcp, Protocol::Udp];
    let topology = service(&both, Mode::Nat, "idle_timeout = \"2s\"\nprobes.enabled = false");
    let lb = &topology.lb;
    let config = topology.config(&[("v1", 100)]);
    let version = "\n[[service.version]]\nname = \"v1\"\n";
    lb.write_config(&config).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let backend = &topology.backends[0];
    let server = bind(backend, backend.address);
    let _client = talk(&topology, &server);
    let listener: TcpListener = backend.listen().unwrap();
    let pair = topology.pair(&listener).unwrap();
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--allow-empty", "--no-wait"]).unwrap();
    eventually(DEADLINE, "both gone from the table", || {
        let said = lb.verdict("v1").unwrap();
        said.is("unknown", "1 flow ended by a timer, which proves no close")
            && said.report["counts"]["timed_out"] == 1
    });
    let said = lb.verdict("v1").unwrap();
    assert_eq!(said.reasons, "1 flow ended by a timer, which proves no close");
    assert_eq!(said.report["counts"]["expired_unproven"], 1);
    assert_eq!(detail(&said.report, "datagrams"), format!("1 flow {DEFINITION}"));
    // The instance's sockets answer for the connection: alone that of TCP is in doubt.
    let place = format!("sockets = {{ netns = {:?} }}\n", backend.namespace.name());
    lb.write_config(&config.replace(version, &format!("{version}{place}"))).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    let busy = "1 socket remains: 1 ESTABLISHED (the flow table shows none)";
    eventually(DEADLINE, "its socket", || lb.verdict("v1").unwrap().is("busy", busy));
    drop(pair);
    eventually(DEADLINE, "idle", || lb.verdict("v1").unwrap().verdict == "idle");
}

/// Where answers do not pass here, a timeout says nothing of an instance that goes on sending.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_way_datagrams_stay_unknown() {
    let topology = service(&[Protocol::Udp], Mode::Dsr, "");
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let server = bind(&topology.backends[0], FRONTEND);
    let client = talk(&topology, &server);
    // The second datagram makes a flow, a second after the first.
    eventually(DEADLINE, "a flow", || {
        client.send(b"more").unwrap();
        lb.version_status("v1").unwrap()["flows"]["active"] == 1
    });
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--allow-empty", "--no-wait"]).unwrap();
    eventually(DEADLINE, "timed out", || {
        let report = lb.verdict("v1").unwrap().report;
        report["counts"]["timed_out"] == 1 && report["counts"]["active"] == 0
    });
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("unknown", "only the clients' half of its flows passes here"), "{said:?}");
    let expected = "1 flow ended by the timeout of 2 s; the instance may still send";
    assert_eq!(detail(&said.report, "datagrams"), expected);
}
