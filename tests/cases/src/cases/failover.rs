//! Mid-flow packets without an entry: asked of each version in turn.

use release_common::pipeline::Counter::{
    Adopted, ClosedFin, ClosedRst, EmbryosEnded, Placed, Trials,
};
use release_common::reason::Reason;

use super::script::{C, Case, EmbryoIs, FlowIs, S, Step, Want, client, counts, packets, server};
use crate::frames::flags;
use crate::model::Scene;

const CATEGORY: &str = "failover";
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const RST: u8 = flags::RST;

fn case(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), steps)
}

fn three(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[0, 1, 0], 2), steps)
}

/// A client's data packet in the middle of a connection.
fn data() -> super::script::Packet {
    client(ACK, C + 1, S + 1).data(100)
}

/// The instance does not know the connection.
fn not_mine() -> super::script::Packet {
    server(RST, S + 1, 0).want(Want::Dropped(Reason::TrialRefused))
}

fn live() -> Vec<Step> {
    vec![Step::Flow(0, FlowIs::Live), Step::Embryo(0, EmbryoIs::None)]
}

/// The table.
pub fn cases() -> Vec<Case> {
    vec![
        case(
            "the first version answers: adopted",
            [
                packets([data().to(0, Reason::Tried)]),
                vec![Step::Embryo(0, EmbryoIs::Trial), Step::Flow(0, FlowIs::None)],
                packets([server(ACK, S + 1, C + 101)]),
                live(),
                packets([client(ACK, C + 101, S + 1).data(5), server(ACK, S + 1, C + 106).data(7)]),
                counts([(Trials, 1), (Adopted, 1)]),
            ],
        ),
        case(
            "the first version refuses, the second answers",
            [
                packets([data().to(0, Reason::Tried), not_mine()]),
                vec![Step::Flow(0, FlowIs::None)],
                packets([data().to(1, Reason::Tried), server(ACK, S + 1, C + 101).data(30)]),
                live(),
                counts([(Trials, 2), (EmbryosEnded, 1), (Adopted, 1)]),
            ],
        ),
        three(
            "the version with weight is asked first, then the others in order",
            [
                packets([data().to(1, Reason::Tried), not_mine()]),
                packets([data().to(0, Reason::Tried), not_mine()]),
                packets([data().to(2, Reason::Tried), server(ACK, S + 1, C + 101)]),
                live(),
                counts([(Trials, 3), (EmbryosEnded, 2), (Adopted, 1)]),
            ],
        ),
        three(
            "all versions refuse: the client gets the RST",
            [
                packets([data().to(1, Reason::Tried), not_mine()]),
                packets([data().to(0, Reason::Tried), not_mine()]),
                packets([data().to(2, Reason::Tried), server(RST, S + 1, 0)]),
                vec![Step::Flow(0, FlowIs::None), Step::Embryo(0, EmbryoIs::None)],
                counts([(Trials, 3), (EmbryosEnded, 3)]),
            ],
        ),
        Case::new(
            CATEGORY,
            "a version without instances is not asked",
            {
                let mut scene = Scene::new(&[0, 1, 0], 2);
                scene.versions[0].instances.clear();
                scene
            },
            [
                packets([data().to(1, Reason::Tried), not_mine()]),
                packets([data().to(2, Reason::Tried), server(RST, S + 1, 0)]),
            ],
        ),
        case(
            "no version has weight: asked all the same",
            [
                vec![Step::Shift(vec![0, 0])],
                packets([data().to(0, Reason::Tried), server(ACK, S + 1, C + 101)]),
                live(),
            ],
        ),
        case(
            "several packets in flight, several RSTs: one version is asked at a time",
            [
                packets([data().to(0, Reason::Tried)]),
                packets([client(ACK, C + 101, S + 1).data(100).pinned(Reason::Tried)]),
                packets([not_mine(), not_mine()]),
                packets([data().to(1, Reason::Tried)]),
                packets([server(RST, S + 1, 0).from(11).want(Want::Untouched(Reason::NotOurFlow))]),
                packets([server(ACK, S + 1, C + 101)]),
                live(),
            ],
        ),
        case(
            "packets of a trial out of order: what the server acknowledges was sent",
            [
                packets([data().to(0, Reason::Tried)]),
                packets([client(ACK, C + 101, S + 1).data(100).pinned(Reason::Tried)]),
                packets([data().pinned(Reason::Tried)]),
                packets([server(ACK, S + 1, C + 201), server(ACK, S + 1, C + 201).data(9)]),
                packets([client(RST, C + 201, 0)]),
                vec![Step::Flow(0, FlowIs::ClosedRst)],
                counts([(Trials, 1), (Adopted, 1), (ClosedRst, 1)]),
            ],
        ),
        case(
            "an adopted flow closes by FINs",
            [
                packets([data().to(0, Reason::Tried), server(ACK, S + 1, C + 101)]),
                packets([client(FIN, C + 101, S + 1), server(FIN, S + 1, C + 102)]),
                packets([client(ACK, C + 102, S + 2)]),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
                counts([(Trials, 1), (Adopted, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "adopted by the client's FIN: closes",
            [
                packets([client(FIN, C + 1, S + 1).to(0, Reason::Tried)]),
                packets([server(ACK, S + 1, C + 2)]),
                vec![Step::Flow(0, FlowIs::HalfClosed)],
                packets([server(FIN, S + 1, C + 2), client(ACK, C + 2, S + 2)]),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
                counts([(Trials, 1), (Adopted, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "adopted by the server's FIN: closes",
            [
                packets([data().to(0, Reason::Tried), server(FIN, S + 1, C + 101)]),
                packets([client(ACK, C + 101, S + 2)]),
                vec![Step::Flow(0, FlowIs::HalfClosed)],
                packets([client(FIN, C + 101, S + 2), server(ACK, S + 2, C + 102)]),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
                counts([(Trials, 1), (Adopted, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "adopted by FIN and FIN-ACK: closes",
            [
                packets([client(FIN, C + 1, S + 1).to(0, Reason::Tried)]),
                packets([server(FIN, S + 1, C + 2), client(ACK, C + 2, S + 2)]),
                vec![Step::Flow(0, FlowIs::ClosedFin)],
                counts([(Trials, 1), (Adopted, 1), (ClosedFin, 1)]),
            ],
        ),
        case(
            "an adopted flow closes by an exact RST",
            [
                packets([data().to(0, Reason::Tried), server(ACK, S + 1, C + 101).data(20)]),
                packets([client(RST, C + 101, 0)]),
                vec![Step::Flow(0, FlowIs::ClosedRst)],
                counts([(Trials, 1), (Adopted, 1), (ClosedRst, 1)]),
            ],
        ),
        case(
            "a mid-flow RST decides nothing and creates nothing",
            [
                packets([client(RST, C + 1, 0).to(0, Reason::Tried)]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::None)],
                counts([]),
            ],
        ),
        case(
            "a mid-flow packet whose TTL ends here creates nothing",
            [
                packets([data().ttl(1).want(Want::TimeExceeded)]),
                vec![Step::Embryo(0, EmbryoIs::None), Step::Flow(0, FlowIs::None)],
                counts([]),
            ],
        ),
        case(
            "a SYN whose TTL ends here creates nothing",
            [
                packets([client(flags::SYN, C, 0).ttl(1).want(Want::TimeExceeded)]),
                vec![Step::Embryo(0, EmbryoIs::None)],
                counts([]),
            ],
        ),
        case(
            "SYN on a trial begins anew",
            [
                packets([data().to(0, Reason::Tried)]),
                vec![Step::Shift(vec![0, 1])],
                packets([client(flags::SYN, C, 0).to(1, Reason::Placed)]),
                vec![Step::Embryo(0, EmbryoIs::Syn)],
                counts([(Trials, 1), (EmbryosEnded, 1), (Placed, 1)]),
            ],
        ),
        case(
            "a trial stays with its instance across a shift",
            [
                packets([data().to(0, Reason::Tried)]),
                vec![Step::Shift(vec![0, 1])],
                packets([data().pinned(Reason::Tried), server(ACK, S + 1, C + 101)]),
                live(),
                packets([client(ACK, C + 101, S + 1).data(5)]),
            ],
        ),
    ]
}
