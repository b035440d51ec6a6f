//! Single values of the command line. Errors read `what is wrong (hint)`.

use crate::config::{Name, Protocol, Weight};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Format of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// One document
    Json,
    /// One document or list item a line
    Jsonl,
}

/// `VERSION=WEIGHT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VersionWeight {
    pub version: Name,
    pub weight: Weight,
}

impl FromStr for VersionWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (version, weight) =
            text.split_once('=').ok_or("there is no `=` (VERSION=WEIGHT, as in v2=10)")?;
        let version = Name::new(version).map_err(|invalid| invalid.to_string())?;
        let number: i64 = weight
            .parse()
            .map_err(|_| format!("{weight:?} is no whole number (0 to {})", Weight::MAX))?;
        let weight = Weight::new(number).map_err(|invalid| invalid.to_string())?;
        Ok(Self { version, weight })
    }
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyValue(pub String, pub String);

impl FromStr for KeyValue {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.to_owned(), value.to_owned())),
            _ => Err("there is no `=` behind a key (KEY=VALUE, as in build=2.0.1)"),
        }
    }
}

/// Values by key; of a key that is given twice, the last.
pub(super) fn by_key(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|KeyValue(key, value)| (key, value)).collect()
}

/// Weights by version.
///
/// # Errors
/// When a version is named twice: its name.
pub(super) fn by_version(weights: &[VersionWeight]) -> Result<BTreeMap<String, u32>, String> {
    let mut all = BTreeMap::new();
    for VersionWeight { version, weight } in weights {
        if all.insert(version.to_string(), weight.get()).is_some() {
            return Err(version.to_string());
        }
    }
    Ok(all)
}

/// A version's name, or an instance's.
pub(super) fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|invalid| invalid.to_string())
}

/// What to do at a drain's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDeadline {
    /// Leave the connections alone.
    Hold,
    /// End them, one after the other.
    Force,
}

impl FromStr for OnDeadline {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hold" => Ok(Self::Hold),
            "force" => Ok(Self::Force),
            _ => Err("unknown (hold or force)"),
        }
    }
}

/// A transport protocol, in letters of either size.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    Protocol::parse(&text.to_ascii_lowercase()).map_err(|invalid| invalid.to_string())
}

/// A duration as people write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (as in 500ms, 30s, 5m, 1h 30m)"))?;
    // Later than this no clock can say.
    const MOST: Duration = Duration::from_secs(10 * 365 * 86_400);
    if duration > MOST {
        Err("more than ten years (as in 30s, 5m, 2h)".to_owned())
    } else {
        Ok(duration)
    }
}

/// A duration above zero.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err("no time at all (as in 10s)".to_owned()) } else { Ok(duration) }
}
