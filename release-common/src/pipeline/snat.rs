//! Mode `snat`: an address and port of this host stand for the client.
//!
//! A port is claimed for one instance at a time: the same port may stand for other clients towards
//! other instances. Ports come back by the reaper, once their flow is gone.

use super::open::entry;
use super::place::Target;
use super::{FamilyTables, InsertError};
use crate::abi::{Backend, Be16, SnatKey, SnatOwner, SnatSource};
use crate::packet::Ip;
use crate::placement::FlowHash;
use crate::tcp::word::Phase;

/// Seconds for which the reaper leaves a claimed port alone, whatever the tables say of its flow.
pub const KEPT: u32 = 10;
/// Ports tried for a new flow.
const TRIES: u32 = 64;

/// The key under which a reply of `instance` is found.
#[inline(always)]
pub fn snat_key<A: Ip>(source: A, port: Be16, instance: &Backend, proto: u8) -> SnatKey<A> {
    SnatKey {
        source,
        instance: instance.address(),
        source_port: port,
        instance_port: Be16::new(instance.port),
        proto,
        pad: 0,
        pad_end: 0,
    }
}

/// Claims what is to stand for the client towards `backend`; `None` if nothing is free.
#[inline(always)]
pub fn claim<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    backend: u32,
) -> Option<SnatSource> {
    let instance = tables.backend(backend)?;
    if let Some(source) = of_closed(tables, to, backend, instance) {
        return Some(source);
    }
    let ports = u32::from(to.service.snat_ports);
    let owner = SnatOwner { key: *to.key, claimed: tables.now() as u32, backend };
    let mut hash = FlowHash::of(to.key);
    for _ in 0..TRIES {
        let index = hash.pick(to.service.snat_count::<A>()) as u8;
        hash = hash.next();
        let port = Be16::new(to.service.snat_port.wrapping_add(hash.pick(ports) as u16));
        let source = to.service.snat_address::<A>(usize::from(index))?;
        let key = snat_key(source, port, instance, to.key.proto);
        let mine = match tables.claim_snat(&key, &owner) {
            Ok(()) => true,
            Err(InsertError::Exists) => is_mine(tables, &key, &owner),
            Err(InsertError::Refused) => false,
        };
        if mine {
            return Some(SnatSource { port, index, pad: 0 });
        }
    }
    None
}

/// What stood for the client in a closed flow of the same tuple to the same instance: to that, the new
/// flow is the client's next one, by its timestamps (RFC 6191), as it would be without us. Another port
/// may be one that it has in TIME-WAIT for another client.
///
/// The port stays ours: a flow that is not dying yet is removed a grace period from now at the earliest,
/// and by then there is the new one's embryo, which the reaper asks for before it takes the port back.
#[inline(always)]
fn of_closed<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    backend: u32,
    instance: &Backend,
) -> Option<SnatSource> {
    let (flow, word) = entry(tables, to.key)?;
    let source = flow.snat().get();
    let service = to.service;
    let in_range = source.port.get().wrapping_sub(service.snat_port) < service.snat_ports;
    let goes = word.dying() || matches!(word.phase(), Phase::Dead);
    if goes || flow.backend().get() != backend || !in_range {
        return None;
    }
    let address = service.snat_address(usize::from(source.index))?;
    let key = snat_key(address, source.port, instance, to.key.proto);
    let owner = tables.snat_owner(&key)?;
    (owner.key == *to.key && owner.backend == backend).then_some(source)
}

/// Whether the flow has that port already, from an earlier attempt, and so lately that the reaper
/// does not take it back.
#[inline(always)]
fn is_mine<A: Ip, T: FamilyTables<A>>(tables: &T, at: &SnatKey<A>, want: &SnatOwner<A>) -> bool {
    tables.snat_owner(at).is_some_and(|owner| {
        let age = want.claimed.wrapping_sub(owner.claimed);
        owner.key == want.key && owner.backend == want.backend && age < tables.hz() * KEPT / 2
    })
}
