//! ICMP errors follow the flow that they are about, and change nothing that is known of it.

use std::net::Ipv4Addr;

use release_common::abi::{conversation, mode};
use release_common::pipeline::Counter::{Datagrams, Opened, Placed};
use release_common::reason::Reason;

use super::script::{
    C, Case, EmbryoIs, FlowIs, Packet, S, Setting, Step, Want, Way, about, client, counts,
    datagram, icmp, open, packets, response, server, shift,
};
use crate::frames::{Error, flags};
use crate::model::{Family, Scene};

const CATEGORY: &str = "icmp";
const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const ERRORS: [Error; 5] = [
    Error::TooBig(1400),
    Error::TimeExceeded,
    Error::HostUnreachable,
    Error::PortUnreachable,
    Error::ParameterProblem(9),
];

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn sent() -> Packet {
    client(ACK, C + 1, S + 1).data(900)
}

fn replied() -> Packet {
    server(ACK, S + 1, C + 1).data(1400)
}

/// Every kind of error, about both directions, with short and long quotes.
fn every_error(to_instance: &Packet, to_client: &Packet) -> Vec<Step> {
    let mut steps = Vec::new();
    for packet in [to_instance, to_client] {
        for error in ERRORS {
            for quoted in [8, 20, 21, 60, 500, 2000] {
                steps.extend(icmp(about(packet.clone(), error).quoting(quoted)));
            }
        }
    }
    steps
}

fn untouched(reason: Reason) -> Want {
    Want::Untouched(reason)
}

