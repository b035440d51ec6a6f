//! Retiring versions and giving orphaned instances' ids free, by receipts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::core::{Daemon, lock};
use super::events;
use super::idle::{Subject, boot_id_text, elsewhere, not_idle};
use crate::api::types::{
    ApiError, ErrorCode, IdleReport, InstanceCounters, Receipt, RetireRequest, Retired, SCHEMA,
    TargetQuery, Verdict,
};
use crate::control::commands::{Target, service_mut};
use crate::control::retire::{Retirement, retire};
use crate::control::state::ServiceState;
use crate::verdict::walk::Totals;

/// Orphans asked in one look: each verdict takes walks.
const MOST: usize = 8;
/// How long one that is busy is left alone, and one of which nothing can be proven.
const BUSY_AGAIN: Duration = Duration::from_secs(5);
const UNKNOWN_AGAIN: Duration = Duration::from_secs(30);

/// What became of the last verdicts on orphans, by their index in the maps.
pub type Orphans = HashMap<u32, Looked>;

/// The last look at an orphan.
#[derive(Debug)]
pub struct Looked {
    again: Instant,
    /// Looks in a row that proved nothing.
    unknown: u32,
}

impl Daemon {
    /// Retires a version or gives an orphaned instance free: by a receipt that still holds, by a new
    /// one, or by force.
    ///
    /// # Errors
    /// Busy or unknown with the reasons, usage for an unknown target, conflict for one in service.
    pub async fn retire_target(&self, request: &RetireRequest) -> Result<Retired, ApiError> {
        let RetireRequest { service: name, target, force } = request;
        let mut state = self.state().await;
        let service = service_mut(&mut state, name)?;
        let found = Target::find(service, target)?;
        if let Some(before) = retirement(service, &found) {
            return Ok(answer(request, before, false));
        }
        let subject = match &found {
            Target::Version(_) => Subject::find(service, target)?,
            Target::Instance(_, id) => match service.orphan(id) {
                Some((version, instance)) => Subject::orphan(service, version, instance),
                // Refused below, with the reason.
                None => Subject::find(service, target)?,
            },
        };
        // Refuses what no evidence can help.
        let given = |receipt, lost| Retirement { at: events::now(), receipt, lost };
        retire(&mut service.clone(), &found, &given(None, Vec::new()))?;
        // What other services do with its sockets, a receipt of before does not say.
        let receipt = if elsewhere(&state, &subject).is_empty() {
            self.receipt_in_force(&subject, target).await?
        } else {
            None
        };
        let retirement = match receipt {
            Some(receipt) => given(Some(receipt), Vec::new()),
            None => {
                let query = TargetQuery { service: name.clone(), target: target.clone() };
                let report = match &found {
                    Target::Version(_) => self.judge(&query).await?.1,
                    Target::Instance(..) => self.judge_subject(&query, &subject).await?,
                };
                match not_idle("retire", &report) {
                    None => given(Some(self.write_down(&subject, report).await?.id), Vec::new()),
                    Some(_) if *force => given(None, report.reasons),
                    Some(error) => return Err(error.hint(hint(&report))),
                }
            }
        };
        let done = self
            .change(name, |service| {
                if subject.closed_at != closed_now(service, &subject)? && !*force {
                    let text = format!("retire {target}: it was opened meanwhile");
                    return Err(ApiError::new(ErrorCode::Conflict, text));
                }
                retire(service, &found, &retirement)
            })
            .await?;
        if done.changed {
            self.events.publish(
                "retired",
                Some(name),
                Some(target),
                in_words(request, &retirement),
            );
        }
        Ok(answer(request, &retirement, done.changed))
    }

    /// The newest receipt that says of the target as it is now: nothing was opened since.
    pub(super) async fn receipt_in_force(
        &self,
        subject: &Subject,
        target: &str,
    ) -> Result<Option<u64>, ApiError> {
        let receipts = self.core.lock().await.store.receipts(&subject.service.name)?;
        let of_target = receipts.iter().filter(|receipt| receipt.report.target == target);
        for receipt in of_target {
            if self.holds(receipt, subject)? {
                return Ok(Some(receipt.id));
            }
        }
        Ok(None)
    }

