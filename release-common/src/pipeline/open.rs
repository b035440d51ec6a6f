//! From embryo to flow: the one place where flows come to be.

use super::place::Target;
use super::{
    Counter, Decision, FamilyTables, Insert, InsertError, Refusal, count_step, look, session,
};
use crate::abi::{Embryo, Flow, FlowKey, Side, conversation, event_kind, opened_at};
use crate::packet::{Headers, Ip};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::word::{EmbryoWord, End, FlowWord, Phase};

/// Largest window a segment can offer without scaling.
const UNSCALED: u32 = 65535;

/// An entry of the flow table and its word.
pub type Entry<'a> = (Shared<'a, Flow>, FlowWord);
/// An embryo and its word as it was found: what is done to it is done to this incarnation of the
/// element, or not at all.
pub type Found<'a> = (Shared<'a, Embryo>, EmbryoWord);

/// The flow under a key. Its word is read once: everything that follows is about this incarnation of
/// the element.
#[inline(always)]
pub fn entry<'a, A: Ip, T: FamilyTables<A>>(tables: &'a T, key: &FlowKey<A>) -> Option<Entry<'a>> {
    let flow = tables.flow(key)?;
    Some((flow, FlowWord(flow.state().get())))
}

/// The embryo under a key.
#[inline(always)]
pub fn found<'a, A: Ip, T: FamilyTables<A>>(tables: &'a T, key: &FlowKey<A>) -> Option<Found<'a>> {
    let embryo = tables.embryo(key)?;
    Some((embryo, EmbryoWord(embryo.state().get())))
}

/// The flow and the embryo under a key.
#[inline(always)]
pub fn entries<'a, A: Ip, T: FamilyTables<A>>(
    tables: &'a T,
    key: &FlowKey<A>,
) -> (Option<Entry<'a>>, Option<Found<'a>>) {
    // In this order, what was promoted between the two look-ups is found as a flow.
    let mut embryo = found(tables, key);
    let mut flow = entry(tables, key);
    if embryo.is_some() && flow.is_some() {
        // Promoted between them, maybe in place of a closed flow, or beside one that is still there?
        embryo = found(tables, key);
        if embryo.is_none() {
            flow = entry(tables, key);
        }
    }
    (flow, embryo)
}

/// Why an embryo did not become a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotOpened {
    /// Another CPU is at work on it.
    Busy,
    /// The flow table refused it. The embryo is as it was.
    Full,
    /// The service has as many flows as it may have, which is counted. The embryo is gone.
    Limit,
}

/// How an embryo becomes a flow.
#[derive(Clone, Copy)]
pub struct How {
    /// What it counts as.
    pub counter: Counter,
    /// What user space is told.
    pub event: u32,
    /// Whether the service's `max_flows` holds for it.
    pub limited: bool,
}

impl How {
    /// A conversation that began here.
    pub const OPENED: Self =
        Self { counter: Counter::Opened, event: event_kind::OPENED, limited: true };
    /// One that began elsewhere, or whose beginning both ends have agreed on.
    pub const ADOPTED: Self =
        Self { counter: Counter::Adopted, event: event_kind::ADOPTED, limited: false };
}

/// Makes `flow` of an embryo. `old` is the entry under the same key, closed or superseded, which it
/// replaces.
///
/// Whoever swaps the embryo's word makes the flow, so it is opened once; the flow is in its table
/// before the embryo leaves its own, so a walk of embryos and then flows misses none.
///
/// # Errors
/// See [`NotOpened`].
#[inline(always)]
pub fn open<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    flow: &mut Flow,
    (embryo, word): Found<'_>,
    old: Option<Entry<'_>>,
    how: How,
) -> Result<(), NotOpened> {
    if word.ended() == word || !embryo.state().swap_if(word.0, word.ended().0) {
        return Err(NotOpened::Busy);
    }
    flow.state = FlowWord(flow.state).with_measured_as(word).0;
    let max = u64::from(to.service.max_flows);
    // One that takes a live one's place adds none.
    let limited = how.limited && !old.is_some_and(|(_, word)| word.is_live());
    if tables.add_live_flows(to.service_id, 1) >= max && max != 0 && limited {
        tables.add_live_flows(to.service_id, -1);
        tables.remove_embryo(to.key);
        tables.count(flow.backend, Counter::EmbryosEnded);
        tables.count_refusal(to.service_id, Refusal::MaxFlows);
        return Err(NotOpened::Limit);
    }
    let stays = to.service.conversation == conversation::CLIENT;
    if stays {
        let joined = session::join(
            tables,
            to.key.client,
            to.service_id,
            to.service,
            flow.backend,
            flow.generation,
        );
        flow.state = FlowWord(flow.state).with_session(joined).0;
    }
    if let Err(error) = enter(tables, to, flow, old) {
        if FlowWord(flow.state).in_session() {
            session::change(tables, to.key.client, to.service_id, -1);
        }
        tables.add_live_flows(to.service_id, -1);
        // The handshake goes on: whoever sent this packet will repeat it.
        embryo.state().swap_if(word.ended().0, word.0);
        if matches!(error, InsertError::Refused) {
            tables.event(event_kind::TABLE_FULL, to.key, flow.backend, flow.generation);
            return Err(NotOpened::Full);
        }
        return Err(NotOpened::Busy);
    }
    tables.remove_embryo(to.key);
    let unmeasured = !FlowWord(flow.state).measured();
    tables.count_both(flow.backend, how.counter, Counter::Unmeasured, unmeasured);
    tables.event(how.event, to.key, flow.backend, flow.generation);
    Ok(())
}

