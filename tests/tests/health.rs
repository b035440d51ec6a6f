//! Instances that cannot serve are found, get no new flow, and are back when they can.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use release_tests::http;
use release_tests::scenario::{DEADLINE, Held, eventually};
use release_tests::topology::{
    Backend, Balancer, FRONTEND, Family, Mode, SERVICE, Topology, TopologySpec,
};
use serde_json::Value;

/// Where [`Page`] answers.
const PAGE_PORT: u16 = 9000;
const ON_PAGE: &str = "health = { http = \"/healthz\", port = 9000, interval = \"500ms\", \
                       timeout = \"500ms\", fall = 2, rise = 2 }\n";
const BY_TCP: &str = "health = { tcp = true, interval = \"500ms\", timeout = \"500ms\", fall = 3, \
                      rise = 2 }\n";

/// Two instances on v1, one on v2.
fn topology(mode: Mode, service: &str) -> Topology {
    let versions = vec![("v1".into(), 2), ("v2".into(), 1)];
    let service = service.to_owned();
    Topology::new(&TopologySpec { versions, mode, service, ..TopologySpec::default() }).unwrap()
}

/// A health page of its own, so that the server itself serves on while it fails.
struct Page {
    ok: Arc<AtomicBool>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    fn of(backend: &Backend) -> Self {
        let at = SocketAddr::new(backend.instance(Family::V4).ip(), PAGE_PORT);
        let listener = backend.namespace.listen(at).unwrap();
        let ok = Arc::new(AtomicBool::new(true));
        let (accepting, answer) = (listener.try_clone().unwrap(), Arc::clone(&ok));
        let thread = Some(thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let _ = stream.read(&mut [0; 1024]);
                let status = if answer.load(Ordering::Relaxed) { "200 OK" } else { "503 Down" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            }
        }));
        Self { ok, listener, thread }
    }

    fn set(&self, ok: bool) {
        self.ok.store(ok, Ordering::Relaxed);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Its accept ends with that.
        let stream =
            TcpStream::from(std::os::fd::OwnedFd::from(self.listener.try_clone().unwrap()));
        let _ = stream.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn state(lb: &Balancer, id: &str) -> String {
    lb.instance_status(id).unwrap()["state"].as_str().unwrap().to_owned()
}

/// Waits until an instance is in this state, as checks say.
fn becomes(lb: &Balancer, id: &str, wanted: &str, healthy: Option<bool>) -> Duration {
    eventually(DEADLINE, &format!("{id} {wanted}"), || {
        let status = lb.instance_status(id).unwrap();
        status["state"] == wanted && status["healthy"] == Value::from(healthy)
    })
}

fn placed(lb: &Balancer, id: &str) -> u64 {
    lb.counter(id, "placed").unwrap()
}

/// A connection to an instance, among those that it takes to find it.
fn held_by(topology: &Topology, id: &str) -> Held {
    let mut found = None;
    eventually(DEADLINE, &format!("a flow on {id}"), || {
        found = Some(topology.hold().unwrap()).filter(|held| held.first.instance == id);
        found.is_some()
    });
    found.unwrap()
}

/// That many new flows, none of them on this instance.
fn avoided(topology: &Topology, id: &str, count: usize) {
    let before = placed(&topology.lb, id);
    for _ in 0..count {
        assert_ne!(topology.hold().unwrap().first.instance, id);
    }
    assert_eq!(placed(&topology.lb, id), before);
}

fn is_reset(held: &mut TcpStream) {
    let error = held.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

fn events(lb: &Balancer) -> String {
    lb.releasectl_ok(&["events"]).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_dead_server_gets_no_flow_until_it_is_back() {
    let topology = topology(Mode::Nat, BY_TCP);
    let lb = &topology.lb;
    let mut servers = topology.start_servers().unwrap();
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    for id in ["v1-1", "v1-2", "v2-1"] {
        becomes(lb, id, "active", Some(true));
    }
    servers.remove(0).kill().unwrap();
    let took = becomes(lb, "v1-1", "down", Some(false));
    eprintln!("down after {took:?}");
    avoided(&topology, "v1-1", 40);
    let status = lb.instance_status("v1-1").unwrap();
    assert_eq!(status["why_down"], "connect: Connection refused (os error 111)");
    let text = lb.releasectl_ok(&["status"]).unwrap();
    assert!(text.contains("\ndown: v1-1: connect: Connection refused (os error 111)\n"), "{text}");
    let said = "web/v1-1 is down: connect: Connection refused (os error 111); its flows are kept";
    assert!(events(lb).contains(said), "{}", events(lb));
    // Nobody has decided that it may be stopped.
    assert_ne!(lb.verdict("v1-1").unwrap().verdict, "idle");
    let last = lb.refused(&["drain", SERVICE, "v1-2", "--no-wait"]).unwrap();
    assert!(last.says(8, &["instance v1-2: is the last serving one of version v1"]), "{last:?}");
    // Drained, too, the evidence says what it says of others.
    lb.releasectl_ok(&["drain", SERVICE, "v1-1", "--no-wait"]).unwrap();
    lb.becomes("v1-1", "idle", "");
    lb.releasectl_ok(&["undrain", SERVICE, "v1-1"]).unwrap();

    let generation = lb.service_status().unwrap()["generation"].clone();
    let daemon = daemon.crash_and_restart().unwrap();
    let status = lb.instance_status("v1-1").unwrap();
    assert_eq!((&status["state"], &status["healthy"]), (&"down".into(), &false.into()));
    avoided(&topology, "v1-1", 20);
    becomes(lb, "v1-2", "active", Some(true));
    assert_eq!(lb.service_status().unwrap()["generation"], generation, "nothing had to change");

    servers.push(topology.backends[0].start_server().unwrap());
    becomes(lb, "v1-1", "active", Some(true));
    assert!(events(lb).contains("web/v1-1 is up again after "), "{}", events(lb));
    held_by(&topology, "v1-1");
    assert!(daemon.stop().unwrap().success());
}

/// What comes back from instances is theirs who asked, and no business of the packet path.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn checks_are_no_flows() {
    for mode in [Mode::Nat, Mode::Snat, Mode::Host, Mode::Container] {
        let check = "health = { http = \"/healthz\", interval = \"100ms\", timeout = \"100ms\", \
                     fall = 100 }\n";
        let topology = topology(mode, check);
        let lb = &topology.lb;
        let _servers = topology.start_servers().unwrap();
        let _daemon = topology.up(&[("v1", 100)]).unwrap();
        for backend in &topology.backends {
            let to = backend.instance(Family::V4);
            let asked = || http::get(&lb.namespace, to, "/", DEADLINE).unwrap().connection;
            let first = asked();
            eventually(DEADLINE, "checked several times", || asked() > first + 50);
            assert_eq!(lb.instance_status(&backend.id).unwrap()["healthy"], true, "{mode:?}");
        }
        let status = lb.releasectl_json(&["status"]).unwrap();
        let tables = &status["data_plane"];
        assert_eq!((&tables["flow_entries"], &tables["embryos"]), (&0.into(), &0.into()));
        for backend in &topology.backends {
            let counters = lb.instance_status(&backend.id).unwrap()["counters"].take();
            let counted: Vec<_> =
                counters.as_object().unwrap().iter().filter(|(_, count)| **count != 0).collect();
            assert!(counted.is_empty(), "{mode:?}: {counted:?}");
        }
        topology.hold().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn flows_are_kept_or_reset() {
    let topology = topology(Mode::Nat, ON_PAGE);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let pages: Vec<Page> = topology.backends.iter().map(Page::of).collect();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    becomes(lb, "v1-1", "active", Some(true));
    let mut held = held_by(&topology, "v1-1");
    let mut other = held_by(&topology, "v1-2");
    pages[0].set(false);
    becomes(lb, "v1-1", "down", Some(false));
    assert_eq!(
        lb.instance_status("v1-1").unwrap()["why_down"],
        "HTTP status 503 Service Unavailable"
    );
    avoided(&topology, "v1-1", 20);
    held.ask("/").unwrap();
    assert!(lb.verdict("v1-1").unwrap().is("busy", "1 active flow"));
    pages[0].set(true);
    becomes(lb, "v1-1", "active", Some(true));
    held.ask("/").unwrap();

    let config = topology.config(&[("v1", 100)]);
    let reset = config.replace(ON_PAGE, &format!("{ON_PAGE}on_down = \"reset\"\n"));
    lb.write_config(&reset).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    held.ask("/").unwrap();
    pages[0].set(false);
    becomes(lb, "v1-1", "down", Some(false));
    is_reset(&mut held.stream);
    assert!(events(lb).contains("its flows are reset"), "{}", events(lb));
    eventually(DEADLINE, "counted", || lb.counter("v1-1", "forced").unwrap() == 1);
    other.ask("/").unwrap();
    assert_eq!(lb.counter("v1-2", "forced").unwrap(), 0);
    lb.releasectl_ok(&["drain", SERVICE, "v1-1", "--no-wait"]).unwrap();
    lb.becomes("v1-1", "idle", "");
    let receipt = lb.releasectl_json(&["idle", "receipt", SERVICE, "v1-1"]).unwrap();
    let forced = receipt["forced"].as_array().unwrap();
    assert_eq!((forced.len(), &forced[0]["because"]), (1, &"down".into()), "{receipt}");
}

/// A client that is remembered stays with an instance that is drained, but not with a dead one.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn remembered_clients_are_served_elsewhere_meanwhile() {
    let topology = topology(Mode::Nat, &format!("{ON_PAGE}conversation = \"client\"\n"));
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let pages: Vec<Page> = topology.backends.iter().map(Page::of).collect();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    for id in ["v1-1", "v1-2"] {
        becomes(lb, id, "active", Some(true));
    }
    let mut held = topology.hold().unwrap();
    let theirs = held.first.instance.clone();
    let page = &pages[usize::from(theirs == "v1-2")];
    lb.releasectl_ok(&["drain", SERVICE, &theirs, "--no-wait"]).unwrap();
    assert_eq!(topology.hold().unwrap().first.instance, theirs, "remembered");
    lb.releasectl_ok(&["undrain", SERVICE, &theirs]).unwrap();
    page.set(false);
    becomes(lb, &theirs, "down", Some(false));
    avoided(&topology, &theirs, 10);
    held.ask("/").unwrap();
    page.set(true);
    becomes(lb, &theirs, "active", Some(true));
    assert_eq!(topology.hold().unwrap().first.instance, theirs, "back again");
}

/// Nobody is there any more to end the connections of such an instance.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn clients_of_a_host_that_is_silent_are_reset() {
    let topology = topology(Mode::Nat, &format!("{BY_TCP}on_down = \"reset\"\n"));
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    becomes(lb, "v1-1", "active", Some(true));
    let mut held = held_by(&topology, "v1-1");
    topology.backends[0].namespace.block("input", "ip protocol tcp").unwrap();
    becomes(lb, "v1-1", "down", Some(false));
    assert_eq!(lb.instance_status("v1-1").unwrap()["why_down"], "no answer within 500ms");
    is_reset(&mut held.stream);
    let live = || lb.instance_status("v1-1").unwrap()["flows"]["active"].as_u64();
    eventually(DEADLINE, "closed", || live() == Some(0));
    assert!(lb.counter("v1-1", "forced").unwrap() >= 1);
    topology.backends[0].namespace.unblock().unwrap();
    becomes(lb, "v1-1", "active", Some(true));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn programs_and_pages_say_it_and_reloads_change_who_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let flag = |id: &str| folder.path().join(id);
    let topology = topology(Mode::Nat, "health = HERE\n");
    let lb = &topology.lb;
    let config = |health: &str| topology.config(&[("v1", 100)]).replace("health = HERE", health);
    let reload = |health: &str| {
        lb.write_config(&config(health)).unwrap();
        lb.releasectl_ok(&["reload"]).unwrap();
    };
    let _servers = topology.start_servers().unwrap();
    lb.write_config(&config("")).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    becomes(lb, "v1-1", "active", None);

    for id in ["v1-2", "v2-1"] {
        std::fs::write(flag(id), "").unwrap();
    }
    let script = format!("test -e {}/$RELEASE_INSTANCE", folder.path().display());
    let pace = "interval = \"500ms\", timeout = \"500ms\", fall = 2";
    reload(&format!("health = {{ exec = [\"/bin/sh\", \"-c\", {script:?}], {pace} }}"));
    becomes(lb, "v1-1", "down", Some(false));
    becomes(lb, "v1-2", "active", Some(true));
    assert_eq!(lb.instance_status("v1-1").unwrap()["why_down"], "exit status: 1");
    avoided(&topology, "v1-1", 20);
    std::fs::write(flag("v1-1"), "").unwrap();
    becomes(lb, "v1-1", "active", Some(true));

    // A page that is not there.
    std::fs::remove_file(flag("v1-1")).unwrap();
    becomes(lb, "v1-1", "down", Some(false));
    reload(&format!("health = {{ http = \"/healthz\", {pace} }}"));
    becomes(lb, "v1-1", "active", Some(true));
    reload(&format!("health = {{ http = \"/nowhere\", {pace} }}"));
    for id in ["v1-1", "v1-2"] {
        becomes(lb, id, "down", Some(false));
    }
    // Nobody asks any more, and nobody is kept out for what was said before.
    reload("");
    assert_eq!((state(lb, "v1-1"), state(lb, "v1-2")), ("active".into(), "active".into()));
    becomes(lb, "v1-1", "active", None);
    held_by(&topology, "v1-1");
    // A program that is not there says nothing about instances.
    reload(&format!("health = {{ exec = [\"/nonexistent/check\"], {pace} }}"));
    eventually(DEADLINE, "said", || events(lb).contains("was not checked, it stays as it is"));
    assert_eq!(state(lb, "v1-1"), "active");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn with_all_down_new_flows_get_the_answer_for_that() {
    let topology = topology(Mode::Nat, BY_TCP);
    let lb = &topology.lb;
    let servers = topology.start_servers_of("v1").unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    for id in ["v1-1", "v1-2"] {
        becomes(lb, id, "active", Some(true));
    }
    becomes(lb, "v2-1", "down", Some(false));
    assert!(!events(lb).contains("alarm"), "nobody misses v2: {}", events(lb));
    let no = lb.refused(&["shift", SERVICE, "v2=1"]).unwrap();
    assert!(no.says(8, &["version v2: has no instance to take new flows"]), "{no:?}");
    drop(servers);
    for id in ["v1-1", "v1-2"] {
        becomes(lb, id, "down", Some(false));
    }
    let before = (placed(lb, "v1-1"), placed(lb, "v1-2"));
    let error = topology.client.connect(SocketAddr::V4(FRONTEND), DEADLINE).unwrap_err();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    assert_eq!((placed(lb, "v1-1"), placed(lb, "v1-2")), before);
    let status = lb.service_status().unwrap();
    assert_eq!(status["refused"]["empty"], 1);
    let said = "v1: no instance left, those it has are down: its new flows get when_empty: reject";
    assert_eq!(status["warnings"][0], said);
    assert!(events(lb).contains(&format!("web/{said}")), "{}", events(lb));

    let _server = topology.backends[1].start_server().unwrap();
    becomes(lb, "v1-2", "active", Some(true));
    assert_eq!(topology.hold().unwrap().first.instance, "v1-2");
    eventually(DEADLINE, "cleared", || events(lb).contains("its new flows are served again"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn traffic_finds_who_refuses() {
    let passive =
        "passive = { syn_failures = 0.5, min = 5, every = \"1s\", back_after = \"5s\" }\n";
    let topology = topology(Mode::Nat, passive);
    let lb = &topology.lb;
    let server = topology.backends[1].start_server().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let to = SocketAddr::V4(FRONTEND);
    let connect = || topology.client.connect(to, DEADLINE).map(drop);
    eventually(DEADLINE, "found", || {
        (0..20).for_each(|_| drop(connect()));
        state(lb, "v1-1") == "down"
    });
    let status = lb.instance_status("v1-1").unwrap();
    let why = status["why_down"].as_str().unwrap();
    assert!(why.contains(" handshakes failed within 1s: ") && status["healthy"] == false, "{why}");
    let before = placed(lb, "v1-1");
    (0..20).for_each(|_| connect().unwrap());
    assert_eq!(placed(lb, "v1-1"), before);
    // The last one stays: more likely the clients or the network are to blame.
    server.kill().unwrap();
    eventually(DEADLINE, "spared", || {
        (0..20).for_each(|_| drop(connect()));
        events(lb).contains("web/v1-2 stays, as nobody else is left: ")
    });
    assert_eq!(state(lb, "v1-2"), "active");
    // After a while it gets another chance.
    let _server = topology.backends[0].start_server().unwrap();
    eventually(DEADLINE, "back", || state(lb, "v1-1") == "active");
    held_by_either(&topology, "v1-1");
}

/// As [`held_by`], while others refuse.
fn held_by_either(topology: &Topology, id: &str) {
    eventually(DEADLINE, &format!("a flow on {id}"), || {
        topology.hold().is_ok_and(|held| held.first.instance == id)
    });
}

/// Who does not answer at all is found, too.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn traffic_finds_who_is_silent() {
    let passive = "passive = { syn_failures = 0.5, min = 2, every = \"1s\" }\n";
    let topology = topology(Mode::Snat, passive);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    topology.backends[0].namespace.block("input", "ip protocol tcp").unwrap();
    let to = SocketAddr::V4(FRONTEND);
    eventually(2 * DEADLINE, "found", || {
        let _ = topology.client.connect(to, Duration::from_millis(50));
        state(lb, "v1-1") == "down"
    });
    let why = lb.instance_status("v1-1").unwrap()["why_down"].to_string();
    assert!(why.contains("0 refused, ") && !why.contains(" 0 unanswered"), "{why}");
    avoided(&topology, "v1-1", 20);
    topology.backends[0].namespace.unblock().unwrap();
}

/// Servers there listen at the frontend's address only; their health page is elsewhere.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn instances_that_answer_clients_themselves_are_asked_at_their_own_address() {
    let topology = topology(Mode::Dsr, ON_PAGE);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let pages: Vec<Page> = topology.backends.iter().map(Page::of).collect();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    becomes(lb, "v1-1", "active", Some(true));
    pages[0].set(false);
    becomes(lb, "v1-1", "down", Some(false));
    avoided(&topology, "v1-1", 20);
    pages[0].set(true);
    becomes(lb, "v1-1", "active", Some(true));
    held_by(&topology, "v1-1");
}
