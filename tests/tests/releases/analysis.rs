//! A new version that is worse than the old one is caught at the first weight, by what the packet
//! path measures; a good one is not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use release_tests::load::{Group, Load, LoadPlan};
use release_tests::scenario::DEADLINE;
use release_tests::sockets::abort;
use release_tests::topology::{FRONTEND, SERVICE, Topology, TopologySpec};
use serde_json::Value;

use crate::harness::{plain, start, state, up};

/// How one server behaves.
#[derive(Clone, Copy)]
struct Manner {
    /// Before it answers.
    delay: Duration,
    /// Every so many-th connection is reset instead of answered; 0: none.
    resets: u64,
}

/// A server of one answer a connection, in a backend's namespace, until it is dropped.
struct Server {
    over: Arc<AtomicBool>,
    at: SocketAddr,
}

impl Server {
    fn new(topology: &Topology, version: &'static str, manner: Manner) -> Self {
        let backend = topology.backends.iter().find(|b| b.version == version).unwrap();
        let listener = backend.listen().unwrap();
        let at = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&over);
        let id = backend.id.clone();
        thread::spawn(move || serve(&listener, version, &id, manner, &shared));
        Self { over, at }
    }

    fn end(self, topology: &Topology, version: &str) {
        self.over.store(true, Ordering::SeqCst);
        let backend = topology.backends.iter().find(|b| b.version == version).unwrap();
        // It waits for a connection.
        drop(backend.namespace.enter(|| std::net::TcpStream::connect(self.at)));
    }
}

fn serve(listener: &TcpListener, version: &str, id: &str, manner: Manner, over: &AtomicBool) {
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for stream in listener.incoming() {
            if over.load(Ordering::SeqCst) {
                return;
            }
            let (mut stream, count) = (stream.unwrap(), &count);
            scope.spawn(move || {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).unwrap_or(0) == 0 {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                if manner.resets > 0 && number % manner.resets == 0 {
                    return abort(stream).unwrap();
                }
                // The manner that is to be found out.
                thread::sleep(manner.delay);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nx-version: {version}\r\nx-instance: {id}\r\n\
                     x-connection: {number}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            });
        }
    });
}

/// Releases a version of that manner, and returns how it ended.
fn released(manner: Manner) -> Value {
    let topology = Topology::new(&TopologySpec { clients: 2, ..TopologySpec::small() }).unwrap();
    let plan = plain(
        "analysis = { min_flows = 60, every = \"500ms\", max_resets = \"2%\", \
         max_syn_failures = \"2%\", max_latency_ratio = 2 }\n\
         steps = [{ weight = 50, hold = \"4s\" }]\n",
    );
    let _daemon = up(&topology, &plan);
    let old = Server::new(&topology, "v1", Manner { delay: Duration::from_millis(20), resets: 0 });
    let new = Server::new(&topology, "v2", manner);
    let plan = LoadPlan {
        target: FRONTEND,
        sources: topology.client_addresses(),
        groups: vec![Group::Short { per_second: 60, limit: None, path: "/".into() }],
        threads: 1,
    };
    let load = Load::start(&topology.client, plan).unwrap();
    assert!(load.wait(DEADLINE, |now| now.connections_to("v1") > 50), "{:?}", load.snapshot());
    start(&topology, "plain");
    let good = manner.resets == 0 && manner.delay < Duration::from_millis(40);
    let ended = state(&topology, if good { "succeeded" } else { "rolled-back" });
    if !good {
        // Nobody is left on it, and it has nothing any more.
        assert_eq!(topology.lb.version_status("v2").unwrap()["weight"], 0);
        let reasons = &ended["reasons"];
        println!("{}", reasons[0].as_str().unwrap());
    }
    let report = load.finish().unwrap();
    assert_eq!(report.totals.moved, 0);
    let judged = ended["history"].as_array().unwrap().iter().rfind(|e| e["kind"] == "judgement");
    let data = judged.unwrap()["data"].clone();
    assert!(data["new"]["opened"].as_u64().unwrap() > 0, "{data:#}");
    old.end(&topology, "v1");
    new.end(&topology, "v2");
    assert_eq!(SERVICE, ended["service"]);
    data
}

fn failed(data: &Value) -> Vec<String> {
    let findings = data["findings"].as_array().unwrap().iter();
    let bad = findings.filter(|finding| finding["ok"] == false);
    bad.map(|finding| finding["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_version_that_resets_one_in_twenty_is_caught() {
    let data = released(Manner { delay: Duration::from_millis(20), resets: 20 });
    assert_eq!(failed(&data), ["max_resets"], "{data:#}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_version_three_times_slower_is_caught() {
    let data = released(Manner { delay: Duration::from_millis(60), resets: 0 });
    assert_eq!(failed(&data), ["max_latency_ratio"], "{data:#}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_good_version_is_not() {
    let data = released(Manner { delay: Duration::from_millis(20), resets: 0 });
    assert!(failed(&data).is_empty(), "{data:#}");
}
