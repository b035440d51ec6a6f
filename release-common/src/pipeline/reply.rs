//! Instance → client.

use super::open::{Found, found};
use super::place::{Target, end_embryo};
use super::{Counter, Decision, FamilyTables, Timed, count_step, look, trial, udp};
use crate::abi::{
    Be16, Embryo, Endpoint, FRONTENDS_PER_FAMILY, Flow, FlowKey, FrontendRef, IPPROTO_UDP, Service,
    SnatKey, SnatSource, conversation, mode,
};
use crate::packet::{Headers, Ip, Packet, flag, window_scale};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::lifecycle::{Step, mark_restart};
use crate::tcp::word::{EmbryoPhase, EmbryoWord, End, FlowWord, Phase};

/// Most data a SYN can carry.
const MAX_SYN_DATA: u32 = 65_535;

/// A packet from a port that some instance uses, of a flow that is simply live; `None` if it is not.
#[inline(always)]
pub fn live<A: Ip, T: FamilyTables<A>>(tables: &T, headers: &Headers<A>) -> Option<Decision> {
    let who = match sender(tables, headers.source(), headers.destination()) {
        Ok(who) => who,
        Err(reason) => return Some(Decision::pass(reason)),
    };
    if who.service.conversation == conversation::DATAGRAM && headers.ip.protocol == IPPROTO_UDP {
        return Some(stateless(tables, &who));
    }
    if headers.is_tcp() && headers.has(flag::SYN) {
        return None;
    }
    for index in 0..FRONTENDS_PER_FAMILY {
        let frontend = who.frontend(index)?;
        let key = FlowKey::between(who.client, frontend);
        if frontend.proto == who.instance.proto
            && let Some(flow) = tables.flow(&key)
            && who.is(tables, flow.backend().get(), flow.snat().get())
            && FlowWord(flow.state().get()).is_live()
        {
            let decision = to_client(tables, &key, flow.backend().get());
            if !headers.is_tcp() {
                udp::touch(tables, flow, FlowWord(flow.state().get()), true);
            } else if headers.ip.ttl > 1 || !mode::routed(who.service.mode) {
                let seen = look(tables, flow, End::Server, headers);
                if matches!(seen.step, Step::Answer) {
                    return Some(Decision::drop(Reason::ProbeAnswered));
                }
                count_step(tables, &key, flow, End::Server, seen);
                return Some(decision.of_segment(seen));
            }
            return Some(decision);
        }
    }
    None
}

/// What a packet that [`live`] left leads to.
pub enum Answered {
    /// The decision.
    Decided(Decision),
    /// The instance has a conversation that is no flow yet, see [`super::adopt`]: what becomes of
    /// the packet then, and the embryo as it was found.
    Proven(Decision, EmbryoWord),
}

/// Handles a packet that [`live`] left.
#[inline(always)]
pub fn answer<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Answered {
    let who = match sender(tables, headers.source(), headers.destination()) {
        Ok(who) => who,
        Err(reason) => return Answered::Decided(Decision::pass(reason)),
    };
    let Some((frontend, entry)) = find(tables, &who) else {
        return Answered::Decided(Decision::pass(Reason::NotOurFlow));
    };
    let key = FlowKey::between(who.client, frontend);
    let at = FrontendRef { service: who.service_id, ring: 0 };
    let to = Target::new(tables.keep_key(&key), at, who.service);
    let decision = match entry {
        Conversation::Flow(flow) if headers.is_tcp() => {
            tracked(packet, tables, headers, &to, flow, &who)
        }
        Conversation::Flow(flow) => {
            udp::touch(tables, flow, FlowWord(flow.state().get()), true);
            to_client(tables, to.key, flow.backend().get())
        }
        Conversation::Embryo((embryo, word)) => {
            let decision = to_client(tables, to.key, embryo.backend().get());
            match handshake(packet, tables, headers, &to, (embryo, word)) {
                Handshake::Goes => decision,
                Handshake::Proven => return Answered::Proven(decision, word),
                Handshake::Stops(reason) => Decision::drop(reason),
            }
        }
    };
    Answered::Decided(decision)
}

/// What an instance's packet means for a handshake, a trial or a first datagram.
pub enum Handshake {
    /// It goes to the client, and the embryo stays what it is, or is gone.
    Goes,
    /// It goes to the client, and proves that the instance has the conversation.
    Proven,
    /// It goes nowhere.
    Stops(Reason),
}

/// To the client of a flow, as if from its frontend.
#[inline(always)]
pub fn to_client<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    backend: u32,
) -> Decision {
    Decision::to_client(tables, key, backend, Reason::Replied)
}

