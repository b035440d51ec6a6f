//! A packet's journey: parse → port filter → flow, embryo or new placement → lifecycle → rewrite →
//! way out.
//!
//! Everything is generic over [`Packet`] (memory), [`FamilyTables`] (maps, clock, routes) and the
//! address family. A decision is made in stages ([`Stage`]), then it is done ([`act`]): the kernel
//! has a program for each, so that the verifier need not follow every way through one stage through
//! all that may follow.
//!
//! * `tcp`, `udp` – client → frontend; `reply` – instance → client;
//! * `icmp` – errors about either; `fragment` – what has no transport header;
//! * `place` – where a new flow goes, with `session`, `snat`, `siblings`; `open` – how it comes to
//!   be, `adopt` – by its instance's word; `trial` – mid-flow packets without an entry;
//! * `deliver` – what is decided gets done, by mode.

mod adopt;
mod decision;
mod deliver;
mod fragment;
mod icmp;
mod open;
mod place;
mod reply;
mod session;
mod siblings;
mod snat;
mod steps;
mod tables;
mod tcp;
mod trial;
mod udp;

pub use decision::{Action, Decision, Outcome};
pub use deliver::{Roads, act, act_at_once, act_egress};
pub use snat::{KEPT as SNAT_KEPT_SECONDS, snat_key};
pub use tables::{
    Counter, FamilyTables, Hop, Insert, InsertError, Refusal, Route, Tables, Timed, Traffic,
};

use self::steps::{count_step, look};
use crate::packet::{self, Headers, Ip, Link, Packet};
use crate::reason::Reason;
use crate::tcp::word::EmbryoWord;

/// Handles one frame of family `A` that came in by an interface.
#[inline(always)]
pub fn process<A: Ip, P: Packet, T: FamilyTables<A> + Roads>(
    packet: &mut P,
    tables: &T,
    link: Link,
) -> Outcome {
    let headers = match packet::parse::<A, P>(packet, link) {
        Ok(headers) => headers,
        Err(reason) => return Outcome::pass(reason),
    };
    let mut next = first(packet, tables, &headers);
    loop {
        next = match next.stage {
            Stage::Decided => {
                return act_at_once(packet, tables, &headers, &next.decision)
                    .unwrap_or_else(|| act(packet, tables, &headers, &next.decision));
            }
            Stage::Tcp => tcp_stage(packet, tables, &headers),
            Stage::Udp => udp_stage(packet, tables, &headers),
            Stage::Place => place_stage(packet, tables, &headers),
            Stage::Siblings => siblings_stage(packet, tables, &headers),
            Stage::Reply => reply_stage(packet, tables, &headers),
            Stage::Answer => answer_stage(packet, tables, &headers),
            Stage::Adopt => adopt_stage(tables, &headers, &next.decision, next.embryo),
            Stage::Icmp => icmp_stage(packet, tables, &headers),
            Stage::Fragment => fragment_stage(packet, tables, &headers),
        };
    }
}

/// The stages of a decision. In the kernel each is a program of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stage {
    /// The decision stands.
    Decided = 0,
    /// TCP to a frontend's port, of no live flow.
    Tcp,
    /// UDP to a frontend's port, of no live flow.
    Udp,
    /// To a frontend, of no flow: a new one, or one that nothing is kept of.
    Place,
    /// To a frontend, of a flow just begun whose frontend has siblings.
    Siblings,
    /// From an instance's port.
    Reply,
    /// From an instance, of no live flow.
    Answer,
    /// From an instance, and proof that it has a conversation that is no flow yet.
    Adopt,
    /// ICMP.
    Icmp,
    /// A later fragment.
    Fragment,
}

/// What a stage says.
#[derive(Clone, Copy)]
pub struct Next {
    /// The stage that is next.
    pub stage: Stage,
    /// The decision, if it stands; before [`Stage::Adopt`]: what it will be.
    pub decision: Decision,
    /// Before [`Stage::Adopt`]: the embryo as it was found.
    pub embryo: EmbryoWord,
}

impl Next {
    #[inline(always)]
    fn stage(stage: Stage) -> Self {
        Self { stage, ..Self::of(Decision::pass(Reason::NotOurPort)) }
    }

    #[inline(always)]
    fn of(decision: Decision) -> Self {
        Self { stage: Stage::Decided, decision, embryo: EmbryoWord(0) }
    }

    /// The decision about a packet; others of the same datagram are to follow it.
    #[inline(always)]
    fn decided<A: Ip, T: FamilyTables<A>>(
        tables: &T,
        headers: &Headers<A>,
        decision: Decision,
    ) -> Self {
        if headers.is_first_fragment() {
            fragment::note(tables, headers, &decision);
        }
        Self::of(decision)
    }
}

