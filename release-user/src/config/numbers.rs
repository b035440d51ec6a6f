//! Numbers and durations with limits: each is checked once, when it is made.

use super::error::Invalid;
use super::text::as_text;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// A bounded number: a newtype over `u32` with its limits, its default and its check.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident: $min:literal..=$max:literal, default $default:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(u32);

        impl $name {
            /// Smallest value.
            pub const MIN: Self = Self($min);
            /// Largest value.
            pub const MAX: Self = Self($max);
            /// Value if nothing is given.
            pub const DEFAULT: Self = Self($default);

            /// Checks a number.
            ///
            /// # Errors
            /// When it is below [`Self::MIN`] or above [`Self::MAX`].
            pub fn new(number: i64) -> Result<Self, Invalid> {
                in_range(number, $min, $max).map(Self)
            }

            /// The number.
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bounded! {
    /// Share of new flows that a version gets, relative to the service's other versions:
    /// 0 to 1000000. 0 means none.
    Weight: 0..=1_000_000, default 0
}
bounded! {
    /// Share of a version's new flows that an instance gets, relative to the version's other
    /// instances: 1 to 1000.
    InstanceWeight: 1..=1000, default 1
}
bounded! {
    /// Number of flows that the flow table holds: 1024 to 16777216.
    FlowCapacity: 1024..=16_777_216, default 1_048_576
}
bounded! {
    /// Number of handshakes in progress that the embryo table holds: 1024 to 4194304.
    EmbryoCapacity: 1024..=4_194_304, default 65_536
}
bounded! {
    /// Number of client sessions that can be remembered: 1024 to 4194304.
    SessionCapacity: 1024..=4_194_304, default 65_536
}
bounded! {
    /// Number of source ports in use at once, over all services in mode `snat`: 1024 to 1048576.
    SnatCapacity: 1024..=1_048_576, default 65_536
}
bounded! {
    /// Number of fragmented datagrams in transit: 64 to 262144.
    FragmentCapacity: 64..=262_144, default 8192
}

/// A bounded duration: a newtype with its limits, its default and its check. Limits and default
/// are whole seconds.
macro_rules! timeout {
    ($(#[$doc:meta])* $name:ident: $min:literal..=$max:literal, default $default:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(Duration);

        impl $name {
            /// Shortest.
            pub const MIN: Duration = Duration::from_secs($min);
            /// Longest.
            pub const MAX: Duration = Duration::from_secs($max);
            /// Value if nothing is given.
            pub const DEFAULT: Self = Self(Duration::from_secs($default));

            /// Checks a duration.
            ///
            /// # Errors
            /// When it is below [`Self::MIN`] or above [`Self::MAX`].
            pub fn new(duration: Duration) -> Result<Self, Invalid> {
                duration_in(duration, Self::MIN, Self::MAX).map(Self)
            }

            /// Reads what is displayed.
            fn parse(text: &str) -> Result<Self, Invalid> {
                Self::new(parse_duration(text)?)
            }

            /// The duration.
            pub const fn get(self) -> Duration {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                humantime::format_duration(self.0).fmt(f)
            }
        }

        as_text!($name);
    };
}

timeout! {
    /// How long an established TCP connection may be silent before it is given up: 1 s to 12 days,
    /// 2 hours by default.
    IdleTimeout: 1..=1_036_800, default 7200
}
timeout! {
    /// The same for a UDP flow that has had a reply: 1 s to 12 days, 180 s by default (RFC 4787
    /// REQ-5 asks for two minutes at least).
    UdpTimeout: 1..=1_036_800, default 180
}
timeout! {
    /// The same for a UDP flow that has had none: 1 s to 1 h, 30 s by default.
    UnrepliedTimeout: 1..=3600, default 30
}
timeout! {
    /// How long a client is remembered after its last flow ended: 1 s to 12 days, 10 minutes by
    /// default.
    SessionTimeout: 1..=1_036_800, default 600
}

/// Checks a number against limits, both included.
pub(super) fn in_range(number: i64, min: u32, max: u32) -> Result<u32, Invalid> {
    match u32::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if number < 0 && min == 0 => {
            Err(Invalid::new(format!("{number} is negative")).hint(format!("0 to {max}")))
        }
        _ => Err(Invalid::new(format!("{number} is out of range")).hint(format!("{min} to {max}"))),
    }
}

/// A duration such as `"100ms"` or `"1h 30m"`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    humantime::parse_duration(text).map_err(|_| {
        Invalid::new(format!("{text:?} is not a duration"))
            .hint("a number and a unit, such as \"100ms\", \"2h\" or \"1h 30m\"")
    })
}

/// Checks a duration against limits, both included.
pub(super) fn duration_in(
    duration: Duration,
    min: Duration,
    max: Duration,
) -> Result<Duration, Invalid> {
    if (min..=max).contains(&duration) {
        return Ok(duration);
    }
    let show = humantime::format_duration;
    Err(Invalid::new(format!("{} is out of range", show(duration))).hint(format!(
        "{} to {}",
        show(min),
        show(max)
    )))
}
