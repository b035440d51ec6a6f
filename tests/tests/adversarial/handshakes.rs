//! Connections that are only beginning.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::topology::SERVICE;

use crate::harness::{Scene, Stage, accept, accept_all};

/// The client's acknowledgement of a SYN-ACK, or of anything else.
const ACK: &str = "tcp flags & (fin | syn | rst | ack) == ack";
/// How long a SYN or SYN-ACK may take to be sent again.
const REPEAT: Duration = Duration::from_secs(3);

pub fn play(stage: &Stage<'_>) {
    stage.play("a handshake that the client gave up", given_up);
    stage.play("a handshake that is refused", |scene| {
        // Nobody listens.
        let refused = scene.topology.client.connect(scene.frontend(), DEADLINE).unwrap_err();
        assert_eq!(kind(&refused), Some(ErrorKind::ConnectionRefused));
        scene.drain();
        scene.is_idle_soon();
    });
    stage.play("a SYN repeated after the shift", syn_repeated);
    stage.play("the last acknowledgement lost before the balancer", |scene| {
        let listener = scene.listen();
        scene.topology.client.block("output", &format!("tcp dport 80 {ACK}")).unwrap();
        // For the client it is there; its instance does not know yet.
        let client = scene.connect();
        scene.drain();
        scene.is("busy", "1 handshake in progress");
        assert_eq!((scene.flows("embryonic"), scene.flows("active")), (1, 0));
        scene.topology.client.unblock().unwrap();
        completes(scene, client, accept(&listener));
    });
    stage.play("the last acknowledgement lost behind the balancer", |scene| {
        let listener = scene.listen();
        let port = listener.local_addr().unwrap().port();
        let backend = &scene.backend().namespace;
        backend.block("input", &format!("tcp dport {port} {ACK}")).unwrap();
        let client = scene.connect();
        scene.drain();
        scene.is("busy", "1 active flow");
        backend.unblock().unwrap();
        completes(scene, client, accept(&listener));
    });
    stage.play("connections begun while the drain is ordered", begun_meanwhile);
}

fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

/// It is there after all, and ends as any other.
fn completes(scene: &Scene<'_>, client: TcpStream, server: TcpStream) {
    let mut pair = Pair { client, server };
    pair.talk().unwrap();
    scene.is("busy", "1 active flow");
    drop(pair);
    scene.is_idle_soon();
}

/// The SYN goes out, the SYN-ACK never arrives, the client has gone.
fn given_up(scene: &Scene<'_>) {
    let _listener = scene.listen();
    scene.topology.client.block("input", "tcp sport 80").unwrap();
    let given_up = scene.topology.client.connect(scene.frontend(), Duration::from_millis(200));
    assert_eq!(kind(&given_up.unwrap_err()), Some(ErrorKind::TimedOut));
    scene.drain();
    scene.is("busy", "1 handshake in progress");
    assert_eq!((scene.flows("embryonic"), scene.flows("active")), (1, 0));
    // When it hears of it again, its host says that there is no such connection.
    scene.topology.client.unblock().unwrap();
    eventually(DEADLINE, "the handshake's end", || scene.flows("embryonic") == 0);
    scene.is_idle_soon();
}

/// A client whose first SYN-ACK was lost tries again after the shift: that is still the same
/// connection, and stays with the instance that has begun to answer it.
fn syn_repeated(scene: &Scene<'_>) {
    let (listener, other) = (scene.listen(), scene.listen_v2());
    scene.topology.client.block("input", "tcp sport 80").unwrap();
    let client = thread::scope(|scope| {
        let connecting = scope.spawn(|| scene.connect());
        eventually(DEADLINE, "a SYN", || scene.flows("embryonic") == 1);
        scene.drain();
        let packets = scene.counter("packets");
        eventually(REPEAT, "another SYN", || scene.counter("packets") > packets);
        assert!(scene.verdict().is("busy", "1 handshake in progress"));
        scene.topology.client.unblock().unwrap();
        connecting.join().unwrap()
    });
    completes(scene, client, accept(&listener));
    assert!(accept_all(&other).is_empty(), "placed anew");
}

/// Whoever was placed on v1 counts, and after the drain's answer nobody is.
fn begun_meanwhile(scene: &Scene<'_>) {
    const THREADS: usize = 4;
    /// All of them fit into an accept queue.
    const EACH: usize = 25;
    const PACE: Duration = Duration::from_millis(5);
    let (v1, v2) = (scene.listen(), scene.listen_v2());
    scene.lb.releasectl_ok(&["shift", SERVICE, "v2=100"]).unwrap();
    let drained = AtomicBool::new(false);
    let connect = || {
        let mut all = Vec::new();
        while all.len() < EACH && !drained.load(Ordering::Acquire) {
            all.push(scene.connect());
            thread::sleep(PACE);
        }
        all
    };
    let clients: Vec<TcpStream> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(connect)).collect();
        let placed = scene.counter("placed");
        eventually(DEADLINE, "the first", || scene.counter("placed") > placed);
        scene.lb.releasectl_ok(&["drain", SERVICE, "v1", "--no-wait"]).unwrap();
        drained.store(true, Ordering::Release);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let later = scene.connect();
    let (on_v1, on_v2) = (accept_all(&v1), accept_all(&v2));
    assert_eq!(on_v1.len() + on_v2.len(), clients.len() + 1);
    let there = if on_v1.len() == 1 { "1 active flow".to_owned() } else { flows(on_v1.len()) };
    scene.is("busy", &there);
    drop((on_v1, clients));
    scene.is_idle_soon();
    drop((later, on_v2));
}

fn flows(count: usize) -> String {
    format!("{count} active flows")
}
