//! What the maps are to hold.

use std::collections::HashMap;

use bytemuck::Zeroable;
use release_common::abi::{
    Backend, BackendRef, Endpoint4, FRONTENDS_PER_SERVICE, PortBits, Service, Split, SplitEntry,
    VERSIONS_PER_SERVICE, refusal,
};

use super::state::{ServiceState, State};
use crate::config::{Config, WhenEmpty, WhenFull};
use crate::fnv;
use crate::placement::{Member, Ring, RingSize, Split as Layout};

/// One version's ring: built only where the kernel has another.
#[derive(Clone, Debug, PartialEq)]
pub struct RingPlan {
    /// Instances with their weights.
    pub members: Vec<Member>,
    /// Number of slots.
    pub size: RingSize,
}

impl RingPlan {
    /// Identifies the contents: equal rings have equal fingerprints. FNV-1a over the members.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = self.size.get().to_le_bytes().to_vec();
        for member in &self.members {
            bytes.extend(member.id.to_le_bytes());
            bytes.extend(member.addr.to_string().as_bytes());
            bytes.extend(member.weight.to_le_bytes());
        }
        fnv::hash([bytes.as_slice()])
    }

    /// Number of slots in the kernel: an empty ring has one that names nobody.
    pub fn slots(&self) -> u32 {
        if self.members.is_empty() { 1 } else { self.size.get() }
    }

    /// The slots.
    pub fn build(&self) -> Vec<u32> {
        Ring::build(&self.members, self.size).into_slots()
    }
}

/// One service's part of the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePlan {
    /// Element of `SERVICES`.
    pub service: Service,
    /// Entries of `FRONTENDS`: configured ones only.
    pub frontends: Vec<Endpoint4>,
    /// Elements of `BACKENDS`.
    pub backends: HashMap<u32, Backend>,
    /// Elements of `RINGS`.
    pub rings: HashMap<u32, RingPlan>,
    /// Element of `SPLITS`.
    pub split: Split,
}

/// Everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// By service id.
    pub services: HashMap<u32, ServicePlan>,
    /// Entries of `BACKEND_IDS`.
    pub backend_ids: HashMap<Endpoint4, BackendRef>,
    /// Elements of `PORTS`.
    pub ports: [PortBits; 2],
}

impl Desired {
    /// What `state` and `config` ask for.
    pub fn of(state: &State, config: &Config) -> Self {
        let mut desired = Self {
            services: HashMap::new(),
            backend_ids: HashMap::new(),
            ports: [PortBits::zeroed(); 2],
        };
        for service in &state.services {
            desired.services.insert(service.id, service_plan(service, config));
            for frontend in service.frontends.iter().flatten() {
                desired.ports[PortBits::FRONTENDS as usize].insert(frontend.port());
            }
        }
        // An address that several ids have had belongs to the one that is configured.
        for orphaned in [true, false] {
            for (service, _, instance) in state.instances() {
                if instance.orphaned == orphaned {
                    let value = BackendRef { backend: instance.backend, service: service.id };
                    desired.backend_ids.insert(instance.addr.into(), value);
                    desired.ports[PortBits::BACKENDS as usize].insert(instance.addr.port());
                }
            }
        }
        desired
    }
}

fn service_plan(state: &ServiceState, config: &Config) -> ServicePlan {
    let configured = config.service(&state.name);
    let mut service = Service {
        frontend_count: state.frontends.len().min(FRONTENDS_PER_SERVICE) as u32,
        when_empty: match configured.map(crate::config::Service::when_empty) {
            Some(WhenEmpty::Drop) => refusal::DROP,
            Some(WhenEmpty::Pass) => refusal::PASS,
            Some(WhenEmpty::Reject) | None => refusal::REJECT,
        },
        when_full: match configured.map(crate::config::Service::when_full) {
            Some(WhenFull::Drop) => refusal::DROP,
            Some(WhenFull::Reject) | None => refusal::REJECT,
        },
        ..Service::zeroed()
    };
    for (slot, frontend) in service.frontends.iter_mut().zip(&state.frontends) {
        // A place left empty leads nowhere: no flow has this address.
        *slot = frontend.map(Endpoint4::from).unwrap_or_default();
    }
    let size = configured.map(crate::config::Service::ring_size).unwrap_or_default();
    let weights: Vec<u32> = state.versions.iter().map(|version| version.weight).collect();
    let mut split = Split {
        count: weights.len().min(VERSIONS_PER_SERVICE) as u32,
        ..Split::empty(state.generation)
    };
    let layout = Layout::layout(&weights);
    let mut plan = ServicePlan {
        service,
        frontends: configured
            .into_iter()
            .flat_map(|service| service.frontends())
            .map(|frontend| super::pending::v4(frontend.socket()).into())
            .collect(),
        backends: HashMap::new(),
        rings: HashMap::new(),
        split,
    };
    for (index, version) in state.versions.iter().enumerate() {
        if let Some(entry) = split.entries.get_mut(index) {
            let bound = layout.bounds().get(index).copied().unwrap_or(0);
            *entry = SplitEntry { bound, ring: version.ring, pad: 0 };
        }
        let member = |instance: &super::state::InstanceState| Member {
            id: instance.backend,
            addr: instance.addr.into(),
            weight: instance.weight,
        };
        if index < VERSIONS_PER_SERVICE && version.instances.iter().any(|i| i.in_ring()) {
            split.occupied |= 1 << index;
        }
        let members = version.instances.iter().filter(|i| i.in_ring()).map(member).collect();
        plan.rings.insert(version.ring, RingPlan { members, size });
        for instance in &version.instances {
            let backend = Backend::used(instance.addr, state.id, version.ring);
            plan.backends.insert(instance.backend, backend);
        }
    }
    plan.split = split;
    plan
}
