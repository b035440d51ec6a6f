//! `idle` is said soon after the last close, whichever way that was, and is written down.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use release_tests::scenario::{DEADLINE, Pair, eventually, send};
use release_tests::sockets::abort;
use release_tests::topology::{Balancer, SERVICE, Topology, TopologySpec};
use serde_json::Value;

/// What `settle` is in the test's configuration.
const SETTLE: Duration = Duration::from_millis(500);

fn ends(mut stream: &TcpStream) -> Result<()> {
    ensure!(stream.read(&mut [0; 16])? == 0, "data instead of the end");
    Ok(())
}

/// A way to end a connection; the last packet is sent when it returns.
type Ending = fn(Pair) -> Result<()>;

/// Every way in which a connection can end: first four by FIN, then three by RST.
const ENDINGS: [(&str, Ending); 7] = [
    ("FIN of the client first", |pair| {
        drop(pair.client);
        ends(&pair.server)
    }),
    ("FIN of the server first", |pair| {
        drop(pair.server);
        ends(&pair.client)
    }),
    ("both FINs at once", |Pair { client, server }| {
        let other = thread::spawn(move || drop(client));
        drop(server);
        other.join().map_err(|_| anyhow::anyhow!("a panic"))
    }),
    ("half-closed by the client, then closed", |mut pair| {
        pair.client.shutdown(Shutdown::Write)?;
        ends(&pair.server)?;
        send(&mut pair.server, &mut pair.client, b"late")?;
        drop(pair.server);
        ends(&pair.client)
    }),
    ("RST of the client", |pair| Ok(abort(pair.client)?)),
    ("RST of the server", |pair| Ok(abort(pair.server)?)),
    ("half-closed by the server, then reset by the client", |mut pair| {
        pair.server.shutdown(Shutdown::Write)?;
        ends(&pair.client)?;
        send(&mut pair.client, &mut pair.server, b"late")?;
        Ok(abort(pair.client)?)
    }),
];

/// Opens a connection to v1, drains v1, ends the connection; returns the time until `idle`.
fn time_to_idle(topology: &Topology, listener: &TcpListener, end: Ending) -> Result<Duration> {
    let lb = &topology.lb;
    lb.releasectl_ok(&["shift", SERVICE, "v1=100", "v2=0"])?;
    let pair = topology.pair(listener)?;
    lb.releasectl_ok(&["shift", SERVICE, "v2=100"])?;
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--no-wait"])?;
    let said = lb.verdict("v1")?;
    ensure!(said.is("busy", "1 active flow"), "{said:?}");
    end(pair)?;
    let closed = Instant::now();
    eventually(DEADLINE, "idle", || lb.verdict("v1").is_ok_and(|said| said.verdict == "idle"));
    Ok(closed.elapsed())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn idle_is_said_soon_after_every_kind_of_close() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let listener = topology.backends[0].listen().unwrap();
    for (round, (name, end)) in (1u64..).zip(ENDINGS) {
        let took = time_to_idle(&topology, &listener, end).expect(name);
        eprintln!("{name}: {took:?}");
        assert!(took >= SETTLE - Duration::from_millis(20), "{name}: idle already after {took:?}");
        let status = topology.lb.instance_status("v1-1").unwrap();
        let count = |key: &str| status["counters"][key].as_u64().unwrap();
        assert_eq!((count("placed"), count("opened")), (round, round), "{name}");
        assert_eq!(count("closed_fin"), round.min(4), "{name}");
        assert_eq!(count("closed_rst"), round.saturating_sub(4), "{name}");
        // The status repeats the daemon's own last verdict, which it renews every second.
        let state = || topology.lb.instance_status("v1-1").unwrap()["state"].take();
        eventually(DEADLINE, "idle in the status", || state() == "idle");
    }
}

/// FNV-1a-64 of a receipt as it is printed on one line, its hash taken out: what any script can do.
fn hash(line: &str) -> String {
    let receipt: Value = serde_json::from_str(line).unwrap_or_default();
    let hash = receipt["hash"].as_str().unwrap_or_default();
    let plain = line.trim_end().replace(&format!("\"hash\":\"{hash}\""), "\"hash\":\"\"");
    let sum = plain.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{sum:016x}")
}

