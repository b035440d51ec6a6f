//! Where traffic goes: what commands change and a restart or reload never resets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::health::Down;
use super::leave::Absence;
use super::register::Registration;
use super::retire::Retirement;
use super::settings::Settings;
use crate::config::{Family, Frontend, Invalid, Prefix, Protocol, ServerId, Sockets};

/// Frontends in their places. Each keeps its place for as long as it is here: the reply path reads
/// the list while it is written.
pub type Places = Vec<Option<Frontend>>;

/// State of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Index in the maps.
    pub id: u32,
    /// Number of the last split.
    pub generation: u32,
    /// How its packets are treated.
    #[serde(default)]
    pub settings: Settings,
    /// Address families that its clients can come from and of which each needs instances of its
    /// own; empty where any instance serves any client.
    #[serde(default)]
    pub families: Vec<Family>,
    /// IPv4 frontends whose flows may still exist, configured or not.
    #[serde(deserialize_with = "places")]
    pub frontends: Places,
    /// IPv6 ones.
    #[serde(default, deserialize_with = "places")]
    pub frontends6: Places,
    /// Gone from the configuration, kept until its flows are.
    #[serde(default)]
    pub removed: bool,
    /// Versions in configuration order, removed ones last.
    pub versions: Vec<VersionState>,
    /// Sockets of instances that were given up by force: of what was before, nothing is known.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub given_up: BTreeSet<SocketAddr>,
}

/// State of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionState {
    /// Its name.
    pub name: String,
    /// Index of its ring; the number of the version, too.
    pub ring: u32,
    /// Index of its ring of IPv6 instances, where they have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring6: Option<u32>,
    /// Weight.
    pub weight: u32,
    /// Generation that closed it to new flows; meaningful while it is not [`VersionState::open`].
    pub closed_at: u32,
    /// Whether some clients or frontends reach it whatever its weight, unless it is drained.
    #[serde(default)]
    pub tested: bool,
    /// Clients that a release lets reach it besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<Prefix>,
    /// Set while an operator drains it.
    pub drain: Option<DrainState>,
    /// Set when it is done with; it is drained, then, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retirement>,
    /// When its first flow was opened, RFC 3339.
    pub first_flow_at: Option<String>,
    /// Gone from the configuration.
    #[serde(default)]
    pub removed: bool,
    /// Not in the configuration, but somebody registered for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub registered: bool,
    /// Its instances in configuration order, orphaned ones last.
    pub instances: Vec<InstanceState>,
}

/// Epoch of an instance whose socket was given up by force before.
pub const GIVEN_UP: u32 = 0;

/// State of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceState {
    /// Its id.
    pub id: String,
    /// Its socket.
    pub addr: SocketAddr,
    /// Weight within its version.
    pub weight: u32,
    /// What stands for it in QUIC connection ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ServerId>,
    /// Where its sockets are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Sockets>,
    /// Index in the maps.
    pub backend: u32,
    /// Evidence epoch in which it came into service: of what was before, nothing is known. Epochs
    /// begin with 1; [`GIVEN_UP`] is before all.
    pub epoch: u32,
    /// Set while an operator drains it alone.
    pub drain: Option<DrainState>,
    /// Set while checks find it unable to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Down>,
    /// Gone from the configuration, kept until its flows are.
    #[serde(default)]
    pub orphaned: bool,
    /// Generation that took it off its ring; meaningful while drained, down or orphaned.
    #[serde(default)]
    pub closed_at: u32,
    /// What allows the id of an orphaned one to be used again, once no entry names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Retirement>,
    /// What it said of itself, if it is not one of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registration>,
    /// Why it is drained, or gone, if that was not an operator's drain or reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absence: Option<Absence>,
}

/// A drain in progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainState {
    /// Weight before, to go back to.
    pub weight_before: u32,
    /// When it began, RFC 3339.
    pub since: String,
    /// The same on the monotonic clock, in milliseconds since boot.
    #[serde(default)]
    pub since_boot_ms: u64,
    /// Seconds after which an alarm is raised.
    pub deadline_s: Option<f64>,
    /// Connections a second that are ended from then on; none: they are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<u32>,
}

