//! Where a new flow goes: test rule, then session, then split; and what may speak against it.

use super::open::{Found, found};
use super::siblings::has_siblings;
use super::{
    Counter, Decision, FamilyTables, Inbound, InsertError, Refusal, Tables, session, snat,
};
use crate::abi::{
    Be16, Embryo, Flow, FlowKey, FrontendRef, Service, SnatSource, conversation, mode, service_flag,
};
use crate::packet::{Headers, Ip, Packet, flag, window_scale};
use crate::placement::{FlowHash, version_of};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord};
use crate::verifier::forget;

/// What stands for a client that is not translated.
pub const ITSELF: SnatSource = SnatSource { port: Be16(0), index: 0, pad: 0 };

/// What a packet without a live flow was sent to.
pub struct Target<'a, A> {
    /// Its flow key.
    pub key: &'a FlowKey<A>,
    /// Its service's id.
    pub service_id: u32,
    /// A test frontend's ring; 0: by the split.
    pub ring: u32,
    /// Its service.
    pub service: &'a Service,
}

impl<'a, A: Ip> Target<'a, A> {
    /// A frontend of a service.
    #[inline(always)]
    pub const fn new(key: &'a FlowKey<A>, at: FrontendRef, service: &'a Service) -> Self {
        Self { key, service_id: at.service, ring: at.ring, service }
    }

    /// Whether a packet reaches the instance: the TTL counts where it is routed.
    #[inline(always)]
    pub const fn reaches(&self, headers: &Headers<A>) -> bool {
        headers.ip.ttl > 1 || !mode::routed(self.service.mode)
    }

    /// The hash that places its flow.
    #[inline(always)]
    pub fn hash(&self) -> FlowHash {
        if self.service.conversation == conversation::CLIENT {
            FlowHash::of_client(self.key.client, self.service_id)
        } else {
            FlowHash::of(self.key)
        }
    }
}

/// Where a new flow goes.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The instance.
    pub backend: u32,
    /// Generation stamped into the flow.
    pub generation: u32,
    /// Who chose, beside `placed`: [`Counter::Placed`] if nobody but the split.
    pub by: Counter,
}

/// The version whose ring a new flow goes to.
#[derive(Clone, Copy)]
struct Ring {
    id: u32,
    generation: u32,
    ruled: bool,
}

/// Test frontend, then test rule, then split.
#[inline(always)]
fn ring<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>) -> Result<Ring, Reason> {
    let Some(split) = tables.split(to.service_id) else { return Err(Reason::NoVersion) };
    let generation = split.generation;
    let mut id = to.ring;
    if id == 0 && to.service.has(service_flag::RULES) {
        id = tables.rule(to.service_id, to.key.client).unwrap_or(0);
    }
    let ruled = id != 0;
    if !ruled {
        let version = version_of(split, to.hash());
        let Some(entry) = version.and_then(|version| split.entries.get(version as usize)) else {
            return Err(Reason::NoVersion);
        };
        id = entry.rings[A::INDEX];
    }
    // Which way it was found is of no interest from here on.
    let id = forget(u64::from(id), u64::from(generation)) as u32;
    Ok(Ring { id, generation, ruled })
}

/// The instance for a datagram of which nothing is kept.
#[inline(always)]
pub fn stateless<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>) -> Result<u32, Reason> {
    let ring = ring(tables, to)?;
    tables.instance(ring.id, to.hash()).ok_or(Reason::NoInstance)
}

/// Chooses the instance for a new flow.
#[inline(always)]
pub fn choose<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>) -> Result<Choice, Reason> {
    let stays = to.service.conversation == conversation::CLIENT;
    // A client that a rule is about has no use for a session.
    if stays
        && to.ring == 0
        && !(to.service.has(service_flag::RULES)
            && tables.rule(to.service_id, to.key.client).is_some())
        && let Some((backend, generation)) = session::pinned(tables, to)
    {
        return Ok(Choice { backend, generation, by: Counter::Sticky });
    }
    let ring = ring(tables, to)?;
    let hash = to.hash().attempt(tables.attempts());
    let backend = tables.instance(ring.id, hash).ok_or(Reason::NoInstance)?;
    let by = if ring.ruled { Counter::Ruled } else { Counter::Placed };
    Ok(Choice { backend, generation: ring.generation, by })
}

/// A new flow admitted, or the refusal.
struct Admitted {
    /// Where it goes.
    choice: Choice,
    /// What stands for its client.
    snat: SnatSource,
}

