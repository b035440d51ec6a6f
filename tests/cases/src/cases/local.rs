//! Mode `local`: the instance is on this host. Its stack delivers, and its replies are translated on
//! their way out.

use release_common::abi::mode;
use release_common::pipeline::Counter::{
    Adopted, ClosedFin, ClosedRst, EmbryosEnded, Opened, Placed, Trials,
};
use release_common::reason::Reason;

use super::script::Measure::{Connects, FirstBytes, Segments};
use super::script::{
    C, Case, EmbryoIs, FlowIs, Packet, S, Setting, Step, Want, Way, client, close, counts,
    datagram, measures, open, packets, response, server, shift,
};
use crate::frames::flags;
use crate::model::Scene;

const CATEGORY: &str = "local";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const RST: u8 = flags::RST;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2).mode(mode::LOCAL), steps)
}

fn flow(is: FlowIs) -> Vec<Step> {
    vec![Step::Flow(0, is)]
}

/// The table.
pub fn cases() -> Vec<Case> {
    vec![
        case(
            "a connection: translated and passed, replies on their way out",
            [
                open(),
                packets([
                    client(ACK, C + 1, S + 1).data(100),
                    server(ACK, S + 1, C + 101).data(1460),
                ]),
                packets([client(ACK, C + 101, S + 1461)]),
                flow(FlowIs::Live),
                counts([(Placed, 1), (Opened, 1)]),
                measures([(Connects, 1), (FirstBytes, 1), (Segments, 2)]),
            ],
        ),
        case(
            "both ends close",
            [
                open(),
                close(),
                flow(FlowIs::ClosedFin),
                counts([(Placed, 1), (Opened, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "pinned across a shift",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                shift([0, 1]),
                packets([client(SYN, C, 0).pinned(Reason::SynRepeated)]),
                packets([server(SYN | ACK, S, C + 1), client(ACK, C + 1, S + 1)]),
                packets([client(SYN, C, 0).on(2).to(1, Reason::Placed)]),
            ],
        ),
        case(
            "a TTL of 1 arrives, and counts",
            [
                packets([client(SYN, C, 0).ttl(1).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, S, C + 1), client(ACK, C + 1, S + 1).ttl(1)]),
                packets([client(FIN, C + 1, S + 1).ttl(1), server(FIN, S + 1, C + 2)]),
                packets([client(ACK, C + 2, S + 2).ttl(1)]),
                flow(FlowIs::ClosedFin),
            ],
        ),
        case(
            "a reply with a TTL of 1 counts: it leaves from here",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                packets([server(SYN | ACK, S, C + 1).ttl(1), client(ACK, C + 1, S + 1)]),
                packets([server(ACK, S + 1, C + 1).data(100).ttl(1)]),
                packets([client(ACK, C + 1, S + 101), server(FIN, S + 101, C + 1).ttl(1)]),
                packets([client(FIN, C + 1, S + 102), server(ACK, S + 102, C + 2).ttl(1)]),
                flow(FlowIs::ClosedFin),
                counts([(Placed, 1), (Opened, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "a RST with a TTL of 1 closes",
            [
                open(),
                packets([server(RST, S + 1, 0).ttl(1)]),
                flow(FlowIs::ClosedRst),
                counts([(Placed, 1), (Opened, 1), (ClosedRst, 1)]),
            ],
        ),
        case(
            "a RST with a TTL of 1 refuses a handshake",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                packets([server(RST | ACK, 0, C + 1).ttl(1)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
            ],
        ),
        case(
            "an instance's answer with a TTL of 1 adopts",
            [
                packets([client(ACK, C + 1, S + 1).data(100).to(0, Reason::Tried)]),
                packets([server(ACK, S + 1, C + 101).ttl(1)]),
                flow(FlowIs::Live),
                counts([(Trials, 1), (Adopted, 1)]),
            ],
        ),
        case(
            "no way and no MTU matters",
            [
                vec![Step::Set(Setting::Way(Way::Mtu(900)))],
                open(),
                packets([client(ACK, C + 1, S + 1).data(1460)]),
                vec![Step::Set(Setting::Way(Way::Kernel))],
                packets([server(ACK, S + 1, C + 1461).data(1460)]),
            ],
        ),
        case(
            "mid-flow: the RST of the first version is swallowed on its way out",
            [
                packets([client(ACK, C + 1, S + 1).data(100).to(0, Reason::Tried)]),
                packets([server(RST, S + 1, 0).want(Want::Dropped(Reason::TrialRefused))]),
                packets([client(ACK, C + 1, S + 1).data(100).to(1, Reason::Tried)]),
                packets([server(ACK, S + 1, C + 101)]),
                flow(FlowIs::Live),
                counts([(Trials, 2), (EmbryosEnded, 1), (Adopted, 1)]),
            ],
        ),
        case(
            "what else the host sends is untouched",
            [
                open(),
                packets([server(ACK, S, C).from(21).want(Want::Untouched(Reason::NotOurFlow))]),
                packets([server(ACK, S, C)
                    .on(2)
                    .from(11)
                    .want(Want::Untouched(Reason::NotOurFlow))]),
            ],
        ),
        case(
            "refused by RST, through the interface",
            [shift([0, 0]), packets([client(SYN, C, 0).want(Want::Reset(Reason::NoVersion))])],
        ),
        case(
            "padding stays",
            [packets([Packet { padded: true, ..client(SYN, C, 0).to(0, Reason::Placed) }])],
        ),
        Case::new(
            CATEGORY,
            "UDP",
            Scene::new(&[1, 0], 2).udp().mode(mode::LOCAL),
            [
                packets([datagram(9).ttl(1).to(0, Reason::Placed), response(8).ttl(1)]),
                packets([datagram(0), response(0), datagram(1400), response(1400)]),
                flow(FlowIs::Live),
                shift([0, 1]),
                packets([datagram(5), response(5)]),
                packets([response(5).from(21).want(Want::Untouched(Reason::NotOurFlow))]),
            ],
        ),
        Case::new(
            CATEGORY,
            "two frontends, one client port, one instance: refused",
            Scene::new(&[1, 0], 1).mode(mode::LOCAL),
            [open(), packets([client(SYN, C, 0).on(1).want(Want::Reset(Reason::PortCollision))])],
        ),
    ]
}
