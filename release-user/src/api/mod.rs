//! The daemon's API: HTTP and JSON over a Unix socket.
//!
//! `types` says what travels and what the daemon must offer (the trait [`Api`](types::Api)),
//! `server` puts an implementation of it on a socket, `client` asks over that socket.
//!
//! | request | parameters | answer |
//! |---|---|---|
//! | `GET /v1/status` | `service` | [`Status`](types::Status) |
//! | `GET /v1/flows` | [`FlowQuery`](types::FlowQuery) | list of [`FlowLine`](types::FlowLine) |
//! | `GET /v1/instances` | | list of [`InstanceLine`](types::InstanceLine) |
//! | `GET /v1/idle` | [`TargetQuery`](types::TargetQuery) | [`IdleReport`](types::IdleReport) |
//! | `GET /v1/explain` | [`ExplainQuery`](types::ExplainQuery) | [`Explanation`](types::Explanation) |
//! | `GET /v1/events` | `follow=true` | [`EventLine`](types::EventLine), one a line |
//! | `GET /v1/version` | | [`VersionInfo`] |
//! | `POST /v1/shift` | [`ShiftRequest`](types::ShiftRequest) | [`InForce`](types::InForce) |
//! | `POST /v1/drain`, `undrain` | [`DrainRequest`](types::DrainRequest) | [`InForce`](types::InForce) |
//! | `GET /v1/receipts` | [`ReceiptQuery`](types::ReceiptQuery) | [`Receipt`](types::Receipt)s |
//! | `POST /v1/receipt` | [`TargetQuery`](types::TargetQuery) | [`Receipt`](types::Receipt) |
//! | `POST /v1/retire` | [`RetireRequest`](types::RetireRequest) | [`Retired`](types::Retired) |
//! | `GET /v1/releases` | [`ReleaseQuery`](release::ReleaseQuery) | [`ReleaseLine`](release::ReleaseLine)s |
//! | `GET /v1/release` | [`ReleaseId`](release::ReleaseId) | [`ReleaseShow`](release::ReleaseShow) |
//! | `POST /v1/release/start` | [`StartRelease`](release::StartRelease) | [`Started`](release::Started) |
//! | `POST /v1/release/order` | [`OrderRequest`](release::OrderRequest) | [`ReleaseLine`](release::ReleaseLine) |
//! | `POST /v1/release/rollback` | [`ReleaseId`](release::ReleaseId) | [`Started`](release::Started) |
//! | `POST /v1/register` | [`RegisterRequest`](types::RegisterRequest) | [`Registered`](types::Registered) |
//! | `POST /v1/deregister` | [`DeregisterRequest`](types::DeregisterRequest) | [`Deregistered`](types::Deregistered) |
//! | `POST /v1/offline` | [`OfflineRequest`](types::OfflineRequest) | [`Offline`](types::Offline) |
//! | `POST /v1/maint` | [`MaintRequest`](types::MaintRequest) | [`InForce`](types::InForce) |
//! | `POST /v1/reload` | | [`Reloaded`](types::Reloaded) |
//! | `POST /v1/detach` | | `{}` |
//!
//! Parameters of a GET stand in the query, those of a POST in a JSON body. A failure is an
//! [`ErrorBody`] with a fitting HTTP status.

pub mod client;
mod contract;
mod error;
mod measured;
mod receipt;
mod registration;
pub mod release;
pub mod server;
mod socket;
pub mod types;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod tests;

use serde::{Deserialize, Serialize};

/// A failure as it travels, and as it is printed with `-o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: types::ApiError,
}

/// Answer of `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// [`SCHEMA`](types::SCHEMA).
    pub schema: u32,
    /// Version of the daemon's program.
    pub version: String,
}

/// Parameters of `status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StatusQuery {
    /// Only this service.
    pub service: Option<String>,
}

/// Parameters of `events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EventsQuery {
    /// Whether to go on with the events to come.
    #[serde(default)]
    pub follow: bool,
}
