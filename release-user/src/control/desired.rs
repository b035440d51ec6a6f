//! From state and configuration to what the data plane is to do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use release_common::abi::VERSION_RINGS;

use super::plan::{
    Desired, FrontendPlan, InstancePlan, Owner, Reaches, RingIds, RingPlan, RulePlan, ServicePlan,
    VersionPlan,
};
use super::state::{InstanceState, ServiceState, State, VersionState};
use crate::config::{Config, Family, Frontend, Mode, Prefix, Protocol, Service};
use crate::placement::{Member, RingSize, Split};

impl Desired {
    /// What `state` and `config` ask for.
    pub fn of(state: &State, config: &Config) -> Self {
        let configured: HashMap<&str, &Service> =
            config.services().iter().map(|service| (service.name().as_str(), service)).collect();
        let plan = |service: &ServiceState| {
            (service.id, service_plan(service, configured.get(&*service.name).copied()))
        };
        let services = state.services.iter().map(plan).collect();
        Self { services, owners: owners(state, |_| true) }
    }

    /// The part of it that is about one service, by its id: for changes of that one alone, whose time
    /// must not depend on the others.
    pub fn of_one(state: &State, config: &Config, id: u32) -> Self {
        let Some(service) = state.services.iter().find(|service| service.id == id) else {
            return Self::default();
        };
        let plan = service_plan(service, config.service(&service.name));
        let addresses: HashSet<SocketAddr> = service.instances().map(|(_, i)| i.addr).collect();
        let owners = owners(state, |addr| addresses.contains(addr));
        Self { services: BTreeMap::from([(id, plan)]), owners }
    }
}

/// Whose replies come from addresses: one that several ids have had belongs to the one that is
/// configured.
fn owners(
    state: &State,
    wanted: impl Fn(&SocketAddr) -> bool,
) -> HashMap<(SocketAddr, Protocol), Owner> {
    let mut owners = HashMap::new();
    for orphaned in [true, false] {
        for service in state.services.iter().filter(|s| s.settings.mode.owns_instances()) {
            let instances = service.instances().map(|(_, instance)| instance);
            let instances = instances.filter(|i| i.orphaned == orphaned && wanted(&i.addr));
            for instance in instances {
                let owner = Owner { backend: instance.backend, service: service.id };
                let keys = service.protocols().map(|protocol| (instance.addr, protocol));
                owners.extend(keys.map(|key| (key, owner)));
            }
        }
    }
    owners
}

fn service_plan(state: &ServiceState, configured: Option<&Service>) -> ServicePlan {
    let size = configured.map(Service::ring_size).unwrap_or_default();
    let weights: Vec<u32> = state.versions.iter().map(|version| version.weight).collect();
    let layout = Split::layout(&weights);
    let taken = configured_ids(state);
    let mut rings = BTreeMap::new();
    let mut versions = Vec::new();
    for (version, &bound) in state.versions.iter().zip(layout.bounds()) {
        rings.extend(version_rings(state, version, size));
        let (former, kept) = former_rings(state, version, configured);
        rings.extend(kept);
        let instances = version.instances.iter().map(|instance| InstancePlan {
            backend: instance.backend,
            addr: instance.addr,
            server_id: instance.server_id.filter(|id| !instance.orphaned || !taken.contains(id)),
            accepting: version.accepts(instance),
            down: instance.down.is_some(),
        });
        versions.push(VersionPlan {
            number: version.ring,
            bound,
            rings: ring_ids(state, version),
            former,
            instances: instances.collect(),
        });
    }
    ServicePlan {
        id: state.id,
        generation: state.generation,
        settings: state.settings.clone(),
        frontends: frontends(state, configured),
        versions,
        rings,
        rules: rules(state, configured),
    }
}

/// Server ids of configured instances: an orphan keeps its own only if nobody else has it now.
fn configured_ids(state: &ServiceState) -> HashSet<crate::config::ServerId> {
    let configured = state.instances().filter(|(_, instance)| !instance.orphaned);
    configured.filter_map(|(_, instance)| instance.server_id).collect()
}

fn ring_ids(state: &ServiceState, version: &VersionState) -> RingIds {
    if state.settings.mode.is_tunnel() {
        return RingIds { v4: Some(version.ring), v6: Some(version.ring) };
    }
    let listens = state.frontends.iter().any(Option::is_some);
    RingIds { v4: listens.then_some(version.ring), v6: version.ring6 }
}

