//! Self-tests of the load generator against servers reached by plain routing.

use std::net::SocketAddrV4;
use std::time::Duration;

use release_tests::load::{ErrorKind, Group, Load, LoadPlan};
use release_tests::topology::{Topology, TopologySpec};

const DEADLINE: Duration = Duration::from_secs(8);

fn every_kind(target: SocketAddrV4) -> LoadPlan {
    LoadPlan {
        target,
        sources: Vec::new(),
        groups: vec![
            Group::Short { per_second: 200, limit: None, path: "/".into() },
            Group::KeepAlive { connections: 10, pause: Duration::from_millis(20), life: None },
            Group::KeepAlive { connections: 3, pause: Duration::from_secs(60), life: None },
            Group::Stream { connections: 4, length: Duration::from_secs(30) },
        ],
        threads: 1,
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_quiet_run_is_clean_and_ends_everything() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let _servers = topology.start_servers().unwrap();
    let load = Load::start(&topology.client, every_kind(topology.backends[0].address)).unwrap();
    assert!(load.wait(DEADLINE, |s| s.active("v1") >= 17 && s.connections > 200));
    assert_eq!(load.snapshot().connections_to("v2"), 0);
    let report = load.finish().unwrap();
    assert!(report.is_clean(), "{:?} {:?}", report.first_errors, report.first_moved);
    assert_eq!(report.totals.active("v1"), 0);
    assert!(report.totals.versions["v1"].last_close.is_some());
    let new: u64 = report.series.iter().filter_map(|bucket| bucket.new.get("v1")).sum();
    assert_eq!(new, report.totals.connections);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn retirement_ends_sessions_without_errors() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut plan = every_kind(topology.backends[0].address);
    plan.groups.remove(0);
    let load = Load::start(&topology.client, plan).unwrap();
    assert!(load.wait(DEADLINE, |s| s.active("v1") == 17));
    load.retire("v1", Duration::from_millis(200));
    // All sessions begin anew: there is nothing else here that they could reach.
    assert!(load.wait(DEADLINE, |s| s.connections_to("v1") >= 34));
    assert!(load.finish().unwrap().is_clean());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_killed_server_is_noticed_by_every_kind_of_client() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let server = topology.backends[0].start_server().unwrap();
    let mut plan = every_kind(topology.backends[0].address);
    plan.groups.remove(0);
    let load = Load::start(&topology.client, plan).unwrap();
    assert!(load.wait(DEADLINE, |s| s.active("v1") == 17));
    server.terminate(DEADLINE).unwrap();
    assert!(load.wait(DEADLINE, |s| s.errors > 50 && s.active("v1") == 0));
    let report = load.finish().unwrap();
    let long_lived = report.errors_by_kind.get(&ErrorKind::Closed).copied().unwrap_or(0)
        + report.errors_by_kind.get(&ErrorKind::Reset).copied().unwrap_or(0);
    assert!(long_lived >= 17, "{}", report.errors_in_words());
    assert!(report.errors_by_kind[&ErrorKind::Connect] > 0);
    assert!(!report.is_clean());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn another_server_behind_the_same_connection_is_noticed() {
    // TCP would break if packets went to another server in the middle of a connection. To see
    // that the load looks at the names too, a server that lies about its own.
    use std::io::{Read, Write};
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let backend = &topology.backends[0];
    let listener = backend.namespace.listen(backend.address).unwrap();
    let liar = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in 0.. {
            let mut request = [0; 4096];
            match stream.read(&mut request) {
                Ok(1..) => {}
                _ => return answer,
            }
            let version = if answer == 2 { "v2" } else { "v1" };
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-instance: a\r\nx-connection: 1";
            write!(stream, "{head}\r\nx-version: {version}\r\n\r\n").unwrap();
        }
        0
    });
    let pause = Duration::from_millis(5);
    let plan = LoadPlan {
        groups: vec![Group::KeepAlive { connections: 1, pause, life: None }],
        ..every_kind(backend.address)
    };
    let load = Load::start(&topology.client, plan).unwrap();
    // There and back again.
    assert!(load.wait(DEADLINE, |s| s.moved == 2 && s.requests > 5));
    let report = load.finish().unwrap();
    assert_eq!(report.totals.errors, 0, "{:?}", report.first_errors);
    assert!(report.first_moved[0].contains("v2"), "{:?}", report.first_moved);
    assert!(liar.join().unwrap() > 5);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn thousands_of_connections_from_several_addresses() {
    let topology = Topology::new(&TopologySpec { clients: 4, ..TopologySpec::default() }).unwrap();
    let _servers = topology.start_servers().unwrap();
    let plan = LoadPlan {
        sources: topology.client_addresses(),
        groups: vec![Group::Short { per_second: 4000, limit: Some(5000), path: "/".into() }],
        ..every_kind(topology.backends[0].address)
    };
    let load = Load::start(&topology.client, plan).unwrap();
    assert!(load.wait(Duration::from_secs(30), |s| s.requests == 5000));
    let report = load.finish().unwrap();
    assert!(report.is_clean(), "{:?}", report.first_errors);
    assert_eq!(report.totals.connections, 5000);
}
