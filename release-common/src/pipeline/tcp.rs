//! Client → frontend, TCP.

use super::open::{Entry, Found, entries, entry, found, promote};
use super::place::{self, Target, to_embryo, to_flow};
use super::{Counter, Decision, FamilyTables, Inbound, count_step, look, trial};
use crate::abi::{Embryo, Flow, FlowKey, mode};
use crate::packet::{Headers, Ip, Packet, flag, window_scale};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::lifecycle::{Step, mark_restart};
use crate::tcp::word::{EmbryoPhase, EmbryoWord, End, FlowWord, Phase};

/// Furthest a handshake's last acknowledgement may be ahead of either SYN: what the other end can
/// have sent before it, with TCP Fast Open (RFC 7413), into a window that is not scaled yet.
const MAX_EARLY_DATA: u32 = 1 << 16;

/// What a packet means, given the entries under its key.
enum Case<'a> {
    /// Belongs to a flow.
    Tracked(Shared<'a, Flow>),
    /// A SYN on a live flow.
    Repeated(Shared<'a, Flow>),
    /// A SYN that begins a flow, or repeats its beginning.
    Begin(Option<Found<'a>>),
    /// Completes a handshake; replaces an entry if there is one.
    Completes(Found<'a>, Option<Entry<'a>>),
    /// Belongs to a handshake without completing it.
    Handshake(Found<'a>),
    /// Mid-flow without a flow.
    MidFlow(Option<Found<'a>>),
    /// Belongs nowhere.
    Nothing(Reason),
}

/// A packet to a port that some frontend uses, of a flow that is simply live; `None` if it is not.
#[inline(always)]
pub fn live<A: Ip, T: FamilyTables<A>>(tables: &T, segment: &Headers<A>) -> Option<Decision> {
    if segment.has(flag::SYN) {
        return None;
    }
    let key = segment.key_from_client();
    let (flow, word) = entry(tables, &key)?;
    if !word.is_live() || word.restart() {
        return None;
    }
    Some(tracked(tables, segment, &key, flow))
}

/// Handles a packet that [`live`] left.
#[inline(always)]
pub fn inbound<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    segment: &Headers<A>,
) -> Inbound {
    let key = segment.key_from_client();
    let key = tables.keep_key(&key);
    let (flow, embryo) = entries(tables, key);
    let known = flow.map(|(flow, _)| flow);
    let to = match place::target(tables, key, segment.has(flag::SYN), known, embryo) {
        Ok(to) => to,
        Err(none) => return none,
    };
    Inbound::Decided(match classify(segment, &to, flow, embryo) {
        Case::Tracked(flow) => tracked(tables, segment, key, flow),
        Case::Repeated(flow) => repeated(packet, tables, segment, &to, flow),
        Case::Begin(embryo) => match begin(tables, segment, &to, embryo) {
            Some(decision) => decision,
            None => return Inbound::Place,
        },
        Case::Completes(embryo, old) => promote(tables, segment, &to, embryo, old),
        Case::Handshake(embryo) => handshake(tables, segment, &to, embryo),
        Case::MidFlow(_) if mode::one_way(to.service.mode) => return Inbound::Place,
        Case::MidFlow(embryo) => trial::mid_flow(tables, segment, &to, embryo),
        Case::Nothing(reason) => Decision::drop(reason),
    })
}

/// Judges a packet that is not simply a live flow's.
#[inline(always)]
fn classify<'a, A: Ip>(
    segment: &Headers<A>,
    to: &Target<'_, A>,
    flow: Option<Entry<'a>>,
    embryo: Option<Found<'a>>,
) -> Case<'a> {
    if let Some((flow, word)) = flow {
        if matches!(word.phase(), Phase::Dead) {
            return Case::Nothing(Reason::DeadEntry);
        }
        if segment.has(flag::SYN) && segment.flags & (flag::FIN | flag::RST) != 0 {
            return Case::Nothing(Reason::BadFlags);
        }
        if segment.has(flag::SYN) && !segment.has(flag::ACK) {
            return if word.is_live() { Case::Repeated(flow) } else { Case::Begin(embryo) };
        }
        return match embryo {
            Some(embryo) if completes(to, embryo, segment) => {
                Case::Completes(embryo, Some((flow, word)))
            }
            Some(embryo) if aborts(embryo, segment, word) => Case::Handshake(embryo),
            // A new connection is taking the closed one's place at this very moment.
            Some((_, seen)) if matches!(seen.phase(), EmbryoPhase::Ended) && !word.is_live() => {
                Case::Nothing(Reason::EmbryoBusy)
            }
            _ => Case::Tracked(flow),
        };
    }
    if segment.has(flag::SYN) {
        if segment.flags & (flag::ACK | flag::FIN | flag::RST) != 0 {
            return Case::Nothing(Reason::BadFlags);
        }
        return Case::Begin(embryo);
    }
    if segment.flags & (flag::ACK | flag::RST) == 0 {
        return Case::Nothing(Reason::BadFlags);
    }
    let Some(embryo) = embryo else { return Case::MidFlow(None) };
    match embryo.1.phase() {
        EmbryoPhase::Ended => Case::Nothing(Reason::EmbryoBusy),
        EmbryoPhase::Trial => Case::MidFlow(Some(embryo)),
        _ if completes(to, embryo, segment) => Case::Completes(embryo, None),
        _ => Case::Handshake(embryo),
    }
}

/// Whether a segment is the acknowledgement that completes a handshake. In one-way modes the
/// instance's SYN-ACK does not pass here, and the client's word is all there is.
#[inline(always)]
fn completes<A: Ip>(to: &Target<'_, A>, (embryo, word): Found<'_>, segment: &Headers<A>) -> bool {
    let ahead = segment.seq.wrapping_sub(embryo.client_seq().get().wrapping_add(1));
    let early = segment.ack.wrapping_sub(word.server_seq().wrapping_add(1));
    let answered = match word.phase() {
        EmbryoPhase::SynAck => early < MAX_EARLY_DATA,
        EmbryoPhase::Syn => mode::one_way(to.service.mode),
        _ => false,
    };
    answered
        && segment.has(flag::ACK)
        && segment.flags & (flag::RST | flag::SYN) == 0
        && ahead < MAX_EARLY_DATA
        && to.reaches(segment)
}

/// Whether a segment is a RST of the client that is in a handshake, not in the `flow` under the same key.
/// If that is closed, so is the client's socket of it: the RST is of the new one, to whose SYN something
/// else was answered (RFC 9293 §3.10.7.3), as an instance does that has the tuple in TIME-WAIT.
#[inline(always)]
fn aborts<A: Ip>((embryo, word): Found<'_>, segment: &Headers<A>, flow: FlowWord) -> bool {
    matches!(word.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck)
        && segment.has(flag::RST)
        && (!flow.is_live() || segment.seq == embryo.client_seq().get().wrapping_add(1))
}

/// A packet of a flow that we have.
#[inline(always)]
fn tracked<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    key: &FlowKey<A>,
    flow: Shared<'_, Flow>,
) -> Decision {
    // A TTL used up means that the instance never sees the segment.
    let arrives = segment.ip.ttl > 1 || !FlowWord(flow.state().get()).routed();
    if !arrives || segment.has(flag::SYN) {
        return to_flow(flow, Reason::Forwarded);
    }
    let seen = look(tables, flow, End::Client, segment);
    if matches!(seen.step, Step::Answer) {
        return Decision::drop(Reason::ProbeAnswered);
    }
    count_step(tables, key, flow, End::Client, seen);
    to_flow(flow, Reason::Forwarded).of_segment(seen)
}

