//! What a service does with time and quantity: drains, timeouts, limits, sessions.

use super::numbers::{IdleTimeout, SessionTimeout, UdpTimeout, UnrepliedTimeout};
use super::settings::{OnDrain, OnKeepalive};
use crate::probe::watch::Rhythm;
use serde::{Deserialize, Serialize, Serializer};
use std::num::NonZeroU32;
use std::time::Duration;

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

/// How long a silent flow is kept. Those of a protocol that no frontend has, or of a conversation
/// without flows, have their defaults and no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    #[serde(rename = "idle_timeout")]
    pub(super) idle: IdleTimeout,
    #[serde(rename = "udp_timeout")]
    pub(super) udp: UdpTimeout,
    #[serde(rename = "unreplied_timeout")]
    pub(super) unreplied: UnrepliedTimeout,
}

impl Timeouts {
    /// Established TCP connections.
    pub const fn idle(self) -> IdleTimeout {
        self.idle
    }

    /// UDP flows that have had a reply.
    pub const fn udp(self) -> UdpTimeout {
        self.udp
    }

    /// UDP flows that have had none.
    pub const fn unreplied(self) -> UnrepliedTimeout {
        self.unreplied
    }
}

/// How silent TCP connections of a service are asked whether they are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    pub(super) enabled: bool,
    #[serde(with = "humantime_text")]
    pub(super) after: Duration,
    #[serde(with = "humantime_text")]
    pub(super) every: Duration,
    pub(super) tries: u32,
}

impl Probes {
    pub(super) const MAX_TRIES: u32 = 100;

    /// Whether they are asked at all.
    pub const fn enabled(self) -> bool {
        self.enabled
    }

    /// How they are asked, if they are.
    pub const fn rhythm(self) -> Rhythm {
        Rhythm { after: self.after, every: self.every, tries: self.tries }
    }
}

impl Default for Probes {
    fn default() -> Self {
        let (after, every) = (Duration::from_secs(10), Duration::from_secs(1));
        Self { enabled: true, after, every, tries: 5 }
    }
}

/// Connections that carry nothing but keep-alives, while their instance drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepaliveOnly {
    #[serde(with = "humantime_text")]
    pub(super) after: Duration,
    pub(super) action: OnKeepalive,
}

impl KeepaliveOnly {
    /// Time without data after which a connection is one of them.
    pub const fn after(self) -> Duration {
        self.after
    }

    /// What becomes of it.
    pub const fn action(self) -> OnKeepalive {
        self.action
    }
}

impl Default for KeepaliveOnly {
    fn default() -> Self {
        Self { after: Duration::from_secs(600), action: OnKeepalive::default() }
    }
}

/// Durations as people write them.
mod humantime_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        super::as_text(value, serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// What a service takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_flows: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new_flows_per_second: Option<NonZeroU32>,
}

impl Limits {
    /// Live flows at once, over all versions; none: as many as the table holds.
    pub const fn max_flows(self) -> Option<NonZeroU32> {
        self.max_flows
    }

    /// New flows a second, over all versions; none: no limit.
    pub const fn new_flows_per_second(self) -> Option<NonZeroU32> {
        self.new_flows_per_second
    }
}

/// How clients are remembered (conversation `client`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub(super) timeout: SessionTimeout,
    pub(super) on_drain: OnDrain,
}

impl Session {
    /// How long after a client's last flow ended.
    pub const fn timeout(self) -> SessionTimeout {
        self.timeout
    }

    /// What becomes of the sessions of a drained instance.
    pub const fn on_drain(self) -> OnDrain {
        self.on_drain
    }
}