/// Places a new flow if table and limits allow, and counts it if they do not.
#[inline(always)]
fn admit<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>) -> Result<Admitted, Decision> {
    let service = to.service;
    let choice = match choose(tables, to) {
        Ok(choice) => choice,
        Err(reason) => {
            return Err(refuse(tables, to, service.when_empty, Refusal::Empty, reason));
        }
    };
    if tables.table_full() {
        if mode::one_way(service.mode) {
            tables.count(choice.backend, Counter::Untracked);
            return Err(Decision::to_backend(choice.backend, ITSELF, Reason::Untracked));
        }
        return Err(refuse(tables, to, service.when_full, Refusal::Full, Reason::TableFull));
    }
    let max = u64::from(service.max_flows);
    if max != 0 && tables.live_flows(to.service_id) >= max {
        return Err(refuse(tables, to, service.when_full, Refusal::MaxFlows, Reason::MaxFlows));
    }
    // One that is placed again has taken its turn.
    if service.flow_interval != 0
        && tables.attempts() == 0
        && !tables.within_rate(to.service_id, service.flow_interval, service.flow_burst)
    {
        return Err(refuse(tables, to, service.when_full, Refusal::Rate, Reason::FlowRate));
    }
    let mut snat = ITSELF;
    if service.mode == mode::SNAT {
        match snat::claim(tables, to, choice.backend) {
            Some(claimed) => snat = claimed,
            None => {
                let how = service.when_full;
                return Err(refuse(tables, to, how, Refusal::Ports, Reason::NoSourcePort));
            }
        }
    }
    Ok(Admitted { choice, snat })
}

/// Refuses a new flow, and counts that.
#[inline(always)]
pub fn refuse<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    how: u8,
    kind: Refusal,
    reason: Reason,
) -> Decision {
    tables.count_refusal(to.service_id, kind);
    Decision::refuse(how, reason)
}

/// What placing a packet came to.
pub enum Placed {
    /// The decision.
    Decided(Decision),
    /// There is an embryo. Siblings of its frontend are to be looked at.
    LookAtSiblings,
    /// Its instance would not do. It is to be placed again.
    Again,
}

/// A packet to a frontend, of no flow: begins one, or is sent on without.
#[inline(always)]
pub fn begin<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Placed {
    let key = headers.key_from_client();
    let key = tables.keep_key(&key);
    let Some(at) = tables.frontend(&key.frontend()) else {
        return Placed::Decided(Decision::pass(Reason::NotOurAddress));
    };
    let Some(service) = tables.service(at.service) else {
        return Placed::Decided(Decision::drop(Reason::BrokenReference));
    };
    let to = Target::new(key, at, service);
    let (tcp, syn) = (headers.is_tcp(), headers.has(flag::SYN));
    // Mid-flow in a one-way mode: its answer would not pass here, so it cannot be adopted.
    let untracked = tcp && !syn;
    if untracked || !tcp && service.conversation == conversation::DATAGRAM {
        return Placed::Decided(untold(tables, &to, untracked));
    }
    let scale = if tcp { window_scale(packet, headers) } else { None };
    let (begun_at, tag) = tables.moment();
    place(tables, headers, &to, EmbryoWord::syn(tag, scale), begun_at)
}

/// Sends a packet where a new flow would go, and keeps nothing of it: conversation `datagram`, or
/// (`untracked`) a connection that has no entry.
#[inline(always)]
fn untold<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>, untracked: bool) -> Decision {
    let (counter, reason) = if untracked {
        (Counter::Untracked, Reason::Untracked)
    } else {
        (Counter::Datagrams, Reason::Datagram)
    };
    match choose(tables, to) {
        Ok(choice) => {
            tables.count(choice.backend, counter);
            Decision::to_backend(choice.backend, ITSELF, reason)
        }
        Err(reason) if untracked => Decision::drop(reason),
        Err(reason) => refuse(tables, to, to.service.when_empty, Refusal::Empty, reason),
    }
}

/// What a packet of the client was sent to. A frontend that was taken away keeps its flows and
/// embryos, but nothing `begins` there.
///
/// # Errors
/// What becomes of a packet to no frontend.
#[inline(always)]
pub fn target<'a, A: Ip, T: FamilyTables<A>>(
    tables: &'a T,
    key: &'a FlowKey<A>,
    begins: bool,
    flow: Option<Shared<'_, Flow>>,
    embryo: Option<Found<'_>>,
) -> Result<Target<'a, A>, Inbound> {
    let at = match tables.frontend(&key.frontend()) {
        None if !begins => former(tables, flow, embryo),
        at => at,
    };
    let Some(at) = at else { return Err(Inbound::NotOurs) };
    match tables.service(at.service) {
        Some(service) => Ok(Target::new(key, at, service)),
        None => Err(Inbound::Decided(Decision::drop(Reason::BrokenReference))),
    }
}

