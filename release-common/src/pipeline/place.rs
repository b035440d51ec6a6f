//! Where a new flow goes: test rule, then session, then split; and what may speak against it.

use super::{Counter, Decision, FamilyTables, InsertError, Refusal, Tables, session, snat};
use crate::abi::{
    Be16, Embryo, FRONTENDS_PER_FAMILY, Flow, FlowKey, FrontendRef, Service, SnatSource,
    conversation, mode, service_flag,
};
use crate::packet::{Headers, Ip, Packet, flag, window_scale};
use crate::placement::{FlowHash, version_of};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::word::{EmbryoWord, FlowWord};
use crate::verifier::forget;

/// Instances tried on one ring when a sibling frontend's flow is in the way.
const COLLISION_TRIES: u32 = 4;
/// What stands for a client that is not translated.
pub const ITSELF: SnatSource = SnatSource { port: Be16(0), index: 0, pad: 0 };

/// What a packet without a live flow was sent to.
pub struct Target<'a, A> {
    /// Its flow key.
    pub key: FlowKey<A>,
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
    pub const fn new(key: FlowKey<A>, at: FrontendRef, service: &'a Service) -> Self {
        Self { key, service_id: at.service, ring: at.ring, service }
    }

    /// Whether a packet reaches the other end: the TTL counts where it is routed.
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
            FlowHash::of(&self.key)
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

/// Chooses the instance for a new flow.
#[inline(always)]
pub fn choose<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
) -> Result<Choice, Reason> {
    let hash = to.hash();
    let Some(split) = tables.split(to.service_id) else { return Err(Reason::NoVersion) };
    let mut generation = split.generation;
    let mut ring = to.ring;
    if ring == 0 && to.service.has(service_flag::RULES) {
        ring = tables.rule(to.service_id, to.key.client).unwrap_or(0);
    }
    let (mut by, mut session) = (Counter::Ruled, 0);
    if ring == 0 {
        by = Counter::Placed;
        if to.service.conversation == conversation::CLIENT
            && let Some((backend, began)) = session::pinned(tables, to)
        {
            (by, session, generation) = (Counter::Sticky, backend, began);
        } else {
            let Some(entry) = version_of(split, hash).and_then(|v| split.entries.get(v as usize))
            else {
                return Err(Reason::NoVersion);
            };
            ring = entry.rings[A::INDEX];
        }
    }
    // Which way it was found is of no interest from here on.
    ring = forget(u64::from(ring), u64::from(generation)) as u32;
    session = forget(u64::from(session), u64::from(generation)) as u32;
    let backend = on_ring(tables, to, ring, hash, session)?;
    Ok(Choice { backend, generation, by })
}

