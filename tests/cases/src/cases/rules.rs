//! Test rules and test frontends: who always reaches one version, and who never does.

use std::net::Ipv4Addr;

use release_common::abi::{conversation, service_flag};
use release_common::pipeline::Counter::{Datagrams, Opened, Placed, Ruled};
use release_common::pipeline::Refusal::Empty;
use release_common::reason::Reason;

use super::script::{
    C, Case, S, Step, Want, client, counts, datagram, open_on, packets, refusals, server, shift,
};
use crate::frames::flags;
use crate::model::Scene;
use crate::model::scene::Rule;

const CATEGORY: &str = "rules";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;

fn rule(source: [u8; 4], bits: u32, version: u32) -> Rule {
    Rule { source: Ipv4Addr::from(source).into(), bits, ring: version + 1 }
}

/// The second version is a test version; the rules are nested. Connections 20 and on are of clients
/// at the edges of the prefixes.
fn scene() -> Scene {
    let mut scene = Scene::new(&[1, 0, 0], 2).set(|service| service.flags = service_flag::RULES);
    scene.rules = vec![
        rule([203, 0, 113, 0], 24, 1),
        rule([203, 0, 113, 64], 26, 2),
        rule([203, 0, 113, 80], 32, 1),
    ];
    for (connection, host) in [
        (20, [203, 0, 113, 0]),
        (21, [203, 0, 113, 255]),
        (22, [203, 0, 113, 64]),
        (23, [203, 0, 113, 127]),
        (24, [203, 0, 113, 80]),
        (25, [203, 0, 114, 0]),
        (26, [203, 0, 112, 255]),
        (27, [203, 0, 113, 128]),
    ] {
        scene = scene.with_client(connection, host.into(), 40_000, 0);
    }
    scene
}

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, scene(), steps)
}

fn syn(connection: usize, version: usize) -> Vec<Step> {
    packets([client(SYN, C, 0).on(connection).to(version, Reason::Placed)])
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "a prefix reaches its version, also one without weight",
            [open_on(20, 1), open_on(21, 1), counts([(Placed, 2), (Opened, 2), (Ruled, 2)])],
        ),
        case(
            "the longest prefix wins",
            [syn(20, 1), syn(22, 2), syn(23, 2), syn(24, 1), syn(27, 1), {
                counts([(Placed, 5), (Ruled, 5)])
            }],
        ),
        case(
            "clients beside the prefix go by the split",
            [syn(25, 0), syn(26, 0), syn(2, 0), shift([0, 0, 1]), syn(3, 2), {
                counts([(Placed, 4)])
            }],
        ),
        case(
            "nobody else reaches a test version",
            [(2..19).flat_map(|n| syn(n, 0)).collect(), counts([(Placed, 17)])],
        ),
        case(
            "whatever the split says",
            [
                open_on(20, 1),
                shift([0, 0, 1]),
                packets([client(ACK, C + 1, S + 1).on(20).data(3)]),
                packets([server(ACK, S + 1, C + 4).on(20)]),
                syn(21, 1),
                shift([0, 0, 0]),
                syn(24, 1),
                packets([client(SYN, C, 0).on(2).want(Want::Reset(Reason::NoVersion))]),
            ],
        ),
        Case::new(
            CATEGORY,
            "a test version without instances refuses",
            {
                let mut scene = scene();
                scene.versions[1].instances.clear();
                scene
            },
            [
                packets([client(SYN, C, 0).on(20).want(Want::Reset(Reason::NoInstance))]),
                syn(2, 0),
                refusals([(Empty, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "rules that are switched off are not looked at",
            scene().set(|service| service.flags = 0),
            [syn(20, 0), counts([(Placed, 1)])],
        ),
        Case::new(
            CATEGORY,
            "datagrams",
            {
                let mut scene = scene().udp().conversation(conversation::DATAGRAM);
                scene.frontends.truncate(1);
                scene
            },
            [
                packets([datagram(9).on(20).to(1, Reason::Datagram)]),
                packets([datagram(9).on(2).to(0, Reason::Datagram)]),
                counts([(Datagrams, 2)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "a rule comes before the client's session",
            scene()
                .conversation(conversation::CLIENT)
                .set(|service| {
                    service.session_timeout = 1000;
                })
                .with_client(30, [203, 0, 113, 0].into(), 41_000, 0),
            [
                open_on(20, 1),
                open_on(30, 1),
                vec![Step::Same(20, 30)],
                counts([(Placed, 2), (Opened, 2), (Ruled, 2)]),
            ],
        ),
    ];
    cases.extend(frontends());
    cases
}

/// Frontend 1 is a test frontend.
fn frontends() -> Vec<Case> {
    let scene = |ring| {
        let mut scene = Scene::new(&[1, 0], 2);
        scene.frontends[1].ring = ring;
        scene
    };
    let case =
        |name: &str, ring, steps: Vec<Vec<Step>>| Case::new(CATEGORY, name, scene(ring), steps);
    vec![
        case(
            "a test frontend reaches its version",
            2,
            vec![
                open_on(1, 1),
                open_on(2, 0),
                shift([0, 0]),
                packets([client(ACK, C + 1, S + 1).on(1).data(9)]),
                packets([server(ACK, S + 1, C + 10).on(1)]),
                counts([(Placed, 2), (Opened, 2), (Ruled, 1)]),
            ],
        ),
        case(
            "a test frontend, whatever the split says",
            1,
            vec![shift([0, 0]), open_on(1, 0), counts([(Placed, 1), (Opened, 1), (Ruled, 1)])],
        ),
        case(
            "a closed test frontend refuses",
            u32::MAX,
            vec![
                packets([client(SYN, C, 0).on(1).want(Want::Reset(Reason::NoInstance))]),
                syn(2, 0),
                refusals([(Empty, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "a test frontend comes before a test rule",
            {
                let mut scene = self::scene();
                scene.frontends[1].ring = 3;
                scene.with_client(20, [203, 0, 113, 0].into(), 40_000, 1)
            },
            [syn(20, 2), syn(21, 1), counts([(Placed, 2), (Ruled, 2)])],
        ),
    ]
}
