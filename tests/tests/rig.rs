//! Self-tests of what the tests of modes stand on, without a data plane: both families, wires that
//! strip outer headers, captures that find wrong checksums, flows that notice what happens to them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use release_tests::capture::{Capture, Source, Tally};
use release_tests::drive::{Drive, Outcome};
use release_tests::netns::Netns;
use release_tests::packet_socket::{PacketSocket, mac};
use release_tests::packets;
use release_tests::scenario::eventually;
use release_tests::server::udp::{question, stamped};
use release_tests::topology::{
    Backend, CLIENT_SIDE, Family, Mode, Protocol, Topology, TopologySpec, balancer, frontend,
};
use release_tests::wire::{Kind, Wire};

const DEADLINE: Duration = Duration::from_secs(5);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Both families, both protocols, two backends, wired.
fn spec(mode: Mode) -> TopologySpec {
    TopologySpec {
        versions: vec![("v1".into(), 1), ("v2".into(), 1)],
        clients: 3,
        mode,
        families: FAMILIES.to_vec(),
        protocols: PROTOCOLS.to_vec(),
        wired: true,
        ..TopologySpec::default()
    }
}

/// Flows to a backend's own address.
fn direct(
    topology: &Topology,
    backend: &Backend,
    family: Family,
    protocol: Protocol,
) -> Result<Outcome> {
    let drive = Drive {
        target: backend.instance(family),
        protocol,
        sources: topology.client_addresses_of(family),
        flows: 200,
        exchanges: 3,
        datagram: None,
    };
    drive.run(&topology.client, || Ok(()))
}

/// Sends packets over the wire to a backend, as the balancer would.
fn send(topology: &Topology, backend: &Backend, packets: &[Vec<u8>]) {
    let lb = &topology.lb.namespace;
    let device = backend.balancer_side.as_str();
    let to = mac(&backend.namespace, "eth0").unwrap();
    let from = mac(lb, device).unwrap();
    let frames: Vec<_> = packets.iter().map(|packet| packets::frame(to, from, packet)).collect();
    let socket = PacketSocket::sender(lb, device).unwrap();
    assert_eq!(socket.send(&frames).unwrap(), frames.len());
}

