//! The topology of each mode carries what the mode needs: the kernel's own NAT and routing stand in
//! for the data plane. Where a test of a mode fails and these pass, the data plane is at fault.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::Result;
use release_tests::capture::Capture;
use release_tests::drive::Drive;
use release_tests::netns::Netns;
use release_tests::topology::{
    CLIENT_SIDE, Family, Mode, Protocol, Topology, TopologySpec, balancer, frontend,
};

const FLOWS: u32 = 200;

/// One backend, both families and protocols.
fn spec(mode: Mode) -> TopologySpec {
    TopologySpec {
        versions: vec![("v1".into(), 1)],
        clients: 2,
        mode,
        families: vec![Family::V4, Family::V6],
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        wired: true,
        ..TopologySpec::default()
    }
}

/// Sends what comes to the VIPs to the backend, by rewriting.
fn rewrite(topology: &Topology, source: Option<[&str; 2]>) -> Result<()> {
    let lb = &topology.lb.namespace;
    let rule = |line: &str| lb.run("nft", line).map(drop);
    rule("add table inet t")?;
    for (chain, hook, priority) in [
        ("in", "prerouting", "dstnat"),
        ("here", "output", "-100"),
        ("out", "postrouting", "srcnat"),
    ] {
        rule(&format!(
            "add chain inet t {chain} {{ type nat hook {hook} priority {priority} ; }}"
        ))?;
    }
    for (index, (family, ip)) in [(Family::V4, "ip"), (Family::V6, "ip6")].into_iter().enumerate() {
        let (vip, to) = (frontend(family), topology.backends[0].instance(family));
        for chain in ["in", "here"] {
            for protocol in ["tcp", "udp"] {
                let matches = format!("{ip} daddr {} {protocol} dport {}", vip.ip(), vip.port());
                rule(&format!("add rule inet t {chain} {matches} dnat {ip} to {to}"))?;
            }
        }
        if let Some(sources) = source {
            let matches = format!("{ip} daddr {}", to.ip());
            rule(&format!("add rule inet t out {matches} snat {ip} to {}", sources[index]))?;
        }
    }
    Ok(())
}

/// Sends what comes to the VIPs to the backend as it is.
fn route(topology: &Topology) -> Result<()> {
    let (lb, client) = (&topology.lb.namespace, &topology.client);
    for family in [Family::V4, Family::V6] {
        let (vip, length) = (frontend(family).ip(), family.host_prefix());
        let backend = topology.backends[0].instance(family).ip();
        lb.ip(&format!("addr del {vip}/{length} dev {CLIENT_SIDE}"))?;
        lb.ip(&format!("route add {vip}/{length} via {backend}"))?;
        client.ip(&format!("route add {vip}/{length} via {}", balancer(family)))?;
    }
    Ok(())
}

/// Flows of both families and protocols to the VIPs, from clients in a namespace.
fn flows(topology: &Topology, clients: &Netns, capture: Option<Capture>) {
    let _servers = topology.start_servers().unwrap();
    for family in [Family::V4, Family::V6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let sources = match capture {
                Some(_) => topology.client_addresses_of(family),
                None => Vec::new(),
            };
            let drive = Drive {
                target: frontend(family),
                protocol,
                sources,
                flows: FLOWS,
                exchanges: 2,
                datagram: None,
            };
            drive.run(clients, || Ok(())).unwrap().is_clean(FLOWS, "v1", "v1").unwrap();
        }
    }
    for (name, tally) in capture.into_iter().flat_map(|capture| capture.finish().unwrap()) {
        tally.is_right().unwrap_or_else(|error| panic!("{name}: {error:#}"));
        // Both families' TCP and UDP came by here.
        let least = u64::from(FLOWS) * 4;
        assert!(tally.seen.tcp >= least && tally.seen.udp >= least, "{name}: {tally:?}");
    }
}

fn from_client(topology: &Topology) {
    let capture = Capture::everywhere(topology).unwrap();
    flows(topology, &topology.client, Some(capture));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn nat() {
    let topology = Topology::new(&spec(Mode::Nat)).unwrap();
    rewrite(&topology, None).unwrap();
    from_client(&topology);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn snat() {
    let topology = Topology::new(&spec(Mode::Snat)).unwrap();
    rewrite(&topology, Some(["10.5.0.1", "fd00:5::1"])).unwrap();
    from_client(&topology);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dsr() {
    let topology = Topology::new(&spec(Mode::Dsr)).unwrap();
    route(&topology).unwrap();
    from_client(&topology);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn host() {
    let topology = Topology::new(&spec(Mode::Host)).unwrap();
    rewrite(&topology, None).unwrap();
    // Rewritten only after the capture, which does not mind.
    from_client(&topology);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn container() {
    let topology = Topology::new(&spec(Mode::Container)).unwrap();
    rewrite(&topology, None).unwrap();
    from_client(&topology);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn clients_on_the_host() {
    let topology = Topology::new(&TopologySpec { loopback: true, ..spec(Mode::Host) }).unwrap();
    rewrite(&topology, None).unwrap();
    flows(&topology, &topology.lb.namespace, None);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn backends_know_no_way_back_through_the_balancer() {
    for mode in [Mode::Snat, Mode::Dsr, Mode::Ipip] {
        let topology = Topology::new(&spec(mode)).unwrap();
        for family in [Family::V4, Family::V6] {
            let client = topology.client_addresses_of(family)[1];
            for backend in &topology.backends {
                let way = backend.namespace.ip(&format!("route get {client}"));
                match mode {
                    Mode::Snat => drop(way.unwrap_err()),
                    _ => assert!(way.unwrap().contains("dev direct0"), "{mode:?} {family:?}"),
                }
            }
        }
    }
}
