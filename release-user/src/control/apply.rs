//! Bringing the maps to what is desired: the only place that writes placement.
//!
//! The order is what makes a shift exact: everything a placement can lead to is written first, the
//! split's pointer is swapped last. What is taken away goes after that.

use std::collections::{HashMap, HashSet};

use bytemuck::Zeroable;
use release_common::abi::{Backend, BackendRef, Endpoint4, FrontendRef, PortBits};

use super::encode;
use super::plan::{Desired, RingPlan, ServicePlan};
use crate::kernel::{KernelError, Maps, RingHead};

/// Writes where the maps differ from `desired`; only service `scope`'s placement if given.
///
/// When this returns, every split is in force on every CPU.
///
/// # Errors
/// A system call's. What was written stays: applying again completes it.
pub fn apply(maps: &mut Maps, desired: &Desired, scope: Option<u32>) -> Result<(), KernelError> {
    let plans =
        || desired.services.iter().filter(move |(id, _)| scope.is_none_or(|scope| scope == **id));
    let (backend_ids, ports) = (encode::backend_ids(desired), encode::ports(desired));
    add_ports(maps, &ports)?;
    for (&id, plan) in plans() {
        add_instances(maps, &backend_ids, plan)?;
        put_in_force(maps, id, plan)?;
    }
    if scope.is_none() {
        let present = maps.backend_ids()?;
        for (at, value) in &backend_ids {
            if !present.contains(&(*at, *value)) {
                maps.set_backend_id(*at, *value)?;
            }
        }
        frontends(maps, desired)?;
        for (at, _) in present {
            if !backend_ids.contains_key(&at) {
                maps.remove_backend_id(at)?;
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
    backend_ids: &HashMap<Endpoint4, BackendRef>,
    plan: &ServicePlan,
) -> Result<(), KernelError> {
    let all = plan
        .versions
        .iter()
        .flat_map(|version| version.instances.iter().map(move |instance| (version, instance)));
    for (version, instance) in all {
        let Some(value) = encode::backend(plan, version, instance) else { continue };
        let backend = instance.backend;
        let present = maps.backend(backend)?;
        if present != value {
            // The id is new, or was freed by a run that was killed before it could clean up.
            if present.endpoint() != value.endpoint() {
                maps.reset_counters(backend)?;
            }
            maps.set_backend(backend, value)?;
            // Before the first packet of it can be placed, replies must find their way back.
            if let Some(reference) = backend_ids.get(&value.endpoint()) {
                maps.set_backend_id(value.endpoint(), *reference)?;
            }
        }
    }
    let service = encode::service(plan);
    if maps.service(plan.id)? != service {
        maps.set_service(plan.id, service)?;
    }
    Ok(())
}

/// Rings first, then the split, always if any ring changed: its swap is the barrier.
fn put_in_force(maps: &mut Maps, id: u32, plan: &ServicePlan) -> Result<(), KernelError> {
    let mut changed = false;
    for (&ring, wanted) in &plan.rings {
        let head = RingHead { size: wanted.slots(), fingerprint: RingPlan::fingerprint(wanted) };
        if maps.ring_head(ring)? != Some(head) {
            maps.set_ring(ring, &wanted.build(), head.fingerprint)?;
            changed = true;
        }
    }
    let split = encode::split(plan);
    if changed || maps.split(id)? != Some(split) {
        maps.swap_split(id, split)?;
    }
    Ok(())
}

fn frontends(maps: &mut Maps, desired: &Desired) -> Result<(), KernelError> {
    let present = maps.frontends()?;
    let mut wanted = HashSet::new();
    for (&id, plan) in &desired.services {
        for frontend in encode::frontends(plan) {
            let value = FrontendRef { service: id, flags: 0 };
            wanted.insert(frontend);
            if !present.contains(&(frontend, value)) {
                maps.set_frontend(frontend, value)?;
            }
        }
    }
    for (at, _) in present {
        if !wanted.contains(&at) {
            maps.remove_frontend(at)?;
        }
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