/// Puts the flow in its table, in place of `old` if there is one.
#[inline(always)]
fn enter<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    flow: &Flow,
    old: Option<Entry<'_>>,
) -> Result<(), InsertError> {
    let Some((old, word)) = old else {
        tables.insert_flow(to.key, flow, Insert::New)?;
        tables.entry_added();
        return Ok(());
    };
    if matches!(word.phase(), Phase::Dead) {
        return Err(InsertError::Exists);
    }
    let dead = word.with_phase(Phase::Dead);
    if !old.state().swap_if(word.0, dead.0) {
        return Err(InsertError::Exists);
    }
    let old_backend = old.backend().get();
    if let Err(error) = tables.insert_flow(to.key, flow, Insert::Replace) {
        old.state().swap_if(dead.0, word.0);
        return Err(error);
    }
    if word.is_live() {
        tables.count(old_backend, Counter::Superseded);
        tables.add_live_flows(to.service_id, -1);
        if word.in_session() {
            session::change(tables, to.key.client, to.service_id, -1);
        }
    }
    Ok(())
}

/// The client completed its handshake.
#[inline(always)]
pub fn promote<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    (embryo, word): Found<'_>,
    old: Option<Entry<'_>>,
) -> Decision {
    let client_seq = embryo.client_seq().get().wrapping_add(1);
    let server_seq = word.server_seq().wrapping_add(1);
    let (client_scale, server_scale) = word.scales();
    let now = tables.now();
    let state = FlowWord::live(tables.tag(), client_scale, server_scale);
    let mut flow = Flow {
        state: state.with_mode(to.service.mode).0,
        client: Side {
            next: client_seq,
            ack: server_seq,
            edge: server_seq.wrapping_add(UNSCALED),
            // Until there is a FIN: tells a late copy of this connection's SYN from a new one.
            fin: embryo.client_seq().get(),
        },
        server: Side {
            // With TCP Fast Open the server may have sent data already.
            next: segment.ack,
            ack: client_seq,
            edge: client_seq.wrapping_add(UNSCALED),
            fin: segment.ack.wrapping_sub(1),
        },
        ..begun(embryo, now)
    };
    let snat = flow.snat;
    match open(tables, to, &mut flow, (embryo, word), old, How::OPENED) {
        Ok(()) => {}
        Err(NotOpened::Limit) => {
            // Both ends believe in it: the instance learns here that it was not to be, the client
            // from the instance when it speaks.
            return Decision::reset(flow.backend, snat, Reason::MaxFlows);
        }
        Err(NotOpened::Busy) => return Decision::drop(Reason::EmbryoBusy),
        Err(NotOpened::Full) => return Decision::drop(Reason::InsertFailed),
    }
    let decision = Decision::to_backend(flow.backend, snat, Reason::Forwarded);
    let Some(entry) = tables.flow(to.key) else { return decision };
    let seen = look(tables, entry, End::Client, segment);
    count_step(tables, to.key, entry, End::Client, seen);
    decision.of_segment(seen)
}

/// What a flow has from its embryo.
#[inline(always)]
pub fn begun(embryo: Shared<'_, Embryo>, now: u64) -> Flow {
    Flow {
        backend: embryo.backend().get(),
        generation: embryo.generation().get(),
        opened_at: opened_at(now),
        snat: embryo.snat().get(),
        last_packet: now as u32,
        last_data: now as u32,
        ..Flow::default()
    }
}