/// Reads frontends. Versions of this program that knew nothing but TCP did not write it down.
fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Places, D::Error> {
    let frontend = |text: String| -> Result<Frontend, Invalid> {
        let with_protocol = if text.contains('/') { text } else { format!("{text}/tcp") };
        Frontend::parse(&with_protocol)
    };
    let texts = Vec::<Option<String>>::deserialize(deserializer)?;
    let read = |text: Option<String>| text.map(frontend).transpose();
    texts.into_iter().map(read).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

impl DrainState {
    /// Whether its deadline has passed. `now`: time since boot; after a reboot the deadline starts
    /// anew.
    pub fn is_overdue(&self, now: Duration) -> bool {
        let elapsed = now.saturating_sub(Duration::from_millis(self.since_boot_ms));
        self.deadline_s.is_some_and(|deadline| elapsed.as_secs_f64() >= deadline)
    }

    /// The same drain asked for again: a deadline counts from then.
    pub fn again(&mut self, drain: &Self) {
        if drain.deadline_s.is_some() {
            let weight_before = self.weight_before;
            *self = Self { weight_before, ..drain.clone() };
        }
    }
}

impl InstanceState {
    /// Whether new flows may be placed on it, as far as it alone is concerned.
    pub fn in_ring(&self) -> bool {
        !self.is_taken_out() && self.down.is_none()
    }

    /// Whether it was taken out of new flows on purpose, so that it gets none until somebody wants
    /// it to. One that is down may be back at any time.
    pub fn is_taken_out(&self) -> bool {
        self.drain.is_some() || self.orphaned
    }

    /// The family of its address.
    pub fn family(&self) -> Family {
        Family::of(self.addr.ip())
    }
}

/// Clients that need somebody to serve them: those of a family, or all alike.
pub type Clients = Option<Family>;

/// "IPv6 ", or nothing where all clients are alike.
pub fn clients_in_words(clients: Clients) -> String {
    clients.map(|family| format!("{family} ")).unwrap_or_default()
}

impl VersionState {
    /// Ids of its rings.
    pub fn rings(&self) -> impl Iterator<Item = u32> + use<> {
        std::iter::once(self.ring).chain(self.ring6)
    }

    /// Whether it has an instance that can take new flows of these clients.
    pub fn can_serve(&self, clients: Clients) -> bool {
        let fits = |instance: &&InstanceState| clients.is_none_or(|f| f == instance.family());
        self.instances.iter().filter(fits).any(InstanceState::in_ring)
    }

    /// Whether new flows of these clients are placed on it by weight.
    pub fn serves(&self, clients: Clients) -> bool {
        self.weight > 0 && self.can_serve(clients)
    }

    /// Whether it is here for its instances alone.
    pub fn is_passing(&self) -> bool {
        self.removed || (self.registered && self.weight == 0)
    }

    /// Whether there is a way to it for new flows.
    pub fn open(&self) -> bool {
        let tested = self.tested || !self.test.is_empty();
        self.weight > 0 || (tested && self.drain.is_none())
    }

    /// Closes what was open and is not any more.
    pub fn note_closed(&mut self, was_open: bool, generation: u32) {
        if was_open && !self.open() {
            self.closed_at = generation;
        }
    }

    /// Whether clients that are remembered may stay with an instance of it while it is drained
    /// under `move`.
    pub fn accepts(&self, instance: &InstanceState) -> bool {
        instance.in_ring() && self.weight > 0 && self.drain.is_none()
    }
}

impl ServiceState {
    /// Kinds of clients, each of which needs somebody to serve it.
    pub fn clients(&self) -> impl Iterator<Item = Clients> + use<> {
        let all = if self.families.is_empty() {
            vec![None]
        } else {
            self.families.iter().copied().map(Some).collect()
        };
        all.into_iter()
    }

    /// The first kind of clients of which no version takes new flows, among those of which
    /// `before` had one.
    pub fn deserts(&self, before: &Self) -> Option<Clients> {
        let served = |service: &Self, clients| service.versions.iter().any(|v| v.serves(clients));
        self.clients().find(|clients| served(before, *clients) && !served(self, *clients))
    }

    /// A version by name.
    pub fn version(&self, name: &str) -> Option<&VersionState> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// A version by name.
    pub fn version_mut(&mut self, name: &str) -> Option<&mut VersionState> {
        self.versions.iter_mut().find(|version| version.name == name)
    }

    /// All instances with their versions.
    pub fn instances(&self) -> impl Iterator<Item = (&VersionState, &InstanceState)> {
        self.versions.iter().flat_map(|v| v.instances.iter().map(move |i| (v, i)))
    }

    /// Ids of all instances in the maps.
    pub fn backends(&self) -> Vec<u32> {
        self.instances().map(|(_, instance)| instance.backend).collect()
    }

    /// The frontends of a family in their places.
    pub fn places(&self, family: Family) -> &Places {
        match family {
            Family::V4 => &self.frontends,
            Family::V6 => &self.frontends6,
        }
    }

    /// The frontends of a family in their places.
    pub fn places_mut(&mut self, family: Family) -> &mut Places {
        match family {
            Family::V4 => &mut self.frontends,
            Family::V6 => &mut self.frontends6,
        }
    }

    /// All frontends whose flows may still exist.
    pub fn all_frontends(&self) -> impl Iterator<Item = Frontend> {
        self.frontends.iter().chain(&self.frontends6).flatten().copied()
    }

    /// Protocols of those.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> {
        let spoken = |protocol: &Protocol| self.all_frontends().any(|f| f.protocol() == *protocol);
        Protocol::ALL.into_iter().filter(spoken)
    }

    /// Weights by version name.
    pub fn weights(&self) -> BTreeMap<String, u32> {
        self.versions.iter().map(|version| (version.name.clone(), version.weight)).collect()
    }
}

/// State of all services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Services in the order of the configuration, removed ones last.
    pub services: Vec<ServiceState>,
}

impl State {
    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&ServiceState> {
        self.services.iter().find(|service| service.name == name)
    }

    /// A service by name.
    pub fn service_mut(&mut self, name: &str) -> Option<&mut ServiceState> {
        self.services.iter_mut().find(|service| service.name == name)
    }

    /// All instances with their services and versions.
    pub fn instances(
        &self,
    ) -> impl Iterator<Item = (&ServiceState, &VersionState, &InstanceState)> {
        self.services.iter().flat_map(|s| s.instances().map(move |(v, i)| (s, v, i)))
    }
}
