//! Plans as the maps hold them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bytemuck::Zeroable;
use release_common::abi::{
    Addr6, Address, Backend, BackendRef, Be32, Endpoint, FrontendRef, PortBits, QuicKey, Service,
    Split, SplitEntry, VERSIONS_PER_SERVICE, backend_state, conversation, mode, octets, refusal,
    service_flag,
};

use super::plan::{
    Desired, FrontendPlan, InstancePlan, Reaches, RingIds, ServicePlan, VersionPlan,
};
use crate::config::{Conversation, Family, Mode, OnDrain, WhenEmpty, WhenFull};
use crate::kernel::{At, Clock, RuleAt};
use crate::net::route;

/// Ring of a frontend whose version is closed: there is none of this number, so a flow finds no
/// instance.
const NOBODY: u32 = u32::MAX;
/// How far ahead of their rate new flows may be, in nanoseconds: what comes at once.
const BURST: u32 = 100_000_000;

/// Entries of `BACKEND_IDS4/6`.
pub fn backend_ids(desired: &Desired) -> HashMap<At, BackendRef> {
    let owned = desired.owners.iter().map(|((addr, protocol), owner)| {
        let at = At { socket: *addr, proto: protocol.number() };
        (at, BackendRef { backend: owner.backend, service: owner.service })
    });
    owned.collect()
}

/// Elements of `PORTS`: an instance's is looked at where its replies pass here.
pub fn ports(desired: &Desired) -> [PortBits; 2] {
    let mut ports = [PortBits::zeroed(); 2];
    for plan in desired.services.values() {
        for frontend in &plan.frontends {
            ports[PortBits::FRONTENDS as usize].insert(frontend.at.socket().port());
        }
        if matches!(plan.settings.mode, Mode::Nat | Mode::Snat | Mode::Local) {
            for instance in plan.versions.iter().flat_map(|version| &version.instances) {
                ports[PortBits::BACKENDS as usize].insert(instance.addr.port());
            }
        }
    }
    ports
}

/// Entries of `FRONTENDS4/6`.
pub fn frontends(plan: &ServicePlan) -> impl Iterator<Item = (At, FrontendRef)> {
    plan.frontends.iter().filter_map(|frontend| {
        let ring = match frontend.reaches {
            Reaches::Split => 0,
            Reaches::Version(number) => ring_of(plan, number, frontend.at.family()),
            Reaches::Nobody => NOBODY,
            Reaches::Gone => return None,
        };
        Some((at(frontend), FrontendRef { service: plan.id, ring }))
    })
}

fn at(frontend: &FrontendPlan) -> At {
    At { socket: frontend.at.socket(), proto: frontend.at.protocol().number() }
}

fn ring_of(plan: &ServicePlan, number: u32, family: Family) -> u32 {
    let version = plan.versions.iter().find(|version| version.number == number);
    version.and_then(|version| version.rings.of(family)).unwrap_or(NOBODY)
}

/// Entries of `RULES4/6`.
pub fn rules(plan: &ServicePlan) -> BTreeMap<RuleAt, u32> {
    let rule = |rule: &super::plan::RulePlan| {
        (RuleAt { service: plan.id, net: rule.prefix.net() }, rule.ring)
    };
    plan.rules.iter().map(rule).collect()
}

/// Entries of `QUIC_IDS`.
pub fn quic_ids(plan: &ServicePlan) -> HashMap<QuicKey, u32> {
    let mut ids = HashMap::new();
    for instance in plan.versions.iter().flat_map(|version| &version.instances) {
        let Some(server_id) = instance.server_id else { continue };
        let mut id = [0; 8];
        id[..server_id.as_bytes().len()].copy_from_slice(server_id.as_bytes());
        let family = if instance.addr.is_ipv4() { Be32::INDEX } else { Addr6::INDEX };
        // In a tunnel it takes packets of both families.
        let both = plan.settings.mode.is_tunnel();
        for family in [0, 1].into_iter().filter(|of| both || *of == family) {
            let key = QuicKey { service: plan.id, family: family as u32, id };
            ids.insert(key, instance.backend);
        }
    }
    ids
}

