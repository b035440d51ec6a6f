//! Segments that somebody else sends in a connection's name: guessed, or with numbers that nearly
//! fit.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, bail};
use release_cases::frames::{Segment, flags, syn_options};
use release_tests::netns::Netns;
use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::sockets::{abort, numbers, send_packet};
use release_tests::topology::{FRONTEND, Topology, TopologySpec};

use crate::harness::{SOON, Scene, Stage, up};
use crate::{overflow, reuse};

const RST: u8 = flags::RST;
const RST_ACK: u8 = flags::RST | flags::ACK;
const FIN_ACK: u8 = flags::FIN | flags::ACK;

/// Segments with numbers that were seen on the way are more than a stranger can send. What they
/// leave open is closed by the probes.
const PROBES: &str = "probes = { after = \"1s\", every = \"200ms\" }";
/// When these have brought it out.
const PROBED: Duration = Duration::from_secs(3);

/// IPv4, where everything can be forged by a raw socket.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn forgers_and_ports_that_return() {
    let daemon = overflow::FEW_HANDSHAKES.to_owned();
    let topology = Topology::new(&TopologySpec {
        daemon,
        service: PROBES.to_owned(),
        ..TopologySpec::small()
    })
    .unwrap();
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    play(&stage);
    reuse::play(&stage);
    into_a_connection(&stage);
    overflow::of_handshakes(&stage);
    stage.end("forged segments, ports that return, too many handshakes");
}

fn play(stage: &Stage<'_>) {
    stage.play("guessed RSTs and FINs", guessed);
    stage.play("RSTs inside the windows", inside_the_windows);
    stage.play("FINs ahead of the stream", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        let [from_client, from_server] = ends(scene, &pair);
        for forged in [from_client, from_server] {
            // What stands before it was never sent, so nobody acknowledges it.
            forged.send(FIN_ACK, 5000, 0);
        }
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        // The stream seems to go on further than it did, so its real end is not seen as one.
        scene.is_idle_within(SOON + PROBED);
    });
    stage.play("data after the client's own RST", |scene| {
        let listener = scene.listen();
        let pair = scene.pair(&listener);
        scene.drain();
        let [from_client, _] = ends(scene, &pair);
        scene.is("busy", "1 active flow");
        let closed = scene.counter("closed_rst");
        abort(pair.client).unwrap();
        eventually(DEADLINE, "reset", || scene.counter("closed_rst") == closed + 1);
        // Out of order on the way, or by a client that does not know what it says.
        from_client.send(flags::ACK, 0, 100);
        scene.is_idle_soon();
        assert_eq!(scene.counter("closed_rst"), closed + 1);
    });
    stage.play("a scan by SYNs", |scene| {
        let _listener = scene.listen();
        // Nobody has these ports: the client's host resets what is answered.
        for port in 40_000..40_020 {
            let from = SocketAddrV4::new(scene.topology.client_addresses()[0], port);
            let syn = Segment::tcp(from.into(), FRONTEND.into(), flags::SYN);
            let syn = Segment { options: syn_options(Some(7)), ..syn.numbers(77, 0) };
            forge(&scene.topology.client, &syn).unwrap();
        }
        eventually(DEADLINE, "all placed", || scene.counter("placed") >= 20);
        scene.drain();
        eventually(DEADLINE, "all reset", || scene.flows("embryonic") == 0);
        scene.is_idle_soon();
    });
}

/// A SYN in a connection's name may be its client's, which was restarted: what comes of it is kept
/// like any handshake, until a minute or so after the connection has ended. Whoever can name a live
/// connection can delay `idle` by that, and no more. The last scenario of its stage but floods.
fn into_a_connection(stage: &Stage<'_>) {
    stage.play("a SYN into a connection", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        let [from_client, _] = ends(scene, &pair);
        from_client.send(flags::SYN, 0x1234_5678, 0);
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        eventually(DEADLINE, "closed", || scene.flows("active") == 0);
        scene.is("busy", "1 handshake in progress");
    });
}

/// One direction of a connection, for somebody who knows its numbers.
struct Forged<'a> {
    at: &'a Netns,
    from: SocketAddr,
    to: SocketAddr,
    next: u32,
    expected: u32,
}

impl Forged<'_> {
    /// Sends a segment so many bytes ahead of what is next, with so much data.
    fn send(&self, flags: u8, ahead: u32, data: usize) {
        let segment = Segment::tcp(self.from, self.to, flags);
        let segment = segment.numbers(self.next.wrapping_add(ahead), self.expected).data(data);
        forge(self.at, &segment).unwrap();
    }
}

/// Both directions: from the client to the frontend, and from the instance to the client.
fn ends<'a>(scene: &Scene<'a>, pair: &Pair) -> [Forged<'a>; 2] {
    let (client, server) = (numbers(&pair.client).unwrap(), numbers(&pair.server).unwrap());
    let from = pair.client.local_addr().unwrap();
    let backend = &scene.topology.backends[0];
    [
        Forged {
            at: &scene.topology.client,
            from,
            to: FRONTEND.into(),
            next: client.next,
            expected: client.expected,
        },
        Forged {
            at: &backend.namespace,
            from: backend.address.into(),
            to: from,
            next: server.next,
            expected: server.expected,
        },
    ]
}

/// Sends a segment from where it claims to come from, as a forger on the way would.
fn forge(at: &Netns, segment: &Segment) -> Result<()> {
    let SocketAddr::V4(to) = segment.destination else { bail!("not IPv4") };
    at.enter(|| send_packet(&segment.packet(), *to.ip()))??;
    Ok(())
}

fn guessed(scene: &Scene<'_>) {
    let listener = scene.listen();
    let mut pair = scene.pair(&listener);
    scene.shift();
    let [mut from_client, mut from_server] = ends(scene, &pair);
    let before = scene.counter("unverified");
    let mut sent = 0;
    // Every 2^28 or so: a guesser never hits one number of 2^32 here, and if one falls into a
    // window it must still not count as a close.
    for guess in (0..16u32).map(|i| i.wrapping_mul(0x1000_0061).wrapping_add(7)) {
        for forged in [&mut from_client, &mut from_server] {
            (forged.next, forged.expected) = (guess, guess.wrapping_mul(3));
            for kind in [RST, RST_ACK, FIN_ACK] {
                forged.send(kind, 0, 0);
                sent += 1;
            }
        }
    }
    eventually(DEADLINE, "all forged segments", || {
        scene.counter("unverified") - before >= sent - 2
    });
    scene.is("busy", "1 active flow");
    assert_eq!((scene.flows("active"), scene.flows("half_closed")), (1, 0));
    pair.talk().unwrap();
    // The real thing does.
    drop(pair);
    scene.is_idle_soon();
}

/// RFC 5961 §3.2: only one number resets; others in the window are challenged.
fn inside_the_windows(scene: &Scene<'_>) {
    let listener = scene.listen();
    let mut pair = scene.pair(&listener);
    scene.drain();
    let before = scene.counter("unverified");
    for forged in ends(scene, &pair) {
        for ahead in [1, 2, 1000, 20_000] {
            forged.send(RST, ahead, 0);
            forged.send(RST_ACK, ahead, 0);
        }
        // Behind it, where a retransmission would be.
        forged.send(RST, 0_u32.wrapping_sub(3), 0);
    }
    eventually(DEADLINE, "all forged segments", || scene.counter("unverified") - before >= 18);
    scene.is("busy", "1 active flow");
    pair.talk().unwrap();
    drop(pair);
    scene.is_idle_soon();
}
