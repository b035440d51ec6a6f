//! Judging the new version by what the packet path measures, over the hold of a step.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::super::{clock, events};
use super::hands::Hands;
use crate::api::release::JudgementLine;
use crate::api::types::ApiError;
use crate::release::analysis::{Measured, judge};
use crate::release::machine::{Event, Judgement, Release};
use crate::release::phase::{Phase, Want};

/// What was measured when a hold began.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Baseline {
    /// The hold: where the release was, and since when.
    place: String,
    since_boot_ms: u64,
    /// Counters begin anew with each.
    epoch: u32,
    old: Measured,
    new: Measured,
}

impl Hands {
    /// Waits for the end of a hold. A version that fails before ends it.
    pub(super) async fn hold(self: &Arc<Self>, release: &Release, time: Duration) -> Event {
        let end = clock::monotonic() + release.left(time, clock::monotonic());
        if let Err(error) = self.baseline(release).await {
            return Event::Failed(error.message);
        }
        let mut dead = 0;
        loop {
            let left = end.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Event::Done;
            }
            sleep(left.min(release.plan.analysis.every)).await;
            if let judgement @ Judgement::Fail(_) = self.judge_step(release).await {
                return Event::Judged(judgement);
            }
            // Twice in a row: once may be the path to it.
            match self.too_few(release).await {
                None => dead = 0,
                Some(_) if dead == 0 => dead = 1,
                Some(why) => return Event::Judged(Judgement::Fail(why)),
            }
        }
    }

    /// Why the new version has too few live instances.
    async fn too_few(self: &Arc<Self>, release: &Release) -> Option<String> {
        let all = u32::try_from(release.instances.len()).unwrap_or(u32::MAX);
        let needed = release.plan.ready.threshold.of(all) as usize;
        let why = self.not_live(release, &release.instances).await;
        let live = release.instances.len() - why.len();
        (live < needed)
            .then(|| format!("{live} instances live of {needed} needed: {}", why.join("; ")))
    }

    /// What was measured when this hold began: as it is written down, or now.
    async fn baseline(&self, release: &Release) -> Result<Baseline, ApiError> {
        let place = release.phase.place();
        let epoch = self.daemon.reader.meta()?.evidence_epoch;
        let known = self.daemon.journal().last_entry(self.id, "baseline")?;
        let known = known.and_then(|entry| serde_json::from_value(entry.data).ok());
        let judges = matches!(release.wanted(), Some(Want::Judge));
        let same = |baseline: &Baseline| {
            let of_this =
                baseline.epoch == epoch && baseline.since_boot_ms >= release.since_boot_ms;
            baseline.place == place && (judges || of_this)
        };
        if let Some(baseline) = known.filter(same) {
            return Ok(baseline);
        }
        let (old, new) = self.measure(release).await?;
        let since_boot_ms = clock::since_boot_ms();
        let baseline = Baseline { place, since_boot_ms, epoch, old, new };
        let data = serde_json::to_value(&baseline).unwrap_or_default();
        self.note(release, "baseline", "measured from here".to_owned(), data);
        Ok(baseline)
    }

    /// Both versions, since the data plane began.
    async fn measure(&self, release: &Release) -> Result<(Measured, Measured), ApiError> {
        let state = self.state().await;
        let of = |name: &str| {
            let version = state.as_ref().and_then(|service| service.version(name));
            let instances = version.into_iter().flat_map(|version| &version.instances);
            let backends: Vec<u32> = instances.map(|instance| instance.backend).collect();
            self.daemon.measured(&backends)
        };
        Ok((of(&release.from)?, of(&release.to)?))
    }

    /// Judges the time since the hold began, and writes it down.
    pub(super) async fn judge_step(&self, release: &Release) -> Judgement {
        match self.judged(release).await {
            Ok(line) => {
                let text = in_words(&line);
                let judgement = line.judgement.clone();
                let data = serde_json::to_value(&line).unwrap_or_default();
                self.note(release, "judgement", text, data);
                judgement
            }
            Err(error) => Judgement::Inconclusive(error.message),
        }
    }

    async fn judged(&self, release: &Release) -> Result<JudgementLine, ApiError> {
        let baseline = self.baseline(release).await?;
        let (old, new) = self.measure(release).await?;
        let (old, new) = (old.since(&baseline.old), new.since(&baseline.new));
        let epoch = self.daemon.reader.meta()?.evidence_epoch;
        let (judgement, findings) = judge(&release.plan.analysis, &old, &new);
        let anew = release.plan.analysis.has_thresholds() && epoch != baseline.epoch;
        let judgement = if anew {
            Judgement::Inconclusive("the data plane began anew meanwhile".to_owned())
        } else {
            judgement
        };
        let step = match release.phase {
            Phase::Step(index) => index + 1,
            _ => 0,
        };
        Ok(JudgementLine { at: events::now(), step, judgement, findings, old, new })
    }
}

fn in_words(line: &JudgementLine) -> String {
    let seen =
        format!("{} flows of the new version, {} of the old", line.new.opened, line.old.opened);
    match &line.judgement {
        Judgement::Pass => format!("pass: {seen}"),
        Judgement::Fail(why) => format!("fail: {why} ({seen})"),
        Judgement::Inconclusive(why) => format!("inconclusive: {why} ({seen})"),
    }
}
