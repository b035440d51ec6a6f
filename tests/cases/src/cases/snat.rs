//! Mode `snat`: an address and port of this host stand for the client.

use release_common::abi::refusal;
use release_common::pipeline::Counter::{Adopted, EmbryosEnded, Opened, Placed, Refused, Trials};
use release_common::pipeline::Refusal::Ports;
use release_common::reason::Reason;

use super::script::{
    C, Case, EmbryoIs, FlowIs, S, Setting, Step, Want, Way, about, client, close, counts, datagram,
    icmp, open, open_on, packets, refusals, response, server, shift,
};
use crate::frames::{Error, flags};
use crate::model::Scene;

const CATEGORY: &str = "snat";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const RST: u8 = flags::RST;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2).snat(4000), steps)
}

/// One instance a version, one address, this many ports.
fn narrow(ports: u16) -> Scene {
    Scene::new(&[1, 0], 1).snat(ports).set(|service| {
        (service.snat_count4, service.snat_count6) = (1, 1);
    })
}

fn scarce(name: &str, ports: u16, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, narrow(ports), steps)
}

fn syn(connection: usize) -> super::script::Packet {
    client(SYN, C, 0).on(connection)
}

/// Connection 0's client connects once more, from the same port, and reaches that version's instance.
fn open_again(version: usize) -> Vec<Step> {
    packets([
        client(SYN, C + 70_000, 0).to(version, Reason::Placed),
        server(SYN | ACK, S + 9, C + 70_001),
        client(ACK, C + 70_001, S + 10),
        server(ACK, S + 10, C + 70_001).data(5),
    ])
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "a connection, both ends translated both ways",
            [
                open(),
                packets([
                    client(ACK, C + 1, S + 1).data(100),
                    server(ACK, S + 1, C + 101).data(1460),
                ]),
                packets([client(flags::FIN | ACK, C + 101, S + 1461)]),
                packets([server(flags::FIN | ACK, S + 1461, C + 102)]),
                packets([client(ACK, C + 102, S + 1462)]),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
            ],
        ),
        case(
            "a SYN repeated keeps its source, also across a shift",
            [
                packets([syn(0).to(0, Reason::Placed), syn(0).pinned(Reason::SynRepeated)]),
                shift([0, 1]),
                packets([syn(0).pinned(Reason::SynRepeated), server(SYN | ACK, S, C + 1)]),
                packets([client(ACK, C + 1, S + 1), server(ACK, S + 1, C + 1).data(9)]),
            ],
        ),
        case(
            "many clients of one instance",
            [
                (2..40).flat_map(|n| open_on(n, 0)).collect(),
                (2..40).flat_map(|n| packets([server(ACK, S + 1, C + 1).on(n).data(n)])).collect(),
                counts([(Placed, 38), (Opened, 38)]),
            ],
        ),
        scarce(
            "two frontends, one client port, one instance: two sources",
            100,
            [
                open_on(0, 0),
                open_on(1, 0),
                packets([client(ACK, C + 1, S + 1).data(5), server(ACK, S + 1, C + 6).data(2)]),
                packets([
                    client(ACK, C + 1, S + 1).data(5).on(1),
                    server(ACK, S + 1, C + 6).data(2).on(1),
                ]),
                vec![Step::Same(0, 1)],
            ],
        ),
        scarce(
            "two ports: a collision is evaded",
            2,
            [
                open_on(2, 0),
                open_on(3, 0),
                packets([server(ACK, S + 1, C + 1).on(2).data(2)]),
                packets([server(ACK, S + 1, C + 1).on(3).data(2)]),
                packets([syn(4).want(Want::Reset(Reason::NoSourcePort))]),
                refusals([(Ports, 1)]),
                counts([(Placed, 2), (Opened, 2)]),
            ],
        ),
        scarce(
            "one port stands for a client towards each instance",
            1,
            [
                open_on(2, 0),
                shift([0, 1]),
                open_on(3, 1),
                packets([server(ACK, S + 1, C + 1).on(2).data(2)]),
                packets([server(ACK, S + 1, C + 1).on(3).data(2)]),
                packets([syn(4).want(Want::Reset(Reason::NoSourcePort))]),
            ],
        ),
        scarce(
            "no port free: what is open goes on",
            1,
            [
                open_on(2, 0),
                packets([syn(3).want(Want::Reset(Reason::NoSourcePort))]),
                packets([client(ACK, C + 1, S + 1).on(2).data(5)]),
                packets([server(ACK, S + 1, C + 6).on(2)]),
                refusals([(Ports, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "no port free: silence",
            narrow(1).set(|service| service.when_full = refusal::DROP),
            [open_on(2, 0), packets([syn(3).want(Want::Dropped(Reason::NoSourcePort))])],
        ),
        scarce(
            "a client that was refused tries again with its own port",
            1,
            [
                packets([syn(2).to(0, Reason::Placed)]),
                packets([server(RST | ACK, 0, C + 1).on(2)]),
                vec![Step::Embryo(2, EmbryoIs::None)],
                packets([syn(2).to(0, Reason::Placed)]),
                counts([(Placed, 2), (EmbryosEnded, 1), (Refused, 1)]),
            ],
        ),
        scarce(
            "a port that may be taken back any moment is not taken again",
            1,
            [
                packets([syn(2).to(0, Reason::Placed)]),
                packets([server(RST | ACK, 0, C + 1).on(2)]),
                vec![Step::Advance(6000)],
                packets([syn(2).want(Want::Reset(Reason::NoSourcePort))]),
            ],
        ),
        scarce(
            "a new connection over a closed one of the same tuple",
            2,
            [open(), close(), open_again(0)],
        ),
        scarce(
            "a tuple that comes back keeps its port, however late",
            1,
            [open(), close(), vec![Step::Advance(6000)], open_again(0)],
        ),
        scarce(
            "a tuple that comes back to another instance",
            1,
            [open(), close(), shift([0, 1]), open_again(1)],
        ),
        scarce(
            "the last free port of sixteen is found",
            16,
            [(2..18).flat_map(|n| open_on(n, 0)).collect(), counts([(Placed, 16), (Opened, 16)])],
        ),
        case(
            "what an instance sends to a port of nobody is not ours",
            [
                packets([syn(0).to(0, Reason::Placed)]),
                packets([server(ACK, S, C)
                    .on(2)
                    .from(11)
                    .want(Want::Untouched(Reason::NotOurAddress))]),
            ],
        ),
        case(
            "the kernel finds the way",
            [
                open(),
                vec![Step::Set(Setting::Way(Way::Kernel))],
                packets([client(ACK, C + 1, S + 1).data(5).want(Want::PinnedByKernel)]),
                packets([server(ACK, S + 1, C + 6).want(Want::RepliedByKernel)]),
            ],
        ),
    ];
    cases.extend(mid_flow());
    cases.extend(no_way_back());
    cases.push(Case::new(
        CATEGORY,
        "UDP, and a client port to two frontends",
        Scene::new(&[1, 0], 1).udp().snat(4000),
        [
            packets([datagram(9).to(0, Reason::Placed), response(8), datagram(7)]),
            packets([datagram(9).on(1).to(0, Reason::Placed), response(8).on(1)]),
            packets([response(3), response(3).on(1), datagram(3), datagram(3).on(1)]),
        ],
    ));
    cases.push(Case::new(
        CATEGORY,
        "UDP without a checksum",
        Scene::new(&[1, 0], 1).udp().snat(4000),
        [packets([datagram(9).unchecked().to(0, Reason::Placed), response(9).unchecked()])],
    ));
    cases
}

/// Connections without an entry: their old port is not known, so that no instance can know them.
fn mid_flow() -> Vec<Case> {
    let data = || client(ACK, C + 1, S + 1).data(100);
    vec![
        case(
            "mid-flow: asked of each version, then the client may know",
            [
                packets([data().to(0, Reason::Tried)]),
                packets([server(RST, S + 1, 0).want(Want::Dropped(Reason::TrialRefused))]),
                packets([data().to(1, Reason::Tried), server(RST, S + 1, 0)]),
                counts([(Trials, 2), (EmbryosEnded, 2)]),
            ],
        ),
        case(
            "mid-flow: adopted if an instance says so",
            [
                packets([data().to(0, Reason::Tried), server(ACK, S + 1, C + 101)]),
                vec![Step::Flow(0, FlowIs::Live)],
                packets([client(ACK, C + 101, S + 1).data(5)]),
                counts([(Trials, 1), (Adopted, 1)]),
            ],
        ),
        case(
            "a mid-flow RST is not sent under the client's own address",
            [
                packets([client(RST, C + 1, 0).want(Want::Dropped(Reason::BadFlags))]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([]),
            ],
        ),
        scarce(
            "mid-flow: no port free",
            1,
            [open_on(2, 0), packets([data().on(3).want(Want::Dropped(Reason::NoSourcePort))])],
        ),
    ]
}

/// Replies that cannot go on: left to the kernel, they would be for this host, which answers with
/// RST or port unreachable.
fn no_way_back() -> Vec<Case> {
    let reply = || server(ACK, S + 1, C + 1).data(1460);
    let small = || vec![Step::Set(Setting::Way(Way::Mtu(1400)))];
    vec![
        case(
            "a reply too big, not to be fragmented: fragmentation needed",
            [
                open(),
                small(),
                packets([reply().want(Want::TooBig(1400)), server(ACK, S + 1, C + 1).data(1300)]),
                vec![Step::Flow(0, FlowIs::Live)],
            ],
        ),
        case(
            "a reply too big, may be fragmented: the kernel does",
            [open(), small(), packets([reply().fragmentable().want(Want::RepliedByKernel)])],
        ),
        case(
            "a reply with a TTL of 1",
            [open(), packets([reply().ttl(1).want(Want::TimeExceeded), reply().ttl(2)])],
        ),
        case(
            "an error about a packet to an instance, with a TTL of 1: no error about an error",
            [
                open(),
                icmp(
                    about(client(ACK, C + 1, S + 1).data(900), Error::HostUnreachable)
                        .ttl(1)
                        .want(Want::Dropped(Reason::TtlExceeded)),
                ),
            ],
        ),
        Case::new(
            CATEGORY,
            "a datagram too big on its way back",
            Scene::new(&[1, 0], 1).udp().snat(4000),
            [
                packets([datagram(9).to(0, Reason::Placed), response(8)]),
                small(),
                packets([response(1400).want(Want::TooBig(1400)), response(1300)]),
            ],
        ),
    ]
}
