//! Client → frontend.

use super::promote::promote;
use super::{Counter, Decision, Seg, Tables, count_step, place, trial};
use crate::abi::{Embryo, Endpoint4, Flow, FlowKey4};
use crate::packet::{Packet, flag, window_scale};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::lifecycle::observe;
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
    Begin(Option<Shared<'a, Embryo>>),
    /// Completes a handshake; replaces an entry if there is one.
    Completes(Shared<'a, Embryo>, EmbryoWord, Option<(Shared<'a, Flow>, FlowWord)>),
    /// Belongs to a handshake without completing it.
    Handshake(Shared<'a, Embryo>),
    /// Mid-flow without a flow.
    MidFlow(Option<Shared<'a, Embryo>>),
    /// Belongs nowhere.
    Nothing(Reason),
}

/// Handles a packet to a port that some frontend uses. `None`: to no frontend of ours.
#[inline(always)]
pub fn inbound<P: Packet, T: Tables>(packet: &P, tables: &T, segment: Seg<'_>) -> Option<Decision> {
    let key = segment.key_from_client();
    let flow = tables.flow(&key);
    // Read once: everything that follows is about this incarnation of the element.
    let word = flow.map(|flow| FlowWord(flow.state().get()));
    if let (Some(flow), Some(word)) = (flow, word)
        && word.is_live()
        && !word.restart()
        && !segment.has(flag::SYN)
    {
        return Some(tracked(tables, segment, &key, flow));
    }
    let frontend = tables.frontend(&Endpoint4::tcp(key.frontend, key.frontend_port));
    let embryo = tables.embryo(&key);
    let service_id = match frontend {
        Some(frontend) => frontend.service,
        // A frontend that was taken away keeps its flows and handshakes; nothing begins there.
        None if segment.has(flag::SYN) => return None,
        None => {
            let of_flow = flow.map(|flow| flow.backend().get());
            let owner = of_flow.or(embryo.map(|embryo| embryo.backend().get()))?;
            tables.backend(owner)?.service
        }
    };
    let Some(service) = tables.service(service_id) else {
        return Some(Decision::drop(Reason::BrokenReference));
    };
    let to = place::Target { key, service_id, service };
    // A handshake that was promoted between the two look-ups is a flow by now, maybe in place of a
    // closed one.
    let (flow, word) = if embryo.is_none() {
        let flow = tables.flow(&key);
        (flow, flow.map(|flow| FlowWord(flow.state().get())))
    } else {
        (flow, word)
    };
    Some(match classify(segment, flow.zip(word), embryo) {
        Case::Tracked(flow) => tracked(tables, segment, &key, flow),
        Case::Repeated(flow) => repeated(packet, tables, segment, &to, flow),
        Case::Begin(embryo) => begin(packet, tables, segment, &to, embryo),
        Case::Completes(embryo, word, old) => promote(tables, segment, &to, embryo, word, old),
        Case::Handshake(embryo) => handshake(tables, segment, &to, embryo),
        Case::MidFlow(embryo) => trial::mid_flow(tables, segment, &to, embryo),
        Case::Nothing(reason) => Decision::drop(reason),
    })
}

/// Judges a packet that is not simply a live flow's.
#[inline(always)]
fn classify<'a>(
    segment: Seg<'_>,
    flow: Option<(Shared<'a, Flow>, FlowWord)>,
    embryo: Option<Shared<'a, Embryo>>,
) -> Case<'a> {
    let embryo = embryo.map(|embryo| (embryo, EmbryoWord(embryo.state().get())));
    if let Some((flow, word)) = flow {
        if matches!(word.phase(), Phase::Dead) {
            return Case::Nothing(Reason::DeadEntry);
        }
        if segment.has(flag::SYN) && segment.flags & (flag::FIN | flag::RST) != 0 {
            return Case::Nothing(Reason::BadFlags);
        }
        if segment.has(flag::SYN) && !segment.has(flag::ACK) {
            return if word.is_live() {
                Case::Repeated(flow)
            } else {
                Case::Begin(embryo.map(|(embryo, _)| embryo))
            };
        }
        return match embryo {
            Some((embryo, seen)) if completes(embryo, seen, segment) => {
                Case::Completes(embryo, seen, Some((flow, word)))
            }
            Some((embryo, seen)) if aborts(embryo, seen, segment) => Case::Handshake(embryo),
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
        return Case::Begin(embryo.map(|(embryo, _)| embryo));
    }
    if segment.flags & (flag::ACK | flag::RST) == 0 {
        return Case::Nothing(Reason::BadFlags);
    }
    let Some((embryo, seen)) = embryo else { return Case::MidFlow(None) };
    match seen.phase() {
        EmbryoPhase::Ended => Case::Nothing(Reason::EmbryoBusy),
        EmbryoPhase::Trial => Case::MidFlow(Some(embryo)),
        _ if completes(embryo, seen, segment) => Case::Completes(embryo, seen, None),
        _ => Case::Handshake(embryo),
    }
}

/// Whether a segment is the acknowledgement that completes a handshake.
#[inline(always)]
fn completes(embryo: Shared<'_, Embryo>, word: EmbryoWord, segment: Seg<'_>) -> bool {
    let ahead = segment.seq.wrapping_sub(embryo.client_seq().get().wrapping_add(1));
    let early = segment.ack.wrapping_sub(word.server_seq().wrapping_add(1));
    matches!(word.phase(), EmbryoPhase::SynAck)
        && segment.has(flag::ACK)
        && segment.flags & (flag::RST | flag::SYN) == 0
        && ahead < MAX_EARLY_DATA
        && early < MAX_EARLY_DATA
        && segment.ttl > 1
}

/// Whether a segment is the client's RST of a handshake.
#[inline(always)]
fn aborts(embryo: Shared<'_, Embryo>, word: EmbryoWord, segment: Seg<'_>) -> bool {
    matches!(word.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck)
        && segment.has(flag::RST)
        && segment.seq == embryo.client_seq().get().wrapping_add(1)
}

/// A packet of a flow that we have.
#[inline(always)]
fn tracked<T: Tables>(
    tables: &T,
    segment: Seg<'_>,
    key: &FlowKey4,
    flow: Shared<'_, Flow>,
) -> Decision {
    // A TTL used up means that the instance never sees the segment.
    if segment.ttl > 1 && !segment.has(flag::SYN) {
        let step = observe(flow, End::Client, segment, tables.now() as u32);
        count_step(tables, key, flow, step);
    }
    Decision::to_backend(flow.backend().get(), Reason::Forwarded)
}

/// A packet of a handshake that does not complete it.
#[inline(always)]
fn handshake<T: Tables>(
    tables: &T,
    segment: Seg<'_>,
    to: &place::Target<'_>,
    embryo: Shared<'_, Embryo>,
) -> Decision {
    let backend = embryo.backend().get();
    let in_sequence = segment.seq == embryo.client_seq().get().wrapping_add(1);
    if segment.has(flag::RST) && in_sequence && segment.ttl > 1 {
        place::end_embryo(tables, &to.key, embryo, EmbryoWord(embryo.state().get()));
    } else {
        tables.count(backend, Counter::Unverified);
    }
    Decision::to_backend(backend, Reason::Forwarded)
}

/// A SYN without a live flow: a repeated one stays with its handshake's instance, a new one is
/// placed by the split in force.
#[inline(always)]
fn begin<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    segment: Seg<'_>,
    to: &place::Target<'_>,
    embryo: Option<Shared<'_, Embryo>>,
) -> Decision {
    if let Some(embryo) = embryo {
        let word = EmbryoWord(embryo.state().get());
        let same = embryo.client_seq().get() == segment.seq;
        match word.phase() {
            EmbryoPhase::Ended => return Decision::drop(Reason::EmbryoBusy),
            EmbryoPhase::Syn | EmbryoPhase::SynAck if same => {
                let backend = embryo.backend().get();
                return Decision::to_backend(backend, Reason::SynRepeated);
            }
            // Another attempt, or a mid-flow trial that is moot: the old one ends here.
            _ => {
                if !place::end_embryo(tables, &to.key, embryo, word) {
                    return Decision::drop(Reason::EmbryoBusy);
                }
            }
        }
    }
    place::place(packet, tables, segment, to)
}

