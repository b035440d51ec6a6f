//! Where traffic goes: what commands change and a restart or reload never resets.

use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

/// State of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Index in the maps.
    pub id: u32,
    /// Number of the last split.
    pub generation: u32,
    /// Frontends whose flows may still exist, configured or not. Each keeps its place for as long as
    /// it is here: the reply path reads the list while it is written.
    pub frontends: Vec<Option<SocketAddrV4>>,
    /// Gone from the configuration, kept until its flows are.
    #[serde(default)]
    pub removed: bool,
    /// Versions in configuration order, removed ones last.
    pub versions: Vec<VersionState>,
}

/// State of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionState {
    /// Its name.
    pub name: String,
    /// Index of its ring.
    pub ring: u32,
    /// Weight.
    pub weight: u32,
    /// Generation that took its weight away; meaningful while the weight is 0.
    pub closed_at: u32,
    /// Set while an operator drains it.
    pub drain: Option<DrainState>,
    /// When its first flow was opened, RFC 3339.
    pub first_flow_at: Option<String>,
    /// Gone from the configuration.
    #[serde(default)]
    pub removed: bool,
    /// Its instances in configuration order, orphaned ones last.
    pub instances: Vec<InstanceState>,
}

/// State of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceState {
    /// Its id.
    pub id: String,
    /// Its socket.
    pub addr: SocketAddrV4,
    /// Weight within its version.
    pub weight: u32,
    /// Index in the maps.
    pub backend: u32,
    /// Evidence epoch in which it came into service: of what was before, nothing is known.
    pub epoch: u32,
    /// Set while an operator drains it alone.
    pub drain: Option<DrainState>,
    /// Gone from the configuration, kept until its flows are.
    #[serde(default)]
    pub orphaned: bool,
    /// Generation that took it off its ring; meaningful while drained or orphaned.
    #[serde(default)]
    pub closed_at: u32,
}

/// A drain in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

impl DrainState {
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
        self.drain.is_none() && !self.orphaned
    }
}

impl VersionState {
    /// Whether new flows are placed on it.
    pub fn serves(&self) -> bool {
        self.weight > 0 && self.instances.iter().any(InstanceState::in_ring)
    }
}

impl ServiceState {
    /// Whether any version takes new flows.
    pub fn serves(&self) -> bool {
        self.versions.iter().any(VersionState::serves)
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

    /// Weights by version name.
    pub fn weights(&self) -> std::collections::BTreeMap<String, u32> {
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
