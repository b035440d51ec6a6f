//! Instances that register themselves. Pure.
//!
//! They are state: a configuration says who may register, and a reload keeps who has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::admit;
use super::commands;
use super::leave::Absence;
use super::reconcile::{Ids, epoch_of, second_ring};
use super::state::{InstanceState, ServiceState, State, VersionState};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Endpoint, InstanceId, InstanceWeight, MAX_VERSIONS, Service};

/// What an instance that registered said of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// When it registered, RFC 3339.
    pub at: String,
    /// Free text for those who ask.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Seconds without a renewal after which it counts as lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<f64>,
    /// The process with whose end it counts as lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
}

/// A process on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watch {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since boot: another one may get its number.
    pub born: u64,
}

/// A registration as it is asked for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Its id.
    pub id: InstanceId,
    /// Its socket.
    pub addr: Endpoint,
    /// Weight within its version.
    pub weight: InstanceWeight,
    /// What it says of itself.
    pub registration: Registration,
}

pub(super) fn conflict(message: String) -> ApiError {
    ApiError::new(ErrorCode::Conflict, message)
}

/// The service with the instance registered, and whether that changes anything: asked again with
/// the same data, nothing does.
///
/// # Errors
/// Usage for an unknown service and an address that no instance of it can have; conflict with who
/// may register, and with other instances.
pub fn register(
    state: &State,
    config: &Config,
    epoch: u32,
    entry: &Entry,
) -> Result<(ServiceState, bool), ApiError> {
    let Entry { service: name, version, id, addr, .. } = entry;
    let before = commands::service_mut(&mut state.clone(), name)?.clone();
    let Some(configured) = config.service(name).filter(|_| !before.removed) else {
        return Err(conflict(format!("service {name}: was removed, and is kept for its flows")));
    };
    if !configured.registration().admit(version) {
        let hint = format!(
            "allow it in the configuration: registration = \"open\" or [{version:?}], and reload"
        );
        let what = format!("version {name}/{version}: nobody may register for it");
        return Err(conflict(what).hint(hint));
    }
    let what = format!("instance {name}/{version}/{id}");
    configured
        .admits(*addr)
        .map_err(|invalid| ApiError::invalid(ErrorCode::Usage, &what, &invalid))?;
    let unique = config.admits(configured, *addr);
    unique.map_err(|invalid| ApiError::invalid(ErrorCode::Conflict, &what, &invalid))?;
    if before.version(id.as_str()).is_some() || id.as_str() == version {
        let text = format!("{what}: {id} is also a version");
        return Err(ApiError::new(ErrorCode::Usage, text).hint("commands take either"));
    }
    others(&before, entry)?;
    let mut next = before.clone();
    let generation = before.generation + 1;
    place(&mut next, state, configured, entry, generation)?;
    let version = next.version_mut(version).ok_or_else(|| conflict(what.clone()))?;
    let same = |i: &&mut InstanceState| i.id == id.as_str() && i.addr == addr.socket();
    match version.instances.iter_mut().find(same) {
        Some(known) => renew(known, entry),
        None => version.instances.push(InstanceState {
            id: id.to_string(),
            addr: addr.socket(),
            weight: entry.weight.get(),
            server_id: None,
            sockets: None,
            backend: Ids::backends(state).take(1),
            // What is unknown of a socket stays unknown under a new id.
            epoch: epoch_of(state, addr.socket(), epoch),
            down: None,
            drain: None,
            orphaned: false,
            closed_at: 0,
            released: None,
            registered: Some(entry.registration.clone()),
            absence: None,
        }),
    }
    // Those that serve stand before those that are gone.
    version.instances.sort_by_key(|instance| instance.orphaned);
    let sockets = configured.sockets_of(&version.name);
    for instance in version.instances.iter_mut().filter(|i| i.registered.is_some()) {
        instance.sockets = sockets.cloned();
    }
    let mut all = state.clone();
    if let Some(slot) = all.service_mut(name) {
        *slot = next.clone();
    }
    admit::fits(&all)?;
    if next == before {
        return Ok((next, false));
    }
    if placement(&next) != placement(&before) {
        next.generation = generation;
    }
    Ok((next, true))
}

/// What of a service's instances matters for where flows go.
fn placement(service: &ServiceState) -> Vec<(u32, u32, u32, bool)> {
    let of = |(version, i): (&VersionState, &InstanceState)| {
        (version.ring, i.backend, i.weight, i.in_ring())
    };
    service.instances().map(of).collect()
}