/// An instance that sends, and its service.
pub struct Sender<'a, A> {
    /// Where it sends from.
    pub instance: Endpoint<A>,
    /// The client that it sends to.
    pub client: Endpoint<A>,
    /// One of the ids of the instance.
    pub backend: u32,
    /// Its service's id.
    pub service_id: u32,
    /// Its service.
    pub service: &'a Service,
    /// Mode `snat`: the only frontend it can be about, and the port that stands for the client's.
    only: Endpoint<A>,
    snat_port: Be16,
}

impl<A: Ip> Sender<'_, A> {
    /// The `index`-th frontend that it may be about.
    #[inline(always)]
    fn frontend(&self, index: usize) -> Option<Endpoint<A>> {
        if self.snat_port == Be16(0) {
            return self.service.frontend::<A>(index);
        }
        if index == 0 { Some(self.only) } else { None }
    }

    /// Whether instance `backend`, behind this translated source, is the sender: the same id, or
    /// another id of its address.
    #[inline(always)]
    fn is<T: FamilyTables<A>>(&self, tables: &T, backend: u32, snat: SnatSource) -> bool {
        snat.port == self.snat_port
            && (backend == self.backend
                || tables
                    .backend(backend)
                    .is_some_and(|entry| entry.endpoint::<A>(self.instance.proto) == self.instance))
    }
}

/// Whose packet it is that goes from `instance` to `receiver`.
///
/// # Errors
/// The reason to leave the packet alone.
#[inline(always)]
pub fn sender<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    instance: Endpoint<A>,
    receiver: Endpoint<A>,
) -> Result<Sender<'_, A>, Reason> {
    let (mut client, mut only, mut snat_port) = (receiver, instance, Be16(0));
    let (backend, service_id) = match tables.backend_at(&instance) {
        Some(from) => (from.backend, from.service),
        None => {
            let key = SnatKey {
                source: receiver.addr,
                instance: instance.addr,
                source_port: receiver.port,
                instance_port: instance.port,
                proto: instance.proto,
                pad: 0,
                pad_end: 0,
            };
            let of = tables.snat_owner(&key).ok_or(Reason::NotOurAddress)?;
            let entry = tables.backend(of.backend).ok_or(Reason::BrokenReference)?;
            (client, only, snat_port) = (of.key.client(), of.key.frontend(), receiver.port);
            (of.backend, entry.service)
        }
    };
    let service = tables.service(service_id).ok_or(Reason::BrokenReference)?;
    Ok(Sender { instance, client, backend, service_id, service, only, snat_port })
}

/// An entry of one of the two tables.
#[derive(Clone, Copy)]
pub enum Conversation<'a> {
    /// A flow.
    Flow(Shared<'a, Flow>),
    /// An embryo.
    Embryo(Found<'a>),
}

/// Finds the flow or embryo that a packet of an instance belongs to, and its frontend: a live flow,
/// else an embryo, else a closed flow.
#[inline(always)]
pub fn find<'a, A: Ip, T: FamilyTables<A>>(
    tables: &'a T,
    who: &Sender<'_, A>,
) -> Option<(Endpoint<A>, Conversation<'a>)> {
    // Entries are kept together with their frontend, not its place in the list: the verifier would
    // follow each place as a path of its own.
    let mut closed = None;
    // The second pass finds a handshake that was promoted between the two look-ups.
    for _ in 0..2 {
        closed = None;
        for index in 0..FRONTENDS_PER_FAMILY {
            let Some(frontend) = who.frontend(index) else { break };
            if frontend.proto == who.instance.proto
                && let Some(flow) = tables.flow(&FlowKey::between(who.client, frontend))
                && who.is(tables, flow.backend().get(), flow.snat().get())
            {
                match FlowWord(flow.state().get()).phase() {
                    Phase::Live => return Some((frontend, Conversation::Flow(flow))),
                    Phase::Dead => {}
                    Phase::ClosedFin | Phase::ClosedRst => closed = Some((frontend, flow)),
                }
            }
        }
        // A closed flow is no hit while a new handshake is under way.
        for index in 0..FRONTENDS_PER_FAMILY {
            let Some(frontend) = who.frontend(index) else { break };
            if frontend.proto == who.instance.proto
                && let Some(embryo) = found(tables, &FlowKey::between(who.client, frontend))
                && who.is(tables, embryo.0.backend().get(), embryo.0.snat().get())
            {
                return Some((frontend, Conversation::Embryo(embryo)));
            }
        }
    }
    let (frontend, flow) = closed?;
    Some((frontend, Conversation::Flow(flow)))
}