/// The table.
pub fn cases() -> Vec<Case> {
    let live = || vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)];
    let mut cases = vec![
        case(
            "every error about a connection, both ways",
            [
                open(),
                every_error(&replied(), &sent()),
                live(),
                vec![Step::Check(0, "nothing learnt", |flow| {
                    (flow.client.next, flow.server.next) == (C + 1, S + 1)
                })],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "every error about a UDP conversation, both ways",
            Scene::new(&[1, 0], 2).udp(),
            [
                packets([datagram(20).to(0, Reason::Placed), response(20)]),
                every_error(&response(1400), &datagram(900)),
                live(),
            ],
        ),
        Case::new(
            CATEGORY,
            "a quoted UDP checksum of 0 is written as all ones",
            Scene::new(&[1, 0], 1).udp(),
            [packets([datagram(20).to(0, Reason::Placed), response(20)]), zero_sums()],
        ),
        Case::new(
            CATEGORY,
            "about UDP without a checksum",
            Scene::new(&[1, 0], 2).udp(),
            [
                packets([datagram(20).to(0, Reason::Placed), response(20)]),
                every_error(&response(1400).unchecked(), &datagram(900).unchecked()),
            ],
        ),
        case(
            "about a flow of an old version",
            [
                open(),
                shift([0, 1]),
                icmp(about(replied(), ERRORS[0])),
                icmp(about(sent(), ERRORS[2])),
            ],
        ),
        case(
            "about a handshake",
            [
                packets([client(SYN, C, 0).to(0, Reason::Placed)]),
                icmp(about(client(SYN, C, 0), Error::HostUnreachable)),
                icmp(about(client(SYN, C, 0), Error::PortUnreachable).by_receiver()),
                packets([server(SYN | ACK, S, C + 1)]),
                icmp(about(server(SYN | ACK, S, C + 1), Error::HostUnreachable)),
                vec![Step::Embryo(0, EmbryoIs::SynAck)],
                packets([client(ACK, C + 1, S + 1)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a quoted SYN-ACK moves no pin",
            [
                open(),
                shift([0, 1]),
                icmp(
                    about(server(SYN | ACK, S + 90_000, C + 5000), Error::HostUnreachable)
                        .quoting(20),
                ),
                live(),
                packets([client(ACK, C + 1, S + 1).data(9), server(ACK, S + 1, C + 10)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a quoted RST or FIN closes nothing",
            [
                open(),
                icmp(about(server(flags::RST, S + 1, 0), Error::HostUnreachable).quoting(20)),
                icmp(about(client(flags::RST, C + 1, 0), Error::HostUnreachable).quoting(20)),
                icmp(
                    about(client(flags::FIN | ACK, C + 1, S + 1), Error::HostUnreachable)
                        .quoting(20),
                ),
                live(),
            ],
        ),
        case(
            "about a closed flow",
            [
                open(),
                packets([client(flags::RST, C + 1, 0)]),
                icmp(about(replied(), ERRORS[0])),
                icmp(about(sent(), ERRORS[0])),
                vec![Step::Flow(0, FlowIs::ClosedRst)],
            ],
        ),
        case(
            "by the instance and by the client themselves",
            [
                open(),
                icmp(about(sent(), Error::PortUnreachable).by_receiver()),
                icmp(about(replied(), Error::PortUnreachable).by_receiver()),
            ],
        ),
        case(
            "to somebody who did not send what is quoted: untouched",
            [
                open(),
                icmp(about(sent(), ERRORS[0]).astray().want(untouched(Reason::NotOurFlow))),
                icmp(about(replied(), ERRORS[0]).astray().want(untouched(Reason::NotOurFlow))),
            ],
        ),
        case(
            "a redirect is for the host: untouched",
            [open(), icmp(about(sent(), Error::Redirect).want(untouched(Reason::NotOurProtocol)))],
        ),
        case(
            "a quote without ports: untouched",
            [
                open(),
                icmp(about(sent(), ERRORS[0]).quoting(7).want(untouched(Reason::Truncated))),
                icmp(about(replied(), ERRORS[0]).quoting(0).want(untouched(Reason::Truncated))),
            ],
        ),
        case(
            "an error whose own TTL ends here: no error about an error",
            [
                open(),
                icmp(about(replied(), ERRORS[0]).ttl(1).want(Want::Dropped(Reason::TtlExceeded))),
                icmp(about(sent(), ERRORS[0]).ttl(1).want(untouched(Reason::TtlExceeded))),
                icmp(about(sent(), ERRORS[0]).ttl(2)),
            ],
        ),
        case(
            "an error too big: no error about an error",
            [
                open(),
                vec![Step::Set(Setting::Way(Way::Mtu(600)))],
                icmp(about(replied(), ERRORS[0]).quoting(700).want(Want::Dropped(Reason::TooBig))),
                icmp(about(sent(), ERRORS[0]).quoting(700).want(untouched(Reason::TooBig))),
            ],
        ),
        case(
            "the kernel finds the way",
            [
                open(),
                vec![Step::Set(Setting::Way(Way::Kernel))],
                icmp(about(replied(), ERRORS[0]).want(Want::PinnedByKernel)),
                icmp(about(sent(), ERRORS[0]).want(Want::RepliedByKernel)),
            ],
        ),
        case(
            "a frontend taken away: its flows still hear of errors",
            [
                open(),
                vec![Step::Set(Setting::FrontendGone(0))],
                icmp(about(replied(), ERRORS[0])),
                icmp(about(sent(), ERRORS[0])),
            ],
        ),
    ];
    cases.extend(modes());
    cases
}

/// Payloads with which the checksum of the quoted datagram, translated, comes out as 0.
fn zero_sums() -> Vec<Step> {
    let scene = Scene::new(&[1, 0], 1).udp();
    let (client, frontend) = (scene.client_socket(0), scene.frontends[0].socket);
    let instance = scene.versions[0].instances[0].socket;
    let mut steps = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (to_instance, source, destination) in
            [(true, instance, client), (false, client, frontend)]
        {
            let plain =
                crate::frames::Segment::udp(family.socket(source), family.socket(destination));
            let sum = crate::frames::Segment { payload: vec![0; 2], ..plain }.transport();
            let packet = if to_instance { response(0) } else { datagram(0) };
            let packet = packet.bytes(&sum[6..8]);
            steps.extend(icmp(about(packet, Error::PortUnreachable).quoting(10)));
        }
    }
    steps
}

fn modes() -> Vec<Case> {
    let both = |steps: Vec<Step>| [open(), steps].concat();
    let plain = Scene::new(&[1, 0], 2);
    let errors = every_error(&replied(), &sent());
    let mut cases = vec![
        Case::new(CATEGORY, "mode snat", plain.clone().snat(500), [both(errors.clone())]),
        Case::new(CATEGORY, "mode local", plain.clone().mode(mode::LOCAL), [both(errors)]),
        Case::new(
            CATEGORY,
            "mode local: a TTL of 1 arrives",
            plain.clone().mode(mode::LOCAL),
            [
                open(),
                icmp(about(replied(), ERRORS[0]).ttl(1)),
                icmp(about(sent(), ERRORS[3]).ttl(1)),
            ],
        ),
        Case::new(
            CATEGORY,
            "mode snat, UDP",
            plain.clone().udp().snat(500),
            [
                packets([datagram(20).to(0, Reason::Placed), response(20)]),
                every_error(&response(1400), &datagram(900)),
            ],
        ),
    ];
    let to_instance = |packet: &Packet| {
        ERRORS
            .into_iter()
            .flat_map(|error| icmp(about(packet.clone(), error).quoting(60)))
            .collect::<Vec<_>>()
    };
    // What the instance sent itself is quoted as its own.
    for (name, mode) in [("dsr", mode::DSR), ("ipip", mode::IPIP), ("gue", mode::GUE)] {
        let scene = plain.clone().mode(mode);
        let steps = [
            packets([client(SYN, C, 0).to(0, Reason::Placed), client(ACK, C + 1, S + 1)]),
            shift([0, 1]),
            to_instance(&replied()),
        ];
        cases.push(Case::new(CATEGORY, &format!("mode {name}"), scene, steps));
    }
    let mut stateless = plain.udp().conversation(conversation::DATAGRAM);
    stateless.frontends.truncate(1);
    cases.push(Case::new(
        CATEGORY,
        "conversation datagram: to where the client's next one would go",
        stateless,
        [
            packets([datagram(20).to(0, Reason::Datagram)]),
            icmp(about(datagram(20), Error::PortUnreachable).by_receiver()),
            icmp(about(response(900), Error::TooBig(600))),
            shift([0, 1]),
            packets([datagram(20).to(1, Reason::Datagram)]),
            icmp(about(response(900), Error::TooBig(600))),
            counts([(Datagrams, 2)]),
        ],
    ));
    let stranger = Ipv4Addr::new(192, 0, 2, 200);
    cases.push(Case::new(
        CATEGORY,
        "about no flow: untouched",
        Scene::new(&[1, 0], 1).with_client(3, stranger, 40_000, 0),
        [
            packets([client(ACK, C + 1, 0).on(3).ttl(1).want(Want::TimeExceeded)]),
            open(),
            icmp(
                about(server(ACK, S, C).on(3).from(11), ERRORS[0])
                    .want(untouched(Reason::NotOurFlow)),
            ),
        ],
    ));
    cases
}
