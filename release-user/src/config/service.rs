//! Services, their versions and instances, as validated.

use super::address::{Endpoint, Family, Frontend, Protocol};
use super::evidence::Sockets;
use super::forwarding::{Quic, ServerId, Snat, Tunnel};
use super::numbers::{IdleTimeout, InstanceWeight, Weight};
use super::policy::{Drain, KeepaliveOnly, Limits, Probes, Session, Timeouts};
use super::prefix::Prefix;
use super::registration::Registrants;
use super::settings::{Conversation, Mode, OnDown, WhenEmpty, WhenFull};
use super::types::{InstanceId, Name};
use crate::health;
use crate::placement::RingSize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One service: at least one frontend and one version, with some weight on a version that has
/// instances or may get some by registration; no address or id in it clashes with another of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub(super) name: Name,
    pub(super) frontends: Vec<Frontend>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) test_frontends: BTreeMap<Name, Vec<Frontend>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) test_sources: BTreeMap<Name, Vec<Prefix>>,
    pub(super) mode: Mode,
    pub(super) conversation: Conversation,
    #[serde(flatten)]
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<Session>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snat: Option<Snat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tunnel: Option<Tunnel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quic: Option<Quic>,
    pub(super) when_empty: WhenEmpty,
    pub(super) when_full: WhenFull,
    pub(super) drain: Drain,
    pub(super) probes: Probes,
    pub(super) keepalive_only: KeepaliveOnly,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<health::Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) passive: Option<health::Passive>,
    pub(super) on_down: OnDown,
    pub(super) ring_size: RingSize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<Name>,
    #[serde(skip_serializing_if = "Registrants::is_nobody")]
    pub(super) registration: Registrants,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<Sockets>,
    pub(super) versions: Vec<Version>,
}

impl Service {
    /// Unique in the configuration.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Where it listens: at least one, at most 8 a family together with the test frontends, each
    /// claimed by this service alone.
    pub fn frontends(&self) -> &[Frontend] {
        &self.frontends
    }

    /// Frontends that always reach one version, with its name; none is among
    /// [`Service::frontends`].
    pub fn test_frontends(&self) -> impl Iterator<Item = (&Name, Frontend)> {
        pairs(&self.test_frontends)
    }

    /// Clients that always reach one version, with its name: no prefix twice, the longest that
    /// holds the client wins.
    pub fn test_sources(&self) -> impl Iterator<Item = (&Name, Prefix)> {
        pairs(&self.test_sources)
    }

    /// Whether some clients or frontends always reach this version.
    pub fn is_tested(&self, version: &Name) -> bool {
        self.test_frontends.get(version).is_some_and(|list| !list.is_empty())
            || self.test_sources.get(version).is_some_and(|list| !list.is_empty())
    }

    /// Every frontend, those for tests included.
    pub fn all_frontends(&self) -> impl Iterator<Item = Frontend> {
        self.frontends.iter().copied().chain(self.test_frontends.values().flatten().copied())
    }

    /// Whether a frontend, one for tests included, has this protocol.
    pub fn has_protocol(&self, protocol: Protocol) -> bool {
        self.all_frontends().any(|frontend| frontend.protocol() == protocol)
    }

    /// Whether a frontend, one for tests included, is of this family.
    pub fn has_family(&self, family: Family) -> bool {
        self.all_frontends().any(|frontend| frontend.family() == family)
    }

    /// How packets reach an instance.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What stays together on one instance.
    pub fn conversation(&self) -> Conversation {
        self.conversation
    }

    /// How long an established TCP connection may be silent before it is given up.
    pub fn idle_timeout(&self) -> IdleTimeout {
        self.timeouts.idle()
    }

    /// How long silent flows are kept.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// What it takes at most.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How clients are remembered: there if and only if the conversation is `client`.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Sources that clients are hidden behind: there if and only if the mode is `snat`.
    pub fn snat(&self) -> Option<&Snat> {
        self.snat.as_ref()
    }

