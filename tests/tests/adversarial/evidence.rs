//! Evidence that is lost, or changed from outside: `unknown`, and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::programs::tc::{SchedClassifier, TcAttachType};
use release_tests::scenario::{DEADLINE, Pair, eventually};
use release_tests::topology::{Balancer, SERVICE, Topology, TopologySpec};
use serde_json::Value;

use crate::harness::{Mortal, Scene, Stage, config, up};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn evidence_that_is_missing() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let config = config(&topology);
    let change = |what: &str, with: &str| {
        assert!(config.contains(what), "{config}");
        lb.write_config(&config.replace(what, with)).unwrap();
        lb.releasectl_ok(&["reload"]).unwrap();
    };
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    programs(&stage);
    change("settle = \"250ms\"", "settle = \"3s\"");
    stage.play("everything closed a moment ago", |scene| {
        let listener = scene.listen();
        let pair = scene.pair(&listener);
        scene.shift();
        drop(pair);
        let closed = Instant::now();
        eventually(DEADLINE, "closed", || scene.flows("active") == 0);
        // Everything is closed and counted, but something was there a moment ago.
        while closed.elapsed() < Duration::from_millis(2700) {
            let said = scene.verdict();
            assert!(said.is("unknown", "not settled"), "{said:?}");
        }
        scene.is_idle_soon();
    });
    let more = "idle_timeout = \"2s\"\nprobes = { every = \"200ms\", tries = 2 }\n";
    change("mode = \"nat\"\n", &format!("mode = \"nat\"\n{more}"));
    stage.play("given up by a timer", given_up);
    stage.end("evidence that is missing");
}

fn given_up(scene: &Scene<'_>) {
    let listener = scene.listen();
    let mut pair = scene.pair(&listener);
    scene.shift();
    // Nothing comes from it any more, no FIN and no RST.
    scene.topology.client.block("output", "ip daddr 10.1.0.100").unwrap();
    scene.is("busy", "1 active flow");
    // The reaper looks every 5 s: the first time it has the client asked, then it gives it up.
    scene.becomes("unknown", "1 flow ended by a timer, which proves no close");
    assert_eq!(scene.counter("expired"), 1);
    scene.is("unknown", "ended by a timer");
    // It was there all the time: the flow is taken over again, by the same instance.
    scene.topology.client.unblock().unwrap();
    pair.talk().unwrap();
    assert_eq!(scene.counter("adopted"), 1);
    scene.is("busy", "1 active flow");
    drop(pair);
    eventually(DEADLINE, "closed", || scene.verdict().verdict != "busy");
    scene.is("unknown", "ended by a timer");
}

/// Where a program's link is pinned; `kind` is empty for what comes in, `egress-` for what goes out.
fn link(lb: &Balancer, kind: &str, device: &str) -> PathBuf {
    let index = lb.namespace.enter(|| nix::net::if_::if_nametoindex(device)).unwrap().unwrap();
    lb.bpffs().join("links").join(format!("{kind}{index}"))
}

/// Takes a program off: by removing the pin, or by detaching the link behind its back.
fn take_off(lb: &Balancer, pin: &Path, by_pin: bool) {
    if by_pin {
        fs::remove_file(pin).unwrap();
    } else {
        lb.namespace.run("bpftool", &format!("link detach pinned {}", pin.display())).unwrap();
    }
}

