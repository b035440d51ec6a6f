//! From SYN to flow.

use release_common::pipeline::Counter::{EmbryosEnded, Opened, Placed, Refused, Unverified};
use release_common::reason::Reason;

use super::script::{
    C, Case, EmbryoIs, FlowIs, S, Step, Want, client, counts, open, packets, server,
};
use crate::frames::{flags, syn_options};
use crate::model::Scene;

const CATEGORY: &str = "handshake";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const RST: u8 = flags::RST;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn half_open() -> Vec<Step> {
    packets([client(SYN, C, 0).to(0, Reason::Placed), server(SYN | ACK, S, C + 1)])
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "SYN, SYN-ACK, ACK",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                vec![Step::Embryo(0, EmbryoIs::Syn)],
                packets([server(SYN | ACK, S, C + 1)]),
                vec![Step::Embryo(0, EmbryoIs::SynAck), Step::Flow(0, FlowIs::None)],
                packets([client(ACK, C + 1, S + 1)]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::Live)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "the first ACK lost, data completes",
            [
                half_open(),
                packets([client(ACK | flags::PSH, C + 1, S + 1).data(400)]),
                vec![Step::Check(0, "data counted", |flow| flow.client.next == C + 401)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "the first ACK and the first data lost, later data completes",
            [
                half_open(),
                packets([client(ACK, C + 1461, S + 1).data(1460), server(ACK, S + 1, C + 1)]),
                packets([client(ACK, C + 1, S + 1).data(1460), server(ACK, S + 1, C + 2921)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "FIN completes",
            [
                half_open(),
                packets([client(flags::FIN | ACK, C + 1, S + 1), server(ACK, S + 1, C + 2)]),
                vec![Step::Flow(0, FlowIs::HalfClosed)],
            ],
        ),
        case(
            "a late copy of the SYN on a flow that the instance's data opened begins nothing",
            [
                half_open(),
                packets([server(ACK, S + 1, C + 1).data(20)]),
                vec![Step::Flow(0, FlowIs::Live)],
                packets([client(SYN, C, 0).pinned(Reason::SynRepeated)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "SYN-ACK repeated",
            [
                half_open(),
                packets([server(SYN | ACK, S, C + 1), client(ACK, C + 1, S + 1)]),
                packets([server(SYN | ACK, S, C + 1), client(ACK, C + 1, S + 1)]),
                vec![Step::Flow(0, FlowIs::Live)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "refused by the instance's RST",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed), server(RST | ACK, 0, C + 1)]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::None)],
                counts([(Placed, 1), (EmbryosEnded, 1), (Refused, 1)]),
            ],
        ),
        case(
            "a RST of the instance that answers another SYN ends nothing",
            [
                packets([
                    client(SYN, C, 0).to(0, Reason::Placed),
                    server(RST | ACK, 0, C + 200_001),
                ]),
                vec![Step::Embryo(0, EmbryoIs::Syn)],
                counts([(Placed, 1), (Unverified, 1)]),
            ],
        ),
        case(
            "aborted by the instance after its SYN-ACK",
            [
                half_open(),
                packets([server(RST, S + 1, 0)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 1), (EmbryosEnded, 1), (Refused, 1)]),
            ],
        ),
        case(
            "aborted by the client's RST",
            [
                half_open(),
                packets([client(RST, C + 1, 0)]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::None)],
                counts([(Placed, 1), (EmbryosEnded, 1)]),
            ],
        ),
        case(
            "a blind RST of the client's address ends no handshake",
            [
                half_open(),
                packets([client(RST, C + 5000, 0), client(ACK, C + 1, S + 1)]),
                counts([(Placed, 1), (Unverified, 1), (Opened, 1)]),
            ],
        ),
        case(
            "an ACK of something else completes nothing",
            [
                half_open(),
                packets([client(ACK, C + 1, S), client(ACK, C + 1, S + 80_000_000)]),
                vec![Step::Embryo(0, EmbryoIs::SynAck), Step::Flow(0, FlowIs::None)],
            ],
        ),
        case(
            "an ACK with another sequence number completes nothing",
            [
                half_open(),
                packets([client(ACK, C + 1_500_000_000, S + 1)]),
                vec![Step::Embryo(0, EmbryoIs::SynAck), Step::Flow(0, FlowIs::None)],
            ],
        ),
        case(
            "an ACK before the SYN-ACK completes nothing",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed), client(ACK, C + 1, S + 1)]),
                vec![Step::Embryo(0, EmbryoIs::Syn), Step::Flow(0, FlowIs::None)],
            ],
        ),
        case(
            "a SYN-ACK of the client completes nothing",
            [
                open(),
                packets([
                    client(flags::FIN | ACK, C + 1, S + 1),
                    server(flags::FIN | ACK, S + 1, C + 2),
                ]),
                packets([client(ACK, C + 2, S + 2)]),
                packets([client(SYN, C + 9000, 0).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, S + 9000, C + 9001)]),
                packets([client(SYN | ACK, C + 9001, S + 9001)]),
                vec![Step::Embryo(0, EmbryoIs::SynAck), Step::Flow(0, FlowIs::ClosedFin)],
            ],
        ),
        case(
            "Fast Open: the SYN's data acknowledged with the SYN",
            [
                packets([client(SYN, C, 0).data(100).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, S, C + 101), client(ACK, C + 101, S + 1)]),
                vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "Fast Open: the server answers before the ACK",
            [
                packets([client(SYN, C, 0).data(100).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, S, C + 101), server(ACK, S + 1, C + 101).data(700)]),
                packets([client(ACK, C + 101, S + 701)]),
                vec![Step::Flow(0, FlowIs::Live)],
            ],
        ),
        case(
            "Fast Open: data in the SYN refused by RST",
            [
                packets([client(SYN, C, 0).data(100).to(0, Reason::Placed)]),
                packets([server(RST | ACK, 0, C + 101)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([(Placed, 1), (EmbryosEnded, 1), (Refused, 1)]),
            ],
        ),
        case(
            "sequence numbers wrap around in the handshake",
            [
                packets([client(SYN, u32::MAX, 0).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, u32::MAX, 0), client(ACK, 0, 0).data(10)]),
                packets([server(ACK, 0, 10).data(20), client(ACK, 10, 20)]),
                vec![Step::Flow(0, FlowIs::Live)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "ACK flood without a flow creates no flows",
            [
                (2..52_usize)
                    .map(|n| client(ACK, n as u32, 77).on(n).to(0, Reason::Tried).into())
                    .collect(),
                vec![Step::Flow(2, FlowIs::None), Step::Flow(51, FlowIs::None)],
            ],
        ),
        case(
            "SYN flood evicts no flow",
            [
                open(),
                (2..200_usize)
                    .map(|n| client(SYN, C, 0).on(n).to(0, Reason::Placed).into())
                    .collect(),
                vec![Step::Flow(0, FlowIs::Live)],
                packets([client(ACK, C + 1, S + 1).data(5), server(ACK, S + 1, C + 6)]),
            ],
        ),
        case(
            "a repeated handshake of hours",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                vec![Step::Advance(30_000)],
                packets([client(SYN, C, 0).pinned(Reason::SynRepeated)]),
            ],
        ),
    ];
    cases.extend(odd_flags());
    cases.push(scaling());
    cases.push(no_scaling());
    cases
}