    /// How packets are wrapped: there if and only if the mode is `ipip` or `gue`.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
    }

    /// How connection ids name instances: there if and only if the conversation is `quic`.
    pub fn quic(&self) -> Option<Quic> {
        self.quic
    }

    /// What a new flow gets when no instance serves.
    pub fn when_empty(&self) -> WhenEmpty {
        self.when_empty
    }

    /// What a new flow gets when the flow table is full or a limit is reached.
    pub fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// How `idle` is observed.
    pub fn drain(&self) -> Drain {
        self.drain
    }

    /// How silent connections are asked. Without effect in modes whose replies do not pass here.
    pub fn probes(&self) -> Probes {
        self.probes
    }

    /// What becomes of connections without data while their instance drains.
    pub fn keepalive_only(&self) -> KeepaliveOnly {
        self.keepalive_only
    }

    /// How its instances are asked whether they are able to serve.
    pub fn health(&self) -> Option<&health::Plan> {
        self.health.as_ref()
    }

    /// How its instances are judged by what the packet path sees.
    pub fn passive(&self) -> Option<health::Passive> {
        self.passive
    }

    /// What becomes of the flows of an instance that is down.
    pub fn on_down(&self) -> OnDown {
        self.on_down
    }

    /// Slots of each version's ring.
    pub fn ring_size(&self) -> RingSize {
        self.ring_size
    }

    /// The plan of its releases that name none: one of the configuration's, and it fits.
    pub fn plan(&self) -> Option<&Name> {
        self.plan.as_ref()
    }

    /// Versions that instances may register for.
    pub fn registration(&self) -> &Registrants {
        &self.registration
    }

    /// Where the sockets of an instance of this version are asked for that says nothing itself.
    pub fn sockets_of(&self, version: &str) -> Option<&Sockets> {
        let version = self.version(version).and_then(|version| version.sockets.as_ref());
        version.or(self.sockets.as_ref())
    }

    /// 1 to 16 versions in the order of the file.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version of that name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name.as_str() == name)
    }

    /// The instance of that id, with its version. No version of the service has such a name.
    pub fn instance(&self, id: &str) -> Option<(&Version, &Instance)> {
        let mut all = self.versions.iter().flat_map(|v| v.instances.iter().map(move |i| (v, i)));
        all.find(|(_, instance)| instance.id.as_str() == id)
    }
}

fn pairs<T: Copy>(lists: &BTreeMap<Name, Vec<T>>) -> impl Iterator<Item = (&Name, T)> {
    lists.iter().flat_map(|(name, list)| list.iter().map(move |item| (name, *item)))
}

/// A named set of instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    pub(super) name: Name,
    pub(super) weight: Weight,
    /// Left out of serialized output: it may hold secrets.
    #[serde(skip)]
    pub(super) meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<Sockets>,
    pub(super) instances: Vec<Instance>,
}

impl Version {
    /// Unique in the service.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Initial weight; state owns it afterwards.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Free text for hooks. It may hold secrets: keep it out of logs.
    pub fn meta(&self) -> &BTreeMap<String, String> {
        &self.meta
    }

    /// Instances in the order of the file, possibly none.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }
}

/// One backend socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    pub(super) id: InstanceId,
    pub(super) addr: Endpoint,
    pub(super) weight: InstanceWeight,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_id: Option<ServerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<Sockets>,
}

impl Instance {
    /// Unique in the service, and no version's name; its address if none was given.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Its socket. No other instance of the service has it; in modes `nat` and `local`, none of
    /// the whole configuration.
    pub fn addr(&self) -> SocketAddr {
        self.addr.socket()
    }

    /// The family of its address.
    pub fn family(&self) -> Family {
        self.addr.family()
    }

    /// What stands for it in connection ids, unique in the service: there if and only if the
    /// conversation is `quic`.
    pub fn server_id(&self) -> Option<ServerId> {
        self.server_id
    }

    /// Where its sockets are asked for, if that was said: for itself, or else its version, or else
    /// its service.
    pub fn sockets(&self) -> Option<&Sockets> {
        self.sockets.as_ref()
    }

    /// Share of its version's new flows.
    pub fn weight(&self) -> InstanceWeight {
        self.weight
    }
}
