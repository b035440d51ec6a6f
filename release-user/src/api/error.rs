//! Errors as they travel and as they are printed.

use serde::{Deserialize, Serialize};

use crate::config::Invalid;

/// Kinds of failure, each with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A bug or a failure of the system.
    Internal,
    /// Wrong arguments, unknown names, wrong configuration.
    Usage,
    /// Held or busy.
    Busy,
    /// The evidence does not suffice.
    Unknown,
    /// Contradicts the present state.
    Conflict,
    /// A wait timed out.
    Timeout,
}

impl ErrorCode {
    /// Exit code of the command line.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Busy => 4,
            Self::Unknown => 6,
            Self::Conflict => 8,
            Self::Timeout => 9,
        }
    }
}

/// An error as it travels and as it is printed: `error: what: why (hint)`.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Its kind.
    pub code: ErrorCode,
    /// `what: why`
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// `what: why (hint)`
    #[must_use]
    pub fn in_full(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// The error of a value that cannot be; `what` it is stands in front.
    #[must_use]
    pub fn invalid(code: ErrorCode, what: &str, invalid: &Invalid) -> Self {
        let error = Self::new(code, format!("{what}: {}", invalid.what()));
        match invalid.hint_text() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
