//! Instances that leave: they deregister, ask to go offline, are lost, or in maintenance. Pure.

use serde::{Deserialize, Serialize};

use super::commands::{self, Target};
use super::reconcile::orphan;
use super::register::conflict;
use super::state::{DrainState, InstanceState, ServiceState, VersionState};
use crate::api::types::{ApiError, ErrorCode};

/// Why an instance is drained, if it is not merely drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absence {
    /// Somebody works on it; it is not about to leave.
    Maint,
    /// It asked to go offline, or was lost.
    Offline,
}

/// What an instance's id means: one that serves before one that is gone.
///
/// # Errors
/// Usage, if there is none.
pub fn find<'a>(
    service: &'a ServiceState,
    id: &str,
) -> Result<(&'a VersionState, &'a InstanceState), ApiError> {
    let named = || service.instances().filter(|(_, instance)| instance.id == id);
    let found = named().find(|(_, instance)| !instance.orphaned).or_else(|| named().next());
    found.ok_or_else(|| {
        let known: Vec<&str> = service.instances().map(|(_, i)| i.id.as_str()).collect();
        let what = format!("instance {id}: none of service {}", service.name);
        ApiError::new(ErrorCode::Usage, what).hint(format!("it has {}", known.join(", ")))
    })
}

fn find_mut(service: &mut ServiceState, backend: u32) -> Option<&mut InstanceState> {
    let all = service.versions.iter_mut().flat_map(|version| &mut version.instances);
    all.into_iter().find(|instance| instance.backend == backend)
}

/// Takes a registered instance out: its flows stay, and with the last of them it is forgotten.
/// Asked again, it changes nothing.
///
/// # Errors
/// Usage for an unknown one; conflict for one of the configuration, and for the last that serves.
pub fn deregister(
    service: &mut ServiceState,
    id: &str,
    allow_empty: bool,
) -> Result<bool, ApiError> {
    let (version, instance) = find(service, id)?;
    if instance.orphaned {
        return Ok(false);
    }
    if instance.registered.is_none() {
        let what = format!("instance {id}: is in the configuration");
        return Err(conflict(what).hint("take it out there, and reload; or drain it"));
    }
    if !allow_empty {
        let target = Target::Instance(version.name.clone(), id.to_owned());
        commands::drain(&mut service.clone(), &target, &DrainState::default(), false)?;
    }
    let backend = instance.backend;
    Ok(leave(service, backend, None))
}

/// Takes an instance out whose lease ran out or whose process ended, whatever it leaves empty.
/// Returns whether it was in service.
pub fn lose(service: &mut ServiceState, backend: u32) -> bool {
    let known = |i: &InstanceState| i.backend == backend && !i.orphaned && i.registered.is_some();
    let here = service.instances().any(|(_, instance)| known(instance));
    here && leave(service, backend, Some(Absence::Offline))
}

fn leave(service: &mut ServiceState, backend: u32, absence: Option<Absence>) -> bool {
    let generation = service.generation + 1;
    for version in &mut service.versions {
        let retired = version.retired.clone();
        if let Some(instance) = version.instances.iter_mut().find(|i| i.backend == backend) {
            orphan(instance, generation, retired.as_ref());
            // What an operator drained, or works on, stays so if it comes back.
            if instance.absence == Some(Absence::Offline) {
                instance.drain = None;
            }
            instance.absence = instance.absence.or(absence);
            version.instances.sort_by_key(|instance| instance.orphaned);
        }
    }
    service.generation = generation;
    true
}

/// Takes an instance out of new flows because it asked to go offline, or for maintenance. Asked
/// again, it changes nothing but the deadline.
///
/// # Errors
/// Usage for an unknown one; conflict for the last that serves, and for maintenance of one that is
/// about to leave.
pub fn absent(
    service: &mut ServiceState,
    id: &str,
    absence: Absence,
    drain: &DrainState,
    allow_empty: bool,
) -> Result<bool, ApiError> {
    let (version, instance) = find(service, id)?;
    if absence == Absence::Maint
        && (instance.orphaned || instance.absence == Some(Absence::Offline))
    {
        return Err(conflict(format!("instance {id}: is going offline")));
    }
    if instance.orphaned {
        return Ok(false);
    }
    let backend = instance.backend;
    let target = Target::Instance(version.name.clone(), id.to_owned());
    let mut next = service.clone();
    commands::drain(&mut next, &target, drain, allow_empty)?;
    if let Some(instance) = find_mut(&mut next, backend) {
        instance.absence = Some(absence);
    }
    let changed = next != *service;
    *service = next;
    Ok(changed)
}

/// Puts an instance back after maintenance.
///
/// # Errors
/// Usage for an unknown one, conflict for one that is about to leave.
pub fn present(service: &mut ServiceState, id: &str) -> Result<bool, ApiError> {
    let (version, instance) = find(service, id)?;
    match instance.absence {
        None => Ok(false),
        Some(Absence::Maint) if !instance.orphaned => {
            let target = Target::Instance(version.name.clone(), id.to_owned());
            commands::undrain(service, &target)
        }
        Some(_) => Err(conflict(format!("instance {id}: is going offline"))
            .hint(format!("back: releasectl undrain {} {id}", service.name))),
    }
}
