//! What a RST proves, and what it does not.

use release_common::pipeline::Counter::{
    ClosedFin, ClosedRst, Opened, Placed, Reopened, Unverified,
};
use release_common::reason::Reason;

use super::script::{
    C, Case, FlowIs, S, Step, Want, client, close, counts, open, packets, server, shift,
};
use crate::frames::flags;
use crate::model::Scene;

const CATEGORY: &str = "reset";
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const RST: u8 = flags::RST;
const SYN: u8 = flags::SYN;
/// The client's first number in a connection that follows.
const NEW: u32 = C + 70_000;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn flow(is: FlowIs) -> Vec<Step> {
    vec![Step::Flow(0, is)]
}

fn reset_once() -> Vec<Step> {
    [flow(FlowIs::ClosedRst), counts([(Placed, 1), (Opened, 1), (ClosedRst, 1)])].concat()
}

/// The client sent 100 bytes that the server has not acknowledged.
fn unacknowledged() -> Vec<Step> {
    [open(), packets([client(ACK, C + 1, S + 1).data(100)])].concat()
}

/// The table.
pub fn cases() -> Vec<Case> {
    vec![
        case(
            "RST with the client's next number closes",
            [unacknowledged(), packets([client(RST | ACK, C + 101, S + 1)]), reset_once()],
        ),
        case(
            "RST with the server's next number closes",
            [
                open(),
                packets([server(ACK, S + 1, C + 1).data(1000), server(RST, S + 1001, 0)]),
                reset_once(),
            ],
        ),
        case(
            "RST with the number its peer last acknowledged closes",
            [unacknowledged(), packets([client(RST, C + 1, 0)]), reset_once()],
        ),
        case(
            "RST of a server whose client acknowledged less closes",
            [
                open(),
                packets([server(ACK, S + 1, C + 1).data(1000), client(ACK, C + 1, S + 501)]),
                packets([server(RST, S + 501, 0)]),
                reset_once(),
            ],
        ),
        case(
            "RST in the window, but inexact, does not close",
            [
                unacknowledged(),
                packets([client(RST, C + 50, 0), client(RST, C + 102, 0), client(RST, C, 0)]),
                packets([server(RST, S + 2, 0), server(RST, S, 0), server(RST, S + 30_000, 0)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1), (Unverified, 6)]),
            ],
        ),
        case(
            "RST far outside the window does not close",
            [
                open(),
                packets([client(RST, C + 0x8000_0000, 0), server(RST, 0, 0)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1), (Unverified, 2)]),
            ],
        ),
        case(
            "RST whose TTL ends here does not close",
            [
                open(),
                packets([client(RST, C + 1, 0).ttl(1).want(Want::TimeExceeded)]),
                flow(FlowIs::Live),
                packets([server(RST, S + 1, 0).ttl(1).want(Want::Untouched(Reason::TtlExceeded))]),
                flow(FlowIs::Live),
            ],
        ),
        case(
            "RST after the sender's FIN, with the number after it, closes",
            [
                open(),
                packets([server(FIN, S + 1, C + 1), client(ACK, C + 1, S + 1).data(70)]),
                packets([server(RST, S + 2, 0)]),
                reset_once(),
            ],
        ),
        case(
            "RST of a half-closed flow closes",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), server(ACK, S + 1, C + 2)]),
                packets([server(RST | ACK, S + 1, C + 2)]),
                reset_once(),
            ],
        ),
        case(
            "FIN, RST and the FIN again close once",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), client(RST | ACK, C + 2, S + 1)]),
                packets([client(FIN, C + 1, S + 1), client(RST, C + 2, 0)]),
                packets([server(RST, S + 1, 0)]),
                reset_once(),
            ],
        ),
        case(
            "RST of a new connection over a closed one, to an answer that was not for it",
            [
                open(),
                close(),
                shift([0, 1]),
                packets([client(SYN, NEW, 0).to(1, Reason::Placed)]),
                // From TIME-WAIT, say, after another client's connection.
                packets([server(ACK, S + 700, C + 5000)]),
                packets([
                    client(RST, C + 5000, 0),
                    client(SYN, NEW, 0).pinned(Reason::SynRepeated),
                ]),
                packets([server(SYN | ACK, S + 9, NEW + 1), client(ACK, NEW + 1, S + 10)]),
                flow(FlowIs::Live),
                counts([(Placed, 2), (Opened, 2), (ClosedFin, 1), (Unverified, 2)]),
            ],
        ),
        case(
            "RST after both FINs closes nothing again",
            [
                open(),
                close(),
                packets([client(RST, C + 2, 0), server(RST, S + 2, 0)]),
                flow(FlowIs::ClosedFin),
                counts([(Placed, 1), (Opened, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "RST between two crossing FINs",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), server(FIN, S + 1, C + 1)]),
                packets([
                    client(RST, C + 2, 0),
                    server(ACK, S + 2, C + 2),
                    client(ACK, C + 2, S + 2),
                ]),
                // The server's ACK shows that it did not take the RST.
                flow(FlowIs::ClosedFin),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 1), (Reopened, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "traffic of the server after a RST re-opens",
            [
                open(),
                packets([client(RST, C + 1, 0)]),
                flow(FlowIs::ClosedRst),
                packets([server(ACK, S + 1, C + 1).data(10)]),
                flow(FlowIs::Live),
                packets([client(ACK, C + 1, S + 11), client(FIN, C + 1, S + 11)]),
                packets([server(FIN, S + 11, C + 2), client(ACK, C + 2, S + 12)]),
                flow(FlowIs::ClosedFin),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 1), (Reopened, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "re-opened and reset again",
            [
                open(),
                packets([client(RST, C + 1, 0), server(ACK, S + 1, C + 1), client(RST, C + 1, 0)]),
                flow(FlowIs::ClosedRst),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 2), (Reopened, 1)]),
            ],
        ),
        case(
            "traffic of the client after a RST does not re-open",
            [
                open(),
                packets([client(RST, C + 1, 0), client(ACK, C + 1, S + 1).data(3)]),
                reset_once(),
            ],
        ),
        case(
            "out-of-window traffic of the server after a RST does not re-open",
            [
                open(),
                packets([
                    client(RST, C + 1, 0),
                    server(ACK, S + 1, C + 5000).want(Want::Untouched(Reason::NotOurFlow)),
                ]),
                flow(FlowIs::ClosedRst),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 1), (Unverified, 1)]),
            ],
        ),
        case(
            "a connection made to the instance itself, by the port of a closed flow, is not ours",
            [
                open(),
                packets([
                    client(RST, C + 1, 0),
                    server(flags::SYN | ACK, S + 0x4000_0000, C + 0x1000_0000)
                        .want(Want::Untouched(Reason::NotOurFlow)),
                    server(ACK, S + 0x4000_0001, C + 0x1000_0001)
                        .data(9)
                        .want(Want::Untouched(Reason::NotOurFlow)),
                ]),
                flow(FlowIs::ClosedRst),
            ],
        ),
        case(
            "blind FIN and RST of a third host do not close",
            [
                open(),
                packets([client(FIN, 0x7fff_0000, 0x1234), client(RST, 0x7fff_0000, 0)]),
                packets([
                    client(FIN, 0x6000_0000, 0),
                    client(RST, 0, 0),
                    client(RST | ACK, 77, 99),
                ]),
                packets([server(FIN, 0x7fff_0000, 1), server(RST, 0x7fff_0000, 0)]),
                flow(FlowIs::Live),
                vec![Step::Check(0, "nothing learnt", |flow| {
                    (flow.client.next, flow.client.ack) == (C + 1, S + 1)
                        && (flow.server.next, flow.server.ack) == (S + 1, C + 1)
                })],
                counts([(Placed, 1), (Opened, 1), (Unverified, 7)]),
            ],
        ),
        case(
            "an instance's RST from the wrong instance is not ours",
            [
                open(),
                packets([server(RST, S + 1, 0).from(21).want(Want::Untouched(Reason::NotOurFlow))]),
                flow(FlowIs::Live),
            ],
        ),
        late_server(),
        contested_handshake(),
    ]
}

