//! What all of them need.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use release_tests::http;
use release_tests::netns::Netns;
use release_tests::scenario::{DEADLINE, Held};
use release_tests::server::udp::{question, stamped};
use release_tests::topology::{Balancer, Family, Protocol, Topology, TopologySpec, frontend};
use serde_json::Value;

pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// One instance a version, `v1` and `v2`; both families and TCP.
pub fn spec(service: &str) -> TopologySpec {
    TopologySpec {
        versions: vec![("v1".into(), 1), ("v2".into(), 1)],
        families: BOTH.to_vec(),
        protocols: vec![Protocol::Tcp],
        service: service.to_owned(),
        ..TopologySpec::default()
    }
}

/// The frontend's address with another port.
pub fn frontend_at(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(frontend(family).ip(), port)
}

/// Opens a connection from a client address (port 0: any), makes a request and keeps it.
pub fn hold(topology: &Topology, from: SocketAddr, to: SocketAddr) -> Result<Held> {
    let mut stream = topology.client.connect_from(from, to, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let first = http::request(&mut stream, "/")?;
    Ok(Held { stream, first })
}

/// As [`hold`], to the family's frontend from any port.
pub fn hold_as(topology: &Topology, client: IpAddr) -> Result<Held> {
    hold(topology, SocketAddr::new(client, 0), frontend(family_of(client)))
}

pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Whether a connection is answered with RST.
pub fn is_reset(topology: &Topology, from: SocketAddr, to: SocketAddr) -> Result<bool> {
    match topology.client.connect_from(from, to, DEADLINE) {
        Ok(_) => Ok(false),
        Err(error) if is_refused(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether an error says that nobody listens.
pub fn is_refused(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionRefused)
}

/// Makes so many connections of a client, one after the other; how many reached each version.
pub fn reached(
    topology: &Topology,
    client: IpAddr,
    to: SocketAddr,
    connections: u32,
) -> Result<BTreeMap<String, u32>> {
    let mut versions = BTreeMap::new();
    for _ in 0..connections {
        let held = hold(topology, SocketAddr::new(client, 0), to)?;
        *versions.entry(held.first.version).or_default() += 1;
    }
    Ok(versions)
}

/// What [`reached`] returns if all are of one version.
pub fn all(version: &str, connections: u32) -> BTreeMap<String, u32> {
    BTreeMap::from([(version.to_owned(), connections)])
}

/// A UDP socket inside a namespace.
pub fn udp(namespace: &Netns, from: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace.udp(from)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket)
}

/// Asks with one datagram; version and instance of the answer, which must come from where the
/// question went.
pub fn ask(socket: &UdpSocket, to: SocketAddr, number: u32) -> Result<(String, String)> {
    let question = question(u32::from(socket.local_addr()?.port()), number);
    socket.send_to(question.as_bytes(), to).context("cannot send")?;
    let mut buffer = [0; 256];
    let (length, from) = socket.recv_from(&mut buffer).context("no answer")?;
    ensure!(from == to, "an answer from {from} instead of {to}");
    stamped(&buffer[..length], &question)?.context("an answer to another question")
}

/// What `explain` says, and why, on one line; it must change nothing.
pub fn explain(lb: &Balancer, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Explained {
    let before = everything(lb);
    let said = explain_anew(lb, protocol, from, to);
    assert_eq!(everything(lb), before, "{:?}", said.whole);
    said
}

/// As [`explain`], while others change things.
pub fn explain_anew(
    lb: &Balancer,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
) -> Explained {
    let (protocol, from, to) = (protocol.to_string(), from.to_string(), to.to_string());
    let whole = lb.releasectl_json(&["explain", &protocol, &from, &to]).unwrap();
    let text = |key: &str| whole[key].as_str().unwrap_or_default().to_owned();
    let because = whole["because"].as_array().unwrap().iter().filter_map(Value::as_str);
    Explained {
        decision: text("decision"),
        version: text("version"),
        instance: text("instance"),
        reason: text("reason"),
        because: because.collect::<Vec<_>>().join("; "),
        whole,
    }
}

/// An answer of `explain`; what is not there is empty.
#[derive(Debug, Clone)]
pub struct Explained {
    pub decision: String,
    pub version: String,
    pub instance: String,
    pub reason: String,
    pub because: String,
    whole: Value,
}

impl Explained {
    /// Whether it is a placement on the version, for a reason that contains `why`.
    #[must_use]
    pub fn places(&self, version: &str, why: &str) -> bool {
        self.decision == "placement" && self.version == version && self.because.contains(why)
    }

    /// Whether it is a refusal for that reason.
    #[must_use]
    pub fn refuses(&self, reason: &str) -> bool {
        self.decision == "refused" && self.reason == reason && self.instance.is_empty()
    }
}

/// Everything that a flow could have left a trace in.
fn everything(lb: &Balancer) -> Vec<Value> {
    let maps = [
        "FLOWS4",
        "FLOWS6",
        "EMBRYOS4",
        "EMBRYOS6",
        "SESSIONS",
        "GAUGES",
        "COUNTERS",
        "SPLITS",
        "RULES4",
        "RULES6",
        "SERVICE_COUNTERS",
    ];
    maps.iter().map(|map| lb.releasectl_json(&["maps", "dump", map]).unwrap()).collect()
}

/// New flows that were refused, by kind, as `maps dump SERVICE_COUNTERS` says it.
pub fn refusals(lb: &Balancer, kind: &str) -> u64 {
    let lines = lb.releasectl_json(&["maps", "dump", "SERVICE_COUNTERS"]).unwrap();
    let lines = lines.as_array().unwrap();
    assert!(lines.len() <= 1, "one service: {lines:?}");
    lines.first().map_or(0, |line| line[kind].as_u64().unwrap())
}
