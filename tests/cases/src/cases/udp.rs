//! UDP, conversation `flow`: an embryo on the first datagram, a flow on the second.

use release_common::abi::refusal;
use release_common::pipeline::Counter::{Opened, Placed};
use release_common::pipeline::Refusal::{Empty, Full, Ports};
use release_common::reason::Reason;
use release_common::tcp::word::FlowWord;

use super::script::{
    Case, EmbryoIs, FlowIs, Packet, Setting, Step, Want, Way, client, counts, datagram, open,
    packets, refusals, response, server, shift,
};
use crate::frames::{Segment, flags};
use crate::model::scene::{TCP, UDP};
use crate::model::tables::HZ;
use crate::model::{Family, Scene};

const CATEGORY: &str = "udp";

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2).udp(), steps)
}

fn one(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 1).udp(), steps)
}

fn first() -> Packet {
    datagram(20).to(0, Reason::Placed)
}

fn talk() -> Vec<Step> {
    packets([first(), response(40)])
}

fn flow() -> Vec<Step> {
    vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)]
}

fn embryo() -> Vec<Step> {
    vec![Step::Flow(0, FlowIs::None), Step::Embryo(0, EmbryoIs::Syn)]
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "the first datagram makes an embryo, one a second later a flow",
            [
                packets([first()]),
                embryo(),
                packets([datagram(9)]),
                vec![Step::Advance(u64::from(HZ) - 1)],
                packets([datagram(9)]),
                embryo(),
                vec![Step::Advance(1)],
                packets([datagram(9)]),
                flow(),
                vec![Step::Check(0, "not replied", |flow| !FlowWord(flow.state).replied())],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "the reply makes a flow",
            [
                talk(),
                flow(),
                vec![Step::Check(0, "replied", |flow| FlowWord(flow.state).replied())],
                packets([datagram(9), response(0), datagram(1400)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a reply to a flow is noted",
            [
                packets([first(), datagram(9), response(3)]),
                vec![Step::Check(0, "replied", |flow| FlowWord(flow.state).replied())],
            ],
        ),
        case(
            "an embryo stays with its instance across a shift",
            [
                packets([first()]),
                shift([0, 1]),
                packets([datagram(5), response(5)]),
                vec![Step::Check(0, "keeps the generation that placed it", |flow| {
                    flow.generation == crate::model::scene::FIRST_GENERATION
                })],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a flow stays with its instance across shifts, new ones do not",
            [
                talk(),
                shift([0, 1]),
                packets([datagram(5), response(5), datagram(5).on(2).to(1, Reason::Placed)]),
                shift([1, 0]),
                packets([datagram(5), datagram(5).on(2), response(1).on(2)]),
                shift([0, 0]),
                packets([datagram(5), datagram(5).on(2), response(1).on(2)]),
                counts([(Placed, 2), (Opened, 2)]),
            ],
        ),
        case(
            "packets keep a flow, all of them are data",
            [
                talk(),
                vec![Step::Advance(5000)],
                packets([datagram(0)]),
                vec![Step::Check(0, "just now", |flow| flow.last_packet == flow.last_data)],
            ],
        ),
        case(
            "a reply of another instance is not ours",
            [
                packets([first()]),
                packets([response(4).from(21).want(Want::Untouched(Reason::NotOurFlow))]),
                embryo(),
            ],
        ),
        case(
            "no checksum stays none",
            [
                packets([first().unchecked(), response(40).unchecked()]),
                packets([datagram(7).unchecked(), datagram(7), response(3).unchecked()]),
            ],
        ),
        one("a checksum of 0 is written as all ones", [zero_sums()]),
        case(
            "every length: checksums of odd and even datagrams",
            [talk(), (0..70).flat_map(|len| packets([datagram(len), response(len)])).collect()],
        ),
        case(
            "short frames keep their padding",
            [
                packets([Packet { padded: true, ..first() }]),
                packets([Packet { padded: true, ..response(1) }]),
                packets([Packet { padded: true, ..datagram(0) }]),
            ],
        ),
        case("the largest datagram there is", [packets([first(), datagram(65_507)])]),
        case(
            "TTL 1 from the client: time exceeded, creates nothing",
            [
                packets([datagram(3).ttl(1).want(Want::TimeExceeded)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                talk(),
                packets([datagram(0).ttl(1).want(Want::TimeExceeded)]),
            ],
        ),
        case(
            "TTL 1 from the instance: the kernel answers",
            [talk(), packets([response(3).ttl(1).want(Want::Untouched(Reason::TtlExceeded))])],
        ),
        case(
            "too big: an error to the client, the kernel's answer to the instance",
            [
                talk(),
                vec![Step::Set(Setting::Way(Way::Mtu(1400)))],
                packets([datagram(1400).want(Want::TooBig(1400)), datagram(1300)]),
                packets([response(1400).want(Want::Untouched(Reason::TooBig))]),
            ],
        ),
        case(
            "too big, may be fragmented: the kernel does",
            [
                talk(),
                vec![Step::Set(Setting::Way(Way::Mtu(1400)))],
                packets([datagram(1400).fragmentable().want(Want::PinnedByKernel)]),
                packets([response(1400).fragmentable().want(Want::RepliedByKernel)]),
            ],
        ),
        case(
            "the kernel finds the way",
            [
                talk(),
                vec![Step::Set(Setting::Way(Way::Kernel))],
                packets([datagram(3).want(Want::PinnedByKernel)]),
                packets([response(3).want(Want::RepliedByKernel)]),
            ],
        ),
        case(
            "a frontend taken away: its conversations go on, none begins",
            [
                talk(),
                packets([datagram(1).on(2).to(0, Reason::Placed)]),
                vec![Step::Set(Setting::FrontendGone(0))],
                packets([datagram(3), response(3), datagram(3).on(2), response(3).on(2)]),
                packets([datagram(3).on(3).want(Want::Untouched(Reason::NotOurAddress))]),
            ],
        ),
        case(
            "a flood of datagrams evicts no flow",
            [
                talk(),
                (2..200).flat_map(|n| packets([datagram(9).on(n).to(0, Reason::Placed)])).collect(),
                flow(),
                packets([datagram(5), response(6)]),
            ],
        ),
        both_protocols(),
    ];
    cases.extend(refused());
    cases.extend(siblings());
    cases
}

/// Payloads with which the translated datagram's checksum comes out as 0, both ways, in either
/// family; the other's is as good as any.
fn zero_sums() -> Vec<Step> {
    let scene = Scene::new(&[1, 0], 1).udp();
    let (client, frontend) = (scene.client_socket(0), scene.frontends[0].socket);
    let instance = scene.versions[0].instances[0].socket;
    let word = |family: Family, source, destination| {
        let plain = Segment::udp(family.socket(source), family.socket(destination));
        let sum = Segment { payload: vec![0; 2], ..plain }.transport();
        [sum[6], sum[7]]
    };
    let mut steps = packets([first()]);
    for family in [Family::V4, Family::V6] {
        steps.extend(packets([
            datagram(0).bytes(&word(family, client, instance)),
            response(0).bytes(&word(family, frontend, client)),
        ]));
    }
    steps
}

/// One address and port for TCP and UDP, and an instance that serves both.
fn both_protocols() -> Case {
    let mut scene = Scene::new(&[1, 0], 1);
    scene.frontends[1] = scene.frontends[0];
    (scene.frontends[0].protocol, scene.frontends[1].protocol) = (TCP, UDP);
    Case::new(
        CATEGORY,
        "TCP and UDP of one client port are two flows",
        scene,
        [
            open(),
            packets([datagram(3).on(1).to(0, Reason::Placed), response(3).on(1)]),
            packets([client(flags::RST, super::script::C + 1, 0)]),
            vec![Step::Flow(0, FlowIs::ClosedRst), Step::Flow(1, FlowIs::Live)],
            packets([datagram(3).on(1), response(3).on(1)]),
            packets([server(flags::ACK, super::script::S + 1, super::script::C + 1)]),
            counts([
                (Placed, 2),
                (Opened, 2),
                (release_common::pipeline::Counter::ClosedRst, 1),
                (release_common::pipeline::Counter::Reopened, 1),
            ]),
        ],
    )
}

fn refused() -> Vec<Case> {
    let full = || vec![Step::Set(Setting::TableFull)];
    let mut cases = vec![
        case(
            "table full: port unreachable",
            [
                full(),
                packets([datagram(30).want(Want::Reset(Reason::TableFull))]),
                packets([datagram(0).want(Want::Reset(Reason::TableFull))]),
                refusals([(Full, 2)]),
                counts([]),
            ],
        ),
        case(
            "table full: conversations go on",
            [
                talk(),
                packets([datagram(1).on(2).to(0, Reason::Placed)]),
                full(),
                packets([datagram(3), response(4), datagram(3).on(2), response(4).on(2)]),
                packets([datagram(3).on(3).want(Want::Reset(Reason::TableFull))]),
            ],
        ),
        case(
            "no version with weight: port unreachable",
            [
                shift([0, 0]),
                packets([datagram(30).want(Want::Reset(Reason::NoVersion))]),
                packets([datagram(1).ttl(1).want(Want::Reset(Reason::NoVersion))]),
                refusals([(Empty, 2)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "no instance: port unreachable",
            Scene::new(&[1, 0], 0).udp(),
            [packets([datagram(30).want(Want::Reset(Reason::NoInstance))]), refusals([(Empty, 1)])],
        ),
    ];
    for (how, name) in [(refusal::DROP, "silence"), (refusal::PASS, "the host's stack")] {
        let scene = Scene::new(&[1, 0], 2).udp().set(|service| {
            (service.when_empty, service.when_full) = (how, how);
        });
        let want = |reason| match how {
            refusal::DROP => Want::Dropped(reason),
            _ => Want::Untouched(reason),
        };
        let add = |what: &str, before, reason| {
            let step = packets([datagram(7).want(want(reason))]);
            Case::new(CATEGORY, &format!("{what}: {name}"), scene.clone(), [before, step])
        };
        cases.push(add("table full", full(), Reason::TableFull));
        cases.push(add("no version", shift([0, 0]), Reason::NoVersion));
    }
    cases
}

/// Two frontends, one client port.
fn siblings() -> Vec<Case> {
    vec![
        one(
            "two frontends, one client port, one instance: refused",
            [
                talk(),
                packets([datagram(3).on(1).want(Want::Reset(Reason::PortCollision))]),
                packets([datagram(3), response(3)]),
                refusals([(Ports, 1)]),
            ],
        ),
        case(
            "two frontends, one client port: two instances",
            [
                talk(),
                packets([datagram(3).on(1).to(0, Reason::Placed), response(3).on(1)]),
                vec![Step::Apart(0, 1)],
                packets([datagram(3), response(3), datagram(3).on(1), response(3).on(1)]),
            ],
        ),
    ]
}
