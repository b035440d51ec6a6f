//! Modes `dsr`, `ipip` and `gue`: the instance answers the client itself.

use release_common::abi::mode;
use release_common::pipeline::Counter::{
    ClosedRst, EmbryosEnded, Opened, Placed, Superseded, Trials, Untracked, Unverified,
};
use release_common::pipeline::Refusal::MaxFlows;
use release_common::reason::Reason;

use super::script::{
    C, Case, EmbryoIs, FlowIs, Packet, S, Setting, Step, Want, Way, a_second, client, counts,
    datagram, packets, refusals, shift,
};
use crate::frames::flags;
use crate::model::{Family, Scene};

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const RST: u8 = flags::RST;

fn syn() -> Packet {
    client(SYN, C, 0)
}

/// All of the handshake that passes here.
fn open() -> Vec<Step> {
    packets([syn().to(0, Reason::Placed), client(ACK, C + 1, S + 1)])
}

fn data() -> Packet {
    client(ACK | flags::PSH, C + 1, S + 1).data(100)
}

fn flow(is: FlowIs) -> Vec<Step> {
    vec![Step::Flow(0, is)]
}

/// The table: by mode, and by the instances' family in tunnels.
pub fn cases() -> Vec<Case> {
    let mut cases = of("dsr", &Scene::new(&[1, 0], 2).mode(mode::DSR));
    cases.push(Case::new(
        "dsr",
        "neighbour unknown: dropped, the kernel would take it for its own",
        Scene::new(&[1, 0], 2).mode(mode::DSR),
        [
            vec![Step::Set(Setting::Way(Way::Kernel))],
            packets([syn().want(Want::Dropped(Reason::NoNeighbour))]),
            vec![Step::Set(Setting::Way(Way::Known))],
            packets([data().on(2).to(0, Reason::Untracked)]),
        ],
    ));
    cases.push(Case::new(
        "dsr",
        "too big, even if it may be fragmented: fragmentation needed",
        Scene::new(&[1, 0], 2).mode(mode::DSR),
        [
            open(),
            vec![Step::Set(Setting::Way(Way::Mtu(1400)))],
            packets([data().data(1460).fragmentable().want(Want::TooBig(1400))]),
        ],
    ));
    for (name, mode, overheads) in [("ipip", mode::IPIP, [20, 40]), ("gue", mode::GUE, [28, 48])] {
        for (family, overhead) in [Family::V4, Family::V6].into_iter().zip(overheads) {
            let mut scene = Scene::new(&[1, 0], 2).mode(mode).reached_by(family);
            for (_, bits) in &mut scene.tunnel_sources {
                *bits = 16;
            }
            let some = of(name, &scene);
            cases.extend(
                some.into_iter().chain(tunnels(name, &scene, overhead)).map(|case| Case {
                    name: format!("{}, by {}", case.name, family.name()),
                    ..case
                }),
            );
        }
    }
    cases
}

