//! Placing a new flow.

use super::{Counter, Decision, Insert, InsertError, Seg, Tables};
use crate::abi::{Embryo, FRONTENDS_PER_SERVICE, FlowKey4, Service};
use crate::packet::{Packet, window_scale};
use crate::placement::{FlowHash, version_of};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::word::EmbryoWord;

/// Instances tried on one ring when a sibling frontend's flow is in the way.
const COLLISION_TRIES: u32 = 4;

/// Where a packet without a live flow was sent.
pub struct Target<'a> {
    /// Its flow key.
    pub key: FlowKey4,
    /// Its service's id.
    pub service_id: u32,
    /// Its service.
    pub service: &'a Service,
}

/// Places a SYN by the split in force and sends it to the instance.
#[inline(always)]
pub fn place<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    segment: Seg<'_>,
    to: &Target<'_>,
) -> Decision {
    let hash = FlowHash::of(&to.key);
    let Some(split) = tables.split(to.service_id) else {
        return Decision::refuse(to.service.when_empty, Reason::NoVersion);
    };
    let Some(entry) = version_of(split, hash).and_then(|v| split.entries.get(v as usize)) else {
        return Decision::refuse(to.service.when_empty, Reason::NoVersion);
    };
    if tables.table_full() {
        return Decision::refuse(to.service.when_full, Reason::TableFull);
    }
    let backend = match choose(tables, to, entry.ring, hash) {
        Ok(backend) => backend,
        Err(reason) => return Decision::refuse(to.service.when_empty, reason),
    };
    // The instance never sees it.
    if segment.ttl <= 1 {
        return Decision::to_backend(backend, Reason::Placed);
    }
    let embryo = Embryo {
        state: EmbryoWord::syn(tables.tag(), window_scale(packet, segment)).0,
        backend,
        generation: split.generation,
        created: tables.now() as u32,
        client_seq: segment.seq,
    };
    match tables.insert_embryo(&to.key, &embryo) {
        Ok(()) => {
            tables.count(backend, Counter::Placed);
            // Both of two CPUs that placed siblings on one instance at once see it here.
            if collides(tables, to, backend) {
                if let Some(mine) = tables.embryo(&to.key) {
                    end_embryo(tables, &to.key, mine, EmbryoWord(embryo.state));
                }
                return Decision::drop(Reason::PortCollision);
            }
            Decision::to_backend(backend, Reason::Placed)
        }
        // The other CPU's choice holds.
        Err(InsertError::Exists) => match tables.embryo(&to.key) {
            Some(winner) => {
                let backend = winner.backend().get();
                Decision::to_backend(backend, Reason::SynRepeated)
            }
            None => Decision::drop(Reason::EmbryoBusy),
        },
        Err(InsertError::Refused) => Decision::drop(Reason::InsertFailed),
    }
}

/// The instance for a hash on a ring, avoiding those that a sibling frontend's flow of the same
/// client port already uses: after translation the two would be one.
#[inline(always)]
fn choose<T: Tables>(
    tables: &T,
    to: &Target<'_>,
    ring: u32,
    hash: FlowHash,
) -> Result<u32, Reason> {
    let mut hash = hash;
    for _ in 0..COLLISION_TRIES {
        let Some(backend) = tables.instance(ring, hash) else {
            return Err(Reason::NoInstance);
        };
        if !collides(tables, to, backend) {
            return Ok(backend);
        }
        hash = hash.next();
    }
    Err(Reason::PortCollision)
}

/// Whether a sibling frontend has an open flow or handshake of this client port on `backend`.
#[inline(always)]
fn collides<T: Tables>(tables: &T, to: &Target<'_>, backend: u32) -> bool {
    if to.service.frontend_count < 2 {
        return false;
    }
    let socket = tables.backend(backend).map(|entry| entry.endpoint());
    // An instance may have had another id before.
    let same = |id: u32| {
        id == backend
            || socket.is_some() && tables.backend(id).map(|entry| entry.endpoint()) == socket
    };
    for index in 0..FRONTENDS_PER_SERVICE {
        if index as u32 >= to.service.frontend_count {
            break;
        }
        let sibling = to.service.frontends[index];
        if sibling.addr == to.key.frontend && sibling.port == to.key.frontend_port {
            continue;
        }
        let key = FlowKey4 { frontend: sibling.addr, frontend_port: sibling.port, ..to.key };
        if let Some(flow) = tables.flow(&key)
            && same(flow.backend().get())
            && crate::tcp::word::FlowWord(flow.state().get()).is_live()
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
pub fn end_embryo<T: Tables>(
    tables: &T,
    key: &FlowKey4,
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

/// Adds a flow and counts its entry.
#[inline(always)]
pub fn add_flow<T: Tables>(
    tables: &T,
    key: &FlowKey4,
    flow: &crate::abi::Flow,
    how: Insert,
) -> Result<(), InsertError> {
    tables.insert_flow(key, flow, how)?;
    if matches!(how, Insert::New) {
        tables.entry_added();
    }
    Ok(())
}
