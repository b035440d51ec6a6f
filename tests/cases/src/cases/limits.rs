//! Limits of a service: flows at once, and how fast they begin.

use release_common::abi::{conversation, refusal};
use release_common::pipeline::Counter::{
    Adopted, ClosedFin, EmbryosEnded, Opened, Placed, Superseded, Trials,
};
use release_common::pipeline::Refusal::{Empty, Full, MaxFlows, Rate};
use release_common::reason::Reason;

use super::script::{
    C, Case, EmbryoIs, FlowIs, S, Setting, Step, Want, a_second, client, close, counts, datagram,
    open, open_on, packets, refusals, response, server, shift,
};
use crate::frames::flags;
use crate::model::Scene;

const CATEGORY: &str = "limits";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
/// Nanoseconds in a second.
const SECOND: u32 = 1_000_000_000;

fn most(flows: u32) -> Scene {
    Scene::new(&[1, 0], 2).set(|service| service.max_flows = flows)
}

fn case(name: &str, flows: u32, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, most(flows), steps)
}

fn refused(connection: usize, reason: Reason) -> Vec<Step> {
    packets([client(SYN, C, 0).on(connection).want(Want::Reset(reason))])
}

fn half_open(connection: usize) -> Vec<Step> {
    packets([
        client(SYN, C, 0).on(connection).to(0, Reason::Placed),
        server(SYN | ACK, S, C + 1).on(connection),
    ])
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "max_flows: the next one is refused, until one closes",
            1,
            [
                open(),
                refused(2, Reason::MaxFlows),
                close(),
                open_on(2, 0),
                refused(3, Reason::MaxFlows),
                refusals([(MaxFlows, 2)]),
                counts([(Placed, 2), (Opened, 2), (ClosedFin, 1)]),
            ],
        ),
        case(
            "max_flows: over all versions",
            2,
            [open_on(2, 0), shift([0, 1]), open_on(3, 1), refused(4, Reason::MaxFlows)],
        ),
        case(
            "max_flows: handshakes are no flows, and the one too many is reset at its ACK",
            1,
            [
                half_open(2),
                half_open(3),
                packets([client(ACK, C + 1, S + 1).on(2)]),
                packets([client(ACK, C + 1, S + 1)
                    .on(3)
                    .want(Want::ResetInstance(Reason::MaxFlows))]),
                vec![Step::Flow(3, FlowIs::None), Step::Embryo(3, EmbryoIs::None)],
                refusals([(MaxFlows, 1)]),
                counts([(Placed, 2), (Opened, 1), (EmbryosEnded, 1)]),
            ],
        ),
        case(
            "max_flows: the reset carries the ACK's data to nobody's harm",
            1,
            [
                half_open(2),
                half_open(3),
                packets([client(ACK, C + 1, S + 1).on(3).data(30)]),
                packets([client(ACK | flags::PSH, C + 1, S + 1)
                    .on(2)
                    .data(31)
                    .want(Want::ResetInstance(Reason::MaxFlows))]),
            ],
        ),
        case(
            "max_flows: a connection that takes its own old one's place is none too many",
            1,
            [
                open(),
                packets([client(SYN, C + 70_000, 0).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S + 90_000, C + 70_001)]),
                packets([client(ACK, C + 70_001, S + 90_001)]),
                vec![Step::Flow(0, FlowIs::Live)],
                packets([server(ACK, S + 90_001, C + 70_001).data(3)]),
                counts([(Placed, 1), (Trials, 1), (Opened, 2), (Superseded, 1)]),
            ],
        ),
        case(
            "max_flows: a connection that began elsewhere is taken over",
            1,
            [
                open(),
                packets([client(ACK, C + 1, S + 1).on(2).data(5).to(0, Reason::Tried)]),
                packets([server(ACK, S + 1, C + 6).on(2)]),
                vec![Step::Flow(2, FlowIs::Live)],
                counts([(Placed, 1), (Opened, 1), (Trials, 1), (Adopted, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "max_flows: silence",
            most(1).set(|service| service.when_full = refusal::DROP),
            [open(), packets([client(SYN, C, 0).on(2).want(Want::Dropped(Reason::MaxFlows))])],
        ),
        Case::new(
            CATEGORY,
            "max_flows with sessions: who is refused at the ACK is in none",
            most(1).conversation(conversation::CLIENT).set(|service| service.session_timeout = 50),
            [
                half_open(2),
                half_open(3),
                packets([client(ACK, C + 1, S + 1).on(2)]),
                packets([client(ACK, C + 1, S + 1)
                    .on(3)
                    .want(Want::ResetInstance(Reason::MaxFlows))]),
                vec![Step::Session(2, Some(1))],
            ],
        ),
    ];
    cases.extend(udp());
    cases.extend(rates());
    cases.push(kinds());
    cases
}

fn udp() -> Vec<Case> {
    let first = |connection| packets([datagram(9).on(connection).to(0, Reason::Placed)]);
    vec![
        Case::new(
            CATEGORY,
            "max_flows, UDP: the second datagram of one too many is refused",
            most(1).udp(),
            [
                first(2),
                first(3),
                a_second(),
                packets([datagram(9).on(2)]),
                packets([datagram(9).on(3).want(Want::Reset(Reason::MaxFlows))]),
                vec![Step::Embryo(3, EmbryoIs::None)],
                packets([datagram(9).on(3).want(Want::Reset(Reason::MaxFlows))]),
                refusals([(MaxFlows, 2)]),
                counts([(Placed, 2), (Opened, 1), (EmbryosEnded, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "max_flows, UDP: the reply of one too many is dropped",
            most(1).udp(),
            [
                first(2),
                first(3),
                packets([
                    response(9).on(2),
                    response(9).on(3).want(Want::Dropped(Reason::MaxFlows)),
                ]),
                refusals([(MaxFlows, 1)]),
                vec![Step::Flow(3, FlowIs::None)],
            ],
        ),
    ]
}

fn rates() -> Vec<Case> {
    let rate = |interval, burst| {
        Scene::new(&[1, 0], 2).set(|service| {
            (service.flow_interval, service.flow_burst) = (interval, burst);
        })
    };
    vec![
        Case::new(
            CATEGORY,
            "rate: the next one in time",
            rate(SECOND, 0),
            [
                half_open(2),
                refused(3, Reason::FlowRate),
                // Not a jiffy before: in the kernel time goes on, and an emulated CPU is slow.
                vec![Step::Advance(500)],
                refused(3, Reason::FlowRate),
                vec![Step::Advance(500)],
                half_open(3),
                refused(4, Reason::FlowRate),
                refusals([(Rate, 3)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "rate: some at once, then in time",
            rate(SECOND / 2, SECOND),
            [
                half_open(2),
                half_open(3),
                half_open(4),
                refused(5, Reason::FlowRate),
                vec![Step::Advance(500)],
                half_open(5),
                refused(6, Reason::FlowRate),
                vec![Step::Advance(60_000)],
                half_open(6),
                half_open(7),
                half_open(8),
                refused(9, Reason::FlowRate),
            ],
        ),
        Case::new(
            CATEGORY,
            "rate: what repeats or goes on is not new",
            rate(SECOND, 0),
            [
                half_open(2),
                packets([client(SYN, C, 0).on(2).pinned(Reason::SynRepeated)]),
                packets([client(ACK, C + 1, S + 1).on(2)]),
                packets([client(ACK, C + 1, S + 1).on(3).data(5).to(0, Reason::Tried)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "rate: one flow is counted once, however many instances are tried for it",
            rate(SECOND, 0),
            (0..20)
                .flat_map(|_| {
                    [
                        packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                        vec![Step::Advance(1000)],
                        packets([client(SYN, C, 0).on(1).to(0, Reason::Placed)]),
                        packets([client(flags::RST, C + 1, 0)]),
                        packets([client(flags::RST, C + 1, 0).on(1)]),
                        vec![Step::Advance(1000)],
                    ]
                })
                .collect::<Vec<_>>(),
        ),
        Case::new(
            CATEGORY,
            "rate, UDP",
            rate(SECOND, 0).udp(),
            [
                packets([datagram(9).on(2).to(0, Reason::Placed), datagram(9).on(2)]),
                packets([datagram(9).on(3).want(Want::Reset(Reason::FlowRate))]),
                refusals([(Rate, 1)]),
            ],
        ),
    ]
}

/// Each kind of refusal is counted as what it is.
fn kinds() -> Case {
    Case::new(
        CATEGORY,
        "refusals by kind",
        most(1),
        [
            shift([0, 0]),
            refused(2, Reason::NoVersion),
            shift([1, 0]),
            open(),
            refused(2, Reason::MaxFlows),
            vec![Step::Set(Setting::TableFull)],
            refused(2, Reason::TableFull),
            refused(2, Reason::TableFull),
            refusals([(Empty, 1), (MaxFlows, 1), (Full, 2)]),
        ],
    )
}
