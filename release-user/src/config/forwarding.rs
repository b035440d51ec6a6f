//! What some modes and conversations need beyond an instance's address.

use super::address::Family;
use super::error::Invalid;
use super::numbers::in_range;
use super::prefix::Prefix;
use super::text::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Source ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Behind Linux's own ephemeral ports (32768 to 60999), so that the two never meet.
    pub const DEFAULT: Self = Self { first: 61_000, last: 65_535 };

    /// Reads `first-last`, each 1024 to 65535.
    ///
    /// # Errors
    /// When it is something else, or ends before it begins.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let numbers = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?))
        });
        let Some((first, last)) = numbers else {
            return Err(Invalid::new(format!("{text:?} is not a range of ports"))
                .hint("first and last, such as \"61000-65535\""));
        };
        let port = |number: u32| {
            let number = in_range(number.into(), 1024, u16::MAX.into())?;
            Ok::<_, Invalid>(number as u16)
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(Invalid::new(format!("{text:?} ends before it begins")));
        }
        Ok(Self { first, last })
    }

    /// First port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is in it.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Sources that clients are hidden behind (mode `snat`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snat {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: PortRange,
}

impl Snat {
    /// The addresses of a family, in the order of the file: 1 to 8 for a family that a frontend
    /// has, none twice.
    pub fn addresses(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(move |address| Family::of(*address) == family)
    }

    /// The ports of each address.
    pub const fn ports(&self) -> PortRange {
        self.ports
    }
}

/// How packets are wrapped (modes `ipip` and `gue`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    pub(super) sources: Vec<Prefix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
}

impl Tunnel {
    /// Default destination port of GUE, as the IANA assigned it.
    pub(super) const GUE_PORT: u16 = 6080;

    /// Outer source addresses towards instances of a family: varied per flow, so that receivers
    /// spread flows over their queues. `None`: this host's own address.
    pub fn source(&self, family: Family) -> Option<Prefix> {
        self.sources.iter().copied().find(|prefix| prefix.family() == family)
    }

    /// Outer destination port; in mode `gue` only, and always there.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }
}

/// How connection ids name instances (conversation `quic`, draft-ietf-quic-load-balancers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quic {
    pub(super) server_id_length: u8,
    pub(super) config_id: u8,
}

impl Quic {
    /// Bytes of a server id: 1 to 8.
    pub const fn server_id_length(self) -> u8 {
        self.server_id_length
    }

    /// Value of the first three bits of a connection id that this configuration is for: 0 to 6 (7
    /// means that nothing is encoded).
    pub const fn config_id(self) -> u8 {
        self.config_id
    }
}

impl Default for Quic {
    fn default() -> Self {
        Self { server_id_length: 4, config_id: 0 }
    }
}

/// What stands for an instance in QUIC connection ids: 1 to 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId {
    bytes: [u8; Self::MAX_LENGTH],
    length: u8,
}

impl ServerId {
    /// Longest, in bytes.
    pub const MAX_LENGTH: usize = 8;

    /// Reads hexadecimal digits, two a byte.
    ///
    /// # Errors
    /// When it is something else, or not 1 to 8 bytes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let digits = text.as_bytes();
        let hex = digits.iter().all(u8::is_ascii_hexdigit) && digits.len().is_multiple_of(2);
        if !hex || !(1..=Self::MAX_LENGTH).contains(&(digits.len() / 2)) {
            return Err(Invalid::new(format!("{text:?} is not a server id"))
                .hint("1 to 8 bytes as hexadecimal digits, such as \"0a0b0c0d\""));
        }
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        let mut id = Self { bytes: [0; Self::MAX_LENGTH], length: (digits.len() / 2) as u8 };
        for (byte, pair) in id.bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(id)
    }

    /// The bytes, as they stand in a connection id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerId({self})")
    }
}

as_text!(PortRange, ServerId);
