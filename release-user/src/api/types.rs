//! What travels over the API socket, and what `-o json` prints. Keys are stable; see the contract
//! in `docs/`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::contract::Api;
pub use super::error::{ApiError, ErrorCode};
pub use super::measured::MeasuredStatus;
pub use super::receipt::{Because, ForcedFlow, How, MOST_FORCED};
pub use super::registration::{
    DeregisterRequest, Deregistered, MaintRequest, Offline, OfflineRequest, RegisterRequest,
    Registered, RegistrationStatus,
};
use crate::sockets::Summary;
use crate::verdict::occupation::{Occupation, Outlook};

/// Version of the JSON documents.
pub const SCHEMA: u32 = 1;

/// `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The data plane as a whole.
    pub data_plane: DataPlaneStatus,
    /// Services in configuration order.
    pub services: Vec<ServiceStatus>,
}

/// The data plane as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataPlaneStatus {
    /// Managed interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Entries in the flow table, closed ones included.
    pub flow_entries: u64,
    /// Capacity of the flow table.
    pub flow_capacity: u64,
    /// Handshakes and trials in progress.
    pub embryos: u64,
    /// Whether new flows are being refused or soon will be (80 % full).
    pub alarm: Option<String>,
    /// Number of the evidence epoch.
    pub evidence_epoch: u32,
    /// What the host lacks for any service.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A managed interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native`, `generic`, or `absent` while the interface is not there.
    pub mode: String,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Generation in force.
    pub generation: u32,
    /// `nat | snat | dsr | ipip | gue | local`
    pub mode: String,
    /// `flow | client | datagram | quic`
    #[serde(default = "flow")]
    pub conversation: String,
    /// `ip:port/tcp`, `[ip]:port/udp` and the like; those for tests included.
    pub frontends: Vec<String>,
    /// New flows refused, by cause, since the data plane began.
    #[serde(default)]
    pub refused: RefusedCounts,
    /// Clients that are remembered; `None` unless the conversation is `client`.
    #[serde(default)]
    pub sessions: Option<u64>,
    /// By how much its gauge of live flows is off from the flow table: 0, or something is wrong.
    #[serde(default)]
    pub drift: i64,
    /// What the host lacks for this service.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The release under way.
    #[serde(default)]
    pub release: Option<super::release::ReleaseLine>,
    /// Versions in configuration order.
    pub versions: Vec<VersionStatus>,
}

/// New flows that a service refused. A client that tries again is counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCounts {
    /// No version has weight, or the version chosen has no instance.
    pub empty: u64,
    /// The flow table was full.
    pub full: u64,
    /// `limits.max_flows` was reached.
    pub max_flows: u64,
    /// `limits.new_flows_per_second` was reached.
    pub rate: u64,
    /// No source port was free (mode `snat`), or every instance tried serves this client port to
    /// another frontend of the service.
    pub ports: u64,
}

/// What daemons of before had.
fn flow() -> String {
    "flow".to_owned()
}

/// A version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionStatus {
    /// Its name.
    pub name: String,
    /// Weight in force.
    pub weight: u32,
    /// Share of the flows placed in the last seconds, 0 to 1.
    pub weight_actual: f64,
    /// `active | standby | draining | idle | retired`
    pub state: String,
    /// Flows by state.
    pub flows: FlowCounts,
    /// Remembered clients that lead new flows to it whatever its weight (`drain.sessions` is
    /// `hold`).
    #[serde(default)]
    pub sessions_held: u64,
    /// Flows opened a second, lately.
    pub new_flows_per_second: f64,
    /// RFC 3339, when its first flow was opened.
    pub first_flow_at: Option<String>,
    /// What the packet path measured of it.
    #[serde(default)]
    pub measured: MeasuredStatus,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
}

/// What daemons of before had.
fn configured() -> String {
    "configured".to_owned()
}

/// An instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its id.
    pub id: String,
    /// `ip:port` or `[ip]:port`.
    pub addr: String,
    /// `active | draining | idle | maint | down | offline`
    pub state: String,
    /// Health check's word; `None` as long as none is configured, or has said anything.
    pub healthy: Option<bool>,
    /// Why it is down, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_down: Option<String>,
    /// Gone from the configuration while it has flows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// `configured` or `registered`.
    #[serde(default = "configured")]
    pub source: String,
    /// What a registered one said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationStatus>,
    /// Flows by state.
    pub flows: FlowCounts,
    /// Counted since the data plane began.
    pub counters: InstanceCounters,
    /// Milliseconds since its last packet, either direction.
    pub last_packet_age_ms: Option<u64>,
}

/// Flows by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// Handshakes and trials in progress.
    pub embryonic: u64,
    /// Live flows, half-closed ones included.
    pub active: u64,
    /// Live flows of which one end has finished.
    pub half_closed: u64,
    /// Closed entries that linger for retransmits.
    pub closing: u64,
}

