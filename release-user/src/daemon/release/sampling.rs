//! Measuring both versions now and then while a release is under way, for its report.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::core::Daemon;
use super::super::{clock, events};
use crate::api::types::{ApiError, ErrorCode};
use crate::control::state::VersionState;
use crate::release::analysis::Measured;
use crate::release::machine::Release;
use crate::release::sample::{Sample, VersionSample, interval};
use crate::verdict::walk::Totals;

/// What was measured of each version at the last sample.
#[derive(Default)]
struct Last {
    epoch: u32,
    of: HashMap<String, Measured>,
}

impl Daemon {
    /// Writes samples of a release down: now, every so often, and once more when it has `ended`
    /// (or the daemon ends). A sample that fails is missing, and nothing else.
    pub(super) async fn sample_release(&self, release: Release, mut ended: oneshot::Receiver<()>) {
        let began = self
            .journal()
            .span(release.id)
            .ok()
            .and_then(|span| humantime::parse_rfc3339(&span?.0).ok());
        let began = began.unwrap_or_else(SystemTime::now);
        let mut last = Last::default();
        let mut failing = false;
        loop {
            let done = self.write_sample(&release, &mut last).await;
            // Once: it comes again every few seconds.
            if let Err(error) = &done
                && !failing
            {
                log::warn!("release {}: not measured: {error}", release.id);
            }
            failing = done.is_err();
            let age = SystemTime::now().duration_since(began).unwrap_or(Duration::ZERO);
            tokio::select! {
                () = sleep(interval(age)) => {}
                _ = &mut ended => break,
            }
        }
        if let Err(error) = self.write_sample(&release, &mut last).await {
            log::warn!("release {}: its end is not measured: {error}", release.id);
        }
    }

    async fn write_sample(&self, release: &Release, last: &mut Last) -> Result<(), ApiError> {
        let sample = self.sample(release, last).await?;
        Ok(self.journal().add_sample(release.id, &sample)?)
    }

    /// Both versions as they are. By their counters, which cost the same however many flows there
    /// are: tables are not walked.
    async fn sample(&self, release: &Release, last: &mut Last) -> Result<Sample, ApiError> {
        let state = self.state().await;
        let service = state.service(&release.service).ok_or_else(|| {
            let text = format!("service {}: is no longer there", release.service);
            ApiError::new(ErrorCode::Conflict, text)
        })?;
        let epoch = self.reader.meta()?.evidence_epoch;
        if epoch != last.epoch {
            *last = Last { epoch, of: HashMap::new() };
        }
        let (old, new) = (&release.from, &release.to);
        let names = [Some(old), Some(new).filter(|new| *new != old)];
        let found = names.into_iter().flatten().filter_map(|name| service.version(name));
        let versions = found
            .map(|version| self.version_sample(version, last))
            .collect::<Result<Vec<_>, ApiError>>()?;
        Ok(Sample {
            at: events::now(),
            since_boot_ms: clock::since_boot_ms(),
            epoch,
            generation: service.generation,
            versions,
        })
    }

    fn version_sample(
        &self,
        version: &VersionState,
        last: &mut Last,
    ) -> Result<VersionSample, ApiError> {
        let backends: Vec<u32> = version.instances.iter().map(|i| i.backend).collect();
        let totals = Totals::read(&self.reader, &backends)?;
        let now = self.measured(&backends)?;
        let active = totals.live().max(0) as u64;
        let begun = totals.counters.opened + totals.counters.adopted;
        let sample = VersionSample {
            name: version.name.clone(),
            weight: version.weight,
            active,
            closed: begun.saturating_sub(active),
            ..VersionSample::default()
        };
        let sample = sample.measured(&now, last.of.get(&version.name));
        last.of.insert(version.name.clone(), now);
        Ok(sample)
    }
}
