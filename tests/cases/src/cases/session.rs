//! Conversation `client`: the flows of a client stay together.

use std::net::Ipv4Addr;

use release_common::abi::{conversation, service_flag};
use release_common::pipeline::Counter::{
    ClosedFin, ClosedRst, Opened, Placed, Reopened, Sticky, Superseded, Trials,
};
use release_common::pipeline::Refusal::Ports;
use release_common::reason::Reason;

use super::script::{
    C, Case, FlowIs, Packet, S, Setting, Step, Want, client, counts, datagram, open_on, packets,
    refusals, response, server, shift,
};
use crate::frames::flags;
use crate::model::Scene;
use crate::model::scene::UDP;

const CATEGORY: &str = "session";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
/// Jiffies that a session outlives its flows.
const TIMEOUT: u32 = 10_000;

fn scene(hold: bool) -> Scene {
    let other = Ipv4Addr::new(192, 0, 2, 77);
    Scene::new(&[1, 0], 4)
        .conversation(conversation::CLIENT)
        .set(|service| {
            service.session_timeout = TIMEOUT;
            service.flags = if hold { service_flag::HOLD_SESSIONS } else { 0 };
        })
        .with_client(99, other, 50_000, 0)
}

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, scene(false), steps)
}

fn hold(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, scene(true), steps)
}

fn close_on(connection: usize) -> Vec<Step> {
    packets([
        client(FIN, C + 1, S + 1).on(connection),
        server(FIN, S + 1, C + 2).on(connection),
        client(ACK, C + 2, S + 2).on(connection),
    ])
}

fn syn(connection: usize, version: usize) -> Vec<Step> {
    packets([client(SYN, C, 0).on(connection).to(version, Reason::Placed)])
}

fn session(live: Option<u32>) -> Vec<Step> {
    vec![Step::Session(2, live)]
}

fn together(a: usize, b: usize) -> Vec<Step> {
    vec![Step::Same(a, b)]
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "a client's connections go to one instance",
            [
                open_on(2, 0),
                session(Some(1)),
                (3..20).flat_map(|n| [open_on(n, 0), together(2, n)].concat()).collect(),
                session(Some(18)),
                counts([(Placed, 18), (Opened, 18), (Sticky, 17)]),
            ],
        ),
        case(
            "while one lives, also across a shift",
            [
                open_on(2, 0),
                shift([0, 1]),
                vec![Step::Advance(u64::from(TIMEOUT) * 10)],
                open_on(3, 0),
                together(2, 3),
                open_on(99, 1),
                session(Some(2)),
            ],
        ),
        case(
            "the generation is that of the session's beginning",
            [
                open_on(0, 0),
                shift([0, 1]),
                packets([client(FIN, C + 1, S + 1)]),
                open_on(2, 0),
                vec![Step::Check(2, "the first generation", |flow| {
                    flow.generation == crate::model::scene::FIRST_GENERATION
                })],
            ],
        ),
        case(
            "for the timeout after the last one closed",
            [
                open_on(2, 0),
                close_on(2),
                session(Some(0)),
                shift([0, 1]),
                vec![Step::Advance(u64::from(TIMEOUT) - 1)],
                open_on(3, 0),
                together(2, 3),
                session(Some(1)),
            ],
        ),
        case(
            "not longer: goes on elsewhere",
            [
                open_on(2, 0),
                close_on(2),
                shift([0, 1]),
                vec![Step::Advance(u64::from(TIMEOUT))],
                open_on(3, 1),
                session(Some(1)),
                shift([1, 0]),
                open_on(4, 1),
                together(3, 4),
            ],
        ),
        case(
            "a handshake that comes to nothing begins no session",
            [
                syn(2, 0),
                packets([server(flags::RST | ACK, 0, C + 1).on(2)]),
                session(None),
                shift([0, 1]),
                syn(3, 1),
            ],
        ),
        case(
            "a RST ends a flow of the session, and traffic takes it back",
            [
                open_on(2, 0),
                packets([client(flags::RST, C + 1, 0).on(2)]),
                session(Some(0)),
                packets([server(ACK, S + 1, C + 1).on(2).data(9)]),
                session(Some(1)),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 1), (Reopened, 1)]),
            ],
        ),
        case(
            "a superseded flow is counted once",
            [
                open_on(2, 0),
                packets([client(SYN, C + 70_000, 0).on(2).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S + 90_000, C + 70_001).on(2)]),
                packets([client(ACK, C + 70_001, S + 90_001).on(2)]),
                session(Some(1)),
                counts([(Placed, 1), (Trials, 1), (Opened, 2), (Superseded, 1)]),
            ],
        ),
        case(
            "a new connection over a closed one",
            [
                open_on(2, 0),
                close_on(2),
                packets([
                    client(SYN, C + 70_000, 0).on(2).to(0, Reason::Placed),
                    server(SYN | ACK, S + 9, C + 70_001).on(2),
                    client(ACK, C + 70_001, S + 10).on(2),
                ]),
                session(Some(1)),
                counts([(Placed, 2), (Opened, 2), (ClosedFin, 1), (Sticky, 1)]),
            ],
        ),
        case(
            "clients are told apart by address",
            [open_on(2, 0), shift([0, 1]), open_on(99, 1), open_on(3, 0), open_on(18, 0)],
        ),
        case(
            "no version has weight: the session's clients still come in",
            [
                open_on(2, 0),
                shift([0, 0]),
                open_on(3, 0),
                packets([client(SYN, C, 0).on(99).want(Want::Reset(Reason::NoVersion))]),
            ],
        ),
        Case::new(
            CATEGORY,
            "UDP and TCP share a session",
            {
                let mut scene = scene(false).with_client(5, Ipv4Addr::new(192, 0, 2, 10), 999, 1);
                scene.frontends[1].protocol = UDP;
                scene
            },
            [
                open_on(2, 0),
                shift([0, 1]),
                packets([datagram(9).on(5).to(0, Reason::Placed), response(8).on(5)]),
                together(2, 5),
                session(Some(2)),
            ],
        ),
    ];
    cases.extend(drained());
    cases.extend(siblings());
    cases
}

