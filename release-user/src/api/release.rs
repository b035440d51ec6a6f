//! What travels about releases.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::release::analysis::{Finding, Measured};
use crate::release::journal::{Entry, HookRun};
use crate::release::machine::{Command, Judgement};
use crate::release::plan::Plan;

/// Body of `release start`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StartRelease {
    /// The service.
    pub service: String,
    /// The version that serves; none: the one that has all the weight.
    #[serde(default)]
    pub from: Option<String>,
    /// The version that is to serve; not in place.
    #[serde(default)]
    pub to: Option<String>,
    /// Name of the plan; none: the service's.
    #[serde(default)]
    pub plan: Option<String>,
    /// Instances, by id; none: all of the new version, or in place of the one that serves.
    #[serde(default)]
    pub instances: Vec<String>,
    /// Handed to hooks as it is.
    #[serde(default)]
    pub data: Value,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// One state of a release that goes well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageLine {
    /// Its word.
    pub state: String,
    /// What is done in it, in turn.
    pub does: Vec<String>,
}

/// Answer of `release start`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Where it is; number 0 if it was not started.
    #[serde(flatten)]
    pub release: ReleaseLine,
    /// Whether it was only asked what would be done.
    pub dry_run: bool,
    /// What it will do if all goes well.
    pub outline: Vec<StageLine>,
}

/// Which releases: those under way, or all, or one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReleaseQuery {
    /// Of this service.
    #[serde(default)]
    pub service: Option<String>,
    /// Those that are over, too.
    #[serde(default)]
    pub all: bool,
}

/// One release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseId {
    /// Its number, or the name of a service: its newest release.
    pub release: String,
    /// Lines of its timeline that are known already.
    #[serde(default)]
    pub skip: usize,
}

/// Body of `release pause` and the like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderRequest {
    /// Its number, or the name of a service: the one under way.
    pub release: String,
    /// What is to happen.
    pub command: Command,
}

/// How far it is among steps or batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLine {
    /// Which, from 1.
    pub number: usize,
    /// Of so many.
    pub of: usize,
}

/// When what is waited for takes too long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadlineLine {
    /// RFC 3339.
    pub at: String,
    /// Seconds until then, 0 if it has passed.
    pub remaining_s: f64,
}

/// A release, as `release list` has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseLine {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// Its number.
    pub id: u64,
    /// The service.
    pub service: String,
    /// The version that served.
    pub from: String,
    /// The version that is to serve; in place, the same.
    pub to: String,
    /// Name of its plan.
    pub plan: String,
    /// `side-by-side | in-place`
    pub strategy: String,
    /// Where it is.
    pub state: String,
    /// How far among steps or batches.
    pub step: Option<StepLine>,
    /// What is being done or waited for.
    pub doing: Option<String>,
    /// Why it does not go on.
    pub reasons: Vec<String>,
    /// When what is waited for takes too long.
    pub deadline: Option<DeadlineLine>,
    /// Instances of the new version; in place, those that are upgraded.
    pub instances: Vec<String>,
    /// Of those, how many were live when they were last waited for.
    pub live: Option<usize>,
    /// Numbers of the receipts that it stands on.
    pub receipts: Vec<u64>,
    /// Whether connections were ended for those.
    pub forced: bool,
    /// Whether it is over.
    pub over: bool,
    /// Whether it waits for somebody.
    pub waits: bool,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; none while it is not over.
    pub ended_at: Option<String>,
    /// What `release wait` ends with: none as long as it goes on by itself.
    pub exit_code: Option<u8>,
}

/// A judgement with its numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JudgementLine {
    /// When, RFC 3339.
    pub at: String,
    /// Step of the plan, from 1.
    pub step: usize,
    /// What came of it.
    pub judgement: Judgement,
    /// What was compared with its limit.
    pub findings: Vec<Finding>,
    /// The old version, since the step began.
    pub old: Measured,
    /// The new version, since the step began.
    pub new: Measured,
}

/// `release show`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseShow {
    /// Where it is.
    #[serde(flatten)]
    pub line: ReleaseLine,
    /// All that happened, the first first.
    pub history: Vec<Entry>,
    /// Runs of hooks, the first first.
    pub hooks: Vec<HookRun>,
    /// Its plan as it was when it began.
    pub details: Plan,
    /// What its hooks were handed.
    pub data: Value,
}
