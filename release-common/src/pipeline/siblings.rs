//! Several frontends of one service: after translation, two flows of one client port on one instance
//! would be one.

use super::open::found;
use super::place::{Placed, Target, count_placed, refuse, to_embryo};
use super::{Decision, FamilyTables, Refusal};
use crate::abi::{Backend, FRONTENDS_PER_FAMILY, FlowKey, FrontendRef, mode};
use crate::packet::{Headers, Ip};
use crate::reason::Reason;
use crate::tcp::word::FlowWord;

/// Instances tried when a sibling frontend's flow is in the way.
const MOST_ATTEMPTS: u32 = 4;

/// Whether replies to another frontend of the service could be taken for this one's.
#[inline(always)]
pub fn has_siblings<A: Ip>(to: &Target<'_, A>) -> bool {
    to.service.frontend_count::<A>() > 1 && matches!(to.service.mode, mode::NAT | mode::LOCAL)
}

/// Looks whether a flow just begun has its instance for itself. Of two CPUs that placed siblings on
/// one instance at once, both see it here. Until then nobody else builds on its embryo.
#[inline(always)]
pub fn look<A: Ip, T: FamilyTables<A>>(tables: &T, headers: &Headers<A>) -> Placed {
    let key = headers.key_from_client();
    let key = tables.keep_key(&key);
    let Some((mine, word)) = found(tables, key) else {
        return Placed::Decided(Decision::drop(Reason::EmbryoBusy));
    };
    let backend = mine.backend().get();
    let Some(entry) = tables.backend(backend) else {
        return Placed::Decided(Decision::drop(Reason::BrokenReference));
    };
    let Some(service) = tables.service(entry.service) else {
        return Placed::Decided(Decision::drop(Reason::BrokenReference));
    };
    let to = Target::new(key, FrontendRef { service: entry.service, ring: 0 }, service);
    if !collides(tables, &to, backend, entry) {
        if word.ended() != word || !mine.state().swap_if(word.0, word.begun().0) {
            return Placed::Decided(Decision::drop(Reason::EmbryoBusy));
        }
        count_placed(tables, backend, mine.chosen_by().get());
        return Placed::Decided(to_embryo((mine, word), Reason::Placed));
    }
    tables.remove_embryo(key);
    let attempts = tables.attempts() + 1;
    if attempts < MOST_ATTEMPTS {
        tables.set_attempts(attempts);
        return Placed::Again;
    }
    let how = service.when_empty;
    Placed::Decided(refuse(tables, &to, how, Refusal::Ports, Reason::PortCollision))
}

/// Whether a sibling frontend has an open flow or handshake of this client port on `backend`, and
/// replies could not be told apart.
#[inline(always)]
fn collides<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    backend: u32,
    entry: &Backend,
) -> bool {
    let socket = entry.endpoint::<A>(0);
    // An instance may have had another id before.
    let same = |id: u32| {
        id == backend || tables.backend(id).is_some_and(|entry| entry.endpoint::<A>(0) == socket)
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
