//! Services, their versions and instances, as validated.

use super::settings::{Conversation, Mode, WhenEmpty, WhenFull};
use super::types::{Endpoint, Frontend, IdleTimeout, InstanceId, InstanceWeight, Name, Weight};
use crate::placement::RingSize;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

/// One service: at least one frontend and one version, with some weight on a version that has
/// instances; no address or id in it clashes with another of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub(super) name: Name,
    pub(super) frontends: Vec<Frontend>,
    pub(super) mode: Mode,
    pub(super) conversation: Conversation,
    pub(super) idle_timeout: IdleTimeout,
    pub(super) when_empty: WhenEmpty,
    pub(super) when_full: WhenFull,
    pub(super) drain: Drain,
    pub(super) ring_size: RingSize,
    pub(super) versions: Vec<Version>,
}

impl Service {
    /// Unique in the configuration.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Where it listens: 1 to 8, each claimed by this service alone.
    pub fn frontends(&self) -> &[Frontend] {
        &self.frontends
    }

    /// How packets reach an instance.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What stays together on one instance.
    pub fn conversation(&self) -> Conversation {
        self.conversation
    }

    /// How long an established flow may be silent before it is given up.
    pub fn idle_timeout(&self) -> IdleTimeout {
        self.idle_timeout
    }

    /// What a new flow gets when no instance serves.
    pub fn when_empty(&self) -> WhenEmpty {
        self.when_empty
    }

    /// What a new flow gets when the flow table is full.
    pub fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// How `idle` is observed.
    pub fn drain(&self) -> Drain {
        self.drain
    }

    /// Slots of each version's ring.
    pub fn ring_size(&self) -> RingSize {
        self.ring_size
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

/// A named set of instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    pub(super) name: Name,
    pub(super) weight: Weight,
    /// Left out of serialized output: it may hold secrets.
    #[serde(skip)]
    pub(super) meta: BTreeMap<String, String>,
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
}

impl Instance {
    /// Unique in the service, and no version's name; its address if none was given.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Its socket, on this instance alone in the whole configuration.
    pub fn addr(&self) -> SocketAddrV4 {
        self.addr.socket()
    }

    /// Share of its version's new flows.
    pub fn weight(&self) -> InstanceWeight {
        self.weight
    }
}

/// How a drain is observed before it is called idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Drain {
    #[serde(serialize_with = "as_text")]
    pub(super) settle: Duration,
    pub(super) samples: u32,
    #[serde(serialize_with = "as_text")]
    pub(super) every: Duration,
}

impl Drain {
    pub(super) const SHORTEST: Duration = Duration::from_millis(1);
    pub(super) const LONGEST: Duration = Duration::from_secs(3600);
    /// Longest time that the samples of one verdict may take.
    pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(5);
    pub(super) const MAX_SAMPLES: u32 = 1000;

    /// How long no packet may have passed: 1 ms to 1 h.
    pub const fn settle(self) -> Duration {
        self.settle
    }

    /// How many times in a row the counters must be found unchanged: 1 to 1000.
    pub const fn samples(self) -> u32 {
        self.samples
    }

    /// Time between two samples: 1 ms to 1 h.
    pub const fn every(self) -> Duration {
        self.every
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { settle: Duration::from_secs(1), samples: 3, every: Duration::from_millis(100) }
    }
}

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