fn drained() -> Vec<Case> {
    let closed = || vec![Step::Set(Setting::Closed(2)), Step::Shift(vec![0, 1])];
    vec![
        hold(
            "hold: the next connection stays with a closed instance",
            [open_on(2, 0), closed(), open_on(3, 0), together(2, 3), open_on(99, 1)],
        ),
        hold(
            "hold: until the session ends",
            [
                open_on(2, 0),
                closed(),
                close_on(2),
                vec![Step::Advance(u64::from(TIMEOUT))],
                open_on(3, 1),
                shift([1, 0]),
                open_on(4, 1),
                together(3, 4),
            ],
        ),
        case(
            "move: the next connection leaves a closed instance, those open stay",
            [
                open_on(2, 0),
                closed(),
                open_on(3, 1),
                packets([client(ACK, C + 1, S + 1).on(2).data(3)]),
                packets([server(ACK, S + 1, C + 4).on(2)]),
                session(Some(2)),
            ],
        ),
        case(
            "move: the session has moved for all that follow",
            [
                open_on(2, 0),
                closed(),
                open_on(3, 1),
                shift([1, 0]),
                open_on(4, 1),
                together(3, 4),
                close_on(3),
                close_on(4),
                open_on(5, 1),
                together(3, 5),
                vec![Step::Flow(2, FlowIs::Live)],
                session(Some(2)),
            ],
        ),
        case(
            "move: a handshake under way is not split",
            [
                open_on(2, 0),
                syn(3, 0),
                closed(),
                packets([client(SYN, C, 0).on(3).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S, C + 1).on(3), client(ACK, C + 1, S + 1).on(3)]),
                together(2, 3),
            ],
        ),
    ]
}

/// Two frontends, one client port: a session would have both on one instance, whose replies could
/// not be told apart.
fn siblings() -> Vec<Case> {
    vec![case(
        "two frontends, one client port: refused, not dropped",
        [
            open_on(0, 0),
            packets([Packet {
                want: Want::Reset(Reason::PortCollision),
                ..client(SYN, C, 0).on(1)
            }]),
            refusals([(Ports, 1)]),
            counts([(Placed, 1), (Opened, 1)]),
        ],
    )]
}
