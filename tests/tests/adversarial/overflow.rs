//! Tables that are full.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use release_tests::flood::{Flood, Packet, SOURCES};
use release_tests::packet_socket::mac;
use release_tests::scenario::{DEADLINE, eventually, send};
use release_tests::sockets::abort;
use release_tests::topology::{CLIENT_SIDE, FRONTEND};

use crate::harness::{Scene, Stage, accept};

/// The least that can be configured. A flow table is full when a sixteenth of it is left.
const CAPACITY: usize = 1024;

/// For `[daemon]`: what [`of_flows`] needs.
pub const FEW_FLOWS: &str = "flow_capacity = 1024";
/// For `[daemon]`: what [`of_handshakes`] needs.
pub const FEW_HANDSHAKES: &str = "embryo_capacity = 1024";

/// In one-way modes a new connection is let through without an entry: nobody can say any more
/// whether it still lives. The last scenario of its stage.
pub fn of_flows(stage: &Stage<'_>) {
    stage.play("connections beyond the flow table", |scene| {
        let listener = scene.listen();
        let mut all = Vec::new();
        while untracked(scene, &mut all, &listener) == 0 {
            assert!(all.len() <= CAPACITY, "never full");
        }
        scene.drain();
        let why = "forwarded without an entry";
        assert!(scene.verdict().is("busy", why), "{:?}", scene.verdict());
        // All that the table knows of are reset; those that it does not know live on.
        let (mut client, mut server) = all.pop().unwrap();
        for (client, _) in all.drain(..) {
            abort(client).unwrap();
        }
        scene.is("busy", why);
        send(&mut server, &mut client, b"still here").unwrap();
        drop(client);
        scene.is("busy", why);
    });
}

/// A few more connections; how many had no entry so far.
fn untracked(
    scene: &Scene<'_>,
    all: &mut Vec<(TcpStream, TcpStream)>,
    listener: &TcpListener,
) -> u64 {
    for _ in 0..16 {
        let client = scene.connect();
        all.push((client, accept(listener)));
    }
    scene.counter("untracked")
}

/// The oldest handshakes make room for new ones: one of them may have been completed by packets that
/// nobody could tell any more. The last scenario of its stage.
pub fn of_handshakes(stage: &Stage<'_>) {
    let (lb, client) = (&stage.topology.lb, &stage.topology.client);
    let ours = stage.topology.client_addresses()[0];
    lb.namespace.ip(&format!("route add {SOURCES} via {ours}")).unwrap();
    stage.play("more handshakes than there is room for", |scene| {
        // The flood's SYNs are answered by nobody.
        scene.backend().namespace.block("input", &format!("ip saddr {SOURCES}")).unwrap();
        let gateway = mac(&lb.namespace, CLIENT_SIDE).unwrap();
        let (from, most) = ((client, "eth0"), Duration::from_secs(5));
        let flood = Flood::start(Packet::Syn, from, gateway, FRONTEND, most).unwrap();
        let evicted = || scene.verdict().report["counts"]["evicted"].as_u64().unwrap();
        eventually(DEADLINE, "evicted", || evicted() > 100);
        drop(flood);
        scene.drain();
        let said = scene.verdict();
        assert!(said.is("busy", "of its handshakes were evicted from their table"), "{said:?}");
        scene.is("busy", "handshakes in progress");
    });
}
