//! Outer headers, byte for byte as they were written down by hand, and how they vary.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use release_cases::frames::{Segment, ends, flags};
use release_cases::model::{Family, ModelTables, Scene};
use release_common::abi::mode;
use release_common::pipeline::Action;

/// One instance, 10.0.1.1; the outer source is 10.254.0.0.
fn scene(mode: u8) -> Scene {
    Scene::new(&[1], 1).mode(mode)
}

fn syn(scene: &Scene, connection: usize) -> Segment {
    let (client, frontend) = (scene.client_socket(connection), scene.frontends[0].socket);
    Segment { tos: 0xb8, ..Segment::tcp(client, frontend, flags::SYN) }
}

fn sent(scene: &Scene, segment: &Segment) -> Vec<u8> {
    let (outcome, out) = ModelTables::new(scene, 8, 8).run(&segment.build());
    assert_eq!(outcome.action, Action::Send);
    out
}

#[test]
fn ipip() {
    let scene = scene(mode::IPIP);
    let syn = syn(&scene, 0);
    let inner = syn.packet();
    assert_eq!(inner.len(), 40);
    let outer = [
        // The way's MACs.
        0x02, 0, 0, 0, 0x0b, 1, 0x02, 0, 0, 0, 0x0b, 2, 0x08, 0x00,
        // IPv4: class as inside, 60 bytes, no id, "don't fragment", TTL 64, protocol 4.
        0x45, 0xb8, 0x00, 0x3c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x04,
        // 0x45b8 + 0x3c + 0x4000 + 0x4004 + 0x0afe + 0x0000 + 0x0a00 + 0x0101 = 0xdbf7.
        0x24, 0x08, 10, 254, 0, 0, 10, 0, 1, 1,
    ];
    assert_eq!(sent(&scene, &syn), [&outer[..], &inner].concat());
}

#[test]
fn gue_by_ipv6() {
    let scene = scene(mode::GUE).reached_by(Family::V6);
    let syn = syn(&scene, 0);
    let inner = syn.packet();
    let out = sent(&scene, &syn);
    let port = ends(&out).unwrap().0.port();
    assert!(port >= 49152);
    let mut outer = vec![
        0x02, 0, 0, 0, 0x0b, 1, 0x02, 0, 0, 0, 0x0b, 2, 0x86, 0xdd,
        // IPv6: class as inside, 48 bytes of UDP, hop limit 64.
        0x6b, 0x80, 0, 0, 0x00, 0x30, 17, 64,
    ];
    for address in [Ipv4Addr::new(10, 254, 0, 0), Ipv4Addr::new(10, 0, 1, 1)] {
        let std::net::IpAddr::V6(address) = Family::V6.ip(address) else { panic!("not IPv6") };
        outer.extend(address.octets());
    }
    outer.extend(port.to_be_bytes());
    // To port 6080, 48 bytes, no checksum (RFC 6935).
    outer.extend([0x17, 0xc0, 0x00, 0x30, 0, 0]);
    assert_eq!(out, [outer, inner].concat());
}

/// The receiving host spreads flows over its queues by what is outside.
#[test]
fn flows_differ_outside() {
    for (mode, bits, least) in [(mode::IPIP, 16, 190), (mode::GUE, 0, 190), (mode::IPIP, 4, 16)] {
        for family in [Family::V4, Family::V6] {
            for reached in [Family::V4, Family::V6] {
                let mut scene = scene(mode).reached_by(reached).told_in(family);
                let prefixes = ["10.254.0.0", "fd00:f::"];
                let prefix = prefixes[reached.index()].parse().unwrap();
                scene.tunnel_sources[reached.index()] = (prefix, bits);
                let outside: BTreeSet<_> = (2..202)
                    .map(|connection| {
                        let (source, _) = ends(&sent(&scene, &syn(&scene, connection))).unwrap();
                        (source.ip(), if mode == mode::GUE { source.port() } else { 0 })
                    })
                    .collect();
                assert!(outside.len() >= least, "{} of 200 flows differ", outside.len());
            }
        }
    }
}