/// The version's rings: one for all instances where clients of one family can reach instances of
/// the other, else one of each family.
fn version_rings(
    state: &ServiceState,
    version: &VersionState,
    size: RingSize,
) -> impl Iterator<Item = (u32, RingPlan)> {
    let ids = ring_ids(state, version);
    let tunnel = state.settings.mode.is_tunnel();
    let members = move |family: Family| {
        let fits = |i: &&InstanceState| i.in_ring() && (tunnel || i.family() == family);
        version.instances.iter().filter(fits).map(member).collect()
    };
    let ring = move |family| Some((ids.of(family)?, RingPlan { members: members(family), size }));
    Family::ALL.into_iter().filter_map(ring)
}

fn member(instance: &InstanceState) -> Member {
    Member { id: instance.backend, addr: instance.addr, weight: instance.weight }
}

/// The version's rings as if no instance had been taken off them, where any was: a flow placed
/// before that finds its instance by the same look-up. None where no instance could say whether a
/// mid-flow packet is its own: that takes TCP, replies that pass here, and clients that keep their
/// ports.
fn former_rings(
    state: &ServiceState,
    version: &VersionState,
    configured: Option<&Service>,
) -> (RingIds, Vec<(u32, RingPlan)>) {
    let (mut former, mut rings) = (RingIds::default(), Vec::new());
    let tcp = state.protocols().any(|protocol| protocol == Protocol::Tcp);
    let asked = tcp && matches!(state.settings.mode, Mode::Nat | Mode::Local);
    let complete = version.instances.iter().all(InstanceState::in_ring);
    let Some(service) = configured.filter(|_| asked && !complete) else { return (former, rings) };
    let ids = ring_ids(state, version);
    for (family, place) in [(Family::V4, &mut former.v4), (Family::V6, &mut former.v6)] {
        let Some(id) = ids.of(family).map(|ring| ring + VERSION_RINGS) else { continue };
        // Of several ids of a socket one is enough; orphaned ones stand last.
        let mut sockets = HashSet::new();
        let may_know = |i: &&InstanceState| i.family() == family && i.released.is_none();
        let instances = version.instances.iter().filter(may_know);
        let instances: Vec<&InstanceState> =
            instances.filter(|instance| sockets.insert(instance.addr)).collect();
        if instances.iter().all(|instance| instance.in_ring()) {
            continue;
        }
        *place = Some(id);
        let members = instances.into_iter().map(member).collect();
        rings.push((id, RingPlan { members, size: service.ring_size() }));
    }
    (former, rings)
}

fn frontends(state: &ServiceState, configured: Option<&Service>) -> Vec<FrontendPlan> {
    let reaches = |at: Frontend| {
        let Some(service) = configured else { return Reaches::Gone };
        if service.frontends().contains(&at) {
            return Reaches::Split;
        }
        let test = service.test_frontends().find(|(_, frontend)| *frontend == at);
        match test.map(|(name, _)| state.version(name.as_str())) {
            Some(Some(version)) if version.drain.is_none() => Reaches::Version(version.ring),
            Some(_) => Reaches::Nobody,
            None => Reaches::Gone,
        }
    };
    let all = Family::ALL.into_iter().flat_map(|family| state.places(family).iter().enumerate());
    all.filter_map(|(place, at)| at.map(|at| FrontendPlan { at, place, reaches: reaches(at) }))
        .collect()
}

/// Rules of a version that is being drained are suspended: nothing may lead to it. The
/// configuration's stand before a release's.
fn rules(state: &ServiceState, configured: Option<&Service>) -> Vec<RulePlan> {
    let configured = configured.into_iter().flat_map(Service::test_sources);
    let configured: Vec<(&str, Prefix)> =
        configured.map(|(name, prefix)| (name.as_str(), prefix)).collect();
    let of_release = state
        .versions
        .iter()
        .flat_map(|version| version.test.iter().map(|prefix| (version.name.as_str(), *prefix)));
    let new = of_release.filter(|(_, prefix)| configured.iter().all(|(_, other)| other != prefix));
    let rule = |(name, prefix): (&str, Prefix)| {
        let version = state.version(name).filter(|version| version.drain.is_none())?;
        let ring = ring_ids(state, version).of(prefix.family())?;
        Some(RulePlan { prefix, version: version.ring, ring })
    };
    configured.iter().copied().chain(new).filter_map(rule).collect()
}