/// The instance for a hash on a ring, avoiding those that a sibling frontend's flow of the same
/// client port already uses: after translation the two would be one. `session`: the only instance
/// there is for this client, 0 if it may be any.
#[inline(always)]
fn on_ring<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    ring: u32,
    hash: FlowHash,
    session: u32,
) -> Result<u32, Reason> {
    let mut hash = hash;
    for _ in 0..COLLISION_TRIES {
        let backend = if session != 0 {
            session
        } else {
            tables.instance(ring, hash).ok_or(Reason::NoInstance)?
        };
        if !collides(tables, to, backend) {
            return Ok(backend);
        }
        hash = hash.next();
    }
    Err(Reason::PortCollision)
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
fn admit<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
) -> Result<Admitted, Decision<A>> {
    let service = to.service;
    let choice = match choose(tables, to) {
        Ok(choice) => choice,
        Err(reason) => {
            let kind = match reason {
                Reason::PortCollision => Refusal::Ports,
                _ => Refusal::Empty,
            };
            return Err(refuse(tables, to, service.when_empty, kind, reason));
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
    if service.flow_interval != 0
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

#[inline(always)]
fn refuse<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    how: u8,
    kind: Refusal,
    reason: Reason,
) -> Decision<A> {
    tables.count_refusal(to.service_id, kind);
    Decision::refuse(how, reason)
}

/// A packet to a frontend, of no flow: begins one, or is sent on without.
#[inline(always)]
pub fn begin<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Decision<A> {
    let key = headers.key_from_client();
    let Some(at) = tables.frontend(&key.frontend()) else {
        return Decision::pass(Reason::NotOurAddress);
    };
    let Some(service) = tables.service(at.service) else {
        return Decision::drop(Reason::BrokenReference);
    };
    let to = Target::new(key, at, service);
    let (tcp, syn) = (headers.is_tcp(), headers.has(flag::SYN));
    // Mid-flow in a one-way mode: its answer would not pass here, so it cannot be adopted.
    let untracked = tcp && !syn;
    if untracked || !tcp && service.conversation == conversation::DATAGRAM {
        return untold(tables, &to, untracked);
    }
    let scale = if tcp { window_scale(packet, headers) } else { None };
    place(tables, headers, &to, EmbryoWord::syn(tables.tag(), scale))
}

/// Sends a packet where a new flow would go, and keeps nothing of it: conversation `datagram`, or
/// (`untracked`) a connection that has no entry.
#[inline(always)]
fn untold<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    untracked: bool,
) -> Decision<A> {
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

/// What a frontend that was taken away belonged to, by the entries it left.
#[inline(always)]
pub fn former<T: Tables>(
    tables: &T,
    flow: Option<Shared<'_, Flow>>,
    embryo: Option<Shared<'_, Embryo>>,
) -> Option<FrontendRef> {
    let of_flow = flow.map(|flow| flow.backend().get());
    let owner = of_flow.or(embryo.map(|embryo| embryo.backend().get()))?;
    Some(FrontendRef { service: tables.backend(owner)?.service, ring: 0 })
}

/// Places a new flow and notes it as an embryo whose word is `state`.
#[inline(always)]
fn place<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    to: &Target<'_, A>,
    state: EmbryoWord,
) -> Decision<A> {
    let Admitted { choice, snat } = match admit(tables, to) {
        Ok(admitted) => admitted,
        Err(decision) => return decision,
    };
    let backend = choice.backend;
    // The instance never sees it.
    if !to.reaches(headers) {
        return Decision::to_backend(backend, snat, Reason::Placed);
    }
    let embryo = Embryo {
        state: state.0,
        backend,
        generation: choice.generation,
        created: tables.now() as u32,
        client_seq: headers.seq,
        snat,
        pad: 0,
    };
    match tables.insert_embryo(&to.key, &embryo) {
        Ok(()) => {
            tables.count(backend, Counter::Placed);
            if !matches!(choice.by, Counter::Placed) {
                tables.count(backend, choice.by);
            }
            // Both of two CPUs that placed siblings on one instance at once see it here.
            if collides(tables, to, backend) {
                if let Some(mine) = tables.embryo(&to.key) {
                    end_embryo(tables, &to.key, mine, state);
                }
                return Decision::drop(Reason::PortCollision);
            }
            Decision::to_backend(backend, snat, Reason::Placed)
        }
        // The other CPU's choice holds.
        Err(InsertError::Exists) => match tables.embryo(&to.key) {
            Some(winner) => {
                let (backend, snat) = (winner.backend().get(), winner.snat().get());
                Decision::to_backend(backend, snat, Reason::SynRepeated)
            }
            None => Decision::drop(Reason::EmbryoBusy),
        },
        Err(InsertError::Refused) => Decision::drop(Reason::InsertFailed),
    }
}

/// Whether a sibling frontend has an open flow or handshake of this client port on `backend`, and
/// replies could not be told apart.
#[inline(always)]
fn collides<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>, backend: u32) -> bool {
    if to.service.frontend_count::<A>() < 2
        || !matches!(to.service.mode, mode::NAT | mode::LOCAL)
    {
        return false;
    }
    let socket = tables.backend(backend).map(|entry| entry.endpoint::<A>(0));
    // An instance may have had another id before.
    let same = |id: u32| {
        id == backend
            || socket.is_some() && tables.backend(id).map(|entry| entry.endpoint::<A>(0)) == socket
    };
    for index in 0..FRONTENDS_PER_FAMILY {
        let Some(sibling) = to.service.frontend::<A>(index) else { break };
        if sibling == to.key.frontend() || sibling.proto != to.key.proto {
            continue;
        }
        let key = FlowKey::between(to.key.client(), sibling);
        if let Some(flow) = tables.flow(&key)
            && same(flow.backend().get())
            && FlowWord(flow.state().get()).is_live()
        {
            return true;
        }
        if let Some(embryo) = tables.embryo(&key)
            && same(embryo.backend().get())
        {
            return true;
        }
    }
    false
}

/// Takes an embryo down: whoever swaps its word counts and removes it. Returns whether that was
/// this call.
#[inline(always)]
pub fn end_embryo<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    embryo: Shared<'_, Embryo>,
    word: EmbryoWord,
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
pub fn to_flow<A: Ip>(flow: Shared<'_, Flow>, reason: Reason) -> Decision<A> {
    Decision::to_backend(flow.backend().get(), flow.snat().get(), reason)
}

/// What an embryo says of where its packets go.
#[inline(always)]
pub fn to_embryo<A: Ip>(embryo: Shared<'_, Embryo>, reason: Reason) -> Decision<A> {
    Decision::to_backend(embryo.backend().get(), embryo.snat().get(), reason)
}
