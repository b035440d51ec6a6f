//! Moving traffic for a release: weights, test clients, drains, receipts.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::super::core::{describe_weights, drain_from_now};
use super::hands::{Hands, find};
use crate::api::types::{ApiError, ErrorCode, InForce, Receipt, RetireRequest, TargetQuery};
use crate::config::Prefix;
use crate::control::commands::{self, Target};
use crate::control::release;
use crate::control::state::DrainState;
use crate::release::machine::{Event, Release};
use crate::release::phase::{Part, Phase};

/// Least pause between two looks at a part that is drained.
const AGAIN: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST: Duration = Duration::from_secs(5);

impl Hands {
    /// Gives the new version its part of new flows.
    pub(super) async fn shift(&self, of: &Release, percent: u32) -> Result<(), ApiError> {
        let change = self.daemon.change(&of.service, |service| {
            let weights = release::share(service, &of.from, &of.to, percent);
            // A version that is gone has no weight to lose.
            let known = weights.into_iter().filter(|(name, weight)| {
                *weight > 0 || service.version(name).is_some_and(|version| !version.removed)
            });
            commands::shift(service, &known.collect(), false)
        });
        let done = change.await?;
        self.report(of, "shift", &done);
        Ok(())
    }

    /// Lets test clients reach the new version, or none any more.
    pub(super) async fn test(&self, of: &Release, sources: &[Prefix]) -> Result<(), ApiError> {
        self.free(of, sources).await?;
        let change =
            self.daemon.change(&of.service, |service| release::test(service, &of.to, sources));
        change.await.map(drop)
    }

    /// Refuses sources that the configuration leads elsewhere.
    pub(super) async fn free(&self, of: &Release, sources: &[Prefix]) -> Result<(), ApiError> {
        let core = self.daemon.core.lock().await;
        let Some(service) = core.config.service(&of.service) else { return Ok(()) };
        super::begin::sources_are_free(service, &of.to, sources)
    }

    fn report(&self, of: &Release, kind: &str, done: &InForce) {
        if done.changed {
            let weights = describe_weights(&done.weights);
            let text = format!(
                "generation {} in force after {:.1} ms: {weights}",
                done.generation, done.took_ms
            );
            let data =
                serde_json::json!({ "generation": done.generation, "weights": done.weights });
            self.note(of, kind, text, data);
        }
    }

    /// What of the service a part is: a version, or instances.
    fn targets(of: &Release, part: Part) -> Vec<String> {
        match part {
            Part::Old => vec![of.from.clone()],
            Part::New => vec![of.to.clone()],
            Part::Batch(batch) => of.batch(batch).to_vec(),
        }
    }

    /// Takes a part out of new flows; if it is overdue, has its connections ended.
    pub(super) async fn drain(&self, of: &Release, part: Part) -> Result<(), ApiError> {
        let forced = matches!(of.phase, Phase::Forcing(_));
        let drain = DrainState {
            // The release has its own deadline.
            deadline_s: forced.then_some(0.0),
            force: forced.then_some(of.plan.drain.force_rate),
            ..drain_from_now()
        };
        for name in Self::targets(of, part) {
            let change = self.daemon.change(&of.service, |service| {
                let target = Target::find(service, &name)?;
                commands::drain(service, &target, &drain, false)
            });
            self.report(of, "drain", &change.await?);
        }
        Ok(())
    }

    /// Waits until a part is idle, and writes the receipts.
    pub(super) async fn until_idle(&self, of: &Release, part: Part) -> Event {
        let mut receipts = Vec::new();
        let mut forced = false;
        for target in Self::targets(of, part) {
            match self.receipt(of, &target).await {
                Ok(receipt) => {
                    forced |= self.was_forced(&target, &receipt).await;
                    receipts.push(receipt.id);
                }
                Err(error) => return Event::Failed(error.in_full()),
            }
        }
        self.daemon.releases.note(self.id, |running| running.reasons.clear());
        Event::Idle { receipts, forced }
    }

    async fn receipt(&self, of: &Release, target: &str) -> Result<Receipt, ApiError> {
        let query = TargetQuery { service: of.service.clone(), target: target.to_owned() };
        loop {
            let began = Instant::now();
            match self.daemon.write_receipt(&query).await {
                Err(error) if matches!(error.code, ErrorCode::Busy | ErrorCode::Unknown) => {
                    let why = error.message.clone();
                    self.daemon.releases.note(self.id, |running| running.reasons = vec![why]);
                }
                receipt => return receipt,
            }
            // A look walks the tables, which takes the longer the more is in them.
            sleep(began.elapsed().min(LONGEST).max(AGAIN)).await;
        }
    }

    /// Whether connections were ended on order since the part is drained.
    async fn was_forced(&self, target: &str, receipt: &Receipt) -> bool {
        let state = self.state().await;
        let drain = state.as_ref().and_then(|service| match service.version(target) {
            Some(version) => version.drain.as_ref(),
            None => find(service, target)?.drain.as_ref(),
        });
        drain.is_some_and(|drain| receipt.forced.iter().any(|flow| flow.at >= drain.since))
    }

    /// Puts a batch back.
    pub(super) async fn admit(&self, of: &Release, batch: usize) -> Result<(), ApiError> {
        for name in of.batch(batch) {
            let change = self.daemon.change(&of.service, |service| {
                let target = Target::find(service, name)?;
                commands::undrain(service, &target)
            });
            self.report(of, "undrain", &change.await?);
        }
        Ok(())
    }

    /// Calls the old version retired, by its receipt or, should it not hold any more, by a new one.
    pub(super) async fn retire(&self, of: &Release) -> Result<(), ApiError> {
        let (service, target) = (of.service.clone(), of.from.clone());
        let gone = self.state().await.is_none_or(|s| s.version(&target).is_none());
        if gone {
            return Ok(());
        }
        let request = RetireRequest { service, target, force: false };
        self.daemon.retire_target(&request).await.map(drop)
    }
}
