//! What a verdict is about.

use release_common::abi::Split;

use crate::api::types::{ApiError, ErrorCode};
use crate::control::commands::Target;
use crate::control::state::{InstanceState, ServiceState, VersionState};

/// What a verdict is about, resolved.
pub struct Subject {
    /// The service.
    pub service: ServiceState,
    /// The version it belongs to.
    pub version: VersionState,
    /// Its instances.
    pub instances: Vec<InstanceState>,
    /// Other ids that the same sockets have or had: who stops the one stops the other.
    pub namesakes: Vec<InstanceState>,
    /// Generation that closed it to new flows, 0 if it is open.
    pub closed_at: u32,
    /// Whether its sockets serve under other ids too, so that they say nothing about it alone.
    pub shares_sockets: bool,
}

impl Subject {
    /// Resolves a target.
    ///
    /// # Errors
    /// Usage, if there is no such service, version or instance.
    pub fn find(service: &ServiceState, name: &str) -> Result<Self, ApiError> {
        let (version, id) = match Target::find(service, name)? {
            Target::Version(version) => (version, None),
            Target::Instance(version, id) => (version, Some(id)),
        };
        let version = service.version(&version).cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("version {version} is gone"))
        })?;
        let instances: Vec<InstanceState> = version
            .instances
            .iter()
            .filter(|instance| id.as_ref().is_none_or(|id| *id == instance.id))
            .cloned()
            .collect();
        let mut closed_at = closed_at(&version, &instances, id.is_some());
        let namesakes = namesakes(service, &instances);
        for (other_version, other) in &namesakes {
            if !other.is_taken_out() && other_version.open() {
                closed_at = 0;
            } else if closed_at > 0 {
                let closed =
                    if other.is_taken_out() { other.closed_at } else { other_version.closed_at };
                closed_at = closed_at.max(closed);
            }
        }
        let namesakes = namesakes.into_iter().map(|(_, other)| other.clone()).collect();
        let service = service.clone();
        Ok(Self { service, version, instances, namesakes, closed_at, shares_sockets: false })
    }

    /// An orphaned instance's id by itself, whatever its socket does under another one.
    pub fn orphan(
        service: &ServiceState,
        version: &VersionState,
        instance: &InstanceState,
    ) -> Self {
        let instances = vec![instance.clone()];
        Self {
            service: service.clone(),
            version: version.clone(),
            closed_at: closed_at(version, &instances, true),
            shares_sockets: !namesakes(service, &instances).is_empty(),
            namesakes: Vec::new(),
            instances,
        }
    }

    /// Whether it is being drained.
    pub fn is_drained(&self) -> bool {
        let alone = !self.instances.is_empty() && self.instances.iter().all(|i| i.drain.is_some());
        self.version.drain.is_some() || alone
    }

    /// Ids of its sockets in the maps.
    pub fn backends(&self) -> Vec<u32> {
        self.instances.iter().chain(&self.namesakes).map(|instance| instance.backend).collect()
    }

    /// Whether the split in the kernel leaves no way to it.
    pub fn closed_in_kernel(&self, split: Option<Split>) -> bool {
        let Some(split) = split else { return false };
        // Another generation than that of the state looked at: it may have been opened meanwhile.
        if self.closed_at == 0 || split.generation != self.service.generation {
            return false;
        }
        let mut start = 0;
        for entry in split.entries.iter().take(split.count as usize) {
            if self.version.rings().any(|ring| entry.rings.contains(&ring)) && entry.bound > start {
                // It has a share: closed only if the instance is off the ring.
                return self.instances.iter().all(|instance| !instance.in_ring());
            }
            start = start.max(entry.bound);
        }
        true
    }
}

/// Generation that closed a version, or instances of it alone; 0: they are open.
fn closed_at(version: &VersionState, instances: &[InstanceState], alone: bool) -> u32 {
    if !version.open() {
        // Whichever came first closed it; the later one is the safe bound.
        version.closed_at
    } else if alone && instances.iter().all(InstanceState::is_taken_out) {
        instances.iter().map(|instance| instance.closed_at).max().unwrap_or(0)
    } else {
        0
    }
}