/// What a frontend that was taken away belonged to, by the entries it left.
#[inline(always)]
fn former<T: Tables>(
    tables: &T,
    flow: Option<Shared<'_, Flow>>,
    embryo: Option<Found<'_>>,
) -> Option<FrontendRef> {
    let of_flow = flow.map(|flow| flow.backend().get());
    let owner = of_flow.or(embryo.map(|(embryo, _)| embryo.backend().get()))?;
    Some(FrontendRef { service: tables.backend(owner)?.service, ring: 0 })
}

/// Places a new flow and notes it as an embryo whose word is `state`, begun at that nanosecond.
#[inline(always)]
fn place<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    to: &Target<'_, A>,
    state: EmbryoWord,
    begun_at: u64,
) -> Placed {
    let Admitted { choice, snat } = match admit(tables, to) {
        Ok(admitted) => admitted,
        Err(decision) => return Placed::Decided(decision),
    };
    let backend = choice.backend;
    // The instance never sees it.
    if !to.reaches(headers) {
        return Placed::Decided(Decision::to_backend(backend, snat, Reason::Placed));
    }
    let siblings = has_siblings(to);
    let measured = !matches!(choice.by, Counter::Ruled);
    // In one-way modes no answer passes.
    let waits = measured && headers.is_tcp() && !mode::one_way(to.service.mode);
    let state = state.with_measured(measured, waits);
    let embryo = Embryo {
        // Nothing shall come of it before its siblings were looked at.
        state: if siblings { state.ended().0 } else { state.0 },
        backend,
        generation: choice.generation,
        created: tables.now() as u32,
        client_seq: headers.seq,
        snat,
        chosen_by: choice.by as u32,
        // A client that repeats its SYN waits from the first one on.
        syn_at: if waits { begun_at } else { 0 },
    };
    Placed::Decided(match tables.insert_embryo(to.key, &embryo) {
        Ok(()) if siblings => return Placed::LookAtSiblings,
        Ok(()) => {
            count_placed(tables, backend, choice.by as u32);
            Decision::to_backend(backend, snat, Reason::Placed)
        }
        // The other CPU's choice holds.
        Err(InsertError::Exists) => match found(tables, to.key) {
            Some(winner) if matches!(winner.1.phase(), EmbryoPhase::Syn | EmbryoPhase::SynAck) => {
                to_embryo(winner, Reason::SynRepeated)
            }
            // It is about to go, may still have to go elsewhere, or is no handshake.
            _ => Decision::drop(Reason::EmbryoBusy),
        },
        Err(InsertError::Refused) => Decision::drop(Reason::InsertFailed),
    })
}

/// Counts a handshake begun, and who chose its instance.
#[inline(always)]
pub fn count_placed<T: Tables>(tables: &T, backend: u32, chosen_by: u32) {
    tables.count(backend, Counter::Placed);
    if chosen_by == Counter::Ruled as u32 {
        tables.count(backend, Counter::Ruled);
    } else if chosen_by == Counter::Sticky as u32 {
        tables.count(backend, Counter::Sticky);
    }
}

/// Takes an embryo down: whoever swaps its word counts and removes it. Returns whether that was
/// this call.
#[inline(always)]
pub fn end_embryo<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    (embryo, word): Found<'_>,
) -> bool {
    let backend = embryo.backend().get();
    if word.ended() == word || !embryo.state().swap_if(word.0, word.ended().0) {
        return false;
    }
    tables.remove_embryo(key);
    tables.count(backend, Counter::EmbryosEnded);
    true
}

/// What a live entry says of where its packets go.
#[inline(always)]
pub fn to_flow(flow: Shared<'_, Flow>, reason: Reason) -> Decision {
    let routed = FlowWord(flow.state().get()).routed();
    Decision::to_routed(flow.backend().get(), flow.snat().get(), routed, reason)
}

/// What an embryo says of where its packets go, unless its element is another's by now.
#[inline(always)]
pub fn to_embryo((embryo, word): Found<'_>, reason: Reason) -> Decision {
    let decision = Decision::to_backend(embryo.backend().get(), embryo.snat().get(), reason);
    if EmbryoWord(embryo.state().get()).tag() == word.tag() {
        decision
    } else {
        Decision::drop(Reason::EmbryoBusy)
    }
}
