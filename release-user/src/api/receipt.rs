//! Connections that were ended on the operator's order, as receipts list them.

use serde::{Deserialize, Serialize};

/// Most connections that a receipt lists, and that are kept of an instance.
pub const MOST_FORCED: usize = 10_000;

/// A connection that was ended on the operator's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedFlow {
    /// When, RFC 3339.
    pub at: String,
    /// `ip:port` or `[ip]:port`.
    pub client: String,
    /// `ip:port` or `[ip]:port`.
    pub frontend: String,
    /// `tcp`: datagrams have nothing to end.
    pub protocol: String,
    /// Instance id.
    pub instance: String,
    /// How.
    pub how: How,
    /// Why.
    #[serde(default, skip_serializing_if = "Because::is_drain")]
    pub because: Because,
    /// Milliseconds between its last data and its end.
    pub last_data_age_ms: u64,
    /// What probes had found of the client's end: `unknown | alive | unreachable`.
    pub client_end: String,
}

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// Its instance was drained: by command, or as connections without data are then.
    #[default]
    Drain,
    /// Its instance was down, and `on_down` is `reset`.
    Down,
}

impl Because {
    /// As what is not said is read.
    #[must_use]
    pub const fn is_drain(&self) -> bool {
        matches!(self, Self::Drain)
    }
}

/// How a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// By a RST of one of its ends, which passed here.
    Reset,
    /// By its instance's kernel; what it told the client does not pass here.
    SocketDestroyed,
}

impl How {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::SocketDestroyed => "socket destroyed",
        }
    }
}