/// Element of `SERVICES`.
pub fn service(plan: &ServicePlan, clock: Clock) -> Service {
    let settings = &plan.settings;
    let mut service = Service {
        mode: match settings.mode {
            Mode::Nat => mode::NAT,
            Mode::Snat => mode::SNAT,
            Mode::Dsr => mode::DSR,
            Mode::Ipip => mode::IPIP,
            Mode::Gue => mode::GUE,
            Mode::Local => mode::LOCAL,
        },
        conversation: match settings.conversation {
            Conversation::Flow => conversation::FLOW,
            Conversation::Client => conversation::CLIENT,
            Conversation::Datagram => conversation::DATAGRAM,
            Conversation::Quic => conversation::QUIC,
        },
        when_empty: match settings.when_empty {
            WhenEmpty::Reject => refusal::REJECT,
            WhenEmpty::Drop => refusal::DROP,
            WhenEmpty::Pass => refusal::PASS,
        },
        when_full: match settings.when_full {
            WhenFull::Reject => refusal::REJECT,
            WhenFull::Drop => refusal::DROP,
        },
        max_flows: settings.limits.max_flows().map_or(0, |most| most.get()),
        ..Service::zeroed()
    };
    if !plan.rules.is_empty() {
        service.flags |= service_flag::RULES;
    }
    if let Some(rate) = settings.limits.new_flows_per_second() {
        service.flow_interval = (1_000_000_000 / rate.get()).max(1);
        service.flow_burst = BURST;
    }
    if let Some(session) = settings.session {
        service.session_timeout = clock.jiffies(session.timeout().get());
        if session.on_drain() == OnDrain::Hold {
            service.flags |= service_flag::HOLD_SESSIONS;
        }
    }
    if let Some(quic) = settings.quic {
        service.quic_id_len = quic.server_id_length();
        service.quic_config = quic.config_id();
    }
    if let Some(port) = settings.tunnel.as_ref().and_then(|tunnel| tunnel.port()) {
        service.tunnel_port = port;
    }
    snat_sources(&mut service, plan);
    places(&mut service, plan);
    service
}

fn snat_sources(service: &mut Service, plan: &ServicePlan) {
    let Some(snat) = &plan.settings.snat else { return };
    let ports = snat.ports();
    service.snat_port = ports.first();
    service.snat_ports = ports.last() - ports.first() + 1;
    for (slot, address) in service.snat4.iter_mut().zip(snat.addresses(Family::V4)) {
        *slot = Be32::from_ip(address).unwrap_or_default();
        service.snat_count4 += 1;
    }
    for (slot, address) in service.snat6.iter_mut().zip(snat.addresses(Family::V6)) {
        *slot = Addr6::from_ip(address).unwrap_or_default();
        service.snat_count6 += 1;
    }
}

/// A place left empty leads nowhere: no flow has its address and protocol.
fn places(service: &mut Service, plan: &ServicePlan) {
    for frontend in &plan.frontends {
        let (socket, proto) = (frontend.at.socket(), frontend.at.protocol().number());
        let count = frontend.place as u8 + 1;
        if let Some(at) = Endpoint::<Be32>::of(socket, proto)
            && let Some(slot) = service.frontends4.get_mut(frontend.place)
        {
            *slot = at;
            service.frontend_count4 = service.frontend_count4.max(count);
        }
        if let Some(at) = Endpoint::<Addr6>::of(socket, proto)
            && let Some(slot) = service.frontends6.get_mut(frontend.place)
        {
            *slot = at;
            service.frontend_count6 = service.frontend_count6.max(count);
        }
    }
}

/// Element of `SPLITS`.
pub fn split(plan: &ServicePlan) -> Split {
    let mut split = Split {
        count: plan.versions.len().min(VERSIONS_PER_SERVICE) as u32,
        ..Split::empty(plan.generation)
    };
    for (index, (entry, version)) in split.entries.iter_mut().zip(&plan.versions).enumerate() {
        let RingIds { v4, v6 } = version.rings;
        *entry = SplitEntry { bound: version.bound, rings: [v4.unwrap_or(0), v6.unwrap_or(0)] };
        for (place, family) in [(Be32::INDEX, Family::V4), (Addr6::INDEX, Family::V6)] {
            split.occupied[place] |= u32::from(plan.occupied(version, family)) << index;
        }
    }
    // Behind the last version there is no share: nothing is placed there. If they do not all fit,
    // the first versions' do.
    let former = plan.versions.iter().map(|version| version.former);
    let former = former.filter(|former| *former != RingIds::default());
    for (index, RingIds { v4, v6 }) in (split.count as usize..VERSIONS_PER_SERVICE).zip(former) {
        split.entries[index].rings = [v4.unwrap_or(0), v6.unwrap_or(0)];
        split.occupied[Be32::INDEX] |= u32::from(v4.is_some()) << index;
        split.occupied[Addr6::INDEX] |= u32::from(v6.is_some()) << index;
    }
    split
}

/// Element of `BACKENDS`.
pub fn backend(plan: &ServicePlan, version: &VersionPlan, instance: &InstancePlan) -> Backend {
    let mut backend = Backend::accepting(instance.addr, plan.id, version.number);
    if instance.down {
        backend.state = backend_state::DOWN;
    } else if !instance.accepting {
        backend.state = backend_state::CLOSED;
    }
    if let Some(tunnel) = &plan.settings.tunnel {
        let family = Family::of(instance.addr.ip());
        match tunnel.source(family) {
            Some(prefix) => {
                let net = prefix.net();
                backend.tunnel_source = octets(net.network()).0;
                backend.tunnel_bits = (net.max_prefix_len() - net.prefix_len()).min(32);
            }
            None => {
                let source = route::source_towards(instance.addr.ip());
                backend.tunnel_source = octets(source.unwrap_or(unspecified(family))).0;
            }
        }
    }
    backend
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
