//! Instances that register themselves and leave, as it travels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Body of `register`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// `ip:port` or `[ip]:port`.
    pub addr: String,
    /// Its id; without one, its address.
    #[serde(default)]
    pub id: Option<String>,
    /// Weight within its version, 1 to 1000.
    #[serde(default = "one")]
    pub weight: u32,
    /// Free text for those who ask.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Seconds without a renewal after which it counts as lost.
    #[serde(default)]
    pub lease_s: Option<f64>,
    /// Process on the daemon's host with whose end it counts as lost.
    #[serde(default)]
    pub watch_pid: Option<u32>,
    /// The namespace in which the process has that number, by its inode.
    #[serde(default)]
    pub pid_namespace: Option<u64>,
}

fn one() -> u32 {
    1
}

/// Answer of `register`: in force on every CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Its id.
    pub id: String,
    /// Its socket.
    pub addr: String,
    /// Index in the maps.
    pub backend: u32,
    /// Its state, as in `status`.
    pub state: String,
    /// Generation in force.
    pub generation: u32,
    /// When it registered, RFC 3339.
    pub at: String,
    /// Seconds until it has to renew.
    pub lease_s: Option<f64>,
    /// False if it was a renewal.
    pub changed: bool,
}

/// Body of `deregister`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeregisterRequest {
    /// The service.
    pub service: String,
    /// Id of the instance.
    pub id: String,
    /// Forget it at once, even if it is not idle.
    #[serde(default)]
    pub force: bool,
    /// Whether its version may be left without a serving instance.
    #[serde(default)]
    pub allow_empty: bool,
}

/// Answer of `deregister`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deregistered {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Id of the instance.
    pub id: String,
    /// Generation in force.
    pub generation: u32,
    /// Number of the receipt by which it is forgotten; none yet: as soon as it is idle.
    pub receipt: Option<u64>,
    /// What was not proven when it was forced.
    pub lost: Vec<String>,
    /// False if it was taken out before.
    pub changed: bool,
}

/// Body of `offline`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfflineRequest {
    /// The service.
    pub service: String,
    /// Id of the instance.
    pub id: String,
    /// Seconds after which an alarm is raised if it is not idle.
    #[serde(default)]
    pub deadline_s: Option<f64>,
    /// Whether its version may be left without a serving instance.
    #[serde(default)]
    pub allow_empty: bool,
}

/// Answer of `offline`: no new flow reaches it. It may end once it is idle, and not before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offline {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Id of the instance.
    pub id: String,
    /// Told to shut down: it is out of new flows.
    pub shutdown: bool,
    /// Since when, RFC 3339; none if it was taken out otherwise.
    pub since: Option<String>,
    /// Generation in force.
    pub generation: u32,
    /// Number of a receipt that holds: it may end now.
    pub receipt: Option<u64>,
    /// False if it had asked before.
    pub changed: bool,
}

/// Body of `maint`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MaintRequest {
    /// The service.
    pub service: String,
    /// Id of the instance.
    pub id: String,
    /// Whether it begins.
    pub on: bool,
    /// Whether its version may be left without a serving instance.
    #[serde(default)]
    pub allow_empty: bool,
}

/// What a registered instance said of itself, in `instance list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationStatus {
    /// When it registered, RFC 3339.
    pub at: String,
    /// Free text.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Seconds without a renewal after which it counts as lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<f64>,
    /// Those that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_left_s: Option<f64>,
    /// Process with whose end it counts as lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch_pid: Option<u32>,
}
