//! Where a release is, and what is wanted there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::{Step, Strategy, Webhook};

/// What allows servers to be stopped, an upgrade to begin, a version to be retired: `idle` verdicts
/// that were written down. There is no other way to get one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    receipts: Vec<u64>,
    forced: bool,
}

impl Proof {
    /// By receipts; `forced` if connections were ended for them.
    pub(super) const fn by_receipts(receipts: Vec<u64>, forced: bool) -> Self {
        Self { receipts, forced }
    }

    /// Numbers of the receipts: one of the version, or one of each instance of a batch.
    #[must_use]
    pub fn receipts(&self) -> &[u64] {
        &self.receipts
    }

    /// Whether connections were ended for it.
    #[must_use]
    pub const fn is_forced(&self) -> bool {
        self.forced
    }
}

/// What is drained at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The old version.
    Old,
    /// The new version, which was given up.
    New,
    /// A batch of instances that are upgraded in place.
    Batch(usize),
}

/// Why a release waits for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody said so.
    Asked,
    /// The plan has a pause here.
    Planned,
    /// Something failed.
    Failed,
    /// Too little was seen to judge the new version.
    Inconclusive,
    /// Nobody approved, or nothing became live, in time.
    Unanswered,
}

/// Where a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase", content = "at")]
pub enum Phase {
    /// Accepted; nothing was done.
    Pending,
    /// The new version's instances are brought up.
    Staging,
    /// A step of the plan.
    Step(usize),
    /// Somebody has to say how it goes on.
    Paused {
        /// What kind of reason.
        cause: Cause,
        /// Why.
        why: String,
        /// Where it goes on.
        then: Box<Self>,
    },
    /// The new version takes all new flows.
    Promoting,
    /// A part is about to be drained.
    PreDrain(Part),
    /// A part is being drained.
    Draining(Part),
    /// It was not idle at the deadline, and is waited for.
    Held(Part),
    /// It was not idle at the deadline, and its connections are ended.
    Forcing(Part),
    /// The old version is idle, and kept for a rollback.
    Idle(Proof),
    /// The old version is stopped.
    Stopping(Proof),
    /// Instances are upgraded.
    Upgrading(usize, Proof),
    /// Upgraded instances are looked at before they serve.
    Probing(usize, Proof),
    /// Upgraded instances take new flows again.
    Admitting(usize, Proof),
    /// What is left to do, and the old version's retirement.
    PostRelease(Proof),
    /// Done.
    Succeeded(Proof),
    /// Given up: all goes back.
    Aborting {
        /// Why.
        why: String,
        /// The batch that was being drained, to be put back.
        batch: Option<usize>,
    },
    /// Given up, and all is back.
    RolledBack {
        /// Why.
        why: String,
    },
    /// Another release, in the other direction, has taken over.
    Reversed,
}