fn of(category: &'static str, scene: &Scene) -> Vec<Case> {
    let case = |name: &str, steps: Vec<Vec<Step>>| Case::new(category, name, scene.clone(), steps);
    let mut cases = vec![
        case(
            "promoted by the client's ACK",
            vec![
                packets([syn().to(0, Reason::Placed)]),
                vec![Step::Embryo(0, EmbryoIs::Syn)],
                packets([client(ACK, C + 1, S + 1)]),
                vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)],
                packets([data(), client(ACK, C + 101, S + 90_000).data(50)]),
                vec![Step::Check(0, "the client's numbers follow", |flow| {
                    flow.client.next == C + 151
                })],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "promoted by data, the ACK lost",
            vec![packets([syn().to(0, Reason::Placed), data()]), flow(FlowIs::Live)],
        ),
        case(
            "pinned across shifts, from the SYN on",
            vec![
                packets([syn().to(0, Reason::Placed)]),
                shift([0, 1]),
                packets([syn().pinned(Reason::SynRepeated), client(ACK, C + 1, S + 1), data()]),
                packets([syn().on(2).to(1, Reason::Placed)]),
                shift([0, 0]),
                packets([data(), client(ACK, C + 1, S + 1).on(2)]),
                counts([(Placed, 2), (Opened, 2)]),
            ],
        ),
        case(
            "the client's RST closes",
            vec![
                open(),
                packets([data(), client(RST, C + 101, 0)]),
                flow(FlowIs::ClosedRst),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 1)]),
            ],
        ),
        case(
            "a RST that is not in sequence does not close",
            vec![
                open(),
                packets([data(), client(RST, C + 50, 0), client(RST, C + 102, 0)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1), (Unverified, 2)]),
            ],
        ),
        case(
            "the client's FIN is no end: the instance's does not pass here",
            vec![
                open(),
                packets([client(flags::FIN | ACK, C + 1, S + 1), client(ACK, C + 2, S + 2)]),
                flow(FlowIs::Live),
                packets([client(RST, C + 2, 0)]),
                flow(FlowIs::ClosedRst),
            ],
        ),
        case(
            "the client's RST ends a handshake",
            vec![
                packets([syn().to(0, Reason::Placed), client(RST, C + 1, 0)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 1), (EmbryosEnded, 1)]),
            ],
        ),
        case(
            "a SYN on a live flow: its ACK begins the new connection",
            vec![
                open(),
                packets([data()]),
                shift([0, 1]),
                packets([client(SYN, C + 700_000, 0).pinned(Reason::SynRepeated)]),
                vec![Step::Embryo(0, EmbryoIs::Syn), Step::Flow(0, FlowIs::Live)],
                packets([client(ACK, C + 101, S + 1)]),
                packets([client(ACK, C + 700_001, S + 7)]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::Live)],
                packets([client(ACK, C + 700_001, S + 7).data(9)]),
                vec![Step::Check(0, "the new connection's numbers", |flow| {
                    flow.client.next == C + 700_010
                })],
                counts([(Placed, 1), (Trials, 1), (Opened, 2), (Superseded, 1)]),
            ],
        ),
        case(
            "a late copy of the flow's own SYN changes nothing",
            vec![open(), packets([syn().pinned(Reason::SynRepeated), data()]), {
                counts([(Placed, 1), (Opened, 1)])
            }],
        ),
        case(
            "a SYN on a closed flow goes by the split",
            vec![
                open(),
                packets([client(RST, C + 1, 0)]),
                shift([0, 1]),
                packets([client(SYN, C + 9000, 0).to(1, Reason::Placed)]),
                packets([client(ACK, C + 9001, S + 1)]),
                flow(FlowIs::Live),
            ],
        ),
        case(
            "mid-flow without an entry: untracked",
            vec![
                packets([
                    data().to(0, Reason::Untracked),
                    client(RST, C + 1, 0).to(0, Reason::Untracked),
                ]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::None)],
                counts([(Untracked, 2)]),
                shift([0, 0]),
                packets([data().want(Want::Dropped(Reason::NoVersion))]),
            ],
        ),
        case(
            "table full: untracked",
            vec![
                vec![Step::Set(Setting::TableFull)],
                packets([syn().to(0, Reason::Untracked), data().to(0, Reason::Untracked)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([(Untracked, 2)]),
                refusals([]),
            ],
        ),
        case(
            "no version: refused by RST",
            vec![shift([0, 0]), packets([syn().want(Want::Reset(Reason::NoVersion))])],
        ),
        case(
            "a TTL of 1 arrives: nothing is routed here",
            vec![
                packets([syn().ttl(1).to(0, Reason::Placed), client(ACK, C + 1, S + 1).ttl(1)]),
                flow(FlowIs::Live),
                packets([client(RST, C + 1, 0).ttl(1)]),
                flow(FlowIs::ClosedRst),
            ],
        ),
        case(
            "padding stays",
            vec![packets([Packet { padded: true, ..syn().to(0, Reason::Placed) }])],
        ),
        case(
            "traffic class and window stay",
            vec![open(), packets([Packet { tos: 0xb9, ..data() }, data().window(3)])],
        ),
        Case::new(
            category,
            "two frontends, one client port, one instance",
            {
                let mut scene = scene.clone();
                scene.versions[0].instances.truncate(1);
                scene
            },
            [open(), packets([syn().on(1).to(0, Reason::Placed), client(ACK, C + 1, S + 1).on(1)])],
        ),
        Case::new(
            category,
            "max_flows: refused by RST",
            scene.clone().set(|service| service.max_flows = 1),
            [
                open(),
                packets([syn().on(2).want(Want::Reset(Reason::MaxFlows)), data()]),
                refusals([(MaxFlows, 1)]),
            ],
        ),
    ];
    cases.push(Case::new(
        category,
        "UDP: a flow on the second datagram",
        scene.clone().udp(),
        [
            packets([datagram(9).to(0, Reason::Placed)]),
            a_second(),
            packets([datagram(8)]),
            flow(FlowIs::Live),
            shift([0, 1]),
            packets([datagram(0), datagram(7).on(2).to(1, Reason::Placed)]),
        ],
    ));
    cases
}

fn tunnels(category: &'static str, scene: &Scene, overhead: u16) -> Vec<Case> {
    let mtu = vec![Step::Set(Setting::Way(Way::Mtu(1400)))];
    let inner = 1400 - overhead;
    let case = |name: &str, steps: Vec<Vec<Step>>| Case::new(category, name, scene.clone(), steps);
    vec![
        case(
            "too big: an error with what is left of the MTU",
            vec![
                open(),
                mtu.clone(),
                packets([data().data(1400).want(Want::TooBig(inner))]),
                packets([data().data(1200)]),
                packets([syn().on(2).data(1400).want(Want::TooBig(inner))]),
            ],
        ),
        case(
            "too big, and may be fragmented: an error all the same",
            vec![mtu, packets([syn().data(1400).fragmentable().want(Want::TooBig(inner))])],
        ),
        case(
            "the kernel finds the way",
            vec![
                open(),
                vec![Step::Set(Setting::Way(Way::Kernel))],
                packets([data().want(Want::PinnedByKernel)]),
            ],
        ),
        case(
            "out of the interface it came in by",
            vec![vec![Step::Set(Setting::Way(Way::Same))], open(), packets([data()])],
        ),
        case("every length", vec![open(), (0..40).map(|len| data().data(len).into()).collect()]),
    ]
}
