//! Bringing the state in line with a configuration that was read: what is new gets ids, what is
//! gone is kept as long as it has flows, weights stay as they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use release_common::abi::FRONTENDS_PER_FAMILY;

use super::admit;
use super::register;
use super::retire::Retirement;
use super::settings::Settings;
use super::state::{GIVEN_UP, InstanceState, ServiceState, State, VersionState};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Family, Service, Version};

/// Ids of one kind in use.
pub(super) struct Ids(BTreeSet<u32>);

impl Ids {
    /// Those of rings.
    pub fn rings(state: &State) -> Self {
        let versions = state.services.iter().flat_map(|service| &service.versions);
        Self(versions.flat_map(VersionState::rings).collect())
    }

    /// Those of instances.
    pub fn backends(state: &State) -> Self {
        Self(state.instances().map(|(_, _, instance)| instance.backend).collect())
    }

    /// The smallest free one from `first`.
    pub fn take(&mut self, first: u32) -> u32 {
        let id = (first..).find(|id| !self.0.contains(id)).unwrap_or(u32::MAX);
        self.0.insert(id);
        id
    }
}

/// Evidence epoch from which on something is known of a socket: `now`, unless it is older than that.
pub(super) fn epoch_of(state: &State, addr: SocketAddr, now: u32) -> u32 {
    if state.services.iter().any(|service| service.given_up.contains(&addr)) {
        return GIVEN_UP;
    }
    let same = state.instances().filter(|(_, _, instance)| instance.addr == addr);
    same.map(|(_, _, instance)| instance.epoch).min().unwrap_or(now)
}

/// The state that `config` asks for, starting from `old`. Services whose placement may differ get a
/// new generation. `epoch` is the evidence epoch, noted with each new instance. Returns the changes
/// in words, too.
///
/// # Errors
/// Conflict, if a service would have more frontends than fit, those with flows of before included,
/// if nothing would be left to serve where something did, or if flows of before could not go on.
pub fn reconcile(
    old: &State,
    config: &Config,
    epoch: u32,
) -> Result<(State, Vec<String>), ApiError> {
    let mut services = Ids(old.services.iter().map(|service| service.id).collect());
    let (mut rings, mut backends) = (Ids::rings(old), Ids::backends(old));
    let mut changes = Vec::new();
    let known = |addr: SocketAddr| epoch_of(old, addr, epoch);
    let mut state = State::default();
    for service in config.services() {
        let name = service.name().as_str();
        let mut next = old.service(name).cloned().unwrap_or_else(|| {
            changes.push(format!("service {name} added"));
            ServiceState { name: name.to_owned(), id: services.take(0), ..ServiceState::default() }
        });
        let before = next.clone();
        next.removed = false;
        merge_settings(&mut next, service)?;
        merge_frontends(&mut next, service)?;
        merge_versions(&mut next, service, &known, &mut rings, &mut backends, &mut changes);
        finish(&mut next, &before);
        register::still_fit(&next, service, config)?;
        admit::still_serves(&next, &before)?;
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
    admit::fits(&state)?;
    Ok((state, changes))
}

/// Gives the service a new generation if anything about its placement differs.
fn finish(next: &mut ServiceState, before: &ServiceState) {
    let settings = std::mem::replace(&mut next.settings, before.settings.clone());
    let differs = next != before;
    next.settings = settings;
    if differs || next.generation == 0 {
        next.generation = before.generation + 1;
    }
}

/// Flows of before go on as they began, or the change has to wait for them.
fn merge_settings(next: &mut ServiceState, service: &Service) -> Result<(), ApiError> {
    let settings = Settings::of(service);
    if next.generation > 0
        && let Some(why) = next.settings.contradict(&settings)
    {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!("service {}: {why}, which its flows of before cannot follow", next.name),
        )
        .hint(
            "take it out, reload, and put it back when those flows have ended; or give it another \
             name and other frontends",
        ));
    }
    next.families = if settings.mode.is_tunnel() {
        Vec::new()
    } else {
        let listens = |family: &Family| service.frontends().iter().any(|f| f.family() == *family);
        Family::ALL.into_iter().filter(listens).collect()
    };
    // With one family in all, any instance serves any client.
    if !Family::ALL.into_iter().all(|family| service.has_family(family)) {
        next.families.clear();
    }
    next.settings = settings;
    Ok(())
}

