//! The same client address and port once more.

use std::net::TcpStream;

use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::sockets::{abort, forget};

use crate::harness::{Scene, Stage, accept, accept_all};

pub fn play(stage: &Stage<'_>) {
    stage.play("a port again while its last flow lingers", |scene| {
        let listener = scene.listen();
        let opened = scene.counter("opened");
        for _ in 0..3 {
            let client = scene.connect_from(21_000);
            let server = accept(&listener);
            abort(client).unwrap();
            drop(server);
            eventually(DEADLINE, "closed", || scene.flows("active") == 0);
        }
        let mut pair = Pair { client: scene.connect_from(21_000), server: accept(&listener) };
        assert_eq!(scene.counter("opened"), opened + 4);
        scene.drain();
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("a port again on the other version", |scene| {
        let (listener, other) = (scene.listen(), scene.listen_v2());
        let mut kept = scene.pair(&listener);
        let client = scene.connect_from(22_000);
        let server = accept(&listener);
        scene.drain();
        scene.is("busy", "2 active flows");
        abort(client).unwrap();
        drop(server);
        // The new flow takes the old one's place in the table, and goes where new flows go.
        let mut pair = Pair { client: scene.connect_from(22_000), server: accept(&other) };
        pair.talk().unwrap();
        scene.is("busy", "1 active flow");
        kept.talk().unwrap();
        drop(kept);
        scene.is_idle_soon();
        pair.talk().unwrap();
    });
    stage.play("a port again after a crash of the client", |scene| {
        let (listener, other) = (scene.listen(), scene.listen_v2());
        let client = scene.connect_from(23_000);
        let _old = accept(&listener);
        scene.drain();
        forget(client).unwrap();
        scene.is("busy", "1 active flow");
        // The old connection is reset by the client's host as soon as it hears of it.
        ends_wherever_it_is(scene, scene.connect_from(23_000), [&listener, &other]);
    });
    stage.play("a port again after a crash of both ends", |scene| {
        let (listener, other) = (scene.listen(), scene.listen_v2());
        let (client, superseded) = (scene.connect_from(24_000), scene.counter("superseded"));
        let server = accept(&listener);
        scene.drain();
        forget(client).unwrap();
        forget(server).unwrap();
        scene.is("busy", "1 active flow");
        // It stays with its instance, which knows nothing of the old one.
        let client = scene.connect_from(24_000);
        eventually(DEADLINE, "superseded", || scene.counter("superseded") == superseded + 1);
        ends_wherever_it_is(scene, client, [&listener, &other]);
    });
}

/// A connection that may be on either version: v1 is busy if and only if it is there.
fn ends_wherever_it_is(
    scene: &Scene<'_>,
    client: TcpStream,
    [v1, v2]: [&std::net::TcpListener; 2],
) {
    let (mut on_v1, mut on_v2) = (accept_all(v1), accept_all(v2));
    assert_eq!(on_v1.len() + on_v2.len(), 1);
    match on_v1.pop() {
        Some(server) => {
            let mut pair = Pair { client, server };
            scene.is("busy", "1 active flow");
            pair.talk().unwrap();
            drop(pair);
            scene.is_idle_soon();
        }
        None => {
            scene.is_idle_soon();
            let mut pair = Pair { client, server: on_v2.remove(0) };
            pair.server.set_nonblocking(false).unwrap();
            pair.talk().unwrap();
        }
    }
}
