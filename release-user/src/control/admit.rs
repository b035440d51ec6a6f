//! What a state must not be like, however the configuration leads to it.

use std::collections::HashMap;
use std::net::SocketAddr;

use release_common::abi::{MAX_BACKENDS, MAX_SERVICES, VERSION_RINGS};

use super::commands::nothing_left;
use super::state::{Clients, ServiceState, State, VersionState, clients_in_words};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::Protocol;

/// Ids lead into maps of fixed size. An address serves one service at a time, its flows of before
/// included: a reply is looked for among one service's frontends.
///
/// # Errors
/// Conflict.
pub(super) fn fits(state: &State) -> Result<(), ApiError> {
    let rings = state.services.iter().flat_map(|s| &s.versions).flat_map(VersionState::rings);
    let backends = state.instances().map(|(_, _, instance)| instance.backend);
    for (what, highest, capacity) in [
        ("services", state.services.iter().map(|service| service.id).max(), MAX_SERVICES),
        ("versions and address families", rings.max(), VERSION_RINGS),
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
    let mut owners: HashMap<(SocketAddr, Protocol), &str> = HashMap::new();
    let owning = state.services.iter().filter(|service| service.settings.mode.owns_instances());
    for service in owning {
        let sockets = service.instances().flat_map(|(_, instance)| {
            service.protocols().map(move |protocol| (instance.addr, protocol))
        });
        for socket in sockets {
            let owner = owners.entry(socket).or_insert(&service.name);
            if *owner != service.name {
                return Err(ApiError::new(
                    ErrorCode::Conflict,
                    format!(
                        "instance {}: services {owner} and {} both have it, one of them for \
                         flows of before",
                        socket.0, service.name
                    ),
                )
                .hint("reload again when those flows have ended"));
            }
        }
    }
    Ok(())
}

/// A configuration may take away what serves only where something else takes over.
///
/// # Errors
/// Conflict.
pub(super) fn still_serves(next: &ServiceState, before: &ServiceState) -> Result<(), ApiError> {
    for version in &next.versions {
        let served = |clients| before.version(&version.name).is_some_and(|v| v.serves(clients));
        let lost = |clients: &Clients| {
            version.weight > 0 && !version.can_serve(*clients) && served(*clients)
        };
        if let Some(clients) = next.clients().find(lost) {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!(
                    "version {}/{}: has weight {} and would be left without an {}instance to serve",
                    next.name,
                    version.name,
                    version.weight,
                    clients_in_words(clients)
                ),
            )
            .hint("shift its weight away first, or leave it an instance"));
        }
    }
    match next.deserts(before) {
        None => Ok(()),
        Some(clients) => {
            Err(nothing_left(next, clients)
                .hint("shift weight to a version that stays, then reload"))
        }
    }
}