impl Phase {
    /// The word in `status` and in JSON.
    #[must_use]
    pub fn name(&self, steps: &[Step]) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Staging => "staging",
            Self::Step(index) => match steps.get(*index) {
                Some(Step::Weight { .. }) => "shifting",
                _ => "testing",
            },
            Self::Paused { .. } => "paused",
            Self::Promoting => "promoting",
            Self::PreDrain(_) => "promoted",
            Self::Draining(_) => "draining",
            Self::Held(_) => "held",
            Self::Forcing(_) => "forcing",
            Self::Idle(_) => "idle",
            Self::Stopping(_) => "stopping",
            Self::Upgrading(..) => "upgrading",
            Self::Probing(..) => "probing",
            Self::Admitting(..) => "admitting",
            Self::PostRelease(_) => "post-release",
            Self::Succeeded(_) => "succeeded",
            Self::Aborting { .. } => "aborting",
            Self::RolledBack { .. } => "rolled-back",
            Self::Reversed => "reversed",
        }
    }

    /// What tells it from every other phase of a release, whatever it stands on: hooks are run once
    /// at each place.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Step(index) => format!("step {index}"),
            Self::PreDrain(part) => format!("pre-drain {part:?}"),
            Self::Upgrading(batch, _) => format!("upgrading {batch}"),
            Self::Probing(batch, _) => format!("probing {batch}"),
            other => other.name(&[]).to_owned(),
        }
    }

    /// What the release stands on.
    #[must_use]
    pub fn proof(&self) -> Option<&Proof> {
        match self.under_way() {
            Self::Idle(proof)
            | Self::Stopping(proof)
            | Self::Upgrading(_, proof)
            | Self::Probing(_, proof)
            | Self::Admitting(_, proof)
            | Self::PostRelease(proof)
            | Self::Succeeded(proof) => Some(proof),
            _ => None,
        }
    }

    /// The same without what proved it, if nothing relies on that yet: to be drained again.
    #[must_use]
    pub(super) fn unproven(&self) -> Option<Self> {
        match self {
            Self::Idle(_) | Self::Stopping(_) => Some(Self::Draining(Part::Old)),
            Self::Upgrading(batch, _) => Some(Self::Draining(Part::Batch(*batch))),
            Self::Paused { cause, why, then } => Some(Self::Paused {
                cause: *cause,
                why: why.clone(),
                then: Box::new(then.unproven()?),
            }),
            _ => None,
        }
    }

    /// Whether nothing happens any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::RolledBack { .. } | Self::Reversed)
    }

    /// Whether somebody has to look.
    #[must_use]
    pub const fn waits(&self) -> bool {
        matches!(self, Self::Paused { .. } | Self::Held(_))
    }

    /// The part that is waited for to become idle.
    #[must_use]
    pub const fn drains(&self) -> Option<Part> {
        match self {
            Self::Draining(part) | Self::Held(part) | Self::Forcing(part) => Some(*part),
            Self::Aborting { batch: None, .. } => Some(Part::New),
            _ => None,
        }
    }

    /// What it goes on to after a pause, else itself.
    #[must_use]
    pub fn under_way(&self) -> &Self {
        match self {
            Self::Paused { then, .. } => then.under_way(),
            other => other,
        }
    }

    /// Whether it can still be given up: the old version has not lost its place.
    #[must_use]
    pub fn can_abort(&self, strategy: Strategy) -> bool {
        let before = match self.under_way() {
            Self::Pending | Self::Staging | Self::Step(_) | Self::Promoting => true,
            // In place, what was upgraded stays so, and the rest as it is.
            Self::PreDrain(_) | Self::Draining(_) | Self::Held(_) | Self::Forcing(_) => {
                strategy != Strategy::SideBySide
            }
            _ => false,
        };
        let stuck = matches!(self, Self::Paused { .. })
            && matches!(
                self.under_way(),
                Self::Upgrading(..) | Self::Probing(..) | Self::Aborting { .. }
            );
        before || stuck
    }

    /// Whether the old version still runs behind the new one.
    #[must_use]
    pub fn can_reverse(&self) -> bool {
        match self.under_way() {
            Self::PreDrain(part) | Self::Draining(part) | Self::Held(part) => *part == Part::Old,
            Self::Idle(_) => true,
            _ => false,
        }
    }
}

/// Where a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "as in `Hooks`")]
pub enum Point {
    Start,
    PreDrain,
    Upgrade,
    Probe,
    Test,
    PreStep,
    Promote,
    Stop,
    PostRelease,
    Abort,
    Event,
}

impl Point {
    /// As the plan's key has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::PreDrain => "pre_drain",
            Self::Upgrade => "upgrade",
            Self::Probe => "probe",
            Self::Test => "test",
            Self::PreStep => "pre_step",
            Self::Promote => "promote",
            Self::Stop => "stop",
            Self::PostRelease => "post_release",
            Self::Abort => "abort",
            Self::Event => "event",
        }
    }
}

/// One thing to be done or waited for. Each can be done again without harm; hooks say themselves
/// whether they can.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// Run a hook, if the plan has it: for each instance of the part, or once.
    Hook {
        /// Which.
        point: Point,
        /// For each instance of it; none: once.
        each: Option<Part>,
        /// What the hook is given to rely on.
        proof: Option<Proof>,
    },
    /// Wait until so many of the new version's instances are live.
    Ready(u32),
    /// Let these clients reach the new version, or none any more.
    Test(Vec<crate::config::Prefix>),
    /// Let a test go on until it has lasted so long.
    Testing(Duration),
    /// Send the new version requests of our own.
    Warmup {
        /// To each instance.
        requests: u32,
        /// HTTP path, or connections alone.
        path: Option<String>,
        /// So many at a time.
        concurrency: u32,
    },
    /// Give the new version this part of new flows, in percent of what both versions have.
    Shift(u32),
    /// Wait, judging now and then.
    Hold(Duration),
    /// Judge the time of the hold.
    Judge,
    /// Ask until the answer is 2xx.
    Approve(Webhook),
    /// Drain a part, and force it if it is overdue.
    Drain(Part),
    /// Wait until a part is idle, and write the receipts.
    Idle(Part),
    /// Wait until upgraded instances are live.
    Healthy(usize),
    /// Let a batch take new flows.
    Admit(usize),
    /// Wait, ready to go back.
    Window(Duration),
    /// Retire the old version.
    Retire(Proof),
}
