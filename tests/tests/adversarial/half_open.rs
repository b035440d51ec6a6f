//! Connections of which one end has gone, or has finished.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use release_tests::scenario::{DEADLINE, Pair, eventually, send};
use release_tests::sockets::{abort, forget};

use crate::harness::{SOON, Scene, Stage};

pub fn play(stage: &Stage<'_>) {
    stage.play("the server streams after the client's FIN", |scene| {
        let listener = scene.listen();
        let Pair { mut client, mut server } = scene.pair(&listener);
        scene.shift();
        finish(&client, &mut server);
        goes_on(scene, &mut server, &mut client);
        drop(server);
        scene.is_idle_soon();
    });
    stage.play("the client streams after the server's FIN", |scene| {
        let listener = scene.listen();
        let Pair { mut client, mut server } = scene.pair(&listener);
        scene.drain();
        finish(&server, &mut client);
        goes_on(scene, &mut client, &mut server);
        drop(client);
        scene.is_idle_soon();
    });
    stage.play("both close at once", |scene| {
        let listener = scene.listen();
        let Pair { client, server } = scene.pair(&listener);
        scene.drain();
        scene.is("busy", "1 active flow");
        let other = thread::spawn(move || drop(client));
        drop(server);
        other.join().unwrap();
        scene.is_idle_soon();
    });
    stage.play("the client resets what the server has finished", |scene| {
        let listener = scene.listen();
        let Pair { mut client, mut server } = scene.pair(&listener);
        scene.drain();
        finish(&server, &mut client);
        scene.is("busy", "1 active flow");
        abort(client).unwrap();
        scene.is_idle_soon();
        assert!(is_reset(&mut server));
    });
    stage.play("the server resets what the client has finished", |scene| {
        let listener = scene.listen();
        let Pair { mut client, mut server } = scene.pair(&listener);
        scene.drain();
        finish(&client, &mut server);
        scene.is("busy", "1 active flow");
        abort(server).unwrap();
        scene.is_idle_soon();
        assert!(is_reset(&mut client));
    });
    stage.play("the client's host vanishes, and comes back", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        for (hook, rule) in [("output", "tcp dport 80"), ("input", "tcp sport 80")] {
            scene.topology.client.block(hook, rule).unwrap();
        }
        scene.is("busy", "1 active flow");
        // Sent again and again, heard by nobody.
        let Pair { client, server } = &mut pair;
        std::io::Write::write_all(server, b"anybody?").unwrap();
        scene.is("busy", "1 active flow");
        scene.topology.client.unblock().unwrap();
        let mut got = [0; 8];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"anybody?");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("the client's process dies without a word", |scene| {
        let listener = scene.listen();
        let Pair { client, mut server } = scene.pair(&listener);
        scene.drain();
        forget(client).unwrap();
        scene.is("busy", "1 active flow");
        // Its host says so when it hears of the connection again.
        std::io::Write::write_all(&mut server, b"anybody?").unwrap();
        assert!(is_reset(&mut server));
        scene.is_idle_soon();
    });
    stage.play("the server's process dies without a word", |scene| {
        let listener = scene.listen();
        let Pair { mut client, server } = scene.pair(&listener);
        scene.drain();
        forget(server).unwrap();
        scene.is("busy", "1 active flow");
        std::io::Write::write_all(&mut client, b"anybody?").unwrap();
        assert!(is_reset(&mut client));
        scene.is_idle_soon();
    });
    // On the balancer's own host, nothing is between the two.
    if !stage.topology.spec.mode.is_local() {
        stage.play("the last acknowledgement is lost, the FIN repeated", last_words);
    }
}

/// Says that nothing will follow; the other end hears it.
fn finish(end: &TcpStream, other: &mut TcpStream) {
    end.shutdown(Shutdown::Write).unwrap();
    assert_eq!(other.read(&mut [0; 16]).unwrap(), 0);
}

/// One end goes on, with pauses longer than `settle`.
fn goes_on(scene: &Scene<'_>, from: &mut TcpStream, to: &mut TcpStream) {
    for round in 0..3 {
        send(from, to, b"still here").unwrap();
        if round == 1 {
            scene.is("busy", "1 active flow");
        }
        assert_eq!((scene.flows("active"), scene.flows("half_closed")), (1, 1));
    }
}

/// The next thing that a socket hears is that its connection was reset.
fn is_reset(stream: &mut TcpStream) -> bool {
    let heard = stream.read(&mut [0; 16]);
    heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Both have finished and the balancer has seen it: what is repeated behind it opens nothing again.
fn last_words(scene: &Scene<'_>) {
    let listener = scene.listen();
    let Pair { client, mut server } = scene.pair(&listener);
    scene.drain();
    finish(&client, &mut server);
    scene.is("busy", "1 active flow");
    let (closed, backend) = (scene.counter("closed_fin"), &scene.backend().namespace);
    backend.block("input", "tcp flags & (fin | syn | rst | ack) == ack").unwrap();
    drop(server);
    // While it is repeated packets still pass, so it is not quiet.
    scene.is_idle_within(SOON + Duration::from_secs(2));
    let packets = scene.counter("packets");
    eventually(DEADLINE, "a FIN repeated", || scene.counter("packets") > packets);
    assert_eq!((scene.counter("closed_fin"), scene.flows("active")), (closed + 1, 0));
    backend.unblock().unwrap();
    drop(client);
}