/// Flags that begin nothing.
fn odd_flags() -> Vec<Case> {
    let all = [
        ("SYN-ACK", SYN | ACK),
        ("no flags", 0),
        ("XMAS", flags::FIN | flags::PSH | flags::URG),
        ("FIN alone", flags::FIN),
        ("SYN-FIN", SYN | flags::FIN),
        ("SYN-RST", SYN | RST),
        ("PSH alone", flags::PSH),
    ];
    let mut cases = Vec::new();
    for (name, bits) in all {
        let dropped = || packets([client(bits, C, 0).want(Want::Dropped(Reason::BadFlags))]);
        cases.push(case(
            &format!("{name} without a flow"),
            [
                dropped(),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::None)],
                counts([]),
            ],
        ));
    }
    for (name, bits) in [("SYN-FIN", SYN | flags::FIN), ("SYN-RST", SYN | RST)] {
        cases.push(case(
            &format!("{name} on a closed flow begins nothing"),
            [
                open(),
                super::script::close(),
                packets([client(bits, C + 9000, 0).want(Want::Dropped(Reason::BadFlags))]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::ClosedFin)],
            ],
        ));
    }
    cases
}

/// Both scale: a server may send far beyond 64 KiB, and a FIN there counts.
fn scaling() -> Case {
    case(
        "window scaling of both ends",
        [
            packets([client(SYN, C, 0).options(syn_options(Some(7))).to(0, Reason::Placed)]),
            packets([server(SYN | ACK, S, C + 1).options(syn_options(Some(9)))]),
            packets([client(ACK, C + 1, S + 1).window(30_000)]),
            packets([server(flags::FIN | ACK, S + 1 + 3_000_000, C + 1).data(1000)]),
            packets([client(ACK, C + 1, S + 1 + 3_001_000 + 1).window(1000)]),
            vec![Step::Flow(0, FlowIs::HalfClosed)],
            packets([server(ACK, S + 1 + 30_000 * 128, C + 1).data(500)]),
            counts([(Placed, 1), (Opened, 1), (Unverified, 1)]),
        ],
    )
}

/// One end does not scale: nobody does.
fn no_scaling() -> Case {
    case(
        "window scaling offered by one end only",
        [
            packets([client(SYN, C, 0).options(syn_options(Some(7))).to(0, Reason::Placed)]),
            packets([server(SYN | ACK, S, C + 1).options(syn_options(None))]),
            packets([client(ACK, C + 1, S + 1).window(1000)]),
            packets([server(ACK, S + 1 + 65_000, C + 1).data(500)]),
            packets([server(ACK, S + 1 + 66_000, C + 1).data(500)]),
            counts([(Placed, 1), (Opened, 1), (Unverified, 1)]),
        ],
    )
}
