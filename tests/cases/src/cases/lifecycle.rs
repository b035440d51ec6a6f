//! Established, half-closed, closed.

use release_common::pipeline::Counter::{ClosedFin, Opened, Placed, Unverified};

use super::script::{C, Case, FlowIs, S, Step, client, close, counts, open, packets, server};
use crate::frames::flags;
use crate::model::Scene;

const CATEGORY: &str = "lifecycle";
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn flow(is: FlowIs) -> Vec<Step> {
    vec![Step::Flow(0, is)]
}

fn closed_once() -> Vec<Step> {
    [flow(FlowIs::ClosedFin), counts([(Placed, 1), (Opened, 1), (ClosedFin, 1)])].concat()
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "data both ways",
            [
                open(),
                packets([
                    client(ACK, C + 1, S + 1).data(100),
                    server(ACK, S + 1, C + 101).data(1460),
                ]),
                packets([client(ACK, C + 101, S + 1461)]),
                vec![Step::Check(0, "numbers follow", |flow| {
                    (flow.client.next, flow.server.next) == (C + 101, S + 1461)
                        && (flow.client.ack, flow.server.ack) == (S + 1461, C + 101)
                })],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case("FIN of the client first", [open(), close(), closed_once()]),
        case(
            "FIN of the client first, each acknowledged alone",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), server(ACK, S + 1, C + 2)]),
                flow(FlowIs::HalfClosed),
                packets([server(FIN, S + 1, C + 2)]),
                flow(FlowIs::HalfClosed),
                packets([client(ACK, C + 2, S + 2)]),
                closed_once(),
            ],
        ),
        case(
            "FIN of the server first",
            [
                open(),
                packets([server(FIN, S + 1, C + 1), client(ACK, C + 1, S + 2)]),
                flow(FlowIs::HalfClosed),
                packets([client(FIN, C + 1, S + 2), server(ACK, S + 2, C + 2)]),
                closed_once(),
            ],
        ),
        case(
            "FINs cross",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), server(FIN, S + 1, C + 1)]),
                flow(FlowIs::Live),
                packets([server(ACK, S + 2, C + 2)]),
                flow(FlowIs::HalfClosed),
                packets([client(ACK, C + 2, S + 2)]),
                closed_once(),
            ],
        ),
        case(
            "FIN with data",
            [
                open(),
                packets([client(FIN, C + 1, S + 1).data(50), server(FIN, S + 1, C + 52).data(600)]),
                packets([client(ACK, C + 52, S + 602)]),
                closed_once(),
            ],
        ),
        case(
            "FIN acknowledged in part only: data before it",
            [
                open(),
                packets([client(FIN, C + 1, S + 1).data(50), server(ACK, S + 1, C + 51)]),
                flow(FlowIs::Live),
                packets([server(ACK, S + 1, C + 52)]),
                flow(FlowIs::HalfClosed),
            ],
        ),
        case(
            "a FIN that nobody acknowledges closes nothing",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), client(FIN, C + 1, S + 1)]),
                packets([server(FIN, S + 1, C + 1), server(FIN, S + 1, C + 1)]),
                flow(FlowIs::Live),
            ],
        ),
        case(
            "half-closed, and the server streams for hours",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), server(ACK, S + 1, C + 2)]),
                (0..12_u32)
                    .flat_map(|n| {
                        [
                            Step::Advance(900_000),
                            server(ACK, S + 1 + n * 1000, C + 2).data(1000).into(),
                            client(ACK, C + 2, S + 1001 + n * 1000).into(),
                            Step::Flow(0, FlowIs::HalfClosed),
                        ]
                    })
                    .collect(),
                packets([server(FIN, S + 12_001, C + 2), client(ACK, C + 2, S + 12_002)]),
                closed_once(),
            ],
        ),
        case(
            "a FIN repeated while it lingers goes to the same instance",
            [
                open(),
                close(),
                vec![Step::Shift(vec![0, 1])],
                packets([client(FIN, C + 1, S + 1), server(FIN, S + 1, C + 2)]),
                packets([client(ACK, C + 2, S + 2)]),
                closed_once(),
            ],
        ),
        case(
            "out-of-order FIN, the gap filled later",
            [
                open(),
                packets([client(FIN, C + 1001, S + 1).data(10), server(ACK, S + 1, C + 1)]),
                flow(FlowIs::Live),
                packets([client(ACK, C + 1, S + 1).data(1000), server(ACK, S + 1, C + 1012)]),
                flow(FlowIs::HalfClosed),
                packets([server(FIN, S + 1, C + 1012), client(ACK, C + 1012, S + 2)]),
                closed_once(),
            ],
        ),
        case(
            "lost ACKs: the FINs' retransmissions bring them",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), client(FIN, C + 1, S + 1)]),
                packets([server(ACK, S + 1, C + 2), server(FIN, S + 1, C + 2)]),
                packets([server(FIN, S + 1, C + 2), client(ACK, C + 2, S + 2)]),
                closed_once(),
            ],
        ),
        case(
            "an ACK overtakes the FIN before it",
            [
                open(),
                packets([server(ACK, S + 2, C + 1), server(FIN, S + 1, C + 1)]),
                packets([client(ACK, C + 1, S + 2)]),
                flow(FlowIs::HalfClosed),
                packets([client(FIN, C + 1, S + 2), server(ACK, S + 2, C + 2)]),
                closed_once(),
            ],
        ),
        case(
            "duplicate ACKs change nothing",
            [
                open(),
                packets([server(ACK, S + 1, C + 1).data(3000), client(ACK, C + 1, S + 1)]),
                packets([client(ACK, C + 1, S + 1), client(ACK, C + 1, S + 1)]),
                packets([client(ACK, C + 1, S + 3001)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "the last ACK three times closes once",
            [
                open(),
                close(),
                packets([client(ACK, C + 2, S + 2), client(ACK, C + 2, S + 2)]),
                closed_once(),
            ],
        ),
        case(
            "sequence numbers wrap around within data and FIN",
            [
                packets([client(flags::SYN, u32::MAX - 100, 0)
                    .to(0, release_common::reason::Reason::Placed)]),
                packets([server(flags::SYN | ACK, u32::MAX - 200, u32::MAX - 99)]),
                packets([client(ACK, u32::MAX - 99, u32::MAX - 199).data(100)]),
                packets([client(FIN, 0, u32::MAX - 199).data(10)]),
                packets([server(ACK, u32::MAX - 199, 11).data(200), client(ACK, 11, 0)]),
                packets([server(FIN, 0, 11), client(ACK, 11, 1)]),
                closed_once(),
            ],
        ),
        case(
            "a packet beyond the window is forwarded and changes nothing",
            [
                open(),
                packets([client(FIN, C + 1 + 70_000, S + 1), server(FIN, S + 1 + 70_000, C + 1)]),
                vec![Step::Check(0, "nothing learnt", |flow| {
                    (flow.client.next, flow.server.next) == (C + 1, S + 1)
                })],
                counts([(Placed, 1), (Opened, 1), (Unverified, 2)]),
            ],
        ),
        case(
            "an ACK of what was never sent changes nothing",
            [
                open(),
                packets([server(FIN, S + 1, C + 500), client(FIN, C + 1, S + 500)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1), (Unverified, 2)]),
            ],
        ),
        case(
            "a segment without ACK changes nothing",
            [
                open(),
                packets([client(flags::FIN, C + 1, 0), server(ACK, S + 1, C + 1)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1), (Unverified, 1)]),
            ],
        ),
        case(
            "a forged FIN in the window is taken back by data beyond it",
            [
                open(),
                packets([client(FIN, C + 1, S + 1), client(ACK, C + 1, S + 1).data(100)]),
                packets([server(ACK, S + 1, C + 101)]),
                flow(FlowIs::Live),
                packets([client(FIN, C + 101, S + 1), server(FIN, S + 1, C + 102)]),
                packets([client(ACK, C + 102, S + 2)]),
                closed_once(),
            ],
        ),
    ];
    cases.extend(clocks());
    cases
}

