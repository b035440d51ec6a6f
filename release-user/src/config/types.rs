//! Single values that cannot be wrong: each is checked once, when it is made.

use super::error::Invalid;
use super::suggest::did_you_mean;
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

/// Name of a service or version, or id of an instance: 1 to 63 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, longer than 63 characters or has others than `A-Z a-z 0-9 . _ -`.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=63).contains(&text.len()) && text.chars().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(format!("{text:?} is not a name"))
            .hint("1 to 63 letters, digits, `.`, `_` or `-`"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a network interface: 1 to 15 bytes without space, `/` and `:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks a name as the kernel does. Whether the interface is there is another question.
    ///
    /// # Errors
    /// When the kernel would never give an interface that name.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let illegal = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
        if (1..=15).contains(&text.len()) && !text.contains(illegal) && text != "." && text != ".."
        {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(format!("{text:?} is not an interface name"))
            .hint("1 to 15 bytes without space, `/` and `:`"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An IPv4 socket that a service or an instance can have: port 1 to 65535, and an address that is
/// not 0.0.0.0/8, loopback, multicast or broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(SocketAddrV4);

impl Endpoint {
    /// Checks a socket address.
    ///
    /// # Errors
    /// When the port is 0, or the address cannot be forwarded to.
    pub fn new(socket: SocketAddrV4) -> Result<Self, Invalid> {
        let ip = socket.ip();
        let kind = match () {
            () if socket.port() == 0 => return Err(Invalid::new(format!("{socket}: port 0"))),
            () if ip.is_loopback() => "loopback",
            () if ip.is_multicast() => "multicast",
            () if ip.is_broadcast() => "broadcast",
            () if ip.octets()[0] == 0 => "unspecified",
            () => return Ok(Self(socket)),
        };
        Err(Invalid::new(format!("{socket}: {kind} address"))
            .hint("traffic is forwarded to and from unicast addresses only"))
    }

    /// Reads `ip:port`.
    ///
    /// # Errors
    /// When it is something else, an IPv6 address, or not a legal endpoint.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if let Ok(socket) = text.parse() {
            return Self::new(socket);
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Err(Invalid::new(format!("{text:?}: IPv6 is not supported by this version")));
        }
        Err(Invalid::new(format!("{text:?} is not an address"))
            .hint("IPv4 address and port, such as \"192.0.2.10:80\""))
    }

    /// The socket address.
    pub const fn socket(self) -> SocketAddrV4 {
        self.0
    }
}

/// Where a service listens: an endpoint and the protocol TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend(Endpoint);

impl Frontend {
    /// Reads `ip:port/tcp`.
    ///
    /// # Errors
    /// When the protocol is missing or not supported, or the rest is not a legal endpoint.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let Some((endpoint, protocol)) = text.rsplit_once('/') else {
            return Err(Invalid::new(format!("{text:?} names no protocol"))
                .hint("such as \"192.0.2.10:80/tcp\""));
        };
        match protocol {
            "tcp" => Endpoint::parse(endpoint).map(Self),
            "udp" => Err(Invalid::new("protocol `udp` is not supported by this version")
                .hint("supported: `tcp`")),
            other => Err(Invalid::new(format!("unknown protocol {other:?}")).hint(
                did_you_mean(other, &["tcp"]).unwrap_or_else(|| "supported: `tcp`".to_owned()),
            )),
        }
    }

    /// The endpoint, without the protocol.
    pub const fn endpoint(self) -> Endpoint {
        self.0
    }

    /// The socket address.
    pub const fn socket(self) -> SocketAddrV4 {
        self.0.socket()
    }
}

/// Id of an instance, unique within its service: a name, or the instance's address.
///
/// A name has no `:`, so a given id and another instance's default one cannot be confused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct InstanceId(String);

impl InstanceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Name> for InstanceId {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

impl From<Endpoint> for InstanceId {
    fn from(endpoint: Endpoint) -> Self {
        Self(endpoint.to_string())
    }
}

/// How long an established flow may be silent before it is given up: 1 s to 12 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleTimeout(Duration);

impl IdleTimeout {
    /// Default: 2 hours.
    pub const DEFAULT: Self = Self(Duration::from_secs(2 * 3600));
    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(12 * 86_400);

    /// Checks a duration.
    ///
    /// # Errors
    /// When it is below 1 s or above 12 days.
    pub fn new(duration: Duration) -> Result<Self, Invalid> {
        duration_in(duration, Self::MIN, Self::MAX).map(Self)
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

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

macro_rules! displayed {
    ($($name:ident => $format:literal),*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    )* };
}
displayed!(Name => "{}", InterfaceName => "{}", InstanceId => "{}", Endpoint => "{}", Frontend => "{}/tcp");

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

macro_rules! serialized_as_displayed {
    ($($name:ident),*) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}
serialized_as_displayed!(Endpoint, Frontend, IdleTimeout);
