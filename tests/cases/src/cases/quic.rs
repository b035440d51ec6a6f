//! Conversation `quic`: the connection id names the instance, whatever the split and the tuple say.

use release_common::abi::{conversation, mode};
use release_common::pipeline::Counter::{
    EmbryosEnded, Migrated, Opened, Placed, Superseded, Trials,
};
use release_common::reason::Reason;

use super::script::{
    Case, EmbryoIs, FlowIs, Packet, Setting, Step, Want, a_second, counts, datagram, packets,
    response, shift,
};
use crate::model::Scene;

const CATEGORY: &str = "quic";
/// Config id of the services here.
const CONFIG: u8 = 5;

fn scene(id_length: u8) -> Scene {
    Scene::new(&[1, 0], 2).udp().conversation(conversation::QUIC).set(|service| {
        (service.quic_id_len, service.quic_config) = (id_length, CONFIG);
    })
}

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, scene(4), steps)
}

/// A short header packet whose connection id has this config, and this version's instance as server
/// id.
fn short(config: u8, version: u8, instance: u8) -> Packet {
    let mut bytes = vec![0x43, config << 5 | 12, version, instance, 0xab, 0xcd];
    bytes.extend([0x99; 30]);
    datagram(0).bytes(&bytes)
}

/// The client's first packet: a connection id of its own choice, which looks as if it named an
/// instance of the second version.
fn initial() -> Packet {
    let mut bytes = vec![0xc3, CONFIG << 5 | 12, 2, 1, 0xab, 0xcd];
    bytes.extend([0x11; 1190]);
    datagram(0).bytes(&bytes).to(0, Reason::Placed)
}

