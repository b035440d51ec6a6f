//! The daemon is killed at every step of a drain, and started again.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::Shutdown;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use release_tests::observe::Dice;
use release_tests::process::Process;
use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::topology::{SERVICE, Topology, TopologySpec};

use crate::harness::{Mortal, SOON, Scene, Stage, accept, up};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_daemon_killed_at_every_step_of_a_drain() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let daemon = Mortal::new(lb, up(&topology));
    let stage = Stage::new(&topology);
    stage.play("while the drain is ordered", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.lb.releasectl_ok(&["shift", SERVICE, "v2=100"]).unwrap();
        // It is done or not done, and is given once more.
        let drain = ["drain", SERVICE, "v1", "--no-wait"];
        let mut call = lb.releasectl_command(&drain).unwrap();
        let call = call.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let call = Process::spawn("drain", call).unwrap();
        thread::sleep(Dice::new(4).within(Duration::from_millis(30)));
        daemon.again();
        call.wait(DEADLINE).unwrap().expect("the command hangs");
        lb.releasectl_ok(&drain).unwrap();
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("while connections go their ways", |scene| every_way(scene, &daemon));
    stage.play("while the last one ends, and somebody waits for it", |scene| {
        waited_for(scene, &daemon);
    });
    stage.play("when it is idle, and written down", |scene| {
        scene.drain();
        scene.is_idle_soon();
        lb.releasectl_ok(&["idle", "receipt", SERVICE, "v1"]).unwrap();
        daemon.again();
        scene.is_idle_soon();
        lb.releasectl_ok(&["undrain", SERVICE, "v1"]).unwrap();
        assert!(scene.verdict().is("busy", "takes new flows"));
    });
    stage.end("a daemon that dies");
}

/// A connection is silent, one half over, one ends and one begins meanwhile.
fn every_way(scene: &Scene<'_>, daemon: &Mortal<'_>) {
    let listener = scene.listen();
    let mut silent = scene.pair(&listener);
    let mut half = scene.pair(&listener);
    let ends = scene.pair(&listener);
    let lost = "tcp dport 80 tcp flags & (fin | syn | rst | ack) == ack";
    scene.topology.client.block("output", lost).unwrap();
    let begins = scene.connect();
    scene.topology.client.unblock().unwrap();
    scene.drain();
    half.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(half.server.read(&mut [0; 16]).unwrap(), 0);
    let closed = scene.counter("closed_fin");
    daemon.kill();
    drop(ends);
    let mut begun = Pair { client: begins, server: accept(&listener) };
    begun.talk().unwrap();
    daemon.start();
    assert_eq!(scene.lb.version_status("v1").unwrap()["state"], "draining");
    scene.is("busy", "3 active flows");
    assert_eq!((scene.flows("half_closed"), scene.counter("closed_fin")), (1, closed + 1));
    silent.talk().unwrap();
    drop((silent, half));
    scene.is("busy", "1 active flow");
    drop(begun);
    scene.is_idle_soon();
}

/// `idle wait` goes on across the daemon's death, and is told the truth; so is who asks first after
/// the last connection has ended.
fn waited_for(scene: &Scene<'_>, daemon: &Mortal<'_>) {
    let listener = scene.listen();
    let (ends, mut pair) = (scene.pair(&listener), scene.pair(&listener));
    scene.drain();
    let said = scene.lb.log_path().with_file_name("wait");
    let mut wait = scene.lb.releasectl_command(&["idle", "wait", SERVICE, "v1"]).unwrap();
    wait.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said).unwrap());
    let wait = Process::spawn("idle wait", &mut wait).unwrap();
    // It must have been answered once, or it ends like any command without a daemon.
    let answered = || fs::read_to_string(&said).unwrap().contains("2 active");
    eventually(DEADLINE, "an answer to who waits", answered);
    daemon.kill();
    drop(ends);
    daemon.start();
    assert!(scene.verdict().is("busy", "1 active flow"));
    pair.talk().unwrap();
    assert!(wait.is_running(), "{}", fs::read_to_string(&said).unwrap());
    drop(pair);
    let took = scene.is_idle_soon();
    let waited = wait.wait(SOON).unwrap();
    assert!(waited.is_some_and(|ended| ended.success()), "{waited:?}, {took:?}");
    eventually(DEADLINE, "idle in the status", || {
        scene.lb.version_status("v1").unwrap()["state"] == "idle"
    });
}
