//! What packets look like on their way out.

use release_common::pipeline::Counter::{Opened, Placed};
use release_common::reason::Reason;

use super::script::{
    C, Case, FlowIs, Packet, S, Setting, Step, Want, Way, client, counts, open, packets, server,
};
use crate::frames::{flags, syn_options};
use crate::model::Scene;

const CATEGORY: &str = "rewrite";
const ACK: u8 = flags::ACK;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn way(way: Way) -> Vec<Step> {
    vec![Step::Set(Setting::Way(way))]
}

fn data() -> Packet {
    client(ACK | flags::PSH, C + 1, S + 1).data(100)
}

fn reply() -> Packet {
    server(ACK | flags::PSH, S + 1, C + 1).data(1460)
}

/// The table. Every packet sent on is compared byte for byte with one built afresh.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "out of the interface it came in by",
            [
                open(),
                way(Way::Same),
                packets([data(), reply()]),
                way(Way::Known),
                packets([client(ACK, C + 101, S + 1461)]),
            ],
        ),
        case(
            "the kernel finds the way: translated, TTL as it was",
            [
                open(),
                way(Way::Kernel),
                packets([data().want(Want::PinnedByKernel), reply().want(Want::RepliedByKernel)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "TTL 1 from the client: time exceeded",
            [
                open(),
                packets([data().ttl(1).want(Want::TimeExceeded)]),
                packets([data().data(0).ttl(1).want(Want::TimeExceeded)]),
                packets([data().data(1460).ttl(0).want(Want::TimeExceeded)]),
                vec![Step::Check(0, "the instance never saw it", |flow| flow.client.next == C + 1)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "TTL 1 from the instance: the kernel answers",
            [
                open(),
                packets([reply().ttl(1).want(Want::Untouched(Reason::TtlExceeded))]),
                packets([reply().ttl(0).want(Want::Untouched(Reason::TtlExceeded))]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case("TTL 2 is the last to go through", [open(), packets([data().ttl(2), reply().ttl(2)])]),
        case("TTL 255", [open(), packets([data().ttl(255), reply().ttl(255)])]),
        case(
            "too big, not to be fragmented: fragmentation needed",
            [
                open(),
                way(Way::Mtu(1400)),
                packets([data().data(1460).want(Want::TooBig(1400))]),
                way(Way::Known),
                packets([data().data(1300), server(ACK, S + 1, C + 1301)]),
                vec![Step::Flow(0, FlowIs::Live)],
            ],
        ),
        case(
            "too big, may be fragmented: the kernel does",
            [
                open(),
                way(Way::Mtu(1400)),
                packets([Packet {
                    dont_fragment: false,
                    ..data().data(1460).want(Want::PinnedByKernel)
                }]),
                packets([Packet { dont_fragment: false, ..reply().want(Want::RepliedByKernel) }]),
            ],
        ),
        case(
            "too big on the way back: the kernel answers the instance",
            [open(), way(Way::Mtu(1400)), packets([reply().want(Want::Untouched(Reason::TooBig))])],
        ),
        case(
            "short frames keep their padding",
            [
                open(),
                packets([Packet { padded: true, ..client(ACK, C + 1, S + 1) }]),
                packets([Packet { padded: true, ..server(ACK, S + 1, C + 1) }]),
                packets([Packet { padded: true, ..data().data(2) }]),
            ],
        ),
        case(
            "a padded SYN is refused with a RST of the right length",
            [
                vec![Step::Shift(vec![0, 0])],
                packets([Packet {
                    padded: true,
                    ..client(flags::SYN, C, 0).want(Want::Reset(Reason::NoVersion))
                }]),
            ],
        ),
        case(
            "jumbo frames",
            [open(), packets([data().data(8900).window(0xffff), reply().data(8900)])],
        ),
        case("the largest packet there is", [open(), packets([data().data(65_495)])]),
        case(
            "TCP options stay",
            [
                packets([client(flags::SYN, C, 0)
                    .options(syn_options(Some(14)))
                    .to(0, Reason::Placed)]),
                packets([server(flags::SYN | ACK, S, C + 1).options(syn_options(Some(0)))]),
                packets([
                    client(ACK, C + 1, S + 1).options([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8].into())
                ]),
                packets([data().options(vec![1; 40])]),
            ],
        ),
        case(
            "urgent data and congestion flags stay",
            [
                open(),
                packets([client(ACK | flags::URG | flags::ECE, C + 1, S + 1).data(5)]),
                packets([server(ACK | flags::ECE | flags::CWR, S + 1, C + 6)]),
            ],
        ),
        case(
            "every data length: checksums of odd and even packets",
            [open(), (0..70).map(|len| reply().data(len).into()).collect()],
        ),
    ];
    for tos in [0x01, 0x10, 0xb8, 0xff] {
        cases.push(case(
            &format!("type of service {tos:#04x} stays"),
            [open(), packets([Packet { tos, ..data() }, Packet { tos, ..reply() }])],
        ));
    }
    // Checksums that pass through 0 and 0xffff: every value of a 16-bit word of the packet.
    cases.push(case(
        "checksums over the whole range of a word",
        [
            open(),
            (0..=u16::MAX)
                .step_by(13)
                .map(|window| reply().data(0).window(window).into())
                .collect(),
            (0..=u16::MAX).step_by(13).map(|window| data().window(window).into()).collect(),
        ],
    ));
    cases
}
