//! Instance → client.

use super::place::end_embryo;
use super::{Counter, Decision, Seg, Tables, count_step, trial};
use crate::abi::{BackendRef, Embryo, Endpoint4, FRONTENDS_PER_SERVICE, Flow, FlowKey4, Service};
use crate::packet::{Packet, flag, window_scale};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::lifecycle::{Step, mark_restart, observe};
use crate::tcp::word::{EmbryoPhase, EmbryoWord, End, FlowWord, Phase};

/// Most data a SYN can carry.
const MAX_SYN_DATA: u32 = 65_535;

/// Handles a packet from a port that some instance uses.
#[inline(always)]
pub fn reply<P: Packet, T: Tables>(packet: &P, tables: &T, segment: Seg<'_>) -> Decision {
    let sender = Endpoint4::tcp(segment.source, segment.source_port);
    let Some(from) = tables.backend_at(&sender) else {
        return Decision::pass(Reason::NotOurAddress);
    };
    let Some(service) = tables.service(from.service) else {
        return Decision::drop(Reason::BrokenReference);
    };
    let who = Sender { from, endpoint: sender, service };
    // Entries are kept together with their frontend, not its place in the list: the verifier would
    // follow each place as a path of its own.
    let (mut live, mut closed) = (None, None);
    // The second pass finds a handshake that was promoted between the two look-ups.
    for _ in 0..2 {
        closed = None;
        for index in 0..FRONTENDS_PER_SERVICE {
            let Some(frontend) = who.frontend(index) else { break };
            if let Some(flow) = tables.flow(&who.key(segment, frontend))
                && who.is(tables, flow.backend().get())
            {
                match FlowWord(flow.state().get()).phase() {
                    Phase::Live => {
                        live = Some((frontend, flow));
                        break;
                    }
                    Phase::Dead => {}
                    Phase::ClosedFin | Phase::ClosedRst => closed = Some((frontend, flow)),
                }
            }
        }
        if live.is_some() {
            break;
        }
        // A closed flow is no hit while a new handshake is under way.
        for index in 0..FRONTENDS_PER_SERVICE {
            let Some(frontend) = who.frontend(index) else { break };
            let key = who.key(segment, frontend);
            if let Some(embryo) = tables.embryo(&key)
                && who.is(tables, embryo.backend().get())
            {
                return handshake(packet, tables, segment, &key, embryo, &who);
            }
        }
    }
    match live.or(closed) {
        Some((frontend, flow)) => {
            tracked(packet, tables, segment, &who.key(segment, frontend), flow, &who)
        }
        None => Decision::pass(Reason::NotOurFlow),
    }
}

/// The instance a packet came from, and its service.
struct Sender<'a> {
    from: BackendRef,
    endpoint: Endpoint4,
    service: &'a Service,
}

impl Sender<'_> {
    /// The `index`-th frontend of its service.
    #[inline(always)]
    fn frontend(&self, index: usize) -> Option<Endpoint4> {
        if index as u32 >= self.service.frontend_count {
            return None;
        }
        self.service.frontends.get(index).copied()
    }

    /// The key that a flow to a frontend would have.
    #[inline(always)]
    fn key(&self, segment: Seg<'_>, to: Endpoint4) -> FlowKey4 {
        FlowKey4::tcp(segment.destination, segment.destination_port, to.addr, to.port)
    }

    /// Whether instance `backend` is the sender: the same id, or an earlier id of its address.
    #[inline(always)]
    fn is<T: Tables>(&self, tables: &T, backend: u32) -> bool {
        backend == self.from.backend
            || tables.backend(backend).is_some_and(|entry| entry.endpoint() == self.endpoint)
    }
}