/// Counters of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceCounters {
    /// Handshakes begun.
    pub placed: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// Mid-flow connections taken over.
    pub adopted: u64,
    /// Closed by both FINs.
    pub closed_fin: u64,
    /// Closed by RST.
    pub closed_rst: u64,
    /// Closed ones that valid traffic proved alive; they are not among the closed any more.
    #[serde(default)]
    pub reopened: u64,
    /// Closed because the instance began anew on the same tuple.
    pub superseded: u64,
    /// Removed because they were silent too long.
    pub expired: u64,
    /// UDP flows removed after their timeout, which is how they end.
    #[serde(default)]
    pub timed_out: u64,
    /// Reset on the operator's order.
    pub forced: u64,
    /// SYNs the instance answered with RST.
    pub refused: u64,
    /// Forwarded without an entry.
    pub untracked: u64,
    /// Segments that fit neither end's numbers.
    pub unverified: u64,
    /// Handshakes whose entry was evicted.
    pub evicted: u64,
    /// Of those placed: by a test rule or a test frontend.
    #[serde(default)]
    pub ruled: u64,
    /// Of those placed: by the client's session.
    #[serde(default)]
    pub sticky: u64,
    /// Datagrams placed one by one (conversation `datagram`).
    #[serde(default)]
    pub datagrams: u64,
    /// QUIC connections that came from another address.
    #[serde(default)]
    pub migrated: u64,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// One line of `flows`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowLine {
    /// `ip:port` or `[ip]:port`.
    pub client: String,
    /// `ip:port` or `[ip]:port`.
    pub frontend: String,
    /// `tcp` or `udp`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Service.
    pub service: String,
    /// Version.
    pub version: String,
    /// Instance id.
    pub instance: String,
    /// `embryonic | trial | unreplied | established | half-closed | closed`; of UDP `embryonic`
    /// after one datagram, `unreplied` while the instance has sent none and would be seen to
    pub state: String,
    /// Generation that placed it.
    pub generation: u32,
    /// Seconds since it was opened.
    pub age_s: f64,
    /// Milliseconds since its last packet.
    pub last_packet_age_ms: u64,
    /// Milliseconds since it last carried data.
    pub last_data_age_ms: u64,
    /// What probes found of the client's end: `unknown | alive | unreachable`.
    #[serde(default = "unknown")]
    pub client_end: String,
    /// The same of the instance's end.
    #[serde(default = "unknown")]
    pub server_end: String,
}

/// What daemons of before knew.
fn unknown() -> String {
    "unknown".to_owned()
}

/// What daemons of before had.
fn tcp() -> String {
    "tcp".to_owned()
}

/// Filter of `flows`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FlowQuery {
    /// Only this service.
    pub service: Option<String>,
    /// Only this version.
    pub version: Option<String>,
    /// Only this instance.
    pub instance: Option<String>,
    /// Only this state.
    pub state: Option<String>,
    /// Only the N oldest.
    pub oldest: Option<usize>,
}

/// Body of `shift`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShiftRequest {
    /// The service.
    pub service: String,
    /// Version → new weight; versions not named keep theirs.
    pub weights: BTreeMap<String, u32>,
    /// Whether the service may be left without a serving version.
    #[serde(default)]
    pub allow_empty: bool,
}

/// Answer of `shift`, `drain` and `undrain`: in force on every CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InForce {
    /// The service.
    pub service: String,
    /// Generation in force.
    pub generation: u32,
    /// Version → weight in force.
    pub weights: BTreeMap<String, u32>,
    /// False if nothing had to change.
    pub changed: bool,
    /// Milliseconds from the request to in force.
    pub took_ms: f64,
}

/// Body of `drain` and `undrain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The service.
    pub service: String,
    /// Version name or instance id.
    pub target: String,
    /// Seconds after which an alarm is raised if it is not idle.
    #[serde(default)]
    pub deadline_s: Option<f64>,
    /// Connections a second that are ended from then on; none: they are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_per_second: Option<u32>,
    /// Whether the service may be left without a serving version.
    #[serde(default)]
    pub allow_empty: bool,
}

/// Which receipts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReceiptQuery {
    /// Of this service.
    pub service: String,
    /// Only of this version name or instance id.
    pub target: Option<String>,
    /// Only the one of this number.
    pub id: Option<u64>,
}

/// Names a version or an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetQuery {
    /// The service.
    pub service: String,
    /// Version name or instance id.
    pub target: String,
}

/// What can be said of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nobody loses anything if it stops now.
    Idle,
    /// Somebody would.
    Busy,
    /// Evidence is missing or contradicts itself.
    Unknown,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        })
    }
}