/// Refuses a name and an address that another instance has.
fn others(service: &ServiceState, entry: &Entry) -> Result<(), ApiError> {
    let (id, addr) = (entry.id.as_str(), entry.addr.socket());
    for (version, other) in service.instances().filter(|(_, other)| !other.orphaned) {
        let itself = version.name == entry.version && other.id == id && other.addr == addr;
        if itself && other.registered.is_some() || other.id != id && other.addr != addr {
            continue;
        }
        let place = in_words(&service.name, &version.name, other);
        let what = format!("instance {}/{}/{id} at {addr}", service.name, entry.version);
        let error = conflict(format!("{what}: there is already {place}"));
        return Err(error.hint(match (itself, &other.registered) {
            (true, _) => "what is in the configuration need not register".to_owned(),
            (_, None) => "take it out of the configuration, and reload".to_owned(),
            (_, Some(_)) => {
                format!("releasectl instance deregister {} {}", service.name, other.id)
            }
        }));
    }
    Ok(())
}

fn in_words(service: &str, version: &str, instance: &InstanceState) -> String {
    let how = if instance.registered.is_some() { "registered" } else { "in the configuration" };
    format!("{service}/{version}/{} at {}, {how}", instance.id, instance.addr)
}

/// Makes the version, if there is none.
fn place(
    next: &mut ServiceState,
    state: &State,
    configured: &Service,
    entry: &Entry,
    generation: u32,
) -> Result<(), ApiError> {
    let name = &next.name;
    if let Some(version) = next.versions.iter_mut().find(|v| v.name == entry.version) {
        if version.retired.is_some() {
            let hint = format!("take it back first: releasectl undrain {name} {}", version.name);
            let what = format!("version {name}/{}: is retired", version.name);
            return Err(conflict(what).hint(hint));
        }
        // One that was taken out of the configuration lives on as a registered one.
        version.registered |= version.removed;
        version.removed = false;
    } else {
        let mut rings = Ids::rings(state);
        let mut version = VersionState {
            name: entry.version.clone(),
            ring: rings.take(1),
            closed_at: generation,
            registered: true,
            ..VersionState::default()
        };
        second_ring(&mut version, configured, &mut rings);
        next.versions.push(version);
    }
    next.versions.sort_by_key(|version| version.removed);
    room(next)
}

/// A split has so many places; those of removed versions come last and lead nowhere.
fn room(service: &ServiceState) -> Result<(), ApiError> {
    let count = service.versions.iter().filter(|version| !version.removed).count();
    if count > MAX_VERSIONS {
        let what = format!("service {}: {count} versions, registered ones included", service.name);
        return Err(conflict(what).hint(format!("at most {MAX_VERSIONS}")));
    }
    Ok(())
}

/// The same instance once more: it renews, says something new, or is back.
fn renew(known: &mut InstanceState, entry: &Entry) {
    let said = &entry.registration;
    let another = |before: &Registration| before.watch != said.watch;
    let back = known.orphaned || known.registered.as_ref().is_some_and(another);
    if back && known.absence == Some(Absence::Offline) {
        // What had gone offline has ended; who comes now begins.
        known.absence = None;
        known.drain = known.drain.take().filter(|_| known.orphaned);
    }
    known.orphaned = false;
    known.released = None;
    known.weight = entry.weight.get();
    let at = known.registered.as_ref().filter(|_| !back).map(|before| before.at.clone());
    known.registered =
        Some(Registration { at: at.unwrap_or_else(|| said.at.clone()), ..said.clone() });
}

/// Keeps those who registered over a reload, as far as they still may be here.
///
/// # Errors
/// Conflict that names both places.
pub(super) fn still_fit(
    next: &ServiceState,
    service: &Service,
    config: &Config,
) -> Result<(), ApiError> {
    room(next)?;
    let live = || next.instances().filter(|(_, instance)| !instance.orphaned);
    for (version, instance) in live().filter(|(_, instance)| instance.registered.is_some()) {
        let what = in_words(&next.name, &version.name, instance);
        let hint = format!("releasectl instance deregister {} {}", next.name, instance.id);
        let addr = Endpoint::new(instance.addr).and_then(|addr| config.admits(service, addr));
        if let Err(invalid) = addr {
            let error = conflict(format!("instance {what}: {}", invalid.what()));
            return Err(error.hint(hint));
        }
        if next.version(&instance.id).is_some() {
            let text = format!("instance {what}: there would be a version of that name");
            return Err(conflict(text).hint(hint));
        }
        let clash = |(_, other): &(&VersionState, &InstanceState)| {
            other.backend != instance.backend
                && (other.id == instance.id || other.addr == instance.addr)
        };
        if let Some((other_version, other)) = live().find(clash) {
            let other = in_words(&next.name, &other_version.name, other);
            return Err(
                conflict(format!("instance {what}: there would be {other}, too")).hint(hint)
            );
        }
    }
    Ok(())
}
