//! Bringing the maps to what is desired: the only place that writes placement.
//!
//! The order is what makes a shift exact: everything a placement can lead to is written first, the
//! split's pointer is swapped last. What is taken away goes after that.

use std::collections::{HashMap, HashSet};

use bytemuck::Zeroable;
use release_common::abi::{Backend, BackendRef, PortBits, VERSION_RINGS};

use super::encode;
use super::plan::{Desired, RingPlan, ServicePlan};
use crate::kernel::{At, Clock, KernelError, Maps, RingHead};

/// Rings built before they are written: each takes a quarter of a megabyte.
const RINGS_AT_ONCE: usize = 16;

/// Writes where the maps differ from `desired`. With `scope`, the id of a service that `desired` is
/// about alone: only its placement, and nothing of others is looked at.
///
/// When this returns, every split is in force on every CPU.
///
/// # Errors
/// A system call's. What was written stays: applying again completes it.
pub fn apply(maps: &mut Maps, desired: &Desired, scope: Option<u32>) -> Result<(), KernelError> {
    let plans = || desired.services.iter();
    let (backend_ids, ports) = (encode::backend_ids(desired), encode::ports(desired));
    let clock = Clock { hz: maps.meta()?.hz };
    add_ports(maps, &ports)?;
    for (_, plan) in plans() {
        add_instances(maps, &backend_ids, plan)?;
        let service = encode::service(plan, clock);
        if maps.service(plan.id)? != service {
            maps.set_service(plan.id, service)?;
        }
    }
    quic_ids(maps, desired, scope)?;
    // Rings before what leads to them; what is closed, before the split whose swap is the barrier.
    let changed = rings(maps, plans())?;
    rules(maps, desired, scope)?;
    change_frontends(maps, desired, scope)?;
    let mut splits = Vec::new();
    for (&id, plan) in plans() {
        let split = encode::split(plan);
        if changed.contains(&id) || maps.split(id)? != Some(split) {
            splits.push((id, split));
        }
    }
    maps.swap_splits(&splits)?;
    for (_, plan) in plans() {
        empty_former(maps, plan)?;
    }
    if scope.is_none() {
        let present = maps.backend_ids()?;
        for (at, value) in &backend_ids {
            if !present.contains(&(*at, *value)) {
                maps.set_backend_id(*at, Some(*value))?;
            }
        }
        frontends(maps, desired)?;
        for (at, _) in present {
            if !backend_ids.contains_key(&at) {
                maps.set_backend_id(at, None)?;
            }
        }
        for which in [PortBits::FRONTENDS, PortBits::BACKENDS] {
            let bits = ports[which as usize];
            if maps.ports(which)? != bits {
                maps.set_ports(which, bits)?;
            }
        }
    }
    Ok(())
}

/// Ports are added before anything uses them and removed after everything did.
fn add_ports(maps: &mut Maps, ports: &[PortBits; 2]) -> Result<(), KernelError> {
    for which in [PortBits::FRONTENDS, PortBits::BACKENDS] {
        let present = maps.ports(which)?;
        let mut both = present;
        for (word, add) in both.words.iter_mut().zip(&ports[which as usize].words) {
            *word |= add;
        }
        if both != present {
            maps.set_ports(which, both)?;
        }
    }
    Ok(())
}

fn add_instances(
    maps: &mut Maps,
    backend_ids: &HashMap<At, BackendRef>,
    plan: &ServicePlan,
) -> Result<(), KernelError> {
    let all = plan
        .versions
        .iter()
        .flat_map(|version| version.instances.iter().map(move |instance| (version, instance)));
    for (version, instance) in all {
        let value = encode::backend(plan, version, instance);
        let backend = instance.backend;
        let present = maps.backend(backend)?;
        if present == value {
            continue;
        }
        // The id is new, or was freed by a run that was killed before it could clean up.
        if (present.addr, present.port) != (value.addr, value.port) {
            maps.reset_counters(backend)?;
        }
        maps.set_backend(backend, value)?;
        // Before the first packet of it can be placed, replies must find their way back.
        for protocol in plan.protocols() {
            let at = At { socket: instance.addr, proto: protocol.number() };
            if let Some(reference) = backend_ids.get(&at) {
                maps.set_backend_id(at, Some(*reference))?;
            }
        }
    }
    Ok(())
}

