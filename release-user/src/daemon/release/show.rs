//! Telling of releases.

use std::time::SystemTime;

use super::super::clock;
use super::super::core::{Daemon, lock};
use super::super::events;
use crate::api::release::{DeadlineLine, ReleaseLine, ReleaseQuery, ReleaseShow, StepLine};
use crate::api::types::{ApiError, ErrorCode, SCHEMA};
use crate::release::machine::Release;
use crate::release::phase::{Cause, Phase, Proof};
use crate::release::plan::Strategy;

impl Daemon {
    /// Releases under way, or all, the newest first.
    ///
    /// # Errors
    /// The store's.
    pub fn release_lines(&self, query: &ReleaseQuery) -> Result<Vec<ReleaseLine>, ApiError> {
        let wanted = self.journal().releases(query.service.as_deref(), query.all)?;
        wanted.iter().map(|release| self.release_line(release)).collect()
    }

    /// The release of a service that is under way.
    ///
    /// # Errors
    /// The store's.
    pub fn release_of(&self, service: &str) -> Result<Option<ReleaseLine>, ApiError> {
        self.under_way(service)?.map(|release| self.release_line(&release)).transpose()
    }

    /// The same, whole: a service has one at a time.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn under_way(&self, service: &str) -> Result<Option<Release>, ApiError> {
        Ok(self.journal().releases(Some(service), false)?.pop())
    }

    /// A release by its number, or the newest of a service (`under_way`: that is not over).
    ///
    /// # Errors
    /// Usage.
    pub fn find_release(&self, name: &str, under_way: bool) -> Result<Release, ApiError> {
        let journal = self.journal();
        if let Ok(id) = name.parse() {
            return journal.release(id)?.ok_or_else(|| {
                ApiError::new(ErrorCode::Usage, format!("release {id}: no such release"))
                    .hint("releasectl release history lists all")
            });
        }
        let newest = journal.releases(Some(name), !under_way)?.into_iter().next();
        newest.ok_or_else(|| {
            let what = if under_way { "no release is under way" } else { "had no release" };
            ApiError::new(ErrorCode::Usage, format!("service {name}: {what}"))
                .hint("name a service, or a release by its number")
        })
    }

    /// One release with all that happened, without the first `skip` lines.
    ///
    /// # Errors
    /// Usage, or the store's.
    pub fn release_show(&self, name: &str, skip: usize) -> Result<ReleaseShow, ApiError> {
        let release = self.find_release(name, false)?;
        let line = self.release_line(&release)?;
        let journal = self.journal();
        Ok(ReleaseShow {
            line,
            history: journal.timeline(release.id, skip)?,
            hooks: journal.hook_runs(release.id)?,
            details: release.plan,
            data: release.data,
        })
    }

    /// A release in short.
    ///
    /// # Errors
    /// The store's.
    pub fn release_line(&self, release: &Release) -> Result<ReleaseLine, ApiError> {
        let (reasons, live) = {
            let running = lock(&self.releases.running);
            let one = running.get(&release.id);
            (one.map(|one| one.reasons.clone()).unwrap_or_default(), one.and_then(|one| one.live))
        };
        let why = match &release.phase {
            Phase::Paused { why, .. } | Phase::Aborting { why, .. } | Phase::RolledBack { why } => {
                Some(why.clone())
            }
            _ => None,
        };
        let span = self.journal().span(release.id)?;
        let over = release.phase.is_over();
        let now = events::now();
        let (started_at, ended_at) = span.unwrap_or_else(|| (now.clone(), now));
        Ok(ReleaseLine {
            schema: SCHEMA,
            id: release.id,
            service: release.service.clone(),
            from: release.from.clone(),
            to: release.to.clone(),
            plan: release.plan.name.clone(),
            strategy: match release.plan.strategy {
                Strategy::SideBySide => "side-by-side",
                Strategy::InPlace { .. } => "in-place",
            }
            .to_owned(),
            state: release.state().to_owned(),
            step: release.progress().map(|(number, of)| StepLine { number, of }),
            doing: release.wanted().and_then(|want| release.in_words(&want)),
            reasons: why.into_iter().chain(reasons).collect(),
            deadline: deadline(release),
            instances: release.instances.clone(),
            live,
            receipts: release.phase.proof().map(|p| p.receipts().to_vec()).unwrap_or_default(),
            forced: release.phase.proof().is_some_and(Proof::is_forced),
            over,
            waits: release.phase.waits(),
            started_at,
            ended_at: over.then_some(ended_at),
            exit_code: exit_code(&release.phase),
        })
    }
}

/// When what is waited for takes too long.
fn deadline(release: &Release) -> Option<DeadlineLine> {
    let limit = release.limit()?;
    let left = release.left(limit, clock::monotonic());
    let at = SystemTime::now().checked_add(left)?;
    Some(DeadlineLine { at: events::at(at), remaining_s: left.as_secs_f64() })
}

/// What `release wait` ends with: none as long as it goes on by itself.
fn exit_code(phase: &Phase) -> Option<u8> {
    Some(match phase {
        Phase::Succeeded(proof) if proof.is_forced() => 5,
        Phase::Succeeded(_) => 0,
        Phase::RolledBack { .. } | Phase::Reversed => 3,
        Phase::Held(_) => 4,
        Phase::Paused { cause: Cause::Failed, .. } => 7,
        Phase::Paused { cause: Cause::Inconclusive | Cause::Unanswered, .. } => 4,
        _ => return None,
    })
}
