//! Modes in which replies do not pass the balancer: without anybody who says what the instance
//! holds, never `idle`.

use std::net::Shutdown;

use release_tests::scenario::{DEADLINE, Pair, eventually, send};
use release_tests::sockets::abort;
use release_tests::topology::{Mode, Protocol, Topology, TopologySpec};

use crate::harness::{Stage, up};
use crate::{datagrams, overflow};

const HALF: &str = "only the clients' half of its flows passes here";

fn play(stage: &Stage<'_>) {
    stage.play("never a connection", |scene| {
        scene.drain();
        scene.is("unknown", HALF);
    });
    stage.play("reset by the client", |scene| {
        let listener = scene.listen();
        let Pair { client, server } = scene.pair(&listener);
        scene.drain();
        scene.is("busy", "1 active flow");
        abort(client).unwrap();
        eventually(DEADLINE, "closed", || scene.flows("active") == 0);
        scene.is("unknown", HALF);
        drop(server);
        scene.is("unknown", HALF);
    });
    stage.play("reset by the server, which nobody sees", |scene| {
        let listener = scene.listen();
        let Pair { client, server } = scene.pair(&listener);
        scene.drain();
        abort(server).unwrap();
        scene.is("busy", HALF);
        drop(client);
    });
    stage.play("finished by the client", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        pair.client.shutdown(Shutdown::Write).unwrap();
        send(&mut pair.server, &mut pair.client, b"late").unwrap();
        scene.is("busy", "active flow");
        // The server's FIN is not seen, nor whether there was one.
        drop(pair);
        scene.is("busy", HALF);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_way_dsr() {
    let topology = Topology::new(&TopologySpec {
        mode: Mode::Dsr,
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        daemon: overflow::FEW_FLOWS.to_owned(),
        service: datagrams::TIMEOUTS.to_owned(),
        ..TopologySpec::small()
    })
    .unwrap();
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    datagrams::past_the_balancer(&stage);
    play(&stage);
    overflow::of_flows(&stage);
    stage.end("dsr");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_way_ipip() {
    let topology =
        Topology::new(&TopologySpec { mode: Mode::Ipip, ..TopologySpec::small() }).unwrap();
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    play(&stage);
    stage.end("ipip");
}