/// Brings services' rings up to date. Returns the services of which any changed.
fn rings<'a>(
    maps: &mut Maps,
    plans: impl Iterator<Item = (&'a u32, &'a ServicePlan)>,
) -> Result<HashSet<u32>, KernelError> {
    let (mut changed, mut stale) = (HashSet::new(), Vec::new());
    for (&id, plan) in plans {
        for (&ring, wanted) in &plan.rings {
            let head =
                RingHead { size: wanted.slots(), fingerprint: RingPlan::fingerprint(wanted) };
            if maps.ring_head(ring)? != Some(head) {
                stale.push((ring, wanted, head.fingerprint));
                changed.insert(id);
            }
        }
    }
    for some in stale.chunks(RINGS_AT_ONCE) {
        let built: Vec<_> =
            some.iter().map(|(ring, wanted, mark)| (*ring, wanted.build(), *mark)).collect();
        maps.set_rings(&built)?;
    }
    Ok(changed)
}

/// Empties former rings that no split names any more: a full one takes a quarter of a megabyte.
fn empty_former(maps: &mut Maps, plan: &ServicePlan) -> Result<(), KernelError> {
    let rings = plan.versions.iter().flat_map(|version| [version.rings.v4, version.rings.v6]);
    for ring in rings.flatten().map(|ring| ring + VERSION_RINGS) {
        let full = || Ok(maps.ring_head(ring)?.is_some_and(|head| head.size > 1));
        if !plan.rings.contains_key(&ring) && full()? {
            maps.set_ring(ring, &[], 0)?;
        }
    }
    Ok(())
}

fn rules(maps: &mut Maps, desired: &Desired, scope: Option<u32>) -> Result<(), KernelError> {
    let mut present = maps.rules()?;
    present.retain(|(at, _)| scope.is_none_or(|scope| at.service == scope));
    let wanted: HashMap<_, _> = desired.services.values().flat_map(encode::rules).collect();
    for (at, _) in present.iter().filter(|(at, _)| !wanted.contains_key(at)) {
        maps.set_rule(*at, None)?;
    }
    for (at, ring) in &wanted {
        if !present.contains(&(*at, *ring)) {
            maps.set_rule(*at, Some(*ring))?;
        }
    }
    Ok(())
}

fn quic_ids(maps: &mut Maps, desired: &Desired, scope: Option<u32>) -> Result<(), KernelError> {
    let mut present = maps.quic_ids()?;
    present.retain(|(key, _)| scope.is_none_or(|scope| key.service == scope));
    let wanted: HashMap<_, _> = desired.services.values().flat_map(encode::quic_ids).collect();
    for (key, _) in present.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        maps.remove_quic_id(*key)?;
    }
    for (key, backend) in &wanted {
        if !present.contains(&(*key, *backend)) {
            maps.set_quic_id(*key, *backend)?;
        }
    }
    Ok(())
}

/// Frontends that are there and lead elsewhere from now on.
fn change_frontends(
    maps: &mut Maps,
    desired: &Desired,
    scope: Option<u32>,
) -> Result<(), KernelError> {
    let wanted: Vec<_> = desired.services.values().flat_map(encode::frontends).collect();
    let present: HashMap<_, _> = if scope.is_some() {
        let found = wanted.iter().map(|(at, _)| Ok(maps.frontend(*at)?.map(|now| (*at, now))));
        found.filter_map(Result::transpose).collect::<Result<_, KernelError>>()?
    } else {
        maps.frontends()?.into_iter().collect()
    };
    for (at, value) in wanted {
        if present.get(&at).is_some_and(|now| *now != value) {
            maps.set_frontend(at, Some(value))?;
        }
    }
    Ok(())
}

/// Adds new frontends, when everything behind them is in place, and removes those that are gone.
fn frontends(maps: &mut Maps, desired: &Desired) -> Result<(), KernelError> {
    let present = maps.frontends()?;
    let wanted: HashMap<_, _> = desired.services.values().flat_map(encode::frontends).collect();
    for (at, value) in &wanted {
        if !present.contains(&(*at, *value)) {
            maps.set_frontend(*at, Some(*value))?;
        }
    }
    for (at, _) in present.iter().filter(|(at, _)| !wanted.contains_key(at)) {
        maps.set_frontend(*at, None)?;
    }
    Ok(())
}

/// Frees an instance id that no entry names any more.
///
/// # Errors
/// A system call's.
pub fn free_backend(maps: &mut Maps, backend: u32) -> Result<(), KernelError> {
    maps.set_backend(backend, Backend::zeroed())?;
    maps.reset_counters(backend)
}
