//! Active health checks: is an instance able to serve?
//!
//! They go straight to the instance's own address, never to a frontend, so the packet path counts no
//! flow for them: what comes back matches none, and is passed to this host.

mod probe;
mod streak;

use std::time::Duration;

pub use probe::probe;
pub use streak::Streak;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether `GET` of this path is answered with 2xx or 3xx.
    Http(String),
    /// Whether this program ends with 0; it gets `RELEASE_INSTANCE` and `RELEASE_ADDRESS`.
    Exec(Vec<String>),
}

/// How an instance is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is asked.
    pub check: Check,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row after which it is down.
    pub fall: u32,
    /// Successes in a row after which it is up again.
    pub rise: u32,
}
