//! The state machine of a release: pure. What happened leads to the next phase; what is wanted
//! follows from the phase alone, so whoever starts again after a crash goes on where it was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::{Cause, Part, Phase, Point, Proof, Want};
use super::plan::{OnDeadline, Plan, Step, Strategy};

/// A release, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Its number.
    pub id: u64,
    /// The service.
    pub service: String,
    /// The version that serves.
    pub from: String,
    /// The version that is to serve; in place, the same.
    pub to: String,
    /// Instances of the new version; in place, all that are upgraded.
    pub instances: Vec<String>,
    /// Its own copy of the plan.
    pub plan: Plan,
    /// What whoever started it hands to its hooks.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// How many of the phase's wants are done.
    pub done: usize,
    /// How often somebody has said that it goes on: what nobody knows the outcome of may be run
    /// again then.
    #[serde(default)]
    pub round: u32,
    /// When it came to what it wants now, in milliseconds since boot.
    #[serde(default)]
    pub since_boot_ms: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What was wanted is done.
    Done,
    /// What was wanted failed.
    Failed(String),
    /// Nobody knows whether it was done.
    Unclear(String),
    /// It took too long.
    TimeUp,
    /// The part that is drained is idle, and it is written down.
    Idle {
        /// Numbers of the receipts.
        receipts: Vec<u64>,
        /// Whether connections were ended for it.
        forced: bool,
    },
    /// What was proven does not hold any more: something was opened since, or the data plane began
    /// anew.
    Void,
    /// The new version was judged.
    Judged(Judgement),
    /// An operator's word.
    Command(Command),
}

/// What the measurements say of the new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// Nothing speaks against it.
    Pass,
    /// This does.
    Fail(String),
    /// Not enough was seen.
    Inconclusive(String),
}

/// What operators say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Stay where it is.
    Pause,
    /// Go on.
    Resume,
    /// Skip what is left before the new version takes all.
    Promote,
    /// Give it up.
    Abort(String),
    /// Another release goes back.
    Reverse,
}

impl Command {
    /// The word on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort(_) => "abort",
            Self::Reverse => "rollback",
        }
    }
}

/// Why something cannot be now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("release {id}: is {phase}: {why}")]
pub struct Refused {
    id: u64,
    phase: &'static str,
    why: String,
}

