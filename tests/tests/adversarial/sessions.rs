//! Clients that are remembered without a connection.

use std::time::Duration;

use release_tests::scenario::Pair;
use release_tests::topology::{Topology, TopologySpec};

use crate::harness::{SOON, Stage, accept, accept_all, config, up};

/// As configured here.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The kernel counts in jiffies, 10 ms at most.
const TICK: Duration = Duration::from_millis(20);

#[test]
#[ignore = "needs root: cargo xtask test"]
fn sessions() {
    let service = "session_timeout = \"2s\"".to_owned();
    let conversation = Some("client");
    let topology =
        Topology::new(&TopologySpec { service, conversation, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    stage.play("a client that may come back", |scene| {
        let listener = scene.listen();
        let pair = scene.pair(&listener);
        scene.drain();
        scene.is("busy", "1 held session");
        drop(pair);
        scene.is("busy", "1 held session");
        // It does, and is led to where it was.
        let mut again = Pair { client: scene.connect(), server: accept(&listener) };
        again.talk().unwrap();
        scene.is("busy", "1 active flow");
        drop(again);
        let took = scene.is_idle_within(TIMEOUT + SOON);
        assert!(took >= TIMEOUT - TICK, "idle already after {took:?}");
    });
    let every = "every = \"50ms\" }";
    let config = config(&topology);
    assert!(config.contains(every), "{config}");
    let moves = config.replace(every, "every = \"50ms\", sessions = \"move\" }");
    lb.write_config(&moves).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    stage.play("a client that moves with its next connection", |scene| {
        let (listener, other) = (scene.listen(), scene.listen_v2());
        let mut pair = scene.pair(&listener);
        scene.drain();
        let next = scene.connect();
        assert_eq!(accept_all(&other).len(), 1);
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
        drop(next);
    });
    stage.end("sessions");
}
