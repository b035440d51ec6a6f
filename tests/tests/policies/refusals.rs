//! UDP to a service without a version that serves.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use release_tests::observe::Ctl;
use release_tests::topology::{Protocol, SERVICE, Topology, TopologySpec, frontend};

use crate::common::{BOTH, ask, explain, refusals, spec, udp};

/// Longer than an answer takes.
const SILENCE: Duration = Duration::from_millis(300);

/// Drains the only version; what a connected socket of each family then hears.
fn unserved(when_empty: &str, conversation: &'static str, heard: ErrorKind) {
    let topology = Topology::new(&TopologySpec {
        protocols: vec![Protocol::Udp],
        conversation: Some(conversation),
        ..spec(&format!("when_empty = {when_empty:?}"))
    })
    .unwrap();
    let (lb, ctl) = (&topology.lb, Ctl(&topology.lb));
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--no-wait", "--allow-empty"]).unwrap();
    let sockets = BOTH.map(|family| {
        let any = SocketAddr::new(topology.client_addresses_of(family)[0], 0);
        let socket = udp(&topology.client, any).unwrap();
        socket.connect(frontend(family)).unwrap();
        socket
    });
    for (count, socket) in (1..).zip(&sockets) {
        let (from, to) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        let said = explain(lb, Protocol::Udp, from, to);
        assert!(said.refuses("no_version"), "{said:?}");
        socket.send(b"anybody there?").unwrap();
        if heard == ErrorKind::WouldBlock {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
        }
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), heard, "{from}: {error}");
        assert_eq!(refusals(lb, "empty"), count, "{from}");
    }
    // The same sockets, when there is somebody.
    ctl.undrain("v1").unwrap();
    for socket in &sockets {
        socket.set_read_timeout(Some(release_tests::scenario::DEADLINE)).unwrap();
        let to = socket.peer_addr().unwrap();
        assert_eq!(ask(socket, to, 1).unwrap().0, "v1");
    }
    assert_eq!(refusals(lb, "empty"), 2);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn unserved_udp_is_answered_with_port_unreachable() {
    unserved("reject", "flow", ErrorKind::ConnectionRefused);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn unserved_datagrams_are_answered_with_port_unreachable() {
    unserved("reject", "datagram", ErrorKind::ConnectionRefused);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn unserved_udp_is_dropped_in_silence() {
    unserved("drop", "flow", ErrorKind::WouldBlock);
}
