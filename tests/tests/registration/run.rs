//! Servers under `releasectl run`.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use release_tests::command::sibling_binary;
use release_tests::load::{Group, Load, LoadPlan};
use release_tests::process::Process;
use release_tests::scenario::{DEADLINE, eventually, without};
use release_tests::topology::{FRONTEND, SERVICE};

use super::{Rig, events, field, shift};

impl Rig {
    /// `releasectl run` of the server of a version.
    fn run(&self, version: &str, more: &[&str]) -> Wrapped {
        let backend = self.backend(version);
        let log = self.topology.lb.state_dir().with_extension(format!("{version}.log"));
        let mut command =
            backend.namespace.command(sibling_binary("releasectl", "RELEASECTL_BIN").unwrap());
        let address = backend.address.to_string();
        command.arg("--socket").arg(self.topology.lb.socket_path());
        command.args(["run", "--service", SERVICE, "--version", version, "--addr", &address]);
        command.args(["--id", &backend.id]).args(more).arg("--");
        command.arg(sibling_binary("release-server", "RELEASE_SERVER_BIN").unwrap());
        command.args(["--listen", &address, "--version", version, "--id", &backend.id]);
        command.arg("--until-stdin-closes").stdin(Stdio::piped());
        command.stderr(File::create(&log).unwrap());
        let socket = log.with_extension("notify");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).unwrap();
        notified.set_read_timeout(Some(DEADLINE)).unwrap();
        command.env("NOTIFY_SOCKET", &socket);
        let name = format!("run {version}");
        let process = backend.namespace.spawn_ready(name, &mut command, DEADLINE).unwrap();
        Wrapped { process, log, notified }
    }
}

/// A server under `releasectl run`.
struct Wrapped {
    process: Process,
    log: PathBuf,
    /// What it tells systemd.
    notified: UnixDatagram,
}

