//! Names and ids that cannot be wrong: each is checked once, when it is made.

use super::address::Endpoint;
use super::error::Invalid;
use serde::Serialize;
use std::fmt;

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

    /// Whether it is the interface of this host's traffic with itself.
    pub fn is_loopback(&self) -> bool {
        self.0 == "lo"
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

macro_rules! displayed {
    ($($name:ident),*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )* };
}
displayed!(Name, InterfaceName, InstanceId);
