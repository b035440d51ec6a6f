//! What a release does, as its plan says. A release keeps a copy: a configuration that is reloaded
//! meanwhile changes no release that runs.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Prefix;

/// A reusable recipe for releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Where the new version runs.
    pub strategy: Strategy,
    /// When the new version's instances are enough.
    pub ready: Ready,
    /// What is done in turn before the new version takes all; none in place.
    pub steps: Vec<Step>,
    /// What the new version is judged by.
    pub analysis: Analysis,
    /// How the old version, or a batch, is drained.
    pub drain: Drain,
    /// Programs that are run on the way.
    pub hooks: Hooks,
    /// How long the old version is kept after the new one has taken all, so that a rollback finds
    /// it serving.
    pub rollback_window: Duration,
}

/// Where the new version runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// In instances of its own, beside those of the old one.
    SideBySide,
    /// In the same instances, so many at a time; so many others serve meanwhile.
    InPlace {
        /// Instances upgraded at a time.
        batch: u32,
        /// Instances that serve at any time.
        min_serving: u32,
    },
}

/// When instances are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// How many must be live.
    pub threshold: Threshold,
    /// How long that may take; then the release is aborted.
    pub timeout: Duration,
}

impl Default for Ready {
    fn default() -> Self {
        Self { threshold: Threshold::Percent(100), timeout: Duration::from_secs(300) }
    }
}

/// A number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threshold {
    /// So many.
    Count(u32),
    /// Of all, rounded up: 1 to 100.
    Percent(u32),
}

impl Threshold {
    /// How many of `all` that is, at least one.
    #[must_use]
    pub const fn of(self, all: u32) -> u32 {
        let wanted = match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (all as u64 * percent as u64).div_ceil(100) as u32,
        };
        if wanted == 0 { 1 } else { wanted }
    }
}

/// One step before the new version takes all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Clients from these prefixes, and nobody else, reach the new version.
    Test {
        /// Those.
        sources: Vec<Prefix>,
        /// For so long, with the hook `test` run meanwhile.
        duration: Duration,
    },
    /// The new version gets requests of our own.
    Warmup {
        /// To each of its instances.
        requests: u32,
        /// HTTP path; none: connections that are opened and closed.
        path: Option<String>,
        /// So many at a time.
        concurrency: u32,
    },
    /// The new version gets a part of the new flows.
    Weight {
        /// Percent, 1 to 99.
        percent: u32,
        /// For so long, judged by the analysis.
        hold: Duration,
    },
    /// Somebody has to say `resume` or `promote`.
    Pause,
    /// A webhook has to say 2xx.
    Approve {
        /// Asked again and again.
        webhook: Webhook,
        /// How long that may take; then the release pauses.
        timeout: Duration,
    },
}

/// What the new version may do at most, over the hold of a step. Whatever is not given is not
/// judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Flows of the new version without which nothing can be said: the release pauses.
    pub min_flows: u64,
    /// How often it is judged within a hold.
    pub every: Duration,
    /// SYNs that it refused or did not answer, of all: 0 to 1.
    pub max_syn_failures: Option<f64>,
    /// Connections that it reset, of all: 0 to 1.
    pub max_resets: Option<f64>,
    /// Its time from SYN to SYN-ACK, and to the first byte, 99th percentile.
    pub max_latency: Option<Duration>,
    /// The same in times of the old version's over the same time.
    pub max_latency_ratio: Option<f64>,
    /// Retransmitted segments, of all: 0 to 1.
    pub max_retransmits: Option<f64>,
}

/// Nothing is judged.
impl Default for Analysis {
    fn default() -> Self {
        Self {
            min_flows: 0,
            every: Duration::from_secs(10),
            max_syn_failures: None,
            max_resets: None,
            max_latency: None,
            max_latency_ratio: None,
            max_retransmits: None,
        }
    }
}

impl Analysis {
    /// Whether anything is compared with what was measured, the number of flows apart.
    #[must_use]
    pub const fn has_thresholds(&self) -> bool {
        self.max_syn_failures.is_some()
            || self.max_resets.is_some()
            || self.max_latency.is_some()
            || self.max_latency_ratio.is_some()
            || self.max_retransmits.is_some()
    }
}

/// How what is old is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// How long connections may take to end; none: for ever.
    pub deadline: Option<Duration>,
    /// What then.
    pub on_deadline: OnDeadline,
    /// Connections that `force` ends a second.
    pub force_rate: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { deadline: None, on_deadline: OnDeadline::Hold, force_rate: 100 }
    }
}

/// What to do about connections at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadline {
    /// Leave them alone and raise an alarm.
    Hold,
    /// End them.
    Force,
}

/// Programs run on the way, each at its point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// For each instance of the new version: bring it up.
    pub start: Option<Hook>,
    /// Before the old version, or a batch, is drained.
    pub pre_drain: Option<Hook>,
    /// For each instance of a batch: upgrade it. Gets the receipt.
    pub upgrade: Option<Hook>,
    /// For each instance that was started or upgraded: is it live?
    pub probe: Option<Hook>,
    /// During test steps.
    pub test: Option<Hook>,
    /// Before each step.
    pub pre_step: Option<Hook>,
    /// Before the new version takes all: may refuse.
    pub promote: Option<Hook>,
    /// For each instance of the old version: stop it. Gets the receipt.
    pub stop: Option<Hook>,
    /// When the old version is stopped. Gets its `meta`.
    pub post_release: Option<Hook>,
    /// When the release is given up.
    pub abort: Option<Hook>,
    /// At every change of its state.
    pub event: Option<Hook>,
}

/// A program, or a systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What is run.
    pub action: Action,
    /// After which it is terminated.
    pub timeout: Duration,
    /// Whether it may be run again when nobody knows whether it was done.
    pub idempotent: bool,
    /// Files whose content it gets as variables: name and path.
    pub secrets: Vec<(String, PathBuf)>,
}

/// What a hook runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A program with its arguments; no shell.
    Exec(Vec<String>),
    /// Start (hook `start`), restart (`upgrade`) or stop (`stop`) this unit. The placeholders in it
    /// are filled in, escaped as in `systemd-escape`.
    Unit(String),
}

impl Action {
    /// What stands in braces in a unit's name: the instance's id, its version, its service.
    pub const PLACEHOLDERS: [&str; 3] = ["instance", "version", "service"];
}

/// An address that is asked or told by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// `http://…`
    pub url: String,
    /// A file whose content goes as `Authorization: Bearer`.
    pub token: Option<PathBuf>,
}