/// A packet of a flow that we have.
#[inline(always)]
fn tracked<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    segment: Seg<'_>,
    key: &FlowKey4,
    flow: Shared<'_, Flow>,
    who: &Sender<'_>,
) -> Decision {
    let word = FlowWord(flow.state().get());
    let live = word.is_live();
    if segment.has(flag::SYN) {
        // A connection that a client made to the instance itself, by the port of one it had here.
        if !live {
            return Decision::pass(Reason::NotOurFlow);
        }
        restarted(packet, tables, segment, key, (flow, word), who);
    } else if segment.ttl > 1 {
        let step = observe(flow, End::Server, segment, tables.now() as u32);
        count_step(tables, key, flow, step);
        if !live && matches!(step, Step::Unverified) {
            return Decision::pass(Reason::NotOurFlow);
        }
    }
    let frontend = Endpoint4::tcp(key.frontend, key.frontend_port);
    Decision::to_client(flow.backend().get(), frontend)
}

/// A SYN-ACK on a live flow that answers a new SYN of the client: the instance has lost the old
/// connection. The client's acknowledgement will begin the new one.
#[inline(always)]
fn restarted<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    segment: Seg<'_>,
    key: &FlowKey4,
    (flow, word): (Shared<'_, Flow>, FlowWord),
    who: &Sender<'_>,
) {
    let Some(embryo) = tables.embryo(key) else { return };
    if who.is(tables, embryo.backend().get()) && syn_acked(packet, segment, embryo) {
        mark_restart(flow, word);
    }
}

/// Takes the instance's SYN-ACK into the embryo. Returns whether it answers the client's SYN.
#[inline(always)]
fn syn_acked<P: Packet>(packet: &P, segment: Seg<'_>, embryo: Shared<'_, Embryo>) -> bool {
    let word = EmbryoWord(embryo.state().get());
    if !segment.has(flag::SYN | flag::ACK)
        || !acks_syn(segment, embryo)
        || !matches!(word.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck)
    {
        return false;
    }
    let answered = word.with_syn_ack(segment.seq, window_scale(packet, segment));
    answered == word || embryo.state().swap_if(word.0, answered.0)
}

/// Whether a segment acknowledges the client's SYN, with Fast Open (RFC 7413) its data too.
#[inline(always)]
fn acks_syn(segment: Seg<'_>, embryo: Shared<'_, Embryo>) -> bool {
    segment.ack.wrapping_sub(embryo.client_seq().get().wrapping_add(1)) <= MAX_SYN_DATA
}

/// The instance's answer to a handshake or to a mid-flow trial.
#[inline(always)]
fn handshake<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    segment: Seg<'_>,
    key: &FlowKey4,
    embryo: Shared<'_, Embryo>,
    who: &Sender<'_>,
) -> Decision {
    let word = EmbryoWord(embryo.state().get());
    let backend = embryo.backend().get();
    match word.phase() {
        EmbryoPhase::Ended => return Decision::drop(Reason::EmbryoBusy),
        EmbryoPhase::Trial => {
            return trial::answered(tables, segment, key, who.from.service, embryo);
        }
        EmbryoPhase::Syn | EmbryoPhase::SynAck => {
            let answers_syn = segment.has(flag::ACK) && acks_syn(segment, embryo);
            let in_sequence = matches!(word.phase(), EmbryoPhase::SynAck)
                && segment.seq == word.server_seq().wrapping_add(1);
            if segment.has(flag::RST) && segment.ttl > 1 && (answers_syn || in_sequence) {
                if end_embryo(tables, key, embryo, word) {
                    tables.count(backend, Counter::Refused);
                }
            } else if segment.has(flag::SYN) {
                syn_acked(packet, segment, embryo);
            } else if answers_syn
                && !segment.has(flag::RST)
                && segment.ttl > 1
                && tables.flow(key).is_none()
            {
                // It goes on talking: it has the connection, whatever we saw of the handshake.
                trial::adopt(tables, segment, key, who.from.service, embryo, word);
            } else {
                tables.count(backend, Counter::Unverified);
            }
        }
    }
    let frontend = Endpoint4::tcp(key.frontend, key.frontend_port);
    Decision::to_client(backend, frontend)
}