fn programs(stage: &Stage<'_>) {
    let lb = &stage.topology.lb;
    stage.play("programs taken off while somebody is there", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.shift();
        for device in lb.interfaces() {
            for by_pin in [true, false] {
                assert_eq!(lb.attachment(device).unwrap(), "native");
                take_off(lb, &link(lb, "", device), by_pin);
                // The daemon's own look and the watcher's questions are what brings it back.
                scene.is("busy", "1 active flow");
                eventually(DEADLINE, "attached again", || {
                    lb.namespace.ip(&format!("link show {device}")).unwrap().contains("xdp")
                        && lb.attachment(device).unwrap() == "native"
                });
                pair.talk().unwrap();
            }
        }
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("another program in its place", |scene| {
        // Nobody is there, but who could know? (Not asked before the other program is in place.)
        let device = &lb.interfaces()[0];
        let program = lb.bpffs().join("programs/release_reap");
        fs::remove_file(link(lb, "", device)).unwrap();
        let attach = format!("net attach xdpdrv pinned {} dev {device}", program.display());
        let occupied = || lb.namespace.run("bpftool", &attach).is_ok();
        // The daemon may have been faster.
        eventually(DEADLINE, "occupied", || {
            occupied() || {
                let _ = fs::remove_file(link(lb, "", device));
                false
            }
        });
        scene.shift();
        scene.is("unknown", &format!("not attached to {device}"));
        assert_eq!(lb.attachment(device).unwrap(), "detached");
        lb.namespace.ip(&format!("link set dev {device} xdp off")).unwrap();
        eventually(DEADLINE, "attached again", || lb.attachment(device).unwrap() == "native");
        scene.is_idle_soon();
    });
}

/// What this host sends passes a program of its own, without which nobody sees what instances say.
pub fn of_what_is_sent(stage: &Stage<'_>) {
    let lb = &stage.topology.lb;
    let device = &lb.interfaces()[0];
    let attached = || {
        let query = || SchedClassifier::query_tcx(device, TcAttachType::Egress);
        !lb.namespace.enter(query).unwrap().unwrap().1.is_empty()
    };
    for by_pin in [true, false] {
        stage.play(&format!("the program for what is sent, by its pin: {by_pin}"), |scene| {
            assert!(attached());
            let listener = scene.listen();
            let mut pair = scene.pair(&listener);
            scene.shift();
            take_off(lb, &link(lb, "egress-", device), by_pin);
            scene.is("busy", "1 active flow");
            eventually(DEADLINE, "attached again", attached);
            pair.talk().unwrap();
            drop(pair);
            scene.is_idle_soon();
        });
    }
}

/// Sets the gauge of the only service.
fn set_gauge(lb: &Balancer, gauge: u8) {
    let path = lb.bpffs().join("GAUGES").display().to_string();
    let line = format!("map update pinned {path} key 0 0 0 0 value {gauge} 0 0 0 0 0 0 0");
    lb.namespace.run("bpftool", &line).unwrap();
}

/// Removes the only live flow's entry from its table.
fn remove_live_entry(lb: &Balancer) {
    let live = lb.releasectl_json(&["flows", "--state", "established"]).unwrap();
    let port = live[0]["client"].as_str().unwrap().rsplit(':').next().unwrap().parse::<u16>();
    let port = port.unwrap().to_be_bytes().map(|byte| format!("0x{byte:02x}"));
    let path = lb.bpffs().join("FLOWS4").display().to_string();
    let dump = lb.namespace.run("bpftool", &format!("-j map dump pinned {path}")).unwrap();
    let entries: Value = serde_json::from_str(&dump).unwrap();
    let keys = entries.as_array().unwrap().iter().map(|entry| {
        let bytes = entry["key"].as_array().unwrap().iter();
        bytes.map(|byte| byte.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    });
    let of_client = |key: &Vec<String>| key.windows(2).any(|pair| *pair == port);
    let found: Vec<_> = keys.filter(of_client).collect();
    assert_eq!(found.len(), 1, "{dump}");
    let key = found[0].join(" ").replace("0x", "");
    lb.namespace.run("bpftool", &format!("map delete pinned {path} key hex {key}")).unwrap();
}

/// Across starts of the daemon: clocks that jump, maps that were changed meanwhile, or are gone.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn evidence_of_the_past() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let daemon = Mortal::new(lb, up(&topology));
    let stage = Stage::new(&topology);
    // Only the kernel's own clock counts, which nobody sets.
    stage.play("the daemon's clock jumps forward", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        daemon.kill();
        daemon.start_shifted(86_400);
        // Nothing has expired, however late it is.
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        assert_eq!((scene.counter("expired"), scene.counter("forced")), (0, 0));
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play("it jumps back, and a gauge was changed", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        daemon.kill();
        set_gauge(lb, 3);
        daemon.start_shifted(-(uptime() / 2));
        // From its first answer on.
        scene.is("busy", "gauge is off by 2");
        assert!(scene.verdict().is("busy", "1 active flow"));
        pair.talk().unwrap();
        drop(pair);
        eventually(DEADLINE, "closed", || scene.flows("active") == 0);
        let off = scene.becomes("unknown", "gauge is off by 2");
        assert_eq!(off.verdict, "unknown");
        scene.nobody_is_there();
        set_gauge(lb, 0);
        scene.is_idle_soon();
    });
    stage.play("an entry removed while somebody is there", |scene| {
        let listener = scene.listen();
        let _pair = scene.pair(&listener);
        scene.drain();
        scene.is("busy", "1 active flow");
        remove_live_entry(lb);
        scene.is("unknown", "counters and table differ by 1");
    });
    stage.play("a table that somebody removed, and tables made anew", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.shift();
        daemon.kill();
        fs::remove_file(lb.bpffs().join("FLOWS4")).unwrap();
        // Better none than one that knows nothing of it.
        let error = lb.start_daemon().unwrap_err();
        assert!(format!("{error:#}").contains("FLOWS4"), "{error:#}");
        lb.releasectl_ok(&["detach"]).unwrap();
        daemon.start();
        made_anew(scene, &mut pair);
        drop(pair);
        eventually(DEADLINE, "closed", || scene.verdict().verdict != "busy");
        scene.is("unknown", "made anew");
    });
    stage.end("evidence of the past");
}

/// Weights and drains are state: they are still there. The connection, silent, is in no table.
fn made_anew(scene: &Scene<'_>, pair: &mut Pair) {
    let lb = scene.lb;
    assert_eq!(lb.version_status("v1").unwrap()["weight"], 0);
    assert_eq!(scene.flows("active"), 0);
    scene.is("unknown", "the flow table was made anew while in service: v1-1");
    let refused = lb.refused(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    assert!(refused.says(6, &["made anew"]), "{refused:?}");
    let refused = lb.refused(&["drain", SERVICE, "v1", "--deadline", "300ms"]).unwrap();
    assert!(refused.says(6, &["made anew"]), "{refused:?}");
    // It speaks again, is taken over, and ends: others may be there that were silent all the time.
    pair.talk().unwrap();
    scene.is("busy", "1 active flow");
    assert_eq!(scene.counter("adopted"), 1);
}

/// Whole seconds since this host's boot.
fn uptime() -> i64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}
