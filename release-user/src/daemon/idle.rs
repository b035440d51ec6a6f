//! Collecting the facts for a verdict.

mod receipt;
mod shared;
mod subject;

pub use receipt::{boot_id_text, not_idle};
pub use shared::elsewhere;
pub use subject::Subject;

use std::time::Duration;

use super::core::{Daemon, looking};
use super::witnesses::Inquiry;
use crate::api::types::{ApiError, IdleReport, SCHEMA, TargetQuery};
use crate::config::Protocol;
use crate::control::commands::service_mut;
use crate::control::state::{GIVEN_UP, ServiceState};
use crate::verdict::judge::{Datagrams, Facts, Judgement, judge};
use crate::verdict::sockets::Sockets;
use crate::verdict::walk::{Totals, Walk};

/// Walks tried until nothing of the target is opened or closed meanwhile.
const WALKS: usize = 3;

/// A walk with what was counted after it.
struct Look {
    walk: Walk,
    after: Totals,
    /// How far the gauge of the whole service is from the walk.
    drift: i64,
}

impl Daemon {
    /// The verdict on a target, and on what other services use of it.
    ///
    /// # Errors
    /// Usage for an unknown target, or the kernel's.
    pub async fn judge(&self, query: &TargetQuery) -> Result<(Subject, IdleReport), ApiError> {
        let mut state = self.state().await;
        let subject = Subject::find(service_mut(&mut state, &query.service)?, &query.target)?;
        let mut report = self.judge_subject(query, &subject).await?;
        for other in elsewhere(&state, &subject) {
            let theirs = Subject::find(service_mut(&mut state, &other.service)?, &other.target)?;
            shared::add(&mut report, &other, &self.judge_subject(&other, &theirs).await?);
        }
        Ok((subject, report))
    }

    /// The verdict within its service on what a target means: `samples` looks at its counters, then
    /// a walk of the tables.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn judge_subject(
        &self,
        query: &TargetQuery,
        subject: &Subject,
    ) -> Result<IdleReport, ApiError> {
        self.refresh_interfaces().await?;
        let (drain, detached) = {
            let core = self.core.lock().await;
            let drain = core.config.service(&query.service).map(|s| s.drain()).unwrap_or_default();
            (drain, core.detached())
        };
        let backends = subject.backends();
        let mut samples = Vec::new();
        // A busy target needs no long look.
        let live = self.walk()?.tally(&backends).flows;
        let inquiry = (!subject.shares_sockets).then(|| Inquiry::of(subject)).flatten();
        let mut sockets = inquiry.as_ref().map(Inquiry::begin);
        // Unless what the table has live may be over.
        let busy = live.active + live.embryonic > 0;
        let seen = inquiry.is_none() || !subject.service.settings.mode.is_one_way();
        let rounds = if busy && seen { 1 } else { drain.samples() };
        for round in 0..rounds {
            if round > 0 {
                tokio::time::sleep(drain.every()).await;
            }
            if let (Some(inquiry), Some(sockets)) = (&inquiry, &mut sockets)
                // Who did not answer has said what there is to say, and may take its time.
                && sockets.unknown().is_none()
            {
                sockets.look(self.witnesses.look(inquiry).await);
            }
            samples.push(Totals::read(&self.reader, &backends)?);
        }
        let facts = self.facts(subject, samples, drain.settle(), detached, sockets)?;
        let mut report = self.report(query, subject, &facts, judge(&facts));
        if subject.service.settings.mode.is_one_way() {
            report.counts.destroyed = self.destroyed_of(&backends).await?;
        }
        let live = report.counts.active;
        if live > 0 {
            let after = subject.service.settings.keepalive_only.after();
            report.busy_with = Some(looking(|| self.occupation(&backends, after))?);
        }
        if subject.is_drained() {
            report.outlook = Some(self.outlook(query, live)).filter(|_| live > 0);
        }
        Ok(report)
    }

    fn look(&self, service: &ServiceState, backends: &[u32]) -> Result<Look, ApiError> {
        let before = self.books(service)?;
        let walk = self.walk()?;
        let after = Totals::read(&self.reader, backends)?;
        Ok(Look { drift: self.drift(service, before, &walk)?, walk, after })
    }

    fn facts(
        &self,
        subject: &Subject,
        mut samples: Vec<Totals>,
        settle: Duration,
        detached: Vec<String>,
        sockets: Option<Sockets>,
    ) -> Result<Facts, ApiError> {
        let backends = subject.backends();
        let mut look = self.look(&subject.service, &backends)?;
        for _ in 1..WALKS {
            if samples.last().map(Totals::live) == Some(look.after.live()) && look.drift == 0 {
                break;
            }
            samples.push(look.after);
            look = self.look(&subject.service, &backends)?;
        }
        let Look { walk, after, drift } = look;
        let now = self.jiffies()?;
        let tally = walk.tally(&backends);
        let meta = self.reader.meta()?;
        let lost_past = subject
            .instances
            .iter()
            .chain(&subject.namesakes)
            .filter(|instance| instance.epoch < meta.evidence_epoch)
            .map(|instance| match instance.epoch {
                GIVEN_UP => format!("{} (given up by force)", instance.id),
                _ => instance.id.clone(),
            })
            .collect();
        Ok(Facts {
            closed: subject.closed_in_kernel(self.reader.split(subject.service.id)?),
            closed_at: subject.closed_at,
            generation: subject.service.generation,
            quiet: (after.last_packet > 0).then(|| self.clock.age64(after.last_packet, now)),
            samples,
            after,
            tally,
            entries: walk.entries,
            settle,
            oldest: tally.oldest_opened_at.map(|opened| self.clock.age_of_opening(opened, now)),
            lost_past,
            drift,
            detached,
            tcp_only: subject.service.protocols().all(|protocol| protocol == Protocol::Tcp),
            datagrams: datagrams(&subject.service),
            sockets,
            one_way: subject.service.settings.mode.is_one_way(),
        })
    }

    fn report(
        &self,
        query: &TargetQuery,
        subject: &Subject,
        facts: &Facts,
        judgement: Judgement,
    ) -> IdleReport {
        IdleReport {
            schema: SCHEMA,
            service: query.service.clone(),
            target: query.target.clone(),
            generation: subject.service.generation,
            verdict: judgement.verdict,
            reasons: judgement.reasons,
            evidence: judgement.evidence,
            counts: judgement.counts,
            sockets: facts.sockets.as_ref().and_then(Sockets::worst).cloned(),
            busy_with: None,
            outlook: None,
            oldest_flow_s: facts.oldest.map(|age| age.as_secs()),
            last_packet_age_ms: facts.quiet.map(|age| age.as_millis() as u64),
        }
    }
}

/// When a service's UDP flows are over, if it has any.
fn datagrams(service: &ServiceState) -> Option<Datagrams> {
    let flows = service.settings.conversation.tracks_flows();
    let timeouts = service.settings.timeouts;
    (flows && service.protocols().any(|protocol| protocol == Protocol::Udp)).then(|| Datagrams {
        answered: timeouts.udp().get(),
        unanswered: timeouts.unreplied().get(),
    })
}