/// A packet of a handshake that does not complete it.
#[inline(always)]
fn handshake<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    embryo: Found<'_>,
) -> Decision {
    let decision = to_embryo(embryo, Reason::Forwarded);
    let in_sequence = segment.seq == embryo.0.client_seq().get().wrapping_add(1);
    if segment.has(flag::RST) && in_sequence && to.reaches(segment) {
        place::end_embryo(tables, to.key, embryo);
    } else {
        tables.count(decision.backend, Counter::Unverified);
    }
    decision
}

/// A SYN without a live flow: a repeated one stays with its handshake's instance, a new one is to be
/// placed (`None`).
#[inline(always)]
fn begin<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    embryo: Option<Found<'_>>,
) -> Option<Decision> {
    let embryo = embryo?;
    let same = embryo.0.client_seq().get() == segment.seq;
    match embryo.1.phase() {
        EmbryoPhase::Ended => Some(Decision::drop(Reason::EmbryoBusy)),
        EmbryoPhase::Syn | EmbryoPhase::SynAck if same => {
            Some(to_embryo(embryo, Reason::SynRepeated))
        }
        // Another attempt, or a mid-flow trial that is moot: the old one ends here.
        _ if place::end_embryo(tables, to.key, embryo) => None,
        _ => Some(Decision::drop(Reason::EmbryoBusy)),
    }
}

/// A SYN on a live flow stays with its instance. If that has lost the old connection it answers
/// with a SYN-ACK, and the embryo kept here becomes the flow that supersedes it. In one-way modes
/// that answer does not pass here, but the client's acknowledgement will.
#[inline(always)]
fn repeated<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    flow: Shared<'_, Flow>,
) -> Decision {
    let decision = to_flow(flow, Reason::SynRepeated);
    let word = FlowWord(flow.state().get());
    let copy = !word.fin_seen(End::Client) && flow.client().get().fin == segment.seq;
    if !to.reaches(segment) || copy {
        return decision;
    }
    if let Some(old) = found(tables, to.key) {
        // A handshake is never split, even if the old instance's traffic re-opened its flow.
        if old.0.client_seq().get() == segment.seq
            && matches!(old.1.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck)
        {
            return to_embryo(old, Reason::SynRepeated);
        }
        place::end_embryo(tables, to.key, old);
    }
    let embryo = Embryo {
        state: EmbryoWord::syn(tables.tag(), window_scale(packet, segment)).0,
        backend: decision.backend,
        generation: flow.generation().get(),
        created: tables.now() as u32,
        client_seq: segment.seq,
        snat: decision.snat,
        chosen_by: Counter::Trials as u32,
        syn_at: 0,
    };
    if tables.insert_embryo(to.key, &embryo).is_ok() {
        tables.count(decision.backend, Counter::Trials);
        // What follows is looked at with the embryo in mind.
        if mode::one_way(to.service.mode) {
            mark_restart(flow, word);
        }
    }
    decision
}
