//! What can be wrong with a configuration, and where.

use serde::Serialize;
use std::fmt;

/// Why a value is not acceptable. It does not know where the value stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{what}{}", in_brackets(hint.as_deref()))]
pub struct Invalid {
    what: String,
    hint: Option<String>,
}

impl Invalid {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What is wrong, without the hint.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// How it might be put right.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Where something stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    /// The file as it was named.
    pub file: String,
    /// Line from 1; none if the whole file is meant.
    pub line: Option<usize>,
    /// Path of the key, empty at the top level.
    pub key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if self.key.is_empty() { Ok(()) } else { write!(f, ": {}", self.key) }
    }
}

/// One thing that is wrong (or, among the warnings, suspicious) in a configuration.
///
/// Prints as `file:line: key: what (hint)`; line, key and hint are left out where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{place}: {invalid}")]
pub struct ConfigError {
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    invalid: Invalid,
}

impl ConfigError {
    pub(super) fn new(place: Place, invalid: Invalid) -> Self {
        Self { place, invalid }
    }

    /// The file, as it was named.
    pub fn file(&self) -> &str {
        &self.place.file
    }

    /// Line in the file, from 1; `None` if the file as a whole is meant (it cannot be read).
    pub fn line(&self) -> Option<usize> {
        self.place.line
    }

    /// Path of the key, such as `service[web].version[v1].weight`; empty for the whole file.
    pub fn key(&self) -> &str {
        &self.place.key
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        self.invalid.what()
    }

    /// How it might be put right.
    pub fn hint(&self) -> Option<&str> {
        self.invalid.hint_text()
    }
}

/// Everything that is wrong with a configuration: never empty, in the order of files and lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", one_a_line(.0))]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// At least one error.
    pub(super) fn new(errors: Vec<ConfigError>) -> Self {
        debug_assert!(!errors.is_empty());
        Self(errors)
    }

    /// The errors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }

    /// The errors as a vector.
    pub fn into_vec(self) -> Vec<ConfigError> {
        self.0
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn in_brackets(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}

fn one_a_line(errors: &[ConfigError]) -> String {
    errors.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("\n")
}
