//! Plans as the maps of this data plane hold them: IPv4 TCP in mode `nat`. What it cannot hold has
//! been refused (see [`super::pending`]).

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};

use bytemuck::Zeroable;
use release_common::abi::{
    Backend, BackendRef, Endpoint4, PortBits, Service, Split, SplitEntry, VERSIONS_PER_SERVICE,
    refusal,
};

use super::plan::{Desired, InstancePlan, Reaches, ServicePlan, VersionPlan};
use crate::config::{Family, WhenEmpty, WhenFull};

fn v4(addr: SocketAddr) -> Option<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Some(addr),
        SocketAddr::V6(_) => None,
    }
}

/// Entries of `BACKEND_IDS`.
pub fn backend_ids(desired: &Desired) -> HashMap<Endpoint4, BackendRef> {
    let owned = desired.owners.iter().filter_map(|((addr, _), owner)| {
        let value = BackendRef { backend: owner.backend, service: owner.service };
        Some((v4(*addr)?.into(), value))
    });
    owned.collect()
}

/// Elements of `PORTS`.
pub fn ports(desired: &Desired) -> [PortBits; 2] {
    let mut ports = [PortBits::zeroed(); 2];
    for frontend in desired.services.values().flat_map(|plan| &plan.frontends) {
        ports[PortBits::FRONTENDS as usize].insert(frontend.at.socket().port());
    }
    for (addr, _) in desired.owners.keys() {
        ports[PortBits::BACKENDS as usize].insert(addr.port());
    }
    ports
}

/// Keys of `FRONTENDS`.
pub fn frontends(plan: &ServicePlan) -> impl Iterator<Item = Endpoint4> {
    let ours = plan.frontends.iter().filter(|frontend| frontend.reaches != Reaches::Gone);
    ours.filter_map(|frontend| v4(frontend.at.socket()).map(Endpoint4::from))
}

/// Element of `SERVICES`.
pub fn service(plan: &ServicePlan) -> Service {
    let mut service = Service {
        when_empty: match plan.settings.when_empty {
            WhenEmpty::Reject => refusal::REJECT,
            WhenEmpty::Drop => refusal::DROP,
            WhenEmpty::Pass => refusal::PASS,
        },
        when_full: match plan.settings.when_full {
            WhenFull::Reject => refusal::REJECT,
            WhenFull::Drop => refusal::DROP,
        },
        ..Service::zeroed()
    };
    for frontend in &plan.frontends {
        // A place left empty leads nowhere: no flow has this address.
        if let Some(at) = v4(frontend.at.socket())
            && let Some(slot) = service.frontends.get_mut(frontend.place)
        {
            *slot = at.into();
            service.frontend_count = service.frontend_count.max(frontend.place as u32 + 1);
        }
    }
    service
}

/// Element of `SPLITS`.
pub fn split(plan: &ServicePlan) -> Split {
    let mut split = Split {
        count: plan.versions.len().min(VERSIONS_PER_SERVICE) as u32,
        ..Split::empty(plan.generation)
    };
    for (index, (entry, version)) in split.entries.iter_mut().zip(&plan.versions).enumerate() {
        *entry = SplitEntry { bound: version.bound, ring: version.number, pad: 0 };
        split.occupied |= u32::from(plan.occupied(version, Family::V4)) << index;
    }
    split
}

/// Element of `BACKENDS`.
pub fn backend(
    plan: &ServicePlan,
    version: &VersionPlan,
    instance: &InstancePlan,
) -> Option<Backend> {
    Some(Backend::used(v4(instance.addr)?, plan.id, version.number))
}