impl Release {
    /// The word for where it is.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.phase.name(&self.plan.steps)
    }

    /// Whether another moment of it is in the same place.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.phase == other.phase
    }

    /// Instances of a batch.
    #[must_use]
    pub fn batch(&self, number: usize) -> &[String] {
        let Strategy::InPlace { batch, .. } = self.plan.strategy else { return &[] };
        self.instances.chunks((batch as usize).max(1)).nth(number).unwrap_or_default()
    }

    /// What the phase wants in turn.
    #[must_use]
    pub fn wants(&self) -> Vec<Want> {
        let once = |point| Want::Hook { point, each: None, proof: None };
        let each = |point, part, proof| Want::Hook { point, each: Some(part), proof };
        let plan = &self.plan;
        match &self.phase {
            Phase::Staging => {
                let all = u32::try_from(self.instances.len()).unwrap_or(u32::MAX);
                vec![each(Point::Start, Part::New, None), Want::Ready(plan.ready.threshold.of(all))]
            }
            Phase::Step(index) => {
                let mut wants = vec![once(Point::PreStep)];
                wants.extend(plan.steps.get(*index).into_iter().flat_map(|step| self.step(step)));
                wants
            }
            Phase::Promoting => {
                let mut wants = vec![once(Point::Promote)];
                wants.extend(self.end_of_test());
                wants.push(Want::Shift(100));
                wants
            }
            Phase::PreDrain(_) => vec![once(Point::PreDrain)],
            Phase::Draining(part) | Phase::Forcing(part) => {
                vec![Want::Drain(*part), Want::Idle(*part)]
            }
            Phase::Held(part) => vec![Want::Idle(*part)],
            Phase::Idle(_) => vec![Want::Window(plan.rollback_window)],
            Phase::Stopping(proof) => vec![each(Point::Stop, Part::Old, Some(proof.clone()))],
            Phase::Upgrading(batch, proof) => {
                vec![each(Point::Upgrade, Part::Batch(*batch), Some(proof.clone()))]
            }
            Phase::Probing(batch, _) => vec![Want::Healthy(*batch)],
            Phase::Admitting(batch, _) => vec![Want::Admit(*batch)],
            Phase::PostRelease(proof) => {
                let post = Want::Hook {
                    point: Point::PostRelease,
                    each: None,
                    proof: Some(proof.clone()),
                };
                match plan.strategy {
                    Strategy::SideBySide => vec![post, Want::Retire(proof.clone())],
                    Strategy::InPlace { .. } => vec![post],
                }
            }
            Phase::Aborting { batch, .. } => {
                let mut wants: Vec<Want> = match (plan.strategy, batch) {
                    (Strategy::SideBySide, _) => {
                        self.end_of_test().into_iter().chain([Want::Shift(0)]).collect()
                    }
                    (Strategy::InPlace { .. }, Some(batch)) => vec![Want::Admit(*batch)],
                    (Strategy::InPlace { .. }, None) => Vec::new(),
                };
                wants.push(once(Point::Abort));
                if plan.strategy == Strategy::SideBySide {
                    wants.extend([Want::Drain(Part::New), Want::Idle(Part::New)]);
                }
                wants
            }
            Phase::Pending
            | Phase::Paused { .. }
            | Phase::Succeeded(_)
            | Phase::RolledBack { .. }
            | Phase::Reversed => Vec::new(),
        }
    }

    /// Whoever leaves a step may leave a test.
    fn end_of_test(&self) -> Option<Want> {
        let tests = self.plan.steps.iter().any(|step| matches!(step, Step::Test { .. }));
        tests.then(|| Want::Test(Vec::new()))
    }

    fn step(&self, step: &Step) -> Vec<Want> {
        match step {
            Step::Test { sources, duration } => {
                vec![
                    Want::Test(sources.clone()),
                    Want::Hook { point: Point::Test, each: None, proof: None },
                    Want::Testing(*duration),
                    Want::Test(Vec::new()),
                ]
            }
            Step::Warmup { requests, path, concurrency } => vec![Want::Warmup {
                requests: *requests,
                path: path.clone(),
                concurrency: *concurrency,
            }],
            Step::Weight { percent, hold } => {
                vec![Want::Shift(*percent), Want::Hold(*hold), Want::Judge]
            }
            Step::Approve { webhook, .. } => vec![Want::Approve(webhook.clone())],
            Step::Pause => Vec::new(),
        }
    }

    /// What is wanted now; none: nothing is, until somebody says something.
    #[must_use]
    pub fn wanted(&self) -> Option<Want> {
        self.wants().into_iter().nth(self.done)
    }

    /// How long what is wanted now may take.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        match (&self.phase, self.wanted()?) {
            (_, Want::Ready(_) | Want::Healthy(_)) => Some(self.plan.ready.timeout),
            (Phase::Draining(_), Want::Idle(_)) => self.plan.drain.deadline,
            (Phase::Step(index), Want::Approve(_)) => match self.plan.steps.get(*index) {
                Some(Step::Approve { timeout, .. }) => Some(*timeout),
                _ => None,
            },
            _ => None,
        }
    }

    /// What is left, `since_boot`, of a time that counts from when it came to what it wants now. After
    /// a reboot that is all of it.
    #[must_use]
    pub fn left(&self, time: Duration, since_boot: Duration) -> Duration {
        let began = Duration::from_millis(self.since_boot_ms);
        time.saturating_sub(since_boot.saturating_sub(began))
    }

    /// Where it is after something happened.
    ///
    /// # Errors
    /// If that cannot be now; then nothing has changed.
    pub fn after(&self, event: &Event) -> Result<Self, Refused> {
        let mut next = self.clone();
        match event {
            Event::Command(command) => next.command(command)?,
            _ if self.phase.is_over() => return Err(self.refused("it is over")),
            Event::Done => next.advance()?,
            Event::Idle { receipts, forced } => next.idle(receipts, *forced)?,
            Event::Void => {
                let again = self.phase.unproven();
                next.enter(again.ok_or_else(|| self.refused("nothing relies on receipts yet"))?);
            }
            Event::Judged(judgement) => next.judged(judgement)?,
            Event::TimeUp => next.time_up()?,
            Event::Failed(why) => next.failed(why)?,
            Event::Unclear(why) => next.unclear(why)?,
        }
        Ok(next)
    }

    fn refused(&self, why: &str) -> Refused {
        Refused { id: self.id, phase: self.state(), why: why.to_owned() }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.done = 0;
    }

    fn pause(&mut self, cause: Cause, why: &str) {
        let then = Box::new(self.phase.clone());
        self.enter(Phase::Paused { cause, why: why.to_owned(), then });
    }

    fn abort(&mut self, why: &str) {
        // Not even that could be done to its end.
        if let Phase::Aborting { .. } = self.phase.under_way() {
            return self.enter(Phase::RolledBack { why: why.to_owned() });
        }
        let batch = match self.phase.under_way() {
            // Being upgraded, it stays out of service: nobody knows what it is.
            Phase::PreDrain(Part::Batch(batch))
            | Phase::Draining(Part::Batch(batch))
            | Phase::Held(Part::Batch(batch))
            | Phase::Forcing(Part::Batch(batch)) => Some(*batch),
            _ => None,
        };
        self.enter(Phase::Aborting { why: why.to_owned(), batch });
    }

    /// The phase of a step, or what follows the last one.
    fn step_phase(&self, index: usize) -> Phase {
        match self.plan.steps.get(index) {
            None => Phase::Promoting,
            Some(Step::Pause) => Phase::Paused {
                cause: Cause::Planned,
                why: format!("steps[{index}] is a pause"),
                then: Box::new(self.step_phase(index + 1)),
            },
            Some(_) => Phase::Step(index),
        }
    }

    /// One want is done.
    fn advance(&mut self) -> Result<(), Refused> {
        match self.wanted() {
            // These take more than a word.
            Some(Want::Idle(_)) => return Err(self.refused("nobody has seen it idle")),
            Some(Want::Judge) => return Err(self.refused("nobody has judged it")),
            Some(_) => self.done += 1,
            None if self.phase == Phase::Pending => {}
            None => return Err(self.refused("nothing is under way")),
        }
        if self.wanted().is_none() {
            self.leave();
        }
        Ok(())
    }

    /// All that the phase wanted is done.
    fn leave(&mut self) {
        let next = match &self.phase {
            Phase::Pending => match self.plan.strategy {
                Strategy::SideBySide => Phase::Staging,
                Strategy::InPlace { .. } => Phase::PreDrain(Part::Batch(0)),
            },
            Phase::Staging => self.step_phase(0),
            Phase::Step(index) => self.step_phase(index + 1),
            Phase::Promoting => Phase::PreDrain(Part::Old),
            Phase::PreDrain(part) => Phase::Draining(*part),
            Phase::Idle(proof) => Phase::Stopping(proof.clone()),
            Phase::Stopping(proof) => Phase::PostRelease(proof.clone()),
            Phase::Upgrading(batch, proof) => Phase::Probing(*batch, proof.clone()),
            Phase::Probing(batch, proof) => Phase::Admitting(*batch, proof.clone()),
            Phase::Admitting(batch, proof) if self.batch(batch + 1).is_empty() => {
                Phase::PostRelease(proof.clone())
            }
            Phase::Admitting(batch, _) => Phase::PreDrain(Part::Batch(batch + 1)),
            Phase::PostRelease(proof) => Phase::Succeeded(proof.clone()),
            Phase::Aborting { why, .. } => Phase::RolledBack { why: why.clone() },
            other => other.clone(),
        };
        self.enter(next);
    }

    fn idle(&mut self, receipts: &[u64], forced: bool) -> Result<(), Refused> {
        let Some(Want::Idle(part)) = self.wanted() else {
            return Err(self.refused("nothing is drained"));
        };
        if receipts.is_empty() {
            return Err(self.refused("nothing was written down"));
        }
        let proof = Proof::by_receipts(receipts.to_vec(), forced);
        match part {
            Part::Old => self.enter(Phase::Idle(proof)),
            Part::Batch(batch) => self.enter(Phase::Upgrading(batch, proof)),
            Part::New => {
                self.done += 1;
                self.leave();
            }
        }
        Ok(())
    }

    fn judged(&mut self, judgement: &Judgement) -> Result<(), Refused> {
        let at_end = match self.wanted() {
            Some(Want::Judge) => true,
            Some(Want::Hold(_)) => false,
            _ => return Err(self.refused("nothing is judged")),
        };
        match judgement {
            Judgement::Fail(why) => self.abort(why),
            Judgement::Inconclusive(why) if at_end => {
                self.pause(Cause::Inconclusive, &format!("inconclusive: {why}"));
            }
            Judgement::Pass if at_end => {
                self.done += 1;
                self.leave();
            }
            // The hold goes on.
            Judgement::Inconclusive(_) | Judgement::Pass => {}
        }
        Ok(())
    }

    fn time_up(&mut self) -> Result<(), Refused> {
        match (&self.phase, self.wanted()) {
            (_, Some(Want::Ready(wanted))) => {
                self.abort(&format!("not {wanted} instances were live in time"));
            }
            (_, Some(Want::Healthy(_))) => {
                self.pause(Cause::Unanswered, "upgraded instances are not live in time");
            }
            (_, Some(Want::Approve(_))) => {
                self.pause(Cause::Unanswered, "nobody has approved in time");
            }
            (Phase::Draining(part), Some(Want::Idle(_))) => {
                let phase = match self.plan.drain.on_deadline {
                    OnDeadline::Hold => Phase::Held(*part),
                    OnDeadline::Force => Phase::Forcing(*part),
                };
                self.enter(phase);
            }
            (Phase::Forcing(part), Some(Want::Idle(_))) => self.enter(Phase::Held(*part)),
            _ => return Err(self.refused("nothing has a limit")),
        }
        Ok(())
    }

    /// What cannot be done stops the release where nothing is lost by it: before the new version has
    /// all, it is given up; after that, somebody has to look.
    fn failed(&mut self, why: &str) -> Result<(), Refused> {
        let Some(want) = self.wanted() else { return Err(self.refused("nothing is under way")) };
        match (&self.phase, want) {
            (Phase::Staging | Phase::Step(_), _) => self.abort(why),
            // Told, and no reason to leave the new version half-way.
            (Phase::Aborting { .. }, Want::Hook { .. }) => self.advance()?,
            _ => self.pause(Cause::Failed, why),
        }
        Ok(())
    }

    /// Whoever knows has to say how it goes on; what only tells of an end does not stop that.
    fn unclear(&mut self, why: &str) -> Result<(), Refused> {
        match (&self.phase, self.wanted()) {
            (_, None) => return Err(self.refused("nothing is under way")),
            (Phase::Aborting { .. }, Some(Want::Hook { .. })) => self.advance()?,
            _ => self.pause(Cause::Failed, why),
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Refused> {
        match command {
            Command::Pause => match self.phase {
                Phase::Staging | Phase::Step(_) => self.pause(Cause::Asked, "as was said"),
                _ => return Err(self.refused("only before the new version has all can it pause")),
            },
            Command::Resume => match self.phase.clone() {
                Phase::Paused { then, .. } => {
                    self.round += 1;
                    self.enter(*then);
                }
                Phase::Held(part) => self.enter(Phase::Draining(part)),
                _ => return Err(self.refused("it does not wait")),
            },
            Command::Promote => match self.phase.under_way() {
                // Its instances are live: not before.
                Phase::Step(_) => self.enter(Phase::Promoting),
                Phase::Promoting if self.wanted().is_none() => self.enter(Phase::Promoting),
                _ => return Err(self.refused("it is not at a step")),
            },
            Command::Abort(why) if self.phase.can_abort(self.plan.strategy) => self.abort(why),
            Command::Abort(_) => {
                return Err(self.refused("the new version has all; rollback goes back"));
            }
            Command::Reverse if self.phase.can_reverse() => self.enter(Phase::Reversed),
            Command::Reverse => return Err(self.refused("the old version is not there to go back")),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
pub(crate) mod tests;
