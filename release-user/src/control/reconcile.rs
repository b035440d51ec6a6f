//! Bringing the state in line with a configuration that was read: what is new gets ids, what is
//! gone is kept as long as it has flows, weights stay as they are.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddrV4;

use release_common::abi::{FRONTENDS_PER_SERVICE, MAX_BACKENDS, MAX_RINGS, MAX_SERVICES};

use super::pending;
use super::state::{InstanceState, ServiceState, State, VersionState};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Service, Version};

/// Ids of one kind in use.
struct Ids(BTreeSet<u32>);

impl Ids {
    /// The smallest free one from `first`.
    fn take(&mut self, first: u32) -> u32 {
        let id = (first..).find(|id| !self.0.contains(id)).unwrap_or(u32::MAX);
        self.0.insert(id);
        id
    }
}

/// The state that `config` asks for, starting from `old`. Services whose placement may differ get a
/// new generation. `epoch` is the evidence epoch, noted with each new instance. Returns the changes
/// in words, too.
///
/// # Errors
/// Conflict, if a service would have more frontends than fit, those with flows of before included,
/// or if nothing would be left to serve where something did.
pub fn reconcile(
    old: &State,
    config: &Config,
    epoch: u32,
) -> Result<(State, Vec<String>), ApiError> {
    pending::refuse(config)?;
    let mut services = Ids(old.services.iter().map(|service| service.id).collect());
    let all_versions = || old.services.iter().flat_map(|service| &service.versions);
    let mut rings = Ids(all_versions().map(|version| version.ring).collect());
    let mut backends = Ids(old.instances().map(|(_, _, instance)| instance.backend).collect());
    let mut changes = Vec::new();
    let known = |addr: SocketAddrV4| {
        let same = old.instances().filter(|(_, _, instance)| instance.addr == addr);
        same.map(|(_, _, instance)| instance.epoch).min().unwrap_or(epoch)
    };
    let mut state = State::default();
    for service in config.services() {
        let name = service.name().as_str();
        let mut next = old.service(name).cloned().unwrap_or_else(|| {
            changes.push(format!("service {name} added"));
            ServiceState {
                name: name.to_owned(),
                id: services.take(0),
                generation: 0,
                frontends: Vec::new(),
                removed: false,
                versions: Vec::new(),
            }
        });
        let before = next.clone();
        next.removed = false;
        merge_frontends(&mut next, service)?;
        merge_versions(&mut next, service, &known, &mut rings, &mut backends, &mut changes);
        finish(&mut next, &before);
        still_serves(&next, &before)?;
        state.services.push(next);
    }
    for gone in &old.services {
        if config.service(&gone.name).is_none() {
            let mut next = gone.clone();
            if !gone.removed {
                changes.push(format!("service {} removed, kept until its flows end", gone.name));
            }
            next.removed = true;
            for version in &mut next.versions {
                remove_version(version, gone.generation + 1);
            }
            finish(&mut next, gone);
            state.services.push(next);
        }
    }
    fits(&state)?;
    Ok((state, changes))
}

/// Ids lead into maps of fixed size. An address serves one service at a time, its flows of before
/// included: a reply is looked for among one service's frontends.
fn fits(state: &State) -> Result<(), ApiError> {
    let rings = state.services.iter().flat_map(|s| &s.versions).map(|version| version.ring);
    let backends = state.instances().map(|(_, _, instance)| instance.backend);
    for (what, highest, capacity) in [
        ("services", state.services.iter().map(|service| service.id).max(), MAX_SERVICES),
        ("versions", rings.max(), MAX_RINGS),
        ("instances", backends.max(), MAX_BACKENDS),
    ] {
        if highest.is_some_and(|highest| highest >= capacity) {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!("{what}: more than fit, those kept for their flows included ({capacity})"),
            )
            .hint("reload again when those flows have ended"));
        }
    }
    let mut owners: HashMap<SocketAddrV4, &str> = HashMap::new();
    for (service, _, instance) in state.instances() {
        let owner = owners.entry(instance.addr).or_insert(&service.name);
        if *owner != service.name {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!(
                    "instance {}: services {owner} and {} both have it, one of them for flows \
                     of before",
                    instance.addr, service.name
                ),
            )
            .hint("reload again when those flows have ended"));
        }
    }
    Ok(())
}

