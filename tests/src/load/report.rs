//! What a load found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Width of one element of the time series.
pub const BUCKET: Duration = Duration::from_millis(200);

/// Kinds of errors that a client can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No connection: refused, unreachable, no address free.
    Connect,
    /// RST on an established connection.
    Reset,
    /// The server closed where it should not: in an answer, or an idle keep-alive connection.
    Closed,
    /// No connection, answer or line of a stream in time.
    Timeout,
    /// An answer with a status other than 200.
    Status,
    /// An answer that is no HTTP, or not of our server, or a stream with a gap.
    Protocol,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed by server",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Protocol => "protocol",
        })
    }
}

/// Figures of one moment of a load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Complete answers; a stream counts once, at its end.
    pub requests: u64,
    /// Connections that got a first answer.
    pub connections: u64,
    /// Errors of all kinds.
    pub errors: u64,
    /// Times when an answer came from another server (version, instance or server's connection)
    /// than those before it on the same connection.
    pub moved: u64,
    /// By version, as stamped by the servers.
    pub versions: BTreeMap<String, VersionSnapshot>,
}

/// Figures of one version.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VersionSnapshot {
    /// Connections whose first answer came from this version.
    pub connections: u64,
    /// Of these, open now.
    pub active: u64,
    /// When the latest of them began (just before its SYN), from the load's start. A connection
    /// that began after a shift to weight 0 had returned must not be among them.
    pub last_begun: Option<Duration>,
    /// When the last of them closed so far, from the load's start.
    pub last_close: Option<Duration>,
    /// Connections by instance.
    pub instances: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Open connections to a version now.
    #[must_use]
    pub fn active(&self, version: &str) -> u64 {
        self.versions.get(version).map_or(0, |v| v.active)
    }

    /// Connections to a version so far.
    #[must_use]
    pub fn connections_to(&self, version: &str) -> u64 {
        self.versions.get(version).map_or(0, |v| v.connections)
    }
}

/// One element of the time series, [`BUCKET`] wide.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Bucket {
    /// New connections by version, counted when they began.
    pub new: BTreeMap<String, u64>,
    /// Open connections by version at the element's end.
    pub active: BTreeMap<String, u64>,
    /// Errors.
    pub errors: u64,
}

/// Results of a whole load.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The final figures.
    pub totals: Snapshot,
    /// Errors by kind.
    pub errors_by_kind: BTreeMap<ErrorKind, u64>,
    /// The first errors, in words, with their times.
    pub first_errors: Vec<String>,
    /// The first connections that moved, in words.
    pub first_moved: Vec<String>,
    /// Elements from the load's start on, without gaps.
    pub series: Vec<Bucket>,
}

impl Report {
    /// Whether no client saw anything: no error, no moved connection, and some traffic at all.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.totals.errors == 0 && self.totals.moved == 0 && self.totals.requests > 0
    }

    /// Errors by kind in words: `38 reset, 12 closed by server`.
    #[must_use]
    pub fn errors_in_words(&self) -> String {
        if self.errors_by_kind.is_empty() {
            return "none".to_owned();
        }
        let parts: Vec<String> =
            self.errors_by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        parts.join(", ")
    }
}
