//! A draft without fault → the service.

use super::super::evidence::Sockets;
use super::super::forwarding::{Snat, Tunnel};
use super::super::policy::{Session, Timeouts};
use super::super::raw::{ByVersion, DraftInstance, DraftRegistration, DraftService, DraftVersion};
use super::super::reader::At;
use super::super::registration::Registrants;
use super::super::service::{Instance, Service, Version};
use super::super::settings::{Conversation, Mode};
use super::super::types::{InstanceId, Name};
use std::collections::BTreeMap;

/// The finished service, unless something in it was refused.
pub(super) fn service(draft: DraftService) -> Option<Service> {
    if !draft.clean {
        return None;
    }
    let (mode, conversation) = (draft.mode(), draft.conversation());
    let tunnel = draft.tunnel.map(|at| at.value).unwrap_or_default();
    Some(Service {
        name: draft.name?.value,
        frontends: values(draft.frontends),
        test_frontends: by_version(draft.test_frontends),
        test_sources: by_version(draft.test_sources),
        mode,
        conversation,
        timeouts: Timeouts {
            idle: or_default(draft.idle_timeout),
            udp: or_default(draft.udp_timeout),
            unreplied: or_default(draft.unreplied_timeout),
        },
        limits: or_default(draft.limits),
        session: (conversation == Conversation::Client).then(|| Session {
            timeout: or_default(draft.session_timeout),
            on_drain: or_default(draft.drain.sessions),
        }),
        snat: draft
            .snat
            .map(|at| Snat { addresses: values(at.value.addresses), ports: at.value.ports }),
        tunnel: mode.is_tunnel().then(|| Tunnel {
            sources: values(tunnel.sources),
            port: (mode == Mode::Gue)
                .then(|| tunnel.port.map_or(Tunnel::GUE_PORT, |port| port.value)),
        }),
        quic: (conversation == Conversation::Quic).then(|| or_default(draft.quic)),
        when_empty: draft.when_empty,
        when_full: draft.when_full,
        drain: draft.drain.drain,
        probes: or_default(draft.probes),
        keepalive_only: or_default(draft.keepalive_only),
        health: draft.health.map(|at| at.value),
        passive: draft.passive.map(|at| at.value),
        on_down: or_default(draft.on_down),
        ring_size: draft.ring_size,
        plan: draft.plan.map(|at| at.value),
        registration: match draft.registration.map(|at| at.value) {
            None => Registrants::Nobody,
            Some(DraftRegistration::Open) => Registrants::Open,
            Some(DraftRegistration::Versions(names)) => {
                let names = values(names).into_iter();
                Registrants::Versions(names.map(|name| name.to_string()).collect())
            }
        },
        versions: draft
            .versions
            .into_iter()
            .map(|at| version(at.value, draft.sockets.as_ref()))
            .collect::<Option<_>>()?,
        sockets: draft.sockets.map(|at| at.value),
    })
}

fn version(draft: DraftVersion, outer: Option<&At<Sockets>>) -> Option<Version> {
    let sockets = draft.sockets.as_ref().or(outer);
    Some(Version {
        name: draft.name?.value,
        weight: draft.weight,
        meta: draft.meta,
        sockets: sockets.map(|at| at.value.clone()),
        instances: draft
            .instances
            .into_iter()
            .map(|at| instance(at.value, sockets))
            .collect::<Option<_>>()?,
    })
}

fn instance(draft: DraftInstance, outer: Option<&At<Sockets>>) -> Option<Instance> {
    let addr = draft.addr?.value;
    Some(Instance {
        id: draft.id.map_or_else(|| addr.into(), |id| InstanceId::from(id.value)),
        addr,
        weight: draft.weight,
        server_id: draft.server_id.map(|id| id.value),
        sockets: draft.sockets.as_ref().or(outer).map(|at| at.value.clone()),
    })
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

fn or_default<T: Default>(key: Option<At<T>>) -> T {
    key.map(|at| at.value).unwrap_or_default()
}

fn by_version<T>(lists: ByVersion<T>) -> BTreeMap<Name, Vec<T>> {
    lists.into_iter().map(|(name, list)| (name, values(list.value))).collect()
}