/// A configuration may take away what serves only where something else takes over.
fn still_serves(next: &ServiceState, before: &ServiceState) -> Result<(), ApiError> {
    let serves = |version: &VersionState| version.instances.iter().any(InstanceState::in_ring);
    for version in next.versions.iter().filter(|version| version.weight > 0 && !serves(version)) {
        if before.version(&version.name).is_some_and(VersionState::serves) {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!(
                    "version {}/{}: has weight {} and would be left without an instance to serve",
                    next.name, version.name, version.weight
                ),
            )
            .hint("shift its weight away first, or leave it an instance"));
        }
    }
    if before.serves() && !next.serves() {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!("service {}: no version would be left to serve new flows", next.name),
        )
        .hint("shift weight to a version that stays, then reload"));
    }
    Ok(())
}

/// Gives the service a new generation if anything about it differs.
fn finish(next: &mut ServiceState, before: &ServiceState) {
    if next != before || next.generation == 0 {
        next.generation = before.generation + 1;
    }
}

/// Frontends that were taken away stay known to the reply path until their flows end.
fn merge_frontends(next: &mut ServiceState, service: &Service) -> Result<(), ApiError> {
    for frontend in service.frontends() {
        let at = pending::v4(frontend.socket());
        if next.frontends.contains(&Some(at)) {
            continue;
        }
        match next.frontends.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(at),
            None => next.frontends.push(Some(at)),
        }
    }
    if next.frontends.len() > FRONTENDS_PER_SERVICE {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!(
                "service {}: {} frontends, of which some were taken away and have flows; \
                 {FRONTENDS_PER_SERVICE} fit",
                next.name,
                next.frontends.len()
            ),
        )
        .hint("reload again when those flows have ended"));
    }
    Ok(())
}

fn merge_versions(
    next: &mut ServiceState,
    service: &Service,
    epoch: &impl Fn(SocketAddrV4) -> u32,
    rings: &mut Ids,
    backends: &mut Ids,
    changes: &mut Vec<String>,
) {
    let old = std::mem::take(&mut next.versions);
    let generation = next.generation + 1;
    for version in service.versions() {
        let name = version.name().as_str();
        let mut merged = old.iter().find(|v| v.name == name).cloned().unwrap_or_else(|| {
            if next.generation > 0 {
                changes.push(format!("version {}/{name} added", next.name));
            }
            VersionState {
                name: name.to_owned(),
                ring: rings.take(1),
                // A version added to a running service waits for a shift; the first
                // configuration of a service decides where its traffic begins.
                weight: if next.generation == 0 { version.weight().get() } else { 0 },
                closed_at: generation,
                drain: None,
                first_flow_at: None,
                removed: false,
                instances: Vec::new(),
            }
        });
        merged.removed = false;
        merge_instances(&mut merged, version, &next.name, generation, epoch, backends, changes);
        next.versions.push(merged);
    }
    for mut gone in old {
        if service.version(&gone.name).is_none() {
            if !gone.removed {
                changes.push(format!(
                    "version {}/{} removed, kept until its flows end",
                    next.name, gone.name
                ));
            }
            remove_version(&mut gone, generation);
            next.versions.push(gone);
        }
    }
}

fn remove_version(version: &mut VersionState, generation: u32) {
    version.removed = true;
    if version.weight > 0 {
        version.weight = 0;
        version.closed_at = generation;
    }
    for instance in &mut version.instances {
        orphan(instance, generation);
    }
}

fn orphan(instance: &mut InstanceState, generation: u32) {
    if instance.in_ring() {
        instance.closed_at = generation;
    }
    instance.orphaned = true;
}

fn merge_instances(
    version: &mut VersionState,
    configured: &Version,
    service: &str,
    generation: u32,
    epoch: &impl Fn(SocketAddrV4) -> u32,
    backends: &mut Ids,
    changes: &mut Vec<String>,
) {
    let old = std::mem::take(&mut version.instances);
    for instance in configured.instances() {
        let id = instance.id().to_string();
        let addr = pending::v4(instance.addr());
        // Another address under the same id is another instance.
        let same = |i: &&InstanceState| i.id == id && i.addr == addr;
        let mut merged = old.iter().find(same).cloned().unwrap_or_else(|| {
            if generation > 1 {
                changes.push(format!("instance {service}/{}/{id} added", version.name));
            }
            InstanceState {
                id: id.clone(),
                addr,
                weight: 1,
                backend: backends.take(1),
                // What is unknown of a socket stays unknown under a new id.
                epoch: epoch(addr),
                drain: None,
                orphaned: false,
                closed_at: 0,
            }
        });
        merged.orphaned = false;
        merged.weight = instance.weight().get();
        version.instances.push(merged);
    }
    for mut gone in old {
        if !version.instances.iter().any(|kept| kept.backend == gone.backend) {
            if !gone.orphaned {
                changes.push(format!(
                    "instance {service}/{}/{} removed, kept until its flows end",
                    version.name, gone.id
                ));
            }
            orphan(&mut gone, generation);
            version.instances.push(gone);
        }
    }
}