fn tally(capture: Capture, name: &str) -> Tally {
    capture.finish().unwrap().remove(name).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn flows_in_both_families_with_right_checksums() {
    for mode in [Mode::Nat, Mode::Container, Mode::Host] {
        let topology = Topology::new(&spec(mode)).unwrap();
        let _servers = topology.start_servers().unwrap();
        let capture = Capture::everywhere(&topology).unwrap();
        for family in FAMILIES {
            for (protocol, backend) in PROTOCOLS.into_iter().zip(&topology.backends) {
                let outcome = direct(&topology, backend, family, protocol).unwrap();
                outcome.is_clean(200, &backend.version, &backend.version).unwrap();
                assert_eq!(outcome.instances.keys().collect::<Vec<_>>(), [&backend.id]);
                // A tenth of the first half has its three exchanges, and more.
                assert!(outcome.exchanges >= 600, "{outcome:?}");
            }
        }
        for (name, tally) in capture.finish().unwrap() {
            tally.is_right().with_context(|| format!("{mode:?} {name}")).unwrap();
            assert!(tally.seen.ipv4 > 300 && tally.seen.ipv6 > 300, "{name}: {tally:?}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_sending_end_fills_in_checksums() {
    for mode in [Mode::Nat, Mode::Dsr, Mode::Ipip, Mode::Host] {
        let topology = Topology::new(&spec(mode)).unwrap();
        let lb = &topology.lb.namespace;
        let mut ends: Vec<(&Netns, &str)> = vec![(&topology.client, "eth0"), (lb, CLIENT_SIDE)];
        for backend in topology.backends.iter().filter(|_| mode != Mode::Host) {
            ends.push((&backend.namespace, "eth0"));
            ends.push((lb, &backend.balancer_side));
            if mode.is_one_way() {
                ends.push((&backend.namespace, "direct0"));
            }
        }
        for (namespace, device) in ends {
            let text = namespace.run("ethtool", &format!("-k {device}")).unwrap();
            for feature in ["tx-checksumming", "tcp-segmentation-offload"] {
                assert!(text.contains(&format!("{feature}: off")), "{mode:?} {device}: {text}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_capture_finds_checksums_that_are_not_filled_in() {
    let topology = Topology::new(&spec(Mode::Nat)).unwrap();
    let backend = &topology.backends[0];
    let _server = backend.start_server().unwrap();
    // All the way: the first end without the offload would fill them in.
    topology.client.run("ethtool", "-K eth0 tx on").unwrap();
    let device = format!("-K {} tx on", backend.balancer_side);
    topology.lb.namespace.run("ethtool", &device).unwrap();
    let capture = Capture::everywhere(&topology).unwrap();
    direct(&topology, backend, Family::V4, Protocol::Tcp).unwrap();
    let tallies = capture.finish().unwrap();
    assert!(tallies["v1-1"].wrong > 200, "{:?}", tallies["v1-1"]);
    tallies["v1-1"].is_right().unwrap_err();
    // The other direction is as it was.
    tallies["client"].is_right().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_capture_finds_each_wrong_packet() {
    let topology = Topology::new(&spec(Mode::Gue)).unwrap();
    let backend = &topology.backends[0];
    let ends = |family| {
        let from = SocketAddr::new(topology.client_addresses_of(family)[0], 4000);
        (from, SocketAddr::new(backend.instance(family).ip(), 4000))
    };
    let right: Vec<Vec<u8>> = FAMILIES
        .into_iter()
        .map(ends)
        .flat_map(|(from, to)| {
            let udp = packets::udp(from, to, b"hello");
            let inside = packets::gue(from.ip(), to.ip(), &udp);
            [packets::tcp(from, to, 0x10, 5, b"hello"), udp, inside]
        })
        .collect();
    let wrong: Vec<Vec<u8>> = right
        .iter()
        .map(|packet| {
            let mut packet = packet.clone();
            *packet.last_mut().unwrap() ^= 1;
            packet
        })
        .collect();
    for (packets, bad) in [(&right, 0), (&wrong, 6)] {
        // A wire of its own for each round: only one capture can have its packets.
        let (namespace, device) = (&backend.namespace, "eth0");
        let capture = Capture::start(vec![Source::interface("inside", namespace, device).unwrap()]);
        let capture = capture.unwrap();
        send(&topology, backend, packets);
        let inside = tally(capture, "inside");
        // What was in tunnels comes out, and is as it was put in. (Neighbours may have spoken.)
        assert_eq!((inside.wrong, inside.lost), (bad, 0), "{inside:?}");
        assert_eq!((inside.seen.tcp, inside.seen.udp), if bad == 0 { (2, 4) } else { (0, 0) });
        assert_eq!(inside.seen.tunnelled, 0);
    }
    let wire = backend.wire.as_ref().unwrap();
    let capture = Capture::start(vec![Source::tunnels("outside", wire).unwrap()]).unwrap();
    Source::tunnels("outside", wire).unwrap_err();
    // The four of before were kept for it.
    let outside = tally(capture, "outside");
    assert_eq!((outside.packets, outside.wrong), (4, 2), "{outside:?}");
    assert_eq!((outside.seen.tunnelled, outside.seen.tunnels.len()), (2, 2), "{outside:?}");
}

/// An outer header around a packet.
type Around = fn(IpAddr, IpAddr, &[u8]) -> Vec<u8>;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn backends_take_packets_out_of_every_kind_of_tunnel() {
    let spec = TopologySpec { outer: Family::V6, ..spec(Mode::Ipip) };
    let topology = Topology::new(&spec).unwrap();
    let _servers = topology.start_servers().unwrap();
    let backend = &topology.backends[1];
    let wire = backend.wire.as_ref().unwrap();
    let capture = Capture::everywhere(&topology).unwrap();
    let kinds: [(Kind, Around, Family, Family); 8] = [
        (Kind::Ipv4InIpv4, packets::ip_in_ip, Family::V4, Family::V4),
        (Kind::Ipv6InIpv4, packets::ip_in_ip, Family::V6, Family::V4),
        (Kind::Ipv4InIpv6, packets::ip_in_ip, Family::V4, Family::V6),
        (Kind::Ipv6InIpv6, packets::ip_in_ip, Family::V6, Family::V6),
        (Kind::GueIpv4InIpv4, packets::gue, Family::V4, Family::V4),
        (Kind::GueIpv6InIpv4, packets::gue, Family::V6, Family::V4),
        (Kind::GueIpv4InIpv6, packets::gue, Family::V4, Family::V6),
        (Kind::GueIpv6InIpv6, packets::gue, Family::V6, Family::V6),
    ];
    for (number, (kind, around, inner, outer)) in (1..).zip(kinds) {
        // The answer comes straight to the client, who knows nothing of tunnels.
        let source = topology.client_addresses_of(inner)[0];
        let client = topology.client.udp((source, 0)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let question = question(number, 1);
        let from = client.local_addr().unwrap();
        let packet = packets::udp(from, frontend(inner), question.as_bytes());
        let to = backend.instance(outer).ip();
        send(&topology, backend, &[around(balancer(outer), to, &packet)]);
        let mut buffer = [0; 200];
        let (length, answerer) =
            client.recv_from(&mut buffer).with_context(|| format!("{kind:?}")).unwrap();
        let owner = stamped(&buffer[..length], &question).unwrap();
        assert_eq!((answerer, owner), (frontend(inner), Some(("v2".into(), "v2-1".into()))));
        assert_eq!(wire.count(kind).unwrap(), 1, "{kind:?}");
    }
    let tallies = capture.finish().unwrap();
    tallies["v2-1"].is_right().unwrap();
    let outside = &tallies["v2-1 outside"];
    outside.is_right().unwrap();
    assert_eq!((outside.packets, outside.seen.tunnelled), (8, 8));
    assert_eq!(wire.not_handed().unwrap(), 0);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn wires_leave_alone_what_is_no_tunnel() {
    let topology = Topology::new(&spec(Mode::Nat)).unwrap();
    let backend = &topology.backends[0];
    let wire: &Wire = backend.wire.as_ref().unwrap();
    let (from, to) = (balancer(Family::V4), backend.instance(Family::V4).ip());
    let inner = packets::ip(from, to, packets::protocol::UDP, &[0; 8]);
    let mut fragment = packets::ip_in_ip(from, to, &inner);
    fragment[6] = 0x20;
    let mut options = packets::ip_in_ip(from, to, &inner);
    options[0] = 0x46;
    let not_ip = packets::ip(from, to, packets::protocol::IPV4, &[0x15; 20]);
    let other_port = packets::udp(SocketAddr::new(from, 1), SocketAddr::new(to, 6081), &inner);
    let before = wire.count(Kind::Plain).unwrap();
    send(&topology, backend, &[fragment, options, not_ip, other_port]);
    eventually(DEADLINE, "all passed", || wire.count(Kind::Plain).unwrap() >= before + 4);
    for kind in Kind::ALL.into_iter().skip(1) {
        assert_eq!(wire.count(kind).unwrap(), 0, "{kind:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn flows_notice_errors_and_other_servers() {
    let topology = Topology::new(&spec(Mode::Nat)).unwrap();
    let backend = &topology.backends[0];
    // Nobody there.
    for protocol in PROTOCOLS {
        let error = direct(&topology, backend, Family::V6, protocol).unwrap_err();
        assert!(format!("{error:#}").contains("refused"), "{error:#}");
    }
    // A server that begins to lie about its name.
    let socket = backend.namespace.udp(backend.address).unwrap();
    let liar = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        for answer in 0.. {
            let (length, peer) = socket.recv_from(&mut buffer).unwrap();
            if buffer[..length] == *b"end" {
                return;
            }
            let name = if answer < 300 { "v1 a " } else { "v2 a " };
            let answer = [name.as_bytes(), &buffer[..length]].concat();
            socket.send_to(&answer, peer).unwrap();
        }
    });
    let outcome = direct(&topology, backend, Family::V4, Protocol::Udp);
    let client = topology.client.udp((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    client.send_to(b"end", backend.address).unwrap();
    liar.join().unwrap();
    let outcome = outcome.unwrap();
    assert!(outcome.moved > 0 && outcome.errors == 0, "{outcome:?}");
    let error = outcome.is_clean(200, "v1", "v1").unwrap_err();
    assert!(error.to_string().contains("moved"), "{error}");
    // A change that fails ends everything.
    let _server = topology.backends[1].start_server().unwrap();
    let drive = Drive {
        target: topology.backends[1].instance(Family::V4),
        protocol: Protocol::Tcp,
        sources: Vec::new(),
        flows: 200,
        exchanges: 1,
        datagram: None,
    };
    let error = drive.run(&topology.client, || anyhow::bail!("on purpose")).unwrap_err();
    assert_eq!(error.to_string(), "on purpose");
}
