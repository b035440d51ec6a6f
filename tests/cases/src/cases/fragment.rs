//! Fragments follow their first fragment, which alone has the ports.

use release_common::abi::mode;
use release_common::pipeline::Counter::{ClosedFin, Datagrams, Opened, Placed};
use release_common::reason::Reason;

use super::script::{
    C, Case, FlowIs, Packet, S, Setting, Step, Want, Way, client, counts, datagram, fragments,
    open, packets, response, server, shift,
};
use crate::frames::flags;
use crate::model::Scene;

const CATEGORY: &str = "fragment";
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const CUTS: [usize; 2] = [512, 1024];

const UNKNOWN: Want = Want::Untouched(Reason::FragmentUnknown);
const ON: Want = Want::Pinned(Reason::Forwarded);
const AFTER: Want = Want::Pinned(Reason::FragmentForwarded);
const BACK: Want = Want::RepliedAs(Reason::FragmentForwarded);

fn scene() -> Scene {
    Scene::new(&[1, 0], 2).udp()
}

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, scene(), steps)
}

fn tcp(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn placed() -> Want {
    Want::To(0, Reason::Placed)
}

fn big() -> Packet {
    datagram(1400)
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "the first teaches, later ones follow, both ways",
            [
                fragments(big(), &CUTS, [(0, placed()), (1, AFTER), (2, AFTER)]),
                fragments(response(1400), &CUTS, [(0, Want::Replied), (1, BACK), (2, BACK)]),
                fragments(big(), &CUTS, [(0, ON), (2, AFTER), (1, AFTER)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        case(
            "a later one first is passed and counted",
            [
                fragments(big(), &CUTS, [(1, UNKNOWN), (0, placed()), (2, AFTER), (1, AFTER)]),
                fragments(response(1400), &[64], [(1, UNKNOWN), (0, Want::Replied), (1, BACK)]),
            ],
        ),
        case(
            "later ones stay with the first across a shift",
            [
                fragments(big(), &CUTS, [(0, placed())]),
                shift([0, 1]),
                fragments(big(), &CUTS, [(1, AFTER), (2, AFTER)]),
            ],
        ),
        case(
            "later ones come too late",
            [
                fragments(big(), &CUTS, [(0, placed())]),
                vec![Step::Advance(5000)],
                fragments(big(), &CUTS, [(1, AFTER)]),
                vec![Step::Advance(1)],
                fragments(big(), &CUTS, [(2, UNKNOWN)]),
                fragments(big(), &CUTS, [(0, ON), (2, AFTER)]),
            ],
        ),
        case(
            "a refused datagram: the error quotes its first fragment, later ones are the host's",
            [
                shift([0, 0]),
                fragments(big(), &CUTS, [(0, Want::Reset(Reason::NoVersion)), (1, UNKNOWN)]),
            ],
        ),
        case(
            "TTL 1: one error, none about later ones",
            [
                packets([datagram(9).to(0, Reason::Placed)]),
                fragments(
                    big().ttl(1),
                    &CUTS,
                    [(0, Want::TimeExceeded), (1, Want::Dropped(Reason::TtlExceeded))],
                ),
                packets([response(9)]),
                fragments(
                    response(1400).ttl(1),
                    &CUTS,
                    [
                        (0, Want::Untouched(Reason::TtlExceeded)),
                        (1, Want::Untouched(Reason::TtlExceeded)),
                    ],
                ),
            ],
        ),
        case(
            "the kernel finds the way",
            [
                packets([datagram(9).to(0, Reason::Placed), response(9)]),
                vec![Step::Set(Setting::Way(Way::Kernel))],
                fragments(big(), &CUTS, [(0, Want::PinnedByKernel), (1, Want::PinnedByKernel)]),
                fragments(
                    response(1400),
                    &CUTS,
                    [(0, Want::RepliedByKernel), (1, Want::RepliedByKernel)],
                ),
            ],
        ),
        case(
            "fragments of what is not ours",
            [fragments(
                response(1400).from(11),
                &CUTS,
                [(0, Want::Untouched(Reason::NotOurFlow)), (1, UNKNOWN)],
            )],
        ),
        case(
            "one byte in the last fragment, odd lengths",
            [
                fragments(datagram(1017), &[1024], [(0, placed()), (1, AFTER)]),
                fragments(response(1019), &[16, 1024], [(0, Want::Replied), (1, BACK), (2, BACK)]),
            ],
        ),
    ];
    cases.extend(tcp_segments());
    cases.extend(modes());
    cases
}

/// A segment in fragments counts as a whole once its last fragment is there.
fn tcp_segments() -> Vec<Case> {
    let data = || client(ACK, C + 1, S + 1).data(1000);
    let numbers = |what: &'static str, check: fn(&release_common::abi::Flow) -> bool| {
        vec![Step::Check(0, what, check)]
    };
    vec![
        tcp(
            "a segment in fragments keeps the client's numbers right",
            [
                open(),
                fragments(data(), &[512], [(0, ON), (1, AFTER)]),
                numbers("as far as the last byte", |flow| flow.client.next == C + 1001),
                packets([server(ACK, S + 1, C + 1001), client(ACK, C + 1001, S + 1).data(7)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        tcp(
            "a segment in fragments keeps the server's numbers right",
            [
                open(),
                fragments(
                    server(ACK, S + 1, C + 1).data(1460),
                    &[48, 512, 1024],
                    [(0, Want::Replied), (1, BACK), (2, BACK), (3, BACK)],
                ),
                numbers("as far as the last byte", |flow| flow.server.next == S + 1461),
                packets([client(ACK, C + 1, S + 1461)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        tcp(
            "with TCP options",
            [
                open(),
                fragments(
                    data().options(vec![1; 12]),
                    &[64, 512],
                    [(0, ON), (1, AFTER), (2, AFTER)],
                ),
                numbers("as far as the last byte", |flow| flow.client.next == C + 1001),
            ],
        ),
        tcp(
            "fragments in disorder, and repeated",
            [
                open(),
                fragments(
                    data(),
                    &[64, 512],
                    [(0, ON), (2, AFTER), (1, AFTER), (2, AFTER), (0, ON)],
                ),
                numbers("as far as the last byte", |flow| flow.client.next == C + 1001),
                packets([server(ACK, S + 1, C + 1001)]),
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
        tcp(
            "an old segment repeated in fragments takes nothing back",
            [
                open(),
                packets([data(), client(ACK, C + 1001, S + 1).data(1000)]),
                fragments(data(), &[512], [(0, ON), (1, AFTER)]),
                numbers("as far as it was", |flow| flow.client.next == C + 2001),
            ],
        ),
        tcp(
            "a FIN at the end of a segment in fragments closes",
            [
                open(),
                fragments(client(FIN, C + 1, S + 1).data(1000), &[512], [(0, ON), (1, AFTER)]),
                packets([server(ACK, S + 1, C + 1002)]),
                vec![Step::Flow(0, FlowIs::HalfClosed)],
                fragments(
                    server(FIN, S + 1, C + 1002).data(1000),
                    &[512],
                    [(0, Want::Replied), (1, BACK)],
                ),
                packets([client(ACK, C + 1002, S + 1002)]),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
                counts([(Placed, 1), (Opened, 1), (ClosedFin, 1)]),
            ],
        ),
        tcp(
            "a FIN whose last fragment never came closes nothing",
            [
                open(),
                fragments(client(FIN, C + 1, S + 1).data(1000), &[512], [(0, ON)]),
                packets([client(ACK, C + 1, S + 1).data(1400), server(ACK, S + 1, C + 1401)]),
                vec![Step::Flow(0, FlowIs::Live)],
                counts([(Placed, 1), (Opened, 1)]),
            ],
        ),
    ]
}

fn modes() -> Vec<Case> {
    let all = |first| fragments(big(), &CUTS, [(0, first), (1, AFTER), (2, AFTER)]);
    let answer = || fragments(response(1400), &CUTS, [(0, Want::Replied), (1, BACK), (2, BACK)]);
    let known = || packets([datagram(9).to(0, Reason::Placed)]);
    let mut cases = vec![
        Case::new(CATEGORY, "mode snat", scene().snat(500), [known(), all(ON), answer()]),
        Case::new(CATEGORY, "mode local", scene().mode(mode::LOCAL), [known(), all(ON), answer()]),
    ];
    for (name, mode) in [("dsr", mode::DSR), ("ipip", mode::IPIP), ("gue", mode::GUE)] {
        let steps = [known(), all(ON)];
        cases.push(Case::new(CATEGORY, &format!("mode {name}"), scene().mode(mode), steps));
    }
    let mut stateless = scene().conversation(release_common::abi::conversation::DATAGRAM);
    stateless.frontends.truncate(1);
    let first = Want::To(0, Reason::Datagram);
    cases.push(Case::new(
        CATEGORY,
        "conversation datagram",
        stateless,
        [all(first), answer(), counts([(Datagrams, 1)])],
    ));
    cases
}