/// One item of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its name.
    pub name: String,
    /// Whether it speaks for `idle`.
    pub ok: bool,
    /// The values looked at.
    pub detail: String,
}

/// `idle check`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdleReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The service.
    pub service: String,
    /// Version name or instance id.
    pub target: String,
    /// Generation in force.
    pub generation: u32,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not `idle`; empty if it is.
    pub reasons: Vec<String>,
    /// Everything looked at.
    pub evidence: Vec<Evidence>,
    /// Counts the verdict rests on.
    pub counts: IdleCounts,
    /// Sockets of the target at its end, of the look that found most; `None` if nobody was asked,
    /// or nobody answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Summary>,
    /// What a busy target is busy with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_with: Option<Occupation>,
    /// When the last flow of a drained target will be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Outlook>,
    /// Age of the oldest live flow in seconds.
    pub oldest_flow_s: Option<u64>,
    /// Milliseconds since the last packet of the target.
    pub last_packet_age_ms: Option<u64>,
}

/// Counts of an [`IdleReport`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleCounts {
    /// Handshakes and trials in progress.
    pub embryonic: u64,
    /// Live flows.
    pub active: u64,
    /// Live flows of which one end has finished.
    pub half_closed: u64,
    /// Closed entries that linger.
    pub closing: u64,
    /// Flows that ended by a timer, which proves nothing.
    pub expired_unproven: u64,
    /// UDP flows that ended by their timeout, which is how they end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timed_out: u64,
    /// Flows forwarded without an entry.
    pub untracked: u64,
    /// Embryos evicted from their table.
    pub evicted: u64,
    /// Flows that were ended on the operator's order.
    #[serde(default)]
    pub forced: u64,
    /// Connections whose socket was destroyed on the operator's order, where their end does not
    /// pass here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub destroyed: u64,
}

impl IdleCounts {
    /// Connections that were ended on the operator's order.
    pub const fn ended(&self) -> u64 {
        self.forced + self.destroyed
    }
}

/// An `idle` verdict written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Number of the receipt.
    pub id: u64,
    /// RFC 3339.
    pub at: String,
    /// Kernel boot the evidence belongs to.
    pub boot_id: String,
    /// Evidence epoch.
    pub evidence_epoch: u32,
    /// Counters of each instance of the target.
    pub counters: BTreeMap<String, InstanceCounters>,
    /// Connections of the target that were ended on the operator's order, the oldest first;
    /// [`MOST_FORCED`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<ForcedFlow>,
    /// How many more were ended so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forced_not_listed: u64,
    /// The verdict with its evidence.
    pub report: IdleReport,
    /// FNV-1a-64 of the receipt without this field, as hexadecimal: shows accidental change.
    pub hash: String,
}

/// Body of `retire`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RetireRequest {
    /// The service.
    pub service: String,
    /// Version name, or id of an instance that was removed.
    pub target: String,
    /// Even if it is not idle.
    #[serde(default)]
    pub force: bool,
}

/// Answer of `retire`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Retired {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The service.
    pub service: String,
    /// Version name or instance id.
    pub target: String,
    /// When, RFC 3339.
    pub at: String,
    /// Number of the receipt; none: by force.
    pub receipt: Option<u64>,
    /// What was not proven when it was forced.
    pub lost: Vec<String>,
    /// False if it was retired before.
    pub changed: bool,
}

/// What receipts of before were written without.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One line of `instance list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceLine {
    /// Service.
    pub service: String,
    /// Version.
    pub version: String,
    /// The instance.
    #[serde(flatten)]
    pub instance: InstanceStatus,
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventLine {
    /// Number, rising by one.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// `shift`, `drain`, `idle`, `flow-opened`, …
    pub kind: String,
    /// Service, if it concerns one.
    pub service: Option<String>,
    /// Version or instance, if it concerns one.
    pub target: Option<String>,
    /// One line for people.
    pub message: String,
}

/// Question of `explain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainQuery {
    /// `tcp` or `udp`.
    pub proto: String,
    /// `ip:port` or `[ip]:port` of the client.
    pub src: String,
    /// `ip:port` or `[ip]:port` of the frontend.
    pub dst: String,
}

/// Answer of `explain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `flow`, `embryo`, `placement`, `refused`, `not-ours`.
    pub decision: String,
    /// Service.
    pub service: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Instance id.
    pub instance: Option<String>,
    /// Generation.
    pub generation: Option<u32>,
    /// The packet path's own name for what it would do, as in `maps dump REASONS`.
    #[serde(default)]
    pub reason: String,
    /// The steps that led there, for people.
    pub because: Vec<String>,
}

/// Answer of `reload`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// What changed, one line each; empty if nothing did.
    pub changes: Vec<String>,
}