fn live() -> Vec<Step> {
    vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)]
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "a connection from its first packet on",
            [
                packets([initial(), response(1200)]),
                live(),
                packets([short(CONFIG, 9, 9), response(70)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "its packets stay across shifts",
            [
                packets([initial(), response(1200)]),
                shift([0, 1]),
                packets([Packet { want: Want::Pinned(Reason::Forwarded), ..initial() }]),
                packets([short(0, 2, 1), response(70)]),
            ],
        ),
        case(
            "a new address: to the instance that the id names, whatever the split says",
            [
                shift([0, 1]),
                packets([short(CONFIG, 1, 2).to(0, Reason::Migrated)]),
                vec![Step::Embryo(0, EmbryoIs::Syn)],
                packets([short(CONFIG, 1, 2), response(9)]),
                live(),
                vec![Step::Check(0, "no split placed it", |flow| {
                    (flow.backend, flow.generation) == (12, 0)
                })],
                counts([(Trials, 1), (Migrated, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a new address: the reply makes the flow",
            [
                packets([short(CONFIG, 2, 1).to(1, Reason::Migrated), response(9)]),
                live(),
                packets([short(CONFIG, 2, 1)]),
                counts([(Trials, 1), (Migrated, 1), (Opened, 1)]),
            ],
        ),
        case(
            "another connection on an old one's address",
            [
                packets([initial(), response(1200)]),
                packets([short(CONFIG, 2, 2).to(1, Reason::Migrated), short(CONFIG, 2, 2)]),
                a_second(),
                packets([short(CONFIG, 2, 2)]),
                vec![Step::Check(0, "the new instance", |flow| flow.backend == 22)],
                counts([(Placed, 1), (Trials, 1), (Migrated, 1), (Opened, 2), (Superseded, 1)]),
            ],
        ),
        case(
            "another connection on an old one's address: the reply completes it",
            [
                packets([initial(), response(1200)]),
                packets([short(CONFIG, 2, 2).to(1, Reason::Migrated)]),
                packets([response(5).from(11).want(Want::Replied)]),
                packets([response(5)]),
                vec![Step::Check(0, "the new instance", |flow| flow.backend == 22)],
                counts([(Placed, 1), (Trials, 1), (Migrated, 1), (Opened, 2), (Superseded, 1)]),
            ],
        ),
        case(
            "another connection on an embryo's address",
            [
                packets([initial(), short(CONFIG, 2, 1).to(1, Reason::Migrated)]),
                packets([short(CONFIG, 2, 1), response(5)]),
                counts([(Placed, 1), (EmbryosEnded, 1), (Trials, 1), (Migrated, 1), (Opened, 1)]),
            ],
        ),
        case(
            "the id of the flow's own instance is no migration",
            [
                packets([short(CONFIG, 2, 1).to(1, Reason::Migrated), response(1)]),
                packets([short(CONFIG, 2, 1), short(CONFIG, 2, 1)]),
                counts([(Trials, 1), (Migrated, 1), (Opened, 1)]),
            ],
        ),
        case(
            "another config id: by the tuple",
            [
                packets([short(CONFIG + 1, 2, 1).to(0, Reason::Placed)]),
                a_second(),
                packets([short(CONFIG ^ 7, 2, 1), short(7, 2, 1)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "an id that names no instance: by the tuple",
            [packets([short(CONFIG, 9, 9).to(0, Reason::Placed), short(CONFIG, 8, 8)])],
        ),
        Case::new(
            CATEGORY,
            "an id of another service: by the tuple",
            Scene { foreign_id: Some(([9, 9, 0xab, 0xcd, 0, 0, 0, 0], 21)), ..scene(4) },
            [packets([short(CONFIG, 9, 9).to(0, Reason::Placed), short(CONFIG, 9, 9)])],
        ),
        case(
            "packets too short for an id: by the tuple",
            [
                packets([datagram(0).to(0, Reason::Placed)]),
                (1..6)
                    .flat_map(|len| {
                        let bytes = [0x43, CONFIG << 5 | 12, 2, 1, 0xab, 0xcd];
                        packets([datagram(0).bytes(&bytes[..len])])
                    })
                    .collect(),
            ],
        ),
        case(
            "neither form of header: by the tuple",
            [packets([
                datagram(0)
                    .bytes(&[[0x03, CONFIG << 5, 2, 1, 0xab, 0xcd]; 6].concat())
                    .to(0, Reason::Placed),
                datagram(0).bytes(&[[0x83, CONFIG << 5, 2, 1, 0xab, 0xcd]; 6].concat()),
            ])],
        ),
        case(
            "a frontend taken away: a connection may still move",
            [
                packets([initial(), response(1200)]),
                vec![Step::Set(Setting::FrontendGone(0))],
                packets([short(CONFIG, 1, 1).on(2).want(Want::Untouched(Reason::NotOurAddress))]),
                packets([short(9, 1, 1)]),
            ],
        ),
        case(
            "a full flow table: who moves is let in, who begins is not",
            [
                vec![Step::Set(Setting::TableFull)],
                packets([short(CONFIG, 2, 1).to(1, Reason::Migrated), short(CONFIG, 2, 1)]),
                packets([Packet { want: Want::Reset(Reason::TableFull), ..initial().on(2) }]),
            ],
        ),
    ];
    cases.extend(lengths());
    cases.extend(modes());
    cases
}

/// Server ids of other lengths; bytes behind an id are no part of it.
fn lengths() -> Vec<Case> {
    let id = |length: usize| -> [u8; 8] {
        std::array::from_fn(|at| if at < length { 0xa0 + at as u8 } else { 0 })
    };
    (1..=8_usize)
        .map(|length| {
            let mut scene = scene(length as u8);
            scene.versions[1].instances[0].server_id = id(length);
            let mut bytes = vec![0x40, CONFIG << 5 | 17];
            bytes.extend(&id(length)[..length]);
            bytes.extend([0xee; 20]);
            let packet = || datagram(0).bytes(&bytes);
            let steps = [packets([packet().to(1, Reason::Migrated), packet(), response(1)])];
            Case::new(CATEGORY, &format!("server ids of length {length}"), scene, steps)
        })
        .collect()
}

fn modes() -> Vec<Case> {
    let moved = || packets([short(CONFIG, 2, 1).to(1, Reason::Migrated), short(CONFIG, 2, 1)]);
    let both = || [moved(), packets([response(5)])].concat();
    let mut cases = Vec::new();
    for (name, mode) in [("dsr", mode::DSR), ("ipip", mode::IPIP), ("gue", mode::GUE)] {
        cases.push(Case::new(CATEGORY, &format!("mode {name}"), scene(4).mode(mode), [moved()]));
    }
    cases.push(Case::new(CATEGORY, "mode local", scene(4).mode(mode::LOCAL), [both()]));
    cases.push(Case::new(CATEGORY, "mode snat", scene(4).snat(100), [both(), live()]));
    cases.push(Case::new(
        CATEGORY,
        "mode snat: no source port for who moves",
        scene(4).snat(1).set(|service| (service.snat_count4, service.snat_count6) = (1, 1)),
        [
            packets([short(CONFIG, 2, 1).to(1, Reason::Migrated)]),
            packets([short(CONFIG, 2, 1).on(2).want(Want::Dropped(Reason::NoSourcePort))]),
        ],
    ));
    cases
}