fn receipt(lb: &Balancer) -> Result<Value> {
    let line = lb.releasectl_ok(&["idle", "receipt", SERVICE, "v1", "-o", "jsonl"])?;
    let receipt: Value = serde_json::from_str(&line)?;
    ensure!(receipt["hash"] == *hash(&line), "the hash is not that of {line}");
    Ok(receipt)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_receipt_is_numbered_hashed_and_kept() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let held = topology.hold().unwrap();
    lb.releasectl_ok(&["shift", SERVICE, "v1=0", "v2=100"]).unwrap();

    // None while it is busy, and no number is used up.
    let refused = lb.refused(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    assert!(refused.says(4, &["receipt v1: it is busy: 1 active flow"]), "{refused:?}");
    drop(held);
    lb.releasectl_ok(&["idle", "wait", SERVICE, "v1", "--timeout", "5s"]).unwrap();

    let first = receipt(lb).unwrap();
    assert_eq!((&first["id"], &first["evidence_epoch"]), (&1.into(), &1.into()));
    let report = &first["report"];
    assert_eq!((&report["verdict"], &report["target"]), (&"idle".into(), &"v1".into()));
    assert!(report["evidence"].as_array().unwrap().iter().all(|item| item["ok"] == true));
    let counters = &first["counters"]["v1-1"];
    assert_eq!((&counters["opened"], &counters["closed_fin"]), (&1.into(), &1.into()));
    let text = lb.releasectl_ok(&["idle", "receipt", SERVICE, "v1"]).unwrap();
    assert!(text.starts_with("receipt 2 of ") && text.contains("\nhash "), "{text}");

    // The store has them: the numbers go on after a crash.
    let _daemon = daemon.crash_and_restart().unwrap();
    assert_eq!(receipt(lb).unwrap()["id"], 3);
    assert!(lb.state_dir().join("state.db").is_file());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn exit_codes_say_how_it_ended() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let held = topology.hold().unwrap();

    // In service, weight and all.
    let said = lb.verdict("v1").unwrap();
    assert!(said.is("busy", "takes new flows"), "{said:?}");
    lb.releasectl_ok(&["shift", SERVICE, "v2=100"]).unwrap();

    let start = Instant::now();
    let drain = ["drain", SERVICE, "v1", "--deadline", "700ms", "--on-deadline", "hold"];
    let refused = lb.refused(&drain).unwrap();
    assert!(
        refused.says(4, &["1 active flow", "not idle at the deadline of 700ms"]),
        "{refused:?}"
    );
    let took = start.elapsed();
    assert!((700..1700).contains(&took.as_millis()), "{took:?}");
    // Held: the drain stays in force, and the alarm was raised once.
    let version = lb.version_status("v1").unwrap();
    assert_eq!((&version["state"], &version["weight"]), (&"draining".into(), &0.into()));
    eventually(DEADLINE, "the alarm", || {
        let events = lb.releasectl_ok(&["events"]).unwrap();
        events.lines().filter(|line| line.contains("alarm") && line.contains("deadline")).count()
            == 1
    });

    let refused = lb.refused(&["idle", "wait", SERVICE, "v1", "--timeout", "300ms"]).unwrap();
    assert!(refused.says(9, &["1 active flow"]), "{refused:?}");
    assert_eq!(lb.refused(&["idle", "check", SERVICE, "v1"]).unwrap().code, 4);
    let refused = lb.refused(&["drain", SERVICE, "v1", "--on-deadline", "hold"]).unwrap();
    assert!(refused.says(2, &["--deadline"]), "{refused:?}");

    // A wait ends soon after the close that it waits for.
    let closing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(held);
        Instant::now()
    });
    let wait = ["idle", "wait", SERVICE, "v1", "--timeout", "5s"];
    assert!(lb.releasectl_ok(&wait).unwrap().contains("web v1: idle"));
    let took = closing.join().unwrap().elapsed();
    eprintln!("idle wait returned {took:?} after the close");
    assert!(took < SETTLE * 2, "{took:?}");
    let state = || lb.version_status("v1").unwrap()["state"].take();
    eventually(DEADLINE, "idle in the status", || state() == "idle");

    // Back to where it was before the drain.
    lb.releasectl_ok(&["undrain", SERVICE, "v1"]).unwrap();
    assert_eq!(lb.version_status("v1").unwrap()["weight"], 100);
    assert_eq!(lb.verdict("v1").unwrap().verdict, "busy");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_drained_instance_is_idle_while_its_version_serves() {
    let spec = TopologySpec { versions: vec![("v1".into(), 2)], ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held: Vec<_> = (0..20).map(|_| topology.hold().unwrap()).collect();
    let ours = held.iter().filter(|held| held.first.instance == "v1-1").count();
    assert!((1..20).contains(&ours), "{ours}");
    lb.releasectl_ok(&["drain", SERVICE, "v1-1", "--no-wait"]).unwrap();
    let said = lb.verdict("v1-1").unwrap();
    assert!(said.is("busy", &format!("{ours} active flow")), "{said:?}");
    for _ in 0..30 {
        assert_eq!(topology.hold().unwrap().first.instance, "v1-2");
    }
    for held in &mut held {
        held.ask("/").unwrap();
    }
    held.retain(|held| held.first.instance == "v1-2");
    lb.releasectl_ok(&["idle", "wait", SERVICE, "v1-1", "--timeout", "5s"]).unwrap();
    assert_eq!(lb.verdict("v1").unwrap().verdict, "busy");
    assert_eq!(lb.verdict("v1-2").unwrap().verdict, "busy");
    let refused = lb.refused(&["drain", SERVICE, "v1-2", "--no-wait"]).unwrap();
    assert!(refused.says(8, &["instance v1-2", "last serving one"]), "{refused:?}");
    // The last one idle as well: then the whole version is, but for its weight.
    held.clear();
    assert_eq!(lb.verdict("v1").unwrap().verdict, "busy");
}
