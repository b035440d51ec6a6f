//! Commands on the state: pure, so that each can be tested alone. Every one that changes something
//! gives the service a new generation.

use std::collections::BTreeMap;

use super::state::{Clients, DrainState, ServiceState, State, VersionState, clients_in_words};
use crate::api::types::{ApiError, ErrorCode};

/// What `drain`, `idle` and others are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A version (by name).
    Version(String),
    /// An instance: version and id.
    Instance(String, String),
}

impl Target {
    /// Finds what `name` means in a service.
    ///
    /// # Errors
    /// Usage, if it is neither a version nor an instance.
    pub fn find(service: &ServiceState, name: &str) -> Result<Self, ApiError> {
        if service.version(name).is_some() {
            return Ok(Self::Version(name.to_owned()));
        }
        // A configured instance before an orphaned one of the same id.
        let mut found: Vec<_> = service.instances().filter(|(_, i)| i.id == name).collect();
        found.sort_by_key(|(_, instance)| instance.orphaned);
        if let Some((version, instance)) = found.first() {
            return Ok(Self::Instance(version.name.clone(), instance.id.clone()));
        }
        let known: Vec<&str> = service
            .versions
            .iter()
            .map(|v| v.name.as_str())
            .chain(service.instances().map(|(_, i)| i.id.as_str()))
            .collect();
        Err(ApiError::new(
            ErrorCode::Usage,
            format!("target {name}: no such version or instance of service {}", service.name),
        )
        .hint(format!("it has {}", known.join(", "))))
    }
}

/// Finds a service.
///
/// # Errors
/// Usage, if there is none of that name.
pub fn service_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut ServiceState, ApiError> {
    let known: Vec<String> =
        state.services.iter().filter(|s| !s.removed).map(|s| s.name.clone()).collect();
    state.services.iter_mut().find(|s| s.name == name).ok_or_else(|| {
        ApiError::new(ErrorCode::Usage, format!("service {name}: no such service"))
            .hint(format!("there are {}", known.join(", ")))
    })
}

/// Changes weights. Returns whether anything changed.
///
/// # Errors
/// Usage for an unknown version; conflict if no version would be left to serve.
pub fn shift(
    service: &mut ServiceState,
    weights: &BTreeMap<String, u32>,
    allow_empty: bool,
) -> Result<bool, ApiError> {
    let mut next = service.clone();
    let generation = service.generation + 1;
    for (name, &weight) in weights {
        if weight > 1_000_000 {
            return Err(ApiError::new(
                ErrorCode::Usage,
                format!("weight {weight} of {name}: more than 1000000"),
            ));
        }
        let known: Vec<String> = service.versions.iter().map(|v| v.name.clone()).collect();
        let version =
            next.version_mut(name).filter(|version| !version.removed).ok_or_else(|| {
                if service.settings.registration.admit(name) {
                    return unregistered(service, name)
                        .hint(format!("it has {}", known.join(", ")));
                }
                ApiError::new(
                    ErrorCode::Usage,
                    format!("version {name}: no such version of service {}", service.name),
                )
                .hint(format!("it has {}", known.join(", ")))
            })?;
        if weight > 0 && version.retired.is_some() {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!("version {name}: is retired, its instances may be gone"),
            )
            .hint(format!("take it back first: releasectl undrain {} {name}", service.name)));
        }
        if weight > 0 && version.weight == 0 {
            service.clients().try_for_each(|clients| demand_instance(service, version, clients))?;
        }
        let open = version.open();
        if weight > 0 {
            version.drain = None;
        }
        version.weight = weight;
        version.note_closed(open, generation);
    }
    commit(service, next, allow_empty)
}

