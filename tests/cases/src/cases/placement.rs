//! New flows: where they go, and how they are refused.

use release_common::abi::refusal;
use release_common::pipeline::Counter::{
    ClosedFin, ClosedRst, EmbryosEnded, Opened, Placed, Superseded, Trials, Unverified,
};
use release_common::reason::Reason;

use super::script::{
    C, Case, EmbryoIs, FlowIs, S, Setting, Step, Want, client, close, counts, open, open_on,
    packets, server,
};
use crate::frames::{flags, syn_options};
use crate::model::Scene;

const CATEGORY: &str = "placement";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn shift() -> Vec<Step> {
    vec![Step::Shift(vec![0, 1])]
}

fn syn() -> super::script::Packet {
    client(SYN, C, 0)
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "SYN goes to the version with weight",
            [
                packets([syn().to(0, Reason::Placed)]),
                vec![Step::Embryo(0, EmbryoIs::Syn), Step::Flow(0, FlowIs::None)],
                counts([(Placed, 1)]),
            ],
        ),
        case(
            "SYN goes to the other version after a shift",
            [shift(), packets([syn().to(1, Reason::Placed)])],
        ),
        case(
            "SYN with options, as Linux sends it",
            [packets([syn().options(syn_options(Some(7))).to(0, Reason::Placed)])],
        ),
        case(
            "SYN with congestion notification flags",
            [packets([client(SYN | flags::ECE | flags::CWR, C, 0).to(0, Reason::Placed)])],
        ),
        case(
            "SYN repeated: same instance, counted once",
            [
                packets([syn().to(0, Reason::Placed), syn().pinned(Reason::SynRepeated)]),
                counts([(Placed, 1)]),
            ],
        ),
        case(
            "SYN repeated across a shift: same instance",
            [
                packets([syn().to(0, Reason::Placed)]),
                shift(),
                packets([syn().pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S, C + 1)]),
                packets([syn().pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S, C + 1), client(ACK, C + 1, S + 1)]),
                vec![Step::Flow(0, FlowIs::Live)],
                vec![Step::Check(0, "keeps the generation that placed it", |flow| {
                    flow.generation == crate::model::scene::FIRST_GENERATION
                })],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "ACK that completes after a shift: same instance",
            [
                packets([syn().to(0, Reason::Placed), server(SYN | ACK, S, C + 1)]),
                shift(),
                packets([client(ACK, C + 1, S + 1), client(ACK, C + 1, S + 1).data(10)]),
                packets([server(ACK, S + 1, C + 11)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a flow stays through 20 shifts",
            [
                open(),
                (0..20)
                    .flat_map(|n| {
                        [
                            Step::Shift(vec![n % 2, 1 + n % 3]),
                            client(ACK, C + 1 + n, S + 1 + n).data(1).into(),
                            server(ACK, S + 1 + n, C + 2 + n).data(1).into(),
                        ]
                    })
                    .collect(),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "another SYN on an unfinished handshake is placed anew",
            [
                packets([syn().to(0, Reason::Placed)]),
                shift(),
                packets([client(SYN, C + 999, 0).to(1, Reason::Placed)]),
                counts([(Placed, 2), (EmbryosEnded, 1)]),
            ],
        ),
        case(
            "SYN on a closed tuple goes by the split in force",
            [
                open(),
                close(),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
                shift(),
                packets([
                    client(SYN, C + 70_000, 0).to(1, Reason::Placed),
                    server(SYN | ACK, S, C + 70_001),
                    client(ACK, C + 70_001, S + 1),
                ]),
                vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 2), (Opened, 2), (ClosedFin, 1)]),
            ],
        ),
        case(
            "old FIN repeated while the tuple begins anew goes to the old instance",
            [
                open(),
                close(),
                packets([client(SYN, C + 70_000, 0).to(0, Reason::Placed)]),
                packets([client(flags::FIN | ACK, C + 1, S + 1)]),
                vec![Step::Embryo(0, EmbryoIs::Syn), Step::Flow(0, FlowIs::ClosedFin)],
            ],
        ),
        case(
            "a client's RST of the new handshake goes to the new instance",
            [
                open(),
                close(),
                shift(),
                packets([
                    client(SYN, C + 70_000, 0).to(1, Reason::Placed),
                    server(SYN | ACK, S, C + 70_001),
                    client(flags::RST, C + 70_001, 0),
                ]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 2), (Opened, 1), (ClosedFin, 1), (EmbryosEnded, 1)]),
            ],
        ),
        case(
            "SYN on a live flow stays; a SYN-ACK supersedes",
            [
                open(),
                shift(),
                packets([client(SYN, C + 70_000, 0).pinned(Reason::SynRepeated)]),
                vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::Syn)],
                packets([client(SYN, C + 70_000, 0).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S + 90_000, C + 70_001)]),
                packets([client(ACK, C + 70_001, S + 90_001)]),
                vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)],
                packets([server(ACK, S + 90_001, C + 70_001).data(5)]),
                counts([(Placed, 1), (Trials, 1), (Opened, 2), (Superseded, 1)]),
            ],
        ),
        case(
            "SYN on a live flow that the instance still has changes nothing",
            [
                open(),
                packets([client(SYN, C + 70_000, 0).pinned(Reason::SynRepeated)]),
                packets([server(ACK, S + 1, C + 1), client(ACK, C + 1, S + 1).data(9)]),
                vec![Step::Flow(0, FlowIs::Live)],
                counts([(Placed, 1), (Trials, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a client that lost its state: challenge ACK, RST, SYN again",
            [
                open(),
                packets([client(SYN, C + 70_000, 0).pinned(Reason::SynRepeated)]),
                packets([server(ACK, S + 1, C + 1), client(flags::RST, C + 1, 0)]),
                vec![Step::Flow(0, FlowIs::ClosedRst)],
                packets([client(SYN, C + 70_000, 0).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S, C + 70_001), client(ACK, C + 70_001, S + 1)]),
                vec![Step::Flow(0, FlowIs::Live)],
                counts([(Placed, 1), (Trials, 1), (Opened, 2), (ClosedRst, 1)]),
            ],
        ),
    ];
    cases.extend(refusals());
    cases.extend(siblings());
    cases
}

fn refusals() -> Vec<Case> {
    let mut cases = vec![
        case(
            "table full: refused by RST",
            [
                vec![Step::Set(Setting::TableFull)],
                packets([syn().data(3).want(Want::Reset(Reason::TableFull))]),
                counts([]),
            ],
        ),
        case(
            "table full: existing flows go on",
            [
                open(),
                vec![Step::Set(Setting::TableFull)],
                packets([client(ACK, C + 1, S + 1).data(4), server(ACK, S + 1, C + 5)]),
                packets([client(SYN, C, 0).on(2).want(Want::Reset(Reason::TableFull))]),
            ],
        ),
        case(
            "no version with weight: refused by RST",
            [vec![Step::Shift(vec![0, 0])], packets([syn().want(Want::Reset(Reason::NoVersion))])],
        ),
        case(
            "no version with weight: a handshake in progress goes on",
            [
                packets([syn().to(0, Reason::Placed)]),
                vec![Step::Shift(vec![0, 0])],
                packets([syn().pinned(Reason::SynRepeated), server(SYN | ACK, S, C + 1)]),
                packets([client(ACK, C + 1, S + 1)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "no instance: refused by RST",
            Scene::new(&[1, 0], 0),
            [packets([syn().options(syn_options(Some(3))).want(Want::Reset(Reason::NoInstance))])],
        ),
        case(
            "a refused SYN that used up its TTL is refused all the same",
            [
                vec![Step::Shift(vec![0, 0])],
                packets([syn().ttl(1).want(Want::Reset(Reason::NoVersion))]),
            ],
        ),
    ];
    for (how, name) in [(refusal::DROP, "silence"), (refusal::PASS, "the host's stack")] {
        let scene = Scene::new(&[1, 0], 2).set(|service| {
            (service.when_empty, service.when_full) = (how, how);
        });
        let want = |reason| match how {
            refusal::DROP => Want::Dropped(reason),
            _ => Want::Untouched(reason),
        };
        let full = vec![Step::Set(Setting::TableFull)];
        let empty = vec![Step::Shift(vec![0, 0])];
        let add = |what: &str, before, reason| {
            let step = packets([syn().data(7).want(want(reason))]);
            Case::new(CATEGORY, &format!("{what}: {name}"), scene.clone(), [before, step])
        };
        cases.push(add("table full", full, Reason::TableFull));
        cases.push(add("no version", empty, Reason::NoVersion));
    }
    cases
}

/// Two frontends, one client port.
fn siblings() -> Vec<Case> {
    let one = || Scene::new(&[1, 0], 1);
    vec![
        case(
            "two frontends, one client port: two instances",
            [
                open_on(0, 0),
                open_on(1, 0),
                packets([client(ACK, C + 1, S + 1).data(5), server(ACK, S + 1, C + 6).data(2)]),
                packets([
                    client(ACK, C + 1, S + 1).data(5).on(1),
                    server(ACK, S + 1, C + 6).data(2).on(1),
                ]),
                counts([(Placed, 2), (Opened, 2)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "two frontends, one client port, one instance: refused",
            one(),
            [
                open_on(0, 0),
                packets([syn().on(1).want(Want::Reset(Reason::PortCollision))]),
                packets([client(ACK, C + 1, S + 1).data(5)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "two handshakes, one client port, one instance: refused",
            one(),
            [
                packets([syn().to(0, Reason::Placed)]),
                packets([syn().on(1).want(Want::Reset(Reason::PortCollision))]),
            ],
        ),
        Case::new(
            CATEGORY,
            "a closed sibling is not in the way",
            one(),
            [
                open_on(0, 0),
                close(),
                open_on(1, 0),
                packets([server(ACK, S + 1, C + 1).on(1).data(8)]),
                counts([(Placed, 2), (Opened, 2), (ClosedFin, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "siblings on an instance's old and new id are in each other's way",
            {
                let mut scene = Scene::new(&[1, 0], 1);
                // Version 1's instance stands on version 0's address under an id of its own.
                scene.versions[1].instances[0].socket = scene.versions[0].instances[0].socket;
                scene
            },
            [
                open_on(0, 0),
                shift(),
                packets([syn().on(1).want(Want::Reset(Reason::PortCollision))]),
            ],
        ),
        case(
            "a frontend taken away: live flows go on, SYNs are not ours",
            [
                open(),
                vec![Step::Set(Setting::FrontendGone(0))],
                packets([client(ACK, C + 1, S + 1).data(3), server(ACK, S + 1, C + 4)]),
                packets([client(SYN, C, 0).on(2).want(Want::Untouched(Reason::NotOurAddress))]),
            ],
        ),
        case(
            "a frontend taken away: no new flow over a closed one",
            [
                open(),
                close(),
                vec![Step::Set(Setting::FrontendGone(0))],
                packets([client(flags::FIN | ACK, C + 1, S + 1)]),
                packets([client(SYN, C + 70_000, 0).want(Want::Untouched(Reason::NotOurAddress))]),
            ],
        ),
        case(
            "unverified packets of strangers do not disturb",
            [
                open(),
                packets([client(ACK, C + 90_000_000, S + 1).data(1)]),
                counts([(Placed, 1), (Opened, 1), (Unverified, 1)]),
            ],
        ),
    ]
}