/// Frontends that were taken away stay known to the reply path until their flows end.
fn merge_frontends(next: &mut ServiceState, service: &Service) -> Result<(), ApiError> {
    for frontend in service.all_frontends() {
        let places = next.places_mut(frontend.family());
        if places.contains(&Some(frontend)) {
            continue;
        }
        match places.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(frontend),
            None => places.push(Some(frontend)),
        }
    }
    for family in Family::ALL {
        let count = next.places(family).len();
        if count > FRONTENDS_PER_FAMILY {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!(
                    "service {}: {count} {family} frontends, of which some were taken away and \
                     have flows; {FRONTENDS_PER_FAMILY} fit",
                    next.name
                ),
            )
            .hint("reload again when those flows have ended"));
        }
    }
    Ok(())
}

fn merge_versions(
    next: &mut ServiceState,
    service: &Service,
    epoch: &impl Fn(SocketAddr) -> u32,
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
                ..VersionState::default()
            }
        });
        let open = merged.open();
        merged.removed = false;
        merged.registered = false;
        merged.tested = service.is_tested(version.name());
        merged.note_closed(open, generation);
        second_ring(&mut merged, service, rings);
        merge_instances(&mut merged, version, service, generation, epoch, backends, changes);
        for instance in &mut merged.instances {
            // Nobody would ever find it up again.
            instance.down = instance.down.take().filter(|down| down.by.is_configured(service));
        }
        next.versions.push(merged);
    }
    let (kept, gone): (Vec<_>, Vec<_>) = old
        .into_iter()
        .filter(|version| service.version(&version.name).is_none())
        .partition(|version| version.registered && service.registration().admit(&version.name));
    for mut kept in kept {
        second_ring(&mut kept, service, rings);
        for instance in &mut kept.instances {
            instance.sockets = service.sockets_of(&kept.name).cloned();
            instance.down = instance.down.take().filter(|down| down.by.is_configured(service));
        }
        next.versions.push(kept);
    }
    for mut gone in gone {
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

/// Instances of each family have a ring of their own where clients need those of theirs.
pub(super) fn second_ring(version: &mut VersionState, service: &Service, rings: &mut Ids) {
    if version.ring6.is_none() && !service.mode().is_tunnel() && service.has_family(Family::V6) {
        version.ring6 = Some(rings.take(1));
    }
}

fn remove_version(version: &mut VersionState, generation: u32) {
    let open = version.open();
    version.removed = true;
    version.registered = false;
    version.tested = false;
    version.weight = 0;
    version.note_closed(open, generation);
    for instance in &mut version.instances {
        orphan(instance, generation, version.retired.as_ref());
    }
}

/// What retired its version has proven, or given up, the instance's end, too.
pub(super) fn orphan(instance: &mut InstanceState, generation: u32, retired: Option<&Retirement>) {
    if instance.in_ring() {
        instance.closed_at = generation;
    }
    instance.orphaned = true;
    instance.released = instance.released.take().or_else(|| retired.cloned());
}

fn merge_instances(
    version: &mut VersionState,
    configured: &Version,
    of: &Service,
    generation: u32,
    epoch: &impl Fn(SocketAddr) -> u32,
    backends: &mut Ids,
    changes: &mut Vec<String>,
) {
    let service = of.name();
    let old = std::mem::take(&mut version.instances);
    for instance in configured.instances() {
        let id = instance.id().to_string();
        let addr = instance.addr();
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
                server_id: None,
                sockets: None,
                backend: backends.take(1),
                // What is unknown of a socket stays unknown under a new id.
                epoch: epoch(addr),
                drain: None,
                down: None,
                orphaned: false,
                closed_at: 0,
                released: None,
                registered: None,
                absence: None,
            }
        });
        // One that had registered and was lost is back; what somebody drained stays so.
        merged.absence = merged.absence.filter(|_| merged.drain.is_some());
        merged.registered = None;
        merged.orphaned = false;
        merged.released = None;
        merged.weight = instance.weight().get();
        merged.server_id = instance.server_id();
        merged.sockets = instance.sockets().cloned();
        version.instances.push(merged);
    }
    let may_stay = of.registration().admit(&version.name);
    for mut gone in old {
        if version.instances.iter().any(|kept| kept.backend == gone.backend) {
            continue;
        }
        if may_stay && gone.registered.is_some() && !gone.orphaned {
            gone.sockets = of.sockets_of(&version.name).cloned();
            version.instances.push(gone);
            continue;
        }
        if !gone.orphaned {
            changes.push(format!(
                "instance {service}/{}/{} removed, kept until its flows end",
                version.name, gone.id
            ));
        }
        orphan(&mut gone, generation, version.retired.as_ref());
        version.instances.push(gone);
    }
    version.instances.sort_by_key(|instance| instance.orphaned);
}
