//! `releasectl agent`: answers, on an instance's host, what sockets remain there.
//!
//! HTTP/1.1 and JSON over TLS in which each end shows a certificate: `POST /v1/sockets` takes a
//! [`Query`] and gives an [`Answer`], or a [`Refusal`] with a fitting status. [`server`] answers,
//! [`client`] asks, [`tls`] reads the certificates of either.

pub mod client;
pub mod server;
pub mod tls;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Question, Summary};

/// Where questions go.
pub const PATH: &str = "/v1/sockets";
/// Version of the JSON documents.
pub const SCHEMA: u32 = 1;
/// Bytes of a question at most.
const LONGEST_QUERY: usize = 64 << 10;
/// Bytes of an answer at most: it names some sockets and counts the others.
const LONGEST_ANSWER: usize = 256 << 10;

/// A question, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Comes back with the answer.
    pub nonce: u64,
    /// What is asked.
    pub question: Question,
}

/// An answer, as it travels. Unknown keys are for later versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The question's.
    pub nonce: u64,
    /// Who answers: the host's name.
    pub agent: String,
    /// The boot of the host's kernel.
    pub boot_id: String,
    /// The host's monotonic clock when the kernel was asked, in nanoseconds.
    pub monotonic_ns: u64,
    /// What the kernel said.
    pub summary: Summary,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In words.
    pub error: String,
}

/// The boot of this kernel.
///
/// # Errors
/// /proc is not there.
pub fn boot_id() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// CLOCK_MONOTONIC.
fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}
