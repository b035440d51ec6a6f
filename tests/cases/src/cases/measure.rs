//! What is measured of instances, and what is left out.

use std::net::Ipv4Addr;

use release_common::abi::{mode, service_flag};
use release_common::pipeline::Counter::{Opened, Placed, Ruled};
use release_common::reason::Reason;

use super::script::Measure::{
    ClientResets, Connects, FirstBytes, Retransmits, Segments, ServerResets, SynsRefused,
    Unmeasured,
};
use super::script::{
    C, Case, FlowIs, Packet, S, Step, client, close, counts, measures, open, open_on, packets,
    server,
};
use crate::frames::flags;
use crate::model::Scene;
use crate::model::scene::Rule;

const CATEGORY: &str = "measure";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const RST: u8 = flags::RST;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

/// The first 100 bytes of a client.
fn request() -> Packet {
    client(ACK | flags::PSH, C + 1, S + 1).data(100)
}

/// What a server answers them.
fn answer() -> Packet {
    server(ACK | flags::PSH, S + 1, C + 101).data(200)
}

fn half_open() -> Vec<Step> {
    packets([client(SYN, C, 0).to(0, Reason::Placed), server(SYN | ACK, S, C + 1)])
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = times();
    cases.extend(segments());
    cases.extend(failures());
    cases.extend(left_out());
    cases.extend(one_way());
    cases
}

fn times() -> Vec<Case> {
    vec![
        case(
            "a request and its answer",
            [
                open(),
                measures([(Connects, 1)]),
                packets([request()]),
                measures([(Connects, 1), (Segments, 1)]),
                packets([answer()]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 2)]),
                close_after(),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 2)]),
            ],
        ),
        case(
            "only the first request of a connection",
            [
                open(),
                packets([request(), answer()]),
                packets([
                    client(ACK, C + 101, S + 201).data(100),
                    server(ACK, S + 201, C + 201).data(9),
                ]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 4)]),
            ],
        ),
        case(
            "SYN and SYN-ACK repeated: once",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                packets([client(SYN, C, 0).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S, C + 1), server(SYN | ACK, S, C + 1)]),
                packets([client(ACK, C + 1, S + 1)]),
                measures([(Connects, 1)]),
            ],
        ),
        case(
            "a server that speaks first answers nothing",
            [
                open(),
                packets([server(ACK, S + 1, C + 1).data(30)]),
                packets([client(ACK, C + 1, S + 31).data(5), server(ACK, S + 31, C + 6).data(7)]),
                measures([(Connects, 1), (Segments, 3)]),
            ],
        ),
        case(
            "an acknowledgement is no answer",
            [
                open(),
                packets([request(), server(ACK, S + 1, C + 101), answer()]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 2)]),
            ],
        ),
        case(
            "the first ACK lost, the request completes the handshake",
            [
                half_open(),
                packets([request(), answer()]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 2)]),
            ],
        ),
        case(
            "the first ACK lost, the server's data opens the flow: it has spoken first",
            [
                half_open(),
                packets([server(ACK, S + 1, C + 1).data(20)]),
                packets([client(ACK, C + 1, S + 21).data(5), server(ACK, S + 21, C + 6).data(7)]),
                measures([(Connects, 1), (Segments, 2)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a SYN-ACK that answers another SYN",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, S, C + 1_000_001)]),
                measures([]),
            ],
        ),
    ]
}

/// Both ends close after [`request`] and [`answer`].
fn close_after() -> Vec<Step> {
    packets([
        client(flags::FIN | ACK, C + 101, S + 201),
        server(flags::FIN | ACK, S + 201, C + 102),
        client(ACK, C + 102, S + 202),
    ])
}

fn segments() -> Vec<Case> {
    vec![
        case(
            "sent again, by either side",
            [
                open(),
                packets([request(), request(), answer(), answer(), answer()]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 5), (Retransmits, 3)]),
            ],
        ),
        case(
            "a hole filled later was sent again",
            [
                open(),
                packets([client(ACK, C + 101, S + 1).data(100), request()]),
                measures([(Connects, 1), (Segments, 2), (Retransmits, 1)]),
            ],
        ),
        case(
            "sent again with more behind it",
            [
                open(),
                packets([request(), client(ACK, C + 1, S + 1).data(300)]),
                measures([(Connects, 1), (Segments, 2), (Retransmits, 1)]),
            ],
        ),
        case(
            "neither keep-alive probes nor bare acknowledgements",
            [
                open(),
                packets([client(ACK, C, S + 1), server(ACK, S + 1, C + 1)]),
                packets([server(ACK, S, C + 1), client(ACK, C + 1, S + 1)]),
                measures([(Connects, 1)]),
            ],
        ),
        case(
            "nothing that fits no window",
            [
                open(),
                packets([client(ACK, C + 500_000_000, S + 1).data(100)]),
                measures([(Connects, 1)]),
            ],
        ),
        case(
            "data with the FIN, and both again",
            [
                open(),
                packets([client(flags::FIN | ACK, C + 1, S + 1).data(10)]),
                packets([client(flags::FIN | ACK, C + 1, S + 1).data(10)]),
                measures([(Connects, 1), (Segments, 2), (Retransmits, 1)]),
            ],
        ),
    ]
}