    /// Whether a receipt says of its target as that is now: it is of this data plane, and nothing
    /// was opened since.
    ///
    /// # Errors
    /// The kernel's.
    pub fn holds(&self, receipt: &Receipt, subject: &Subject) -> Result<bool, ApiError> {
        let meta = self.reader.meta()?;
        let same = receipt.evidence_epoch == meta.evidence_epoch
            && receipt.boot_id == boot_id_text(&meta.boot_id)
            && subject.closed_at > 0
            && receipt.report.generation >= subject.closed_at
            && receipt.counters.len() == subject.instances.len();
        if !same {
            return Ok(false);
        }
        for instance in &subject.instances {
            let now = Totals::read(&self.reader, &[instance.backend])?.counters;
            if receipt.counters.get(&instance.id).map(begun) != Some(begun(&now)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes receipts for orphaned instances that are idle, which gives their ids free.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub async fn release_orphans(&self) -> Result<(), ApiError> {
        let state = self.state().await;
        let now = Instant::now();
        let due = {
            let mut looked = lock(&self.orphans);
            let waiting =
                || state.instances().filter(|(_, _, i)| i.orphaned && i.released.is_none());
            looked.retain(|backend, _| waiting().any(|(_, _, i)| i.backend == *backend));
            let is_due = |backend: &u32| looked.get(backend).is_none_or(|l| l.again <= now);
            let due = waiting().filter(|(_, _, instance)| is_due(&instance.backend)).take(MOST);
            due.map(|(service, version, i)| Subject::orphan(service, version, i))
                .collect::<Vec<_>>()
        };
        let looks = join_all(due.into_iter().map(|subject| self.release(subject))).await;
        looks.into_iter().collect()
    }

    async fn release(&self, subject: Subject) -> Result<(), ApiError> {
        let instance = &subject.instances[0];
        let (service, id) = (subject.service.name.as_str(), instance.id.as_str());
        let query = TargetQuery { service: service.to_owned(), target: id.to_owned() };
        let report = self.judge_subject(&query, &subject).await?;
        if report.verdict == Verdict::Idle {
            let receipt = self.write_down(&subject, report).await?.id;
            let retirement =
                Retirement { at: events::now(), receipt: Some(receipt), lost: Vec::new() };
            return self
                .change(service, |state| {
                    // Taken into the configuration again meanwhile, it is an orphan no more.
                    let same = state.orphan(id).is_some_and(|(_, i)| i.backend == instance.backend);
                    let target = Target::Instance(subject.version.name.clone(), id.to_owned());
                    if same { retire(state, &target, &retirement) } else { Ok(false) }
                })
                .await
                .map(drop);
        }
        let first_time = {
            let mut looked = lock(&self.orphans);
            let unknown = report.verdict == Verdict::Unknown;
            let before = looked.get(&instance.backend).map_or(0, |looked| looked.unknown);
            let count = if unknown { before + 1 } else { 0 };
            let pause = if count > 1 { UNKNOWN_AGAIN } else { BUSY_AGAIN };
            let again = Instant::now() + pause;
            looked.insert(instance.backend, Looked { again, unknown: count });
            // Once is no news: it may have to settle.
            count == 2
        };
        if first_time {
            let text = format!(
                "instance {service}/{id} was removed and stays: {}; if that is no matter: releasectl \
                 retire {service} {id} --force",
                report.reasons.join("; ")
            );
            self.events.publish("orphan-kept", Some(service), Some(id), text);
        }
        Ok(())
    }
}

/// What `--force` would do.
fn hint(report: &IdleReport) -> String {
    let lost = if report.counts.active + report.counts.embryonic > 0 {
        "its connections stay where they are, but nobody vouches for them"
    } else {
        "nobody vouches then that none is lost"
    };
    format!(
        "releasectl idle check --explain shows the evidence; --force retires it all the same: {lost}"
    )
}

/// Steps that begin something.
fn begun(counters: &InstanceCounters) -> [u64; 6] {
    let InstanceCounters { placed, opened, adopted, reopened, untracked, datagrams, .. } =
        *counters;
    [placed, opened, adopted, reopened, untracked, datagrams]
}

/// How a target has been retired already.
fn retirement<'a>(service: &'a ServiceState, target: &Target) -> Option<&'a Retirement> {
    match target {
        Target::Version(name) => service.version(name)?.retired.as_ref(),
        Target::Instance(_, id) => service.orphan(id)?.1.released.as_ref(),
    }
}

/// The generation that closed the subject, as the state is now.
fn closed_now(service: &ServiceState, subject: &Subject) -> Result<u32, ApiError> {
    let first = subject.instances.first().filter(|instance| instance.orphaned);
    let orphan = first.and_then(|first| service.orphan(&first.id));
    Ok(match orphan {
        Some((version, instance)) => Subject::orphan(service, version, instance).closed_at,
        None => Subject::find(service, &subject.version.name)?.closed_at,
    })
}

fn in_words(request: &RetireRequest, retirement: &Retirement) -> String {
    let RetireRequest { service, target, .. } = request;
    match retirement.receipt {
        Some(receipt) => format!("{service}/{target} is retired, receipt {receipt}"),
        None => format!("{service}/{target} is retired by force: {}", retirement.lost.join("; ")),
    }
}

fn answer(request: &RetireRequest, retirement: &Retirement, changed: bool) -> Retired {
    Retired {
        schema: SCHEMA,
        service: request.service.clone(),
        target: request.target.clone(),
        at: retirement.at.clone(),
        receipt: retirement.receipt,
        lost: retirement.lost.clone(),
        changed,
    }
}