/// Instances of the service, with their versions, that have the same sockets under other ids.
fn namesakes<'a>(
    service: &'a ServiceState,
    instances: &[InstanceState],
) -> Vec<(&'a VersionState, &'a InstanceState)> {
    let same = |other: &InstanceState| {
        instances.iter().any(|own| own.addr == other.addr)
            && instances.iter().all(|own| own.backend != other.backend)
    };
    service.instances().filter(|(_, other)| same(other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::commands;
    use crate::control::health::{Down, Finder, set};
    use crate::control::reconcile::reconcile;
    use crate::control::state::{DrainState, State};

    fn config(v1: &str, v2: &str) -> Config {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [\"192.0.2.10:80/tcp\"]\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [{v1}]\n\
             [[service.version]]\nname = \"v2\"\ninstances = [{v2}]\n"
        );
        Config::from_str(&text, "t").unwrap()
    }

    const A: &str = "\"10.0.0.1:80\"";
    const C: &str = "\"10.0.0.2:80\"";

    /// A socket that moved to another version has two ids: a verdict on either covers both.
    #[test]
    fn a_socket_with_two_ids_is_one_subject() {
        let both = format!("{A}, {C}");
        let (state, _) = reconcile(&State::default(), &config(&both, ""), 1).unwrap();
        let (next, _) = reconcile(&state, &config(C, A), 1).unwrap();
        let service = &next.services[0];
        let ids: Vec<u32> = service
            .instances()
            .filter(|(_, i)| i.id == "10.0.0.1:80")
            .map(|(_, i)| i.backend)
            .collect();
        assert_eq!(ids.len(), 2);
        for target in ["v2", "10.0.0.1:80"] {
            let subject = Subject::find(service, target).unwrap();
            assert!(ids.iter().all(|id| subject.backends().contains(id)), "{target}");
            assert_eq!(subject.closed_at, 2, "{target}: closed when the other id was");
        }
    }

    /// Test clients reach a version of weight 0 until it is drained.
    #[test]
    fn a_version_under_test_is_open() {
        let text = "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
                    frontends = [\"192.0.2.10:80/tcp\"]\ntest_sources.v2 = [\"198.51.100.0/24\"]\n\
                    version = [{ name = \"v1\", weight = 1, instances = [\"10.0.0.1:80\"] },\n\
                    { name = \"v2\", instances = [\"10.0.0.2:80\"] }]\n";
        let config = Config::from_str(text, "t").unwrap();
        let (state, _) = reconcile(&State::default(), &config, 1).unwrap();
        let mut service = state.services[0].clone();
        for target in ["v2", "10.0.0.2:80"] {
            assert_eq!(Subject::find(&service, target).unwrap().closed_at, 0, "{target}");
        }
        let drain = DrainState {
            weight_before: 0,
            since: String::new(),
            since_boot_ms: 0,
            deadline_s: None,
            force: None,
        };
        commands::drain(&mut service, &Target::Version("v2".to_owned()), &drain, false).unwrap();
        for target in ["v2", "10.0.0.2:80"] {
            assert_eq!(Subject::find(&service, target).unwrap().closed_at, 2, "{target}");
        }
    }

    /// Nobody wanted it closed: it may be back with the next check.
    #[test]
    fn an_instance_that_is_down_is_open_unless_it_is_drained() {
        let both = format!("{A}, {C}");
        let (mut state, _) = reconcile(&State::default(), &config(&both, ""), 1).unwrap();
        let service = &mut state.services[0];
        let by = Finder::Check;
        let (why, since) = (String::new(), String::new());
        set(service, 1, Some(Down { by, why, since, since_boot_ms: 0 })).unwrap();
        let closed_at =
            |service: &ServiceState| Subject::find(service, "10.0.0.1:80").unwrap().closed_at;
        assert_eq!(closed_at(service), 0);
        let target = Target::find(service, "10.0.0.1:80").unwrap();
        commands::drain(service, &target, &DrainState::default(), false).unwrap();
        assert_eq!((closed_at(service), service.generation), (2, 3), "off the ring since then");
    }

    /// The old name of a version whose sockets serve under a new one is not closed.
    #[test]
    fn a_socket_that_serves_under_another_version_is_open() {
        let (state, _) = reconcile(&State::default(), &config(A, C), 1).unwrap();
        let mut service = state.services[0].clone();
        let mut moved = service.versions[0].instances[0].clone();
        moved.backend = 9;
        service.versions[1].weight = 1;
        service.versions[1].instances.push(moved);
        service.versions[0].weight = 0;
        service.versions[0].closed_at = 4;
        let subject = Subject::find(&service, "v1").unwrap();
        assert_eq!(subject.closed_at, 0);
        assert!(!subject.closed_in_kernel(Some(Split::empty(9))));
    }
}