/// Conversation `datagram`: the service has one UDP frontend of this family.
#[inline(always)]
pub fn stateless<A: Ip, T: FamilyTables<A>>(tables: &T, who: &Sender<'_, A>) -> Decision {
    for index in 0..FRONTENDS_PER_FAMILY {
        let Some(frontend) = who.service.frontend::<A>(index) else { break };
        if frontend.proto == IPPROTO_UDP {
            return to_client(tables, &FlowKey::between(who.client, frontend), who.backend);
        }
    }
    Decision::pass(Reason::NotOurFlow)
}

/// A segment of a flow that we have.
#[inline(always)]
fn tracked<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    flow: Shared<'_, Flow>,
    who: &Sender<'_, A>,
) -> Decision {
    let word = FlowWord(flow.state().get());
    let live = word.is_live();
    let decision = to_client(tables, to.key, flow.backend().get());
    if segment.has(flag::SYN) {
        // A connection that a client made to the instance itself, by the port of one it had here.
        if !live {
            return Decision::pass(Reason::NotOurFlow);
        }
        restarted(packet, tables, segment, to.key, (flow, word), who);
    } else if to.reaches(segment) {
        let seen = look(tables, flow, End::Server, segment);
        count_step(tables, to.key, flow, End::Server, seen);
        if !live && matches!(seen.step, Step::Unverified) {
            return Decision::pass(Reason::NotOurFlow);
        }
        return decision.of_segment(seen);
    }
    decision
}

/// A SYN-ACK on a live flow that answers a new SYN of the client: the instance has lost the old
/// connection. The client's acknowledgement will begin the new one.
#[inline(always)]
fn restarted<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    segment: &Headers<A>,
    key: &FlowKey<A>,
    (flow, word): (Shared<'_, Flow>, FlowWord),
    who: &Sender<'_, A>,
) {
    let Some(embryo) = found(tables, key) else { return };
    if who.is(tables, embryo.0.backend().get(), embryo.0.snat().get())
        && syn_acked(packet, tables, segment, embryo)
    {
        mark_restart(flow, word);
    }
}

/// Takes the instance's SYN-ACK into the embryo. Returns whether it answers the client's SYN.
#[inline(always)]
fn syn_acked<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    segment: &Headers<A>,
    (embryo, word): Found<'_>,
) -> bool {
    if !segment.has(flag::SYN | flag::ACK)
        || !acks_syn(segment, embryo)
        || !matches!(word.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck)
    {
        return false;
    }
    let (backend, since) = (embryo.backend().get(), embryo.syn_at().get());
    let answered = word.with_syn_ack(segment.seq, window_scale(packet, segment));
    if answered == word {
        return true;
    }
    if !embryo.state().swap_if(word.0, answered.0) {
        return false;
    }
    if T::MEASURES && word.waits() {
        let took = tables.nanoseconds().saturating_sub(since);
        tables.took(backend, Timed::Connect, took);
    }
    true
}

/// Whether a segment acknowledges the client's SYN, with Fast Open (RFC 7413) its data too.
#[inline(always)]
fn acks_syn<A: Ip>(segment: &Headers<A>, embryo: Shared<'_, Embryo>) -> bool {
    segment.ack.wrapping_sub(embryo.client_seq().get().wrapping_add(1)) <= MAX_SYN_DATA
}

/// The instance's answer to a handshake, to a mid-flow trial or to a first datagram.
#[inline(always)]
fn handshake<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    (embryo, word): Found<'_>,
) -> Handshake {
    match word.phase() {
        EmbryoPhase::Ended => return Handshake::Stops(Reason::EmbryoBusy),
        _ if !segment.is_tcp() => return Handshake::Proven,
        EmbryoPhase::Trial => return trial::answered(tables, segment, to, (embryo, word)),
        EmbryoPhase::Syn | EmbryoPhase::SynAck => {}
    }
    let backend = embryo.backend().get();
    let answers_syn = segment.has(flag::ACK) && acks_syn(segment, embryo);
    let in_sequence = matches!(word.phase(), EmbryoPhase::SynAck)
        && segment.seq == word.server_seq().wrapping_add(1);
    if segment.has(flag::RST) && to.reaches(segment) && (answers_syn || in_sequence) {
        if end_embryo(tables, to.key, (embryo, word)) {
            let (all, measured) = (Counter::Refused, Counter::SynsRefused);
            tables.count_both(backend, all, measured, word.measured());
        }
    } else if segment.has(flag::SYN) {
        syn_acked(packet, tables, segment, (embryo, word));
    } else if answers_syn
        && !segment.has(flag::RST)
        && to.reaches(segment)
        && tables.flow(to.key).is_none()
    {
        // It goes on talking: it has the connection, whatever we saw of the handshake.
        return Handshake::Proven;
    } else {
        tables.count(backend, Counter::Unverified);
    }
    Handshake::Goes
}