/// First stage: what is not ours, and what belongs to a live flow from the client's side.
#[inline(always)]
pub fn first<A: Ip, P: Packet, T: FamilyTables<A>>(
    _packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    if headers.ip.fragment.is_later() {
        return Next::stage(Stage::Fragment);
    }
    if headers.ip.protocol == A::ICMP {
        return Next::stage(Stage::Icmp);
    }
    if tables.is_frontend_port(headers.destination_port) {
        let (live, stage) = if headers.is_tcp() {
            (tcp::live(tables, headers), Stage::Tcp)
        } else {
            (udp::live(tables, headers), Stage::Udp)
        };
        return match live {
            Some(decision) => Next::decided(tables, headers, decision),
            None => {
                tables.set_attempts(0);
                Next::stage(stage)
            }
        };
    }
    if tables.is_backend_port(headers.source_port) {
        return Next::stage(Stage::Reply);
    }
    Next::decided(tables, headers, Decision::pass(Reason::NotOurPort))
}

/// What a stage on the client's side may find.
enum Inbound {
    /// The decision.
    Decided(Decision),
    /// No flow: it is to be placed.
    Place,
    /// It is to no frontend of ours. It may still be from an instance.
    NotOurs,
}

#[inline(always)]
fn after_inbound<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    found: Inbound,
) -> Next {
    match found {
        Inbound::Decided(decision) => Next::decided(tables, headers, decision),
        Inbound::Place => Next::stage(Stage::Place),
        Inbound::NotOurs if tables.is_backend_port(headers.source_port) => {
            Next::stage(Stage::Reply)
        }
        Inbound::NotOurs => Next::decided(tables, headers, Decision::pass(Reason::NotOurAddress)),
    }
}

/// See [`Stage::Tcp`].
#[inline(always)]
pub fn tcp_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    after_inbound(tables, headers, tcp::inbound(packet, tables, headers))
}

/// See [`Stage::Udp`].
#[inline(always)]
pub fn udp_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    after_inbound(tables, headers, udp::inbound(packet, tables, headers))
}

/// See [`Stage::Place`].
#[inline(always)]
pub fn place_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    after_placing(tables, headers, place::begin(packet, tables, headers))
}

/// See [`Stage::Siblings`].
#[inline(always)]
pub fn siblings_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    _packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    after_placing(tables, headers, siblings::look(tables, headers))
}

#[inline(always)]
fn after_placing<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    placed: place::Placed,
) -> Next {
    match placed {
        place::Placed::Decided(decision) => Next::decided(tables, headers, decision),
        place::Placed::LookAtSiblings => Next::stage(Stage::Siblings),
        place::Placed::Again => Next::stage(Stage::Place),
    }
}

/// See [`Stage::Reply`].
#[inline(always)]
pub fn reply_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    _packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    match reply::live(tables, headers) {
        Some(decision) => Next::decided(tables, headers, decision),
        None => Next::stage(Stage::Answer),
    }
}

/// See [`Stage::Answer`].
#[inline(always)]
pub fn answer_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    match reply::answer(packet, tables, headers) {
        reply::Answered::Decided(decision) => Next::decided(tables, headers, decision),
        reply::Answered::Proven(decision, embryo) => Next { stage: Stage::Adopt, decision, embryo },
    }
}

/// See [`Stage::Adopt`].
#[inline(always)]
pub fn adopt_stage<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    decision: &Decision,
    embryo: EmbryoWord,
) -> Next {
    Next::decided(tables, headers, adopt::adopt(tables, headers, decision, embryo))
}

/// See [`Stage::Icmp`].
#[inline(always)]
pub fn icmp_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    Next::of(icmp::decide(packet, tables, headers))
}

/// See [`Stage::Fragment`].
#[inline(always)]
pub fn fragment_stage<A: Ip, P: Packet, T: FamilyTables<A>>(
    _packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    Next::of(fragment::follow(tables, headers))
}

/// First stage for what this host is about to send: replies of instances on it.
#[inline(always)]
pub fn first_egress<A: Ip, T: FamilyTables<A>>(tables: &T, headers: &Headers<A>) -> Next {
    if headers.ip.fragment.is_later() {
        return Next::stage(Stage::Fragment);
    }
    if headers.ip.protocol == A::ICMP {
        return Next::stage(Stage::Icmp);
    }
    if tables.is_backend_port(headers.source_port) {
        return Next::stage(Stage::Reply);
    }
    Next::decided(tables, headers, Decision::pass(Reason::NotOurPort))
}

/// [`Stage::Icmp`] for what this host is about to send.
#[inline(always)]
pub fn icmp_egress<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Next {
    Next::of(icmp::decide_egress(packet, tables, headers))
}

/// Handles one frame of family `A` that this host is about to send.
#[inline(always)]
pub fn process_egress<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &mut P,
    tables: &T,
    link: Link,
) -> Outcome {
    let headers = match packet::parse::<A, P>(packet, link) {
        Ok(headers) => headers,
        Err(reason) => return Outcome::pass(reason),
    };
    let mut next = first_egress(tables, &headers);
    loop {
        next = match next.stage {
            Stage::Reply => reply_stage(packet, tables, &headers),
            Stage::Answer => answer_stage(packet, tables, &headers),
            Stage::Adopt => adopt_stage(tables, &headers, &next.decision, next.embryo),
            Stage::Icmp => icmp_egress(packet, tables, &headers),
            Stage::Fragment => fragment_stage(packet, tables, &headers),
            _ => return act_egress(packet, tables, &headers, &next.decision),
        };
    }
}
