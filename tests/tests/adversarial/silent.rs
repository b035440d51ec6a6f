//! Connections that are there and say little or nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use release_tests::scenario::{DEADLINE, eventually, send};

use crate::harness::{Scene, Stage, accept};

/// A line of `[[service]]` by which a connection without data is told apart after a second.
pub const KEEPALIVE_ONLY: &str = "keepalive_only = { after = \"1s\" }";

/// Needs [`KEEPALIVE_ONLY`].
pub fn play(stage: &Stage<'_>) {
    stage.play("weight, and no connection", |scene| {
        scene.is("busy", "takes new flows");
        scene.shift();
        scene.is_idle_soon();
    });
    stage.play("a silent connection, shifted away from", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.is("busy", "takes new flows");
        scene.shift();
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("a websocket", silent_websocket);
    stage.play("not a byte, ever", |scene| {
        let listener = scene.listen();
        let client = scene.connect();
        let server = accept(&listener);
        scene.drain();
        scene.is("busy", "1 active flow");
        drop(server);
        drop(client);
        scene.is_idle_soon();
    });
    stage.play("in the accept queue only", |scene| {
        let listener = scene.listen();
        let client = scene.connect();
        scene.drain();
        scene.is("busy", "1 active flow");
        // It gives up, and nobody has noticed that it was there.
        drop(client);
        eventually(DEADLINE, "half-closed", || scene.flows("half_closed") == 1);
        scene.is("busy", "1 active flow");
        drop(accept(&listener));
        scene.is_idle_soon();
    });
    stage.play("keep-alives only", |scene| {
        let listener = scene.listen();
        let pair = scene.pair(&listener);
        setsockopt(&pair.client, sockopt::KeepAlive, &true).unwrap();
        setsockopt(&pair.client, sockopt::TcpKeepIdle, &1).unwrap();
        setsockopt(&pair.client, sockopt::TcpKeepInterval, &1).unwrap();
        scene.drain();
        let packets = scene.counter("packets");
        eventually(DEADLINE, "keep-alives", || scene.counter("packets") >= packets + 4);
        let said = scene.becomes("busy", "1 active flow");
        assert_eq!(said.report["busy_with"]["keepalive_only"], 1, "{}", said.report);
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("a client that never reads", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        pair.server.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let full = loop {
            if let Err(error) = pair.server.write(&[0x5a; 1 << 16]) {
                break error.kind();
            }
        };
        assert_eq!(full, ErrorKind::WouldBlock);
        scene.drain();
        scene.is("busy", "1 active flow");
        // A reset, since there is data that nobody has read.
        drop(pair.client);
        scene.is_idle_soon();
        let error = pair.server.write(b"more").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    });
}

/// RFC 6455: the handshake of §1.3, then nothing, then frames of §5.7 as if nothing had been.
fn silent_websocket(scene: &Scene<'_>) {
    const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    const MASKED_HELLO: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    const HELLO: &[u8] = b"\x81\x05Hello";
    const CLOSE: &[u8] = &[0x88, 0x00];
    const MASKED_CLOSE: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];
    let listener = scene.listen();
    let mut pair = scene.pair(&listener);
    send(&mut pair.client, &mut pair.server, ASK).unwrap();
    send(&mut pair.server, &mut pair.client, ANSWER).unwrap();
    scene.drain();
    scene.is("busy", "1 active flow");
    send(&mut pair.client, &mut pair.server, MASKED_HELLO).unwrap();
    send(&mut pair.server, &mut pair.client, HELLO).unwrap();
    scene.is("busy", "1 active flow");
    send(&mut pair.client, &mut pair.server, MASKED_CLOSE).unwrap();
    send(&mut pair.server, &mut pair.client, CLOSE).unwrap();
    // §7.1.1: the server closes first.
    pair.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(pair.client.read(&mut [0; 16]).unwrap(), 0);
    scene.is("busy", "1 active flow");
    drop(pair.client);
    scene.is_idle_soon();
}