/// One instance a version.
fn one() -> Scene {
    Scene::new(&[1, 0], 1)
}

/// The RST closed the flow, but the server did not take it. The client has begun anew on another
/// version; the SYN it repeats and its ACK belong to the new handshake, whatever the old server says.
fn late_server() -> Case {
    Case::new(
        CATEGORY,
        "the old server's traffic does not split a handshake: SYN",
        one(),
        [
            open(),
            packets([client(RST, C + 1, 0)]),
            vec![Step::Shift(vec![0, 1])],
            packets([client(flags::SYN, C + 9000, 0).to(1, Reason::Placed)]),
            packets([server(ACK, S + 1, C + 1).data(10).from(11).want(Want::Replied)]),
            packets([client(flags::SYN, C + 9000, 0).pinned(Reason::SynRepeated)]),
        ],
    )
}

fn contested_handshake() -> Case {
    Case::new(
        CATEGORY,
        "the old server's traffic does not split a handshake: ACK",
        one(),
        [
            open(),
            packets([client(RST, C + 1, 0)]),
            vec![Step::Shift(vec![0, 1])],
            packets([
                client(flags::SYN, C + 9000, 0).to(1, Reason::Placed),
                server(flags::SYN | ACK, S + 9000, C + 9001),
                server(ACK, S + 1, C + 1).data(10).from(11),
                client(ACK, C + 9001, S + 9001),
            ]),
            flow(FlowIs::Live),
            packets([server(ACK, S + 9001, C + 9001).data(10)]),
            vec![Step::Check(0, "pinned to the new instance", |flow| flow.backend > 20)],
        ],
    )
}