/// What counts as data, and as life.
fn clocks() -> Vec<Case> {
    vec![
        case(
            "keep-alive probes are no data",
            [
                open(),
                packets([client(ACK, C + 1, S + 1).data(10), server(ACK, S + 1, C + 11)]),
                vec![Step::Advance(70_000)],
                packets([client(ACK, C + 10, S + 1), server(ACK, S + 1, C + 11)]),
                packets([client(ACK, C + 10, S + 1).data(1), server(ACK, S, C + 11)]),
                packets([client(ACK, C + 11, S + 1)]),
                vec![Step::Check(0, "a packet, no data", |flow| {
                    flow.last_packet.wrapping_sub(flow.last_data) >= 70_000
                })],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "repeated data is no new data",
            [
                open(),
                packets([server(ACK, S + 1, C + 1).data(10)]),
                vec![Step::Advance(500)],
                packets([server(ACK, S + 1, C + 1).data(10)]),
                vec![Step::Check(0, "no new data", |flow| {
                    flow.last_packet.wrapping_sub(flow.last_data) >= 500
                })],
            ],
        ),
        case(
            "new data is data",
            [
                open(),
                vec![Step::Advance(500)],
                packets([server(ACK, S + 1, C + 1).data(10)]),
                vec![Step::Check(0, "new data", |flow| flow.last_packet == flow.last_data)],
            ],
        ),
        case(
            "a probe of a closed window is valid",
            [
                open(),
                packets([
                    client(ACK, C + 1, S + 1).data(32_760),
                    client(ACK, C + 32_761, S + 1).data(32_760),
                ]),
                packets([server(ACK, S + 1, C + 65_521).window(0)]),
                packets([client(ACK, C + 65_520, S + 1), server(ACK, S + 1, C + 65_521).window(0)]),
                packets([
                    client(ACK, C + 65_521, S + 1).data(1),
                    server(ACK, S + 1, C + 65_521).window(0),
                ]),
                packets([server(ACK, S + 1, C + 65_521), client(ACK, C + 65_521, S + 1).data(10)]),
                packets([server(ACK, S + 1, C + 65_531)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a window update is no data",
            [
                open(),
                vec![Step::Advance(9)],
                packets([
                    client(ACK, C + 1, S + 1).window(9),
                    client(ACK, C + 1, S + 1).window(900),
                ]),
                vec![Step::Check(0, "no data", |flow| {
                    flow.last_packet.wrapping_sub(flow.last_data) >= 9
                })],
            ],
        ),
    ]
}
