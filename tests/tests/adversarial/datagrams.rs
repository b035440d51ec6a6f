//! Conversations by UDP, which end by a timer: that is their definition.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use release_tests::netns::Netns;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::{Protocol, Topology, TopologySpec};

use crate::harness::{SOON, Scene, Stage, up};

/// As configured here.
const TIMEOUT: Duration = Duration::from_secs(2);
const UNREPLIED: Duration = Duration::from_secs(1);
/// How often the daemon looks for what is over.
const LOOK: Duration = Duration::from_secs(5);
/// Time between two datagrams of who goes on.
const PACE: Duration = Duration::from_millis(250);

/// For `[[service]]`.
pub const TIMEOUTS: &str = "udp_timeout = \"2s\"\nunreplied_timeout = \"1s\"";

fn bind(namespace: &Netns, at: SocketAddr) -> UdpSocket {
    let socket = namespace.udp(at).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// The client's socket and the server's.
fn sockets(scene: &Scene<'_>) -> (UdpSocket, UdpSocket) {
    let server = bind(&scene.backend().namespace, scene.backend().serves()[0]);
    (client_socket(scene), server)
}

fn client_socket(scene: &Scene<'_>) -> UdpSocket {
    let client = bind(&scene.topology.client, (scene.topology.client_addresses()[0], 0).into());
    client.connect(scene.frontend()).unwrap();
    client
}

/// Sends what arrives at the other end; who sent it.
fn send(client: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    client.send(b"question").unwrap();
    server.recv_from(&mut [0; 16]).unwrap().1
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams() {
    let (protocols, service) = (vec![Protocol::Udp], TIMEOUTS.to_owned());
    let topology =
        Topology::new(&TopologySpec { protocols, service, ..TopologySpec::small() }).unwrap();
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    stage.play("one datagram, without an answer", |scene| {
        let (client, server) = sockets(scene);
        send(&client, &server);
        scene.drain();
        assert!(scene.verdict().is("busy", "1 handshake in progress"));
        scene.is_idle_within(UNREPLIED + LOOK + SOON);
    });
    stage.play("a question and its answer", |scene| {
        let (client, server) = sockets(scene);
        let timed_out = scene.counter("timed_out");
        let peer = send(&client, &server);
        server.send_to(b"answer", peer).unwrap();
        client.recv(&mut [0; 16]).unwrap();
        scene.drain();
        scene.is("busy", "1 active flow");
        let took = scene.is_idle_within(TIMEOUT + LOOK + SOON);
        assert!(took >= TIMEOUT - Duration::from_secs(1), "{took:?}");
        assert_eq!(scene.counter("timed_out"), timed_out + 1);
    });
    stage.play("streams to the silent, either way", |scene| {
        let (client, server) = sockets(scene);
        let peer = send(&client, &server);
        let other = client_socket(scene);
        send(&other, &server);
        scene.drain();
        // For longer than any timeout and any look: nobody may call that idle, or over.
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT + LOOK + SOON {
            server.send_to(b"news", peer).unwrap();
            other.send(b"news").unwrap();
            let said = scene.verdict();
            assert!(said.is("busy", ""), "after {:?}: {said:?}", begun.elapsed());
            thread::sleep(PACE);
        }
        assert!(scene.verdict().is("busy", "2 active flows"));
        scene.is_idle_within(TIMEOUT + LOOK + SOON);
    });
    stage.end("datagrams");
}

/// In one-way modes a server may stream, and nobody sees it.
pub fn past_the_balancer(stage: &Stage<'_>) {
    stage.play("a server that streams past the balancer", |scene| {
        let (client, server) = sockets(scene);
        let peer = send(&client, &server);
        scene.drain();
        let over = || scene.flows("active") + scene.flows("embryonic") == 0;
        eventually(TIMEOUT + LOOK + DEADLINE, "over, for the table", || {
            server.send_to(b"news", peer).unwrap();
            over()
        });
        scene.is("unknown", "only the clients' half of its flows passes here");
    });
}