/// Takes a version or an instance out of new flows.
///
/// # Errors
/// Conflict if no version would be left to serve.
pub fn drain(
    service: &mut ServiceState,
    target: &Target,
    drain: &DrainState,
    allow_empty: bool,
) -> Result<bool, ApiError> {
    let mut next = service.clone();
    let generation = service.generation + 1;
    match target {
        Target::Version(name) => {
            let Some(version) = next.version_mut(name) else { return Ok(false) };
            let open = version.open();
            if let Some(running) = &mut version.drain {
                running.again(drain);
            } else {
                version.drain = Some(DrainState { weight_before: version.weight, ..drain.clone() });
            }
            version.weight = 0;
            version.note_closed(open, generation);
        }
        Target::Instance(name, id) => {
            let Some(version) = next.version_mut(name) else { return Ok(false) };
            let Some(instance) = version.instances.iter_mut().find(|i| i.id == *id) else {
                return Ok(false);
            };
            if let Some(running) = &mut instance.drain {
                running.again(drain);
            } else {
                if instance.in_ring() {
                    instance.closed_at = generation;
                }
                instance.drain =
                    Some(DrainState { weight_before: instance.weight, ..drain.clone() });
            }
            let served = |clients| service.version(name).is_some_and(|v| v.serves(clients));
            let lost = |clients: &Clients| served(*clients) && !version.serves(*clients);
            if let Some(clients) = service.clients().find(lost)
                && !allow_empty
            {
                let kind = clients_in_words(clients);
                return Err(ApiError::new(
                    ErrorCode::Conflict,
                    format!(
                        "instance {id}: is the last serving one of version {name}, which has \
                         weight{}",
                        if kind.is_empty() { kind } else { format!(", for {kind}clients") }
                    ),
                )
                .hint("shift the weight away first, or --allow-empty"));
            }
        }
    }
    commit(service, next, allow_empty)
}

/// Puts a drained version or instance back.
///
/// # Errors
/// Conflict if a version would get weight without an instance to take it.
pub fn undrain(service: &mut ServiceState, target: &Target) -> Result<bool, ApiError> {
    let mut next = service.clone();
    match target {
        Target::Version(name) => {
            if let Some(version) = next.version_mut(name)
                && let Some(drain) = version.drain.take()
            {
                if drain.weight_before > 0 {
                    demand_instance(service, version, None)?;
                }
                version.weight = drain.weight_before;
                version.retired = None;
            }
        }
        Target::Instance(name, id) => {
            if let Some(version) = next.version_mut(name)
                && let Some(instance) = version.instances.iter_mut().find(|i| i.id == *id)
            {
                instance.drain = None;
                instance.absence = instance.absence.filter(|_| instance.orphaned);
            }
        }
    }
    commit(service, next, true)
}

/// A version without an instance in its ring cannot have weight: its share would be refused.
fn demand_instance(
    service: &ServiceState,
    version: &VersionState,
    clients: Clients,
) -> Result<(), ApiError> {
    if version.can_serve(clients) {
        return Ok(());
    }
    let nobody = version.instances.iter().all(|instance| instance.orphaned);
    if nobody && service.settings.registration.admit(&version.name) {
        let hint =
            format!("releasectl instance register {} {} ADDRESS", service.name, version.name);
        return Err(unregistered(service, &version.name).hint(hint));
    }
    let kind = clients_in_words(clients);
    let message = format!("version {}: has no instance to take new {kind}flows", version.name);
    Err(ApiError::new(ErrorCode::Conflict, message)
        .hint("undrain one, mend what is down, or add one to the configuration and reload"))
}

/// The refusal of a version that instances may register for, but none has.
fn unregistered(service: &ServiceState, version: &str) -> ApiError {
    let what = format!(
        "version {version}: no instance of {} has registered for it, and unregistered versions cannot \
         be released",
        service.name
    );
    ApiError::new(ErrorCode::Conflict, what)
}

/// Accepts the next state under a new generation, unless nothing differs or nothing would serve.
pub(super) fn commit(
    service: &mut ServiceState,
    mut next: ServiceState,
    allow_empty: bool,
) -> Result<bool, ApiError> {
    if next == *service {
        return Ok(false);
    }
    if let Some(clients) = next.deserts(service)
        && !allow_empty
    {
        return Err(nothing_left(service, clients)
            .hint("shift weight to another version first, or --allow-empty"));
    }
    next.generation = service.generation + 1;
    *service = next;
    Ok(true)
}

/// The refusal of a state in which nobody would serve these clients.
pub(super) fn nothing_left(service: &ServiceState, clients: Clients) -> ApiError {
    let kind = clients_in_words(clients);
    let message =
        format!("service {}: no version would be left to serve new {kind}flows", service.name);
    ApiError::new(ErrorCode::Conflict, message)
}
