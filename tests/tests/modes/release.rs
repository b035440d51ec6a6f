//! The one scenario.

use std::collections::BTreeMap;

use anyhow::Context;
use release_tests::capture::{Capture, Tally};
use release_tests::drive::Drive;
use release_tests::observe::Ctl;
use release_tests::topology::{Family, Mode, Protocol, Topology, TopologySpec, frontend};
use release_tests::wire::Kind;

const FLOWS: u32 = 1000;
/// Exchanges of a flow that is not held across the shift.
const EXCHANGES: u32 = 4;
const SHIFT: [&str; 2] = ["v1=0", "v2=100"];

/// Defines a test of the name for a spec.
macro_rules! release {
    ($($name:ident: $spec:expr;)*) => {$(
        #[test]
        #[ignore = "needs root: cargo xtask test"]
        fn $name() {
            crate::release::run(&$spec);
        }
    )*};
}
pub(crate) use release;

/// One mode, family and protocol, with what is needed to see all packets.
pub fn spec(mode: Mode, family: Family, protocol: Protocol) -> TopologySpec {
    TopologySpec {
        clients: 4,
        mode,
        families: vec![family],
        protocols: vec![protocol],
        outer: family,
        wired: true,
        ..TopologySpec::default()
    }
}

/// Runs a release under traffic from the client, or from the balancer's host itself if the
/// topology has that.
pub fn run(spec: &TopologySpec) {
    let (family, protocol) = (spec.families[0], spec.protocols[0]);
    let topology = Topology::new(spec).unwrap();
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let (lb, host) = (Ctl(&topology.lb), &topology.lb.namespace);
    // On `lo` checksums are never filled in.
    let capture = (!spec.loopback).then(|| Capture::everywhere(&topology).unwrap());
    let sources = if spec.loopback { Vec::new() } else { topology.client_addresses_of(family) };
    let clients = if spec.loopback { host } else { &topology.client };

    let drive = Drive {
        target: frontend(family),
        protocol,
        sources,
        flows: FLOWS,
        exchanges: EXCHANGES,
        datagram: None,
    };
    let outcome = drive.run(clients, || lb.shift(&SHIFT).map(drop)).unwrap();
    println!("{} exchanges, {} asked again", outcome.exchanges, outcome.repeated);
    outcome.is_clean(FLOWS, "v1", "v2").unwrap();
    let everyone: Vec<&String> = topology.backends.iter().map(|backend| &backend.id).collect();
    assert_eq!(outcome.instances.keys().collect::<Vec<_>>(), everyone);
    // The balancer counted the same flows.
    let service = lb.service().unwrap();
    for (id, instance) in service.instances() {
        let placed = instance.counters.placed;
        assert!(placed >= u64::from(outcome.instances[id]), "{id}: {placed}, {outcome:?}");
    }
    lb.check_maps().unwrap();

    let Some(capture) = capture else { return };
    let tallies = capture.finish().unwrap();
    for (name, tally) in &tallies {
        tally.is_right().context(name.clone()).unwrap();
    }
    arrived(spec, &tallies, outcome.exchanges);
    if spec.mode.is_tunnel() {
        tunnelled(&topology, &tallies);
    }
}

/// Demands that captures saw at least one packet for each exchange, in each direction that is seen.
fn arrived(spec: &TopologySpec, tallies: &BTreeMap<String, Tally>, exchanges: u64) {
    let packets = |tally: &Tally| match spec.protocols[0] {
        Protocol::Tcp => tally.seen.tcp,
        Protocol::Udp => tally.seen.udp + tally.seen.udp_without,
    };
    let sum = |mine: fn(&str) -> bool| -> u64 {
        tallies.iter().filter(|(name, _)| mine(name)).map(|(_, tally)| packets(tally)).sum()
    };
    let at_servers = sum(|name| name != "client" && !name.ends_with(" outside"));
    assert!(at_servers >= exchanges, "{at_servers} packets for {exchanges}");
    if !spec.mode.is_one_way() {
        let at_client = sum(|name| name == "client");
        assert!(at_client >= exchanges, "{at_client} replies for {exchanges}");
    }
}

/// Demands that every packet to the service came inside a tunnel, of the right kind, to the right
/// end.
fn tunnelled(topology: &Topology, tallies: &BTreeMap<String, Tally>) {
    let TopologySpec { mode, ref families, outer, .. } = topology.spec;
    let expected = kind(mode, families[0], outer);
    for backend in &topology.backends {
        let wire = backend.wire.as_ref().unwrap();
        for kind in Kind::ALL.into_iter().skip(1) {
            let count = wire.count(kind).unwrap();
            assert_eq!(count > 0, kind == expected, "{}: {count} of {kind:?}", backend.id);
        }
        assert_eq!(wire.not_handed().unwrap(), 0, "{}", backend.id);
        let outside = &tallies[&format!("{} outside", backend.id)];
        let inside = &tallies[&backend.id];
        let to_service = inside.seen.tcp + inside.seen.udp + inside.seen.udp_without;
        assert_eq!(outside.seen.tunnelled, to_service, "{}", backend.id);
        let end = backend.instance(outer).ip();
        assert!(outside.seen.tunnels.iter().all(|(_, to)| *to == end), "{:?}", outside.seen);
    }
}

fn kind(mode: Mode, inner: Family, outer: Family) -> Kind {
    use Family::{V4, V6};
    match (mode, inner, outer) {
        (Mode::Gue, V4, V4) => Kind::GueIpv4InIpv4,
        (Mode::Gue, V6, V4) => Kind::GueIpv6InIpv4,
        (Mode::Gue, V4, V6) => Kind::GueIpv4InIpv6,
        (Mode::Gue, V6, V6) => Kind::GueIpv6InIpv6,
        (_, V4, V4) => Kind::Ipv4InIpv4,
        (_, V6, V4) => Kind::Ipv6InIpv4,
        (_, V4, V6) => Kind::Ipv4InIpv6,
        (_, V6, V6) => Kind::Ipv6InIpv6,
    }
}