impl Wrapped {
    fn says(&self, what: &str) {
        let said = || fs::read_to_string(&self.log).unwrap();
        let start = Instant::now();
        while !said().contains(what) {
            assert!(start.elapsed() < DEADLINE, "not said: {what}\n{}", said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn notifies(&self, what: &str) {
        let mut told = [0; 200];
        let length = self.notified.recv(&mut told).unwrap();
        let told = std::str::from_utf8(&told[..length]).unwrap();
        assert!(told.starts_with(what), "{told}, not {what}");
    }

    fn ends(&self, code: i32) {
        let status = self.process.wait(DEADLINE).unwrap().unwrap();
        let said = fs::read_to_string(&self.log).unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{said}");
    }
}

/// The one process that it has started.
fn child_of(process: &Process) -> i32 {
    let pid = process.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_server_under_run_is_stopped_when_nobody_loses_anything() {
    let rig = Rig::new();
    let lb = &rig.topology.lb;
    let daemon = lb.start_daemon().unwrap();
    let _v1 = rig.topology.start_servers_of("v1").unwrap();
    let short = Group::Short { per_second: 100, limit: None, path: "/".into() };
    let plan = LoadPlan { target: FRONTEND, sources: Vec::new(), groups: vec![short], threads: 1 };
    let load = Load::start(&rig.topology.client, plan).unwrap();
    let wrapped = rig.run("v2", &["--meta", "build=7"]);
    wrapped.says("web/v2/v2-1: registered at 10.2.2.2:8080");
    shift(lb, ["v1=0", "v2=1"]);
    let mut held = rig.hold_on("v2");
    assert!(load.wait(DEADLINE, |seen| seen.connections_to("v2") > 50));
    let server = child_of(&wrapped.process);
    wrapped.notifies("READY=1");

    shift(lb, ["v1=1", "v2=0"]);
    wrapped.process.signal(Signal::SIGTERM).unwrap();
    wrapped.says("goes offline first");
    eventually(DEADLINE, "offline", || field(lb, "v2-1", "state") == "offline");
    wrapped.says("going offline: 1 active");
    wrapped.notifies("STOPPING=1");
    wrapped.notifies("EXTEND_TIMEOUT_USEC=");
    // Whatever becomes of the daemon.
    daemon.kill().unwrap();
    wrapped.says("asked again until it answers");
    held.ask("/slow?ms=1000").unwrap();
    let _daemon = lb.start_daemon().unwrap();
    eventually(DEADLINE, "still offline", || field(lb, "v2-1", "state") == "offline");
    held.ask("/").unwrap();
    assert!(wrapped.process.is_running());
    drop(held);
    // This server does not mind being ended by a signal: 128 + 15.
    wrapped.ends(143);
    wrapped.says("nobody loses anything: receipt ");
    assert!(!fs::exists(format!("/proc/{server}")).unwrap());
    eventually(DEADLINE, "its end noticed", || {
        events(lb).contains("web/v2-1 has gone offline: its process")
    });
    let report = load.finish().unwrap();
    assert!(report.is_clean(), "{:?} {:?}", report.first_errors, report.first_moved);
    assert!(report.totals.connections_to("v2") > 50);

    // The same again, at the same address, and asked twice.
    let wrapped = rig.run("v2", &[]);
    wrapped.says("registered at");
    eventually(DEADLINE, "in service", || field(lb, "v2-1", "state") == "active");
    shift(lb, ["v1=0", "v2=1"]);
    let held = rig.hold_on("v2");
    wrapped.process.signal(Signal::SIGTERM).unwrap();
    wrapped.says("going offline: 1 active");
    wrapped.process.signal(Signal::SIGTERM).unwrap();
    wrapped.ends(5);
    wrapped.says("asked again: stopping by force, not proven to be without loss: 1 active flow");
    drop(held);

    // A time to wait, and what then; other signals are passed on.
    for (on_timeout, said) in [
        ("hold", "held, still not idle: 1 active flow"),
        ("stop", "the time is over: stopping by force"),
    ] {
        shift(lb, ["v1=1", "v2=0"]);
        let wrapped = rig.run("v2", &["--drain-timeout", "1s", "--on-timeout", on_timeout]);
        wrapped.says("registered at");
        shift(lb, ["v1=0", "v2=1"]);
        let held = rig.hold_on("v2");
        wrapped.process.signal(Signal::SIGTERM).unwrap();
        wrapped.says(said);
        if on_timeout == "hold" {
            assert!(wrapped.process.is_running());
            wrapped.process.signal(Signal::SIGUSR1).unwrap();
            wrapped.ends(128 + number(Signal::SIGUSR1));
            wrapped.says("it ended by itself, not idle");
        } else {
            wrapped.ends(5);
        }
        drop(held);
    }

    // One that dies is out of new flows before anybody asks.
    shift(lb, ["v1=1", "v2=0"]);
    let wrapped = rig.run("v2", &[]);
    wrapped.says("registered at");
    shift(lb, ["v1=0", "v2=1"]);
    rig.hold_on("v2");
    signal(child_of(&wrapped.process), Signal::SIGKILL);
    wrapped.ends(137);
    eventually(DEADLINE, "lost", || field(lb, "v2-1", "state") == "offline");
    assert!(events(lb).contains("web/v2-1 is lost: its process"));
}

fn number(signal: Signal) -> i32 {
    signal as i32
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_server_under_run_waits_for_the_daemon() {
    let rig = Rig::new();
    let lb = &rig.topology.lb;
    // Nobody knows it: it stops at once.
    let wrapped = rig.run("v2", &[]);
    wrapped.says("cannot be registered yet: daemon: not reachable");
    wrapped.process.signal(Signal::SIGTERM).unwrap();
    wrapped.ends(143);
    wrapped.says("nothing to drain");

    let wrapped = rig.run("v2", &[]);
    wrapped.says("cannot be registered yet");
    let _daemon = lb.start_daemon().unwrap();
    wrapped.says("web/v2/v2-1: registered at");
    // Who may not register is stopped.
    lb.write_config(&without(&rig.config, "registration")).unwrap();
    let refused = rig.run("v3", &[]);
    refused.says("registered at");
    let said = lb.releasectl_ok(&["reload"]).unwrap();
    assert!(said.contains("instance web/v2/v2-1 removed"), "{said}");
    refused.process.signal(Signal::SIGINT).unwrap();
    refused.ends(143);
    let refused = rig.run("v3", &[]);
    refused.ends(8);
    refused.says("nobody may register for it");
}
