//! Conversation `client`: the flows of a client stay together on one instance while any of them
//! lives, and for the service's session timeout after.

use super::place::Target;
use super::{FamilyTables, InsertError, Tables};
use crate::abi::{Address, Service, Session, SessionKey, SessionWord, backend_state, service_flag};
use crate::packet::Ip;
use crate::shared::Shared;

/// Instance and generation of the client's session, if there is one that a new flow may join.
#[inline(always)]
pub fn pinned<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>) -> Option<(u32, u32)> {
    let session = tables.session(&SessionKey::new(to.key.client, to.service_id))?;
    let word = SessionWord(session.state().get());
    // The clock last: another CPU's use of the session is never later than what it says.
    let seen = session.last_seen().get();
    let age = (tables.now() as u32).wrapping_sub(seen);
    if word.is_dead() || word.live() == 0 && age >= to.service.session_timeout {
        return None;
    }
    let backend = session.backend().get();
    let entry = tables.backend(backend)?;
    let open = entry.state == backend_state::ACCEPTING
        || entry.state == backend_state::CLOSED && to.service.has(service_flag::HOLD_SESSIONS);
    if open && entry.service == to.service_id {
        Some((backend, session.generation().get()))
    } else {
        None
    }
}

/// A flow began: it joins the client's session, or begins one. A session whose time is over, or
/// whose instance is closed to it, goes on with the new flow's instance. Returns whether the flow is
/// counted in a session; it is not when the table is full.
#[inline(always)]
pub fn join<A: Address, T: Tables>(
    tables: &T,
    client: A,
    service_id: u32,
    service: &Service,
    backend: u32,
    generation: u32,
) -> bool {
    let key = SessionKey::new(client, service_id);
    let now = tables.now() as u32;
    let new = Session {
        state: SessionWord::first(tables.tag()).0,
        backend,
        generation,
        last_seen: now,
        pad: 0,
    };
    if let Some(session) = tables.session(&key) {
        return rejoin(tables, session, service, &new);
    }
    match tables.insert_session(&key, &new) {
        Ok(()) => true,
        Err(InsertError::Exists) => match tables.session(&key) {
            Some(session) => rejoin(tables, session, service, &new),
            None => false,
        },
        Err(InsertError::Refused) => false,
    }
}

#[inline(always)]
fn rejoin<T: Tables>(
    tables: &T,
    session: Shared<'_, Session>,
    service: &Service,
    new: &Session,
) -> bool {
    let word = SessionWord(session.state().get());
    let age = new.last_seen.wrapping_sub(session.last_seen().get());
    let over = word.live() == 0 && age >= service.session_timeout;
    if !session.change_live(1) {
        return false;
    }
    session.last_seen().set(new.last_seen);
    let moved = !over && session.backend().get() != new.backend && {
        // Under `move`, the client's next connection takes its session along.
        let closed = tables
            .backend(session.backend().get())
            .is_none_or(|entry| entry.state != backend_state::ACCEPTING);
        closed && !service.has(service_flag::HOLD_SESSIONS)
    };
    if over || moved {
        session.backend().set(new.backend);
        session.generation().set(new.generation);
    }
    true
}

/// A flow that is counted in its client's session ended (-1) or turned out to live after all (1).
/// Returns whether there is such a session still.
#[inline(always)]
pub fn change<A: Address, T: Tables>(tables: &T, client: A, service: u32, change: i64) -> bool {
    let now = tables.now() as u32;
    let Some(session) = tables.session(&SessionKey::new(client, service)) else { return false };
    session.last_seen().set(now);
    session.change_live(change)
}
