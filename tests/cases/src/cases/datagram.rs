//! Conversation `datagram`: each goes by the ring in force, and nothing is kept.

use release_common::abi::{conversation, mode, refusal};
use release_common::pipeline::Counter::Datagrams;
use release_common::pipeline::Refusal::Empty;
use release_common::reason::Reason;

use super::script::{
    Case, EmbryoIs, FlowIs, Setting, Step, Want, counts, datagram, packets, refusals, response,
    shift,
};
use crate::model::Scene;

const CATEGORY: &str = "datagram";

fn scene() -> Scene {
    let mut scene = Scene::new(&[1, 0], 2).udp().conversation(conversation::DATAGRAM);
    scene.frontends.truncate(1);
    scene
}

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, scene(), steps)
}

fn to(version: usize) -> Vec<Step> {
    packets([datagram(20).to(version, Reason::Datagram)])
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "each by the ring in force, nothing kept",
            [
                to(0),
                to(0),
                vec![Step::Flow(0, FlowIs::None), Step::Embryo(0, EmbryoIs::None)],
                counts([(Datagrams, 2)]),
            ],
        ),
        case(
            "none to the old version after a shift",
            [
                to(0),
                shift([0, 1]),
                (0..60)
                    .flat_map(|n| packets([datagram(9).on(n + 2).to(1, Reason::Datagram)]))
                    .collect(),
                to(1),
                counts([(Datagrams, 62)]),
            ],
        ),
        case(
            "replies go to whoever asked, also those that come late",
            [
                to(0),
                packets([response(90), response(0)]),
                shift([0, 1]),
                packets([response(5).from(11), response(5).from(22)]),
                to(1),
                packets([response(5)]),
            ],
        ),
        case(
            "no checksum stays none",
            [packets([datagram(20).unchecked().to(0, Reason::Datagram), response(9).unchecked()])],
        ),
        case("TTL 1: time exceeded", [packets([datagram(20).ttl(1).want(Want::TimeExceeded)])]),
        case(
            "no version: port unreachable",
            [
                shift([0, 0]),
                packets([datagram(20).want(Want::Reset(Reason::NoVersion))]),
                refusals([(Empty, 1)]),
                counts([]),
            ],
        ),
        Case::new(
            CATEGORY,
            "no version: silence",
            scene().set(|service| service.when_empty = refusal::DROP),
            [shift([0, 0]), packets([datagram(20).want(Want::Dropped(Reason::NoVersion))])],
        ),
        case("a full flow table does not matter", [vec![Step::Set(Setting::TableFull)], to(0)]),
        case(
            "a frontend taken away is not ours",
            [
                to(0),
                vec![Step::Set(Setting::FrontendGone(0))],
                packets([datagram(20).want(Want::Untouched(Reason::NotOurAddress))]),
            ],
        ),
    ];
    for (name, mode) in [("dsr", mode::DSR), ("ipip", mode::IPIP), ("gue", mode::GUE)] {
        let steps = [to(0), shift([0, 1]), to(1), counts([(Datagrams, 2)])];
        cases.push(Case::new(CATEGORY, &format!("mode {name}"), scene().mode(mode), steps));
    }
    let steps = [to(0), packets([response(7)]), shift([0, 1]), to(1), packets([response(7)])];
    cases.push(Case::new(CATEGORY, "mode local", scene().mode(mode::LOCAL), steps));
    cases
}
