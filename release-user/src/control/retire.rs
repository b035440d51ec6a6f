//! Calling a version retired, and letting the id of an instance that is gone be used again: only
//! with a receipt, or by force. Pure.

use serde::{Deserialize, Serialize};

use super::commands::{Target, commit};
use super::state::{DrainState, InstanceState, ServiceState, VersionState};
use crate::api::types::{ApiError, ErrorCode};

/// What somebody retired something by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// When, RFC 3339.
    pub at: String,
    /// Number of the receipt; none: by force.
    pub receipt: Option<u64>,
    /// What was not proven when it was forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

impl ServiceState {
    /// The instance of this id that is gone from the configuration and kept for its flows. One that
    /// nobody has given free stands before others.
    pub fn orphan(&self, id: &str) -> Option<(&VersionState, &InstanceState)> {
        let gone = || self.instances().filter(|(_, i)| i.orphaned && i.id == id);
        gone().find(|(_, i)| i.released.is_none()).or_else(|| gone().next())
    }
}

/// Forgets an orphan that was given free. What was not proven of its socket stays unproven when that
/// comes back; a receipt settles it.
pub fn forget(service: &mut ServiceState, instance: &InstanceState) {
    let proven = instance.released.as_ref().is_some_and(|by| by.receipt.is_some());
    for version in &mut service.versions {
        version.instances.retain(|other| other.backend != instance.backend);
    }
    if proven {
        service.given_up.remove(&instance.addr);
    } else {
        service.given_up.insert(instance.addr);
    }
}

/// Retires a version that no new flow reaches, or gives an orphaned instance's id free. Asked
/// again, it changes nothing.
///
/// # Errors
/// Conflict for a version in service and for a configured instance.
pub fn retire(
    service: &mut ServiceState,
    target: &Target,
    retirement: &Retirement,
) -> Result<bool, ApiError> {
    let mut next = service.clone();
    let generation = service.generation + 1;
    let mut was_open = false;
    match target {
        Target::Version(name) => {
            let Some(version) = next.version_mut(name) else { return Ok(false) };
            if version.weight > 0 {
                return Err(ApiError::new(
                    ErrorCode::Conflict,
                    format!("version {name}: takes new flows, weight {}", version.weight),
                )
                .hint(format!("drain it first: releasectl drain {} {name}", service.name)));
            }
            was_open = version.open();
            // No test client may reach it either.
            version.drain.get_or_insert_with(DrainState::default);
            version.note_closed(was_open, generation);
            version.retired.get_or_insert_with(|| retirement.clone());
        }
        Target::Instance(_, id) => {
            let backend = service.orphan(id).map(|(_, instance)| instance.backend);
            let Some(backend) = backend else {
                let registered = |i: &InstanceState| i.id == *id && i.registered.is_some();
                if service.instances().any(|(_, instance)| registered(instance)) {
                    let what = format!("instance {id}: is registered");
                    let hint = format!("releasectl instance deregister {} {id}", service.name);
                    return Err(ApiError::new(ErrorCode::Conflict, what).hint(hint));
                }
                return Err(ApiError::new(
                    ErrorCode::Conflict,
                    format!("instance {id}: is in the configuration"),
                )
                .hint("only versions are retired, and instances that were taken out of it"));
            };
            let instances = next.versions.iter_mut().flat_map(|v| &mut v.instances);
            for instance in instances.filter(|instance| instance.backend == backend) {
                instance.released.get_or_insert_with(|| retirement.clone());
            }
        }
    }
    if was_open {
        return commit(service, next, false);
    }
    // Where nothing about placement differs, there is no new generation.
    let changed = next != *service;
    *service = next;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::commands::{shift, undrain};

    fn by_receipt(number: u64) -> Retirement {
        Retirement { at: "now".to_owned(), receipt: Some(number), lost: Vec::new() }
    }

    fn service() -> ServiceState {
        let instance = |id: &str, backend| InstanceState {
            id: id.to_owned(),
            addr: format!("10.0.0.{backend}:80").parse().unwrap(),
            weight: 1,
            server_id: None,
            sockets: None,
            backend,
            epoch: 1,
            drain: None,
            down: None,
            orphaned: false,
            closed_at: 0,
            released: None,
            registered: None,
            absence: None,
        };
        let version = |name: &str, weight, backend| VersionState {
            name: name.to_owned(),
            weight,
            instances: vec![instance(name, backend)],
            ..VersionState::default()
        };
        ServiceState {
            name: "web".to_owned(),
            generation: 4,
            versions: vec![version("v1", 0, 1), version("v2", 1, 2)],
            ..ServiceState::default()
        }
    }

    fn v1() -> Target {
        Target::Version("v1".to_owned())
    }

    #[test]
    fn a_retired_version_takes_nothing_until_it_is_taken_back() {
        let mut state = service();
        state.version_mut("v1").unwrap().tested = true;
        assert!(retire(&mut state, &v1(), &by_receipt(7)).unwrap());
        let version = state.version("v1").unwrap();
        assert_eq!((version.open(), version.closed_at, state.generation), (false, 5, 5));
        assert!(!retire(&mut state, &v1(), &by_receipt(8)).unwrap(), "it is");
        assert_eq!(state.version("v1").unwrap().retired, Some(by_receipt(7)));
        let weights = BTreeMap::from([("v1".to_owned(), 1)]);
        let error = shift(&mut state, &weights, false).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.to_string().contains("retired"), "{error}");
        assert!(undrain(&mut state, &v1()).unwrap());
        assert_eq!(state.version("v1").unwrap().retired, None);
        assert!(shift(&mut state, &weights, false).unwrap());
    }

    #[test]
    fn what_serves_is_not_retired() {
        let mut state = service();
        let before = state.clone();
        let v2 = Target::Version("v2".to_owned());
        let error = retire(&mut state, &v2, &by_receipt(7)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        let configured = Target::Instance("v1".to_owned(), "v1".to_owned());
        let error = retire(&mut state, &configured, &by_receipt(7)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert_eq!(state, before);
    }

    #[test]
    fn an_orphan_is_given_free_once() {
        let mut state = service();
        state.versions[0].instances[0].orphaned = true;
        let target = Target::Instance("v1".to_owned(), "v1".to_owned());
        assert!(retire(&mut state, &target, &by_receipt(7)).unwrap());
        assert!(!retire(&mut state, &target, &by_receipt(8)).unwrap());
        assert_eq!(state.versions[0].instances[0].released, Some(by_receipt(7)));
    }

    #[test]
    fn what_was_given_up_is_not_known_when_it_comes_back() {
        let mut state = service();
        let mut orphan = state.versions[0].instances[0].clone();
        orphan.released = Some(Retirement { receipt: None, ..by_receipt(0) });
        forget(&mut state, &orphan);
        assert!(state.versions[0].instances.is_empty());
        assert!(state.given_up.contains(&orphan.addr));
        // Back, and gone again with a receipt.
        orphan.released = Some(by_receipt(9));
        forget(&mut state, &orphan);
        assert!(state.given_up.is_empty());
    }
}