/// A SYN on a live flow stays with its instance. If that has lost the old connection it answers
/// with a SYN-ACK, and the embryo kept here becomes the flow that supersedes it.
#[inline(always)]
fn repeated<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    segment: Seg<'_>,
    to: &place::Target<'_>,
    flow: Shared<'_, Flow>,
) -> Decision {
    let backend = flow.backend().get();
    let copy = !FlowWord(flow.state().get()).fin_seen(End::Client)
        && flow.client().get().fin == segment.seq;
    if segment.ttl <= 1 || copy {
        return Decision::to_backend(backend, Reason::SynRepeated);
    }
    if let Some(old) = tables.embryo(&to.key) {
        let word = EmbryoWord(old.state().get());
        // A handshake is never split, even if the old instance's traffic re-opened its flow.
        if old.client_seq().get() == segment.seq
            && matches!(word.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck)
        {
            return Decision::to_backend(old.backend().get(), Reason::SynRepeated);
        }
        place::end_embryo(tables, &to.key, old, word);
    }
    let embryo = Embryo {
        state: EmbryoWord::syn(tables.tag(), window_scale(packet, segment)).0,
        backend,
        generation: flow.generation().get(),
        created: tables.now() as u32,
        client_seq: segment.seq,
    };
    if tables.insert_embryo(&to.key, &embryo).is_ok() {
        tables.count(backend, Counter::Trials);
    }
    Decision::to_backend(backend, Reason::SynRepeated)
}