fn failures() -> Vec<Case> {
    vec![
        case(
            "refused",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed), server(RST | ACK, 0, C + 1)]),
                measures([(SynsRefused, 1)]),
            ],
        ),
        case(
            "aborted by the client during the handshake: no failure",
            [half_open(), packets([client(RST, C + 1, 0)]), measures([(Connects, 1)])],
        ),
        case(
            "reset by the instance, once",
            [
                open(),
                packets([request(), server(RST | ACK, S + 1, C + 101)]),
                packets([server(RST | ACK, S + 1, C + 101)]),
                measures([(Connects, 1), (Segments, 1), (ServerResets, 1)]),
            ],
        ),
        case(
            "reset by the client",
            [
                open(),
                packets([client(RST, C + 1, 0)]),
                measures([(Connects, 1), (ClientResets, 1)]),
            ],
        ),
        case(
            "a blind RST is none",
            [open(), packets([client(RST, C + 5000, 0)]), measures([(Connects, 1)])],
        ),
        case(
            "a RST after both closed is none",
            [open(), close(), packets([server(RST, S + 2, 0)]), measures([(Connects, 1)])],
        ),
    ]
}

/// Test clients are 20 to 22; their version is the second.
fn tested() -> Scene {
    let mut scene = Scene::new(&[1, 0], 2).set(|service| service.flags = service_flag::RULES);
    scene.rules = vec![Rule { source: Ipv4Addr::new(203, 0, 113, 0).into(), bits: 24, ring: 2 }];
    for host in 20..23 {
        scene = scene.with_client(host, [203, 0, 113, host as u8].into(), 40_000, 0);
    }
    scene
}

fn left_out() -> Vec<Case> {
    let test_frontend = {
        let mut scene = Scene::new(&[1, 0], 2);
        scene.frontends[1].ring = 2;
        scene
    };
    vec![
        Case::new(
            CATEGORY,
            "a test client",
            tested(),
            [
                open_on(20, 1),
                packets([request().on(20), answer().on(20), answer().on(20)]),
                packets([server(RST | ACK, S + 201, C + 101).on(20)]),
                open_on(21, 1),
                packets([client(RST, C + 1, 0).on(21)]),
                packets([client(SYN, C, 0).on(22).to(1, Reason::Placed)]),
                packets([server(RST | ACK, 0, C + 1).on(22)]),
                measures([(Unmeasured, 2)]),
                open_on(2, 0),
                packets([request().on(2), answer().on(2)]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 2), (Unmeasured, 2)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "a test frontend",
            test_frontend,
            [
                open_on(1, 1),
                packets([request().on(1), answer().on(1)]),
                measures([(Unmeasured, 1)]),
                counts([(Placed, 1), (Opened, 1), (Ruled, 1)]),
            ],
        ),
        case(
            "a connection that began elsewhere",
            [
                packets([request().to(0, Reason::Tried), answer()]),
                packets([client(ACK, C + 101, S + 201).data(5), server(RST, S + 201, 0)]),
                measures([(Unmeasured, 1)]),
                vec![Step::Flow(0, FlowIs::ClosedRst)],
            ],
        ),
        case(
            "a connection that takes another's place",
            [
                open(),
                packets([client(SYN, C + 9000, 0).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S + 9000, C + 9001)]),
                packets([client(ACK, C + 9001, S + 9001), client(ACK, C + 9001, S + 9001).data(9)]),
                measures([(Connects, 1), (Unmeasured, 1)]),
            ],
        ),
    ]
}

/// Where the instance's half does not pass here.
fn one_way() -> Vec<Case> {
    vec![Case::new(
        CATEGORY,
        "in one-way modes the client's half",
        Scene::new(&[1, 0], 2).mode(mode::DSR),
        [
            packets([client(SYN, C, 0).to(0, Reason::Placed), client(ACK, C + 1, S + 1)]),
            packets([request(), request()]),
            packets([client(RST, C + 101, 0)]),
            measures([(Segments, 2), (Retransmits, 1), (ClientResets, 1)]),
        ],
    )]
}
