//! Collecting the facts for a verdict.

mod shared;

use std::time::Duration;

use release_common::abi::Split;

use super::core::Daemon;
use super::witnesses::Inquiry;
use crate::api::types::{ApiError, ErrorCode, IdleReport, Receipt, SCHEMA, TargetQuery, Verdict};
use crate::config::Protocol;
use crate::control::commands::{Target, service_mut};
use crate::control::state::{InstanceState, ServiceState, VersionState};
use crate::verdict::judge::{Facts, Judgement, judge};
use crate::verdict::sockets::Sockets;
use crate::verdict::walk::{Totals, Walk};

/// Walks tried until nothing of the target is opened or closed meanwhile.
const WALKS: usize = 3;

/// What a verdict is about, resolved.
pub struct Subject {
    /// The service.
    pub service: ServiceState,
    /// The version it belongs to.
    pub version: VersionState,
    /// Its instances.
    pub instances: Vec<InstanceState>,
    /// Other ids that the same sockets have or had: who stops the one stops the other.
    pub namesakes: Vec<InstanceState>,
    /// Generation that closed it to new flows, 0 if it is open.
    pub closed_at: u32,
}

impl Subject {
    /// Resolves a target.
    ///
    /// # Errors
    /// Usage, if there is no such service, version or instance.
    pub fn find(service: &ServiceState, name: &str) -> Result<Self, ApiError> {
        let (version, id) = match Target::find(service, name)? {
            Target::Version(version) => (version, None),
            Target::Instance(version, id) => (version, Some(id)),
        };
        let version = service.version(&version).cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("version {version} is gone"))
        })?;
        let instances: Vec<InstanceState> = version
            .instances
            .iter()
            .filter(|instance| id.as_ref().is_none_or(|id| *id == instance.id))
            .cloned()
            .collect();
        let alone = instances.iter().all(|instance| !instance.in_ring());
        let mut closed_at = if !version.open() {
            // Whichever came first closed it; the later one is the safe bound.
            version.closed_at
        } else if alone && id.is_some() {
            instances.iter().map(|instance| instance.closed_at).max().unwrap_or(0)
        } else {
            0
        };
        let namesakes = namesakes(service, &instances);
        for (other_version, other) in &namesakes {
            if other.in_ring() && other_version.open() {
                closed_at = 0;
            } else if closed_at > 0 {
                let closed =
                    if other.in_ring() { other_version.closed_at } else { other.closed_at };
                closed_at = closed_at.max(closed);
            }
        }
        let namesakes = namesakes.into_iter().map(|(_, other)| other.clone()).collect();
        Ok(Self { service: service.clone(), version, instances, namesakes, closed_at })
    }

    /// Whether it is being drained.
    fn is_drained(&self) -> bool {
        let alone = !self.instances.is_empty() && self.instances.iter().all(|i| i.drain.is_some());
        self.version.drain.is_some() || alone
    }

    /// Ids of its sockets in the maps.
    pub fn backends(&self) -> Vec<u32> {
        self.instances.iter().chain(&self.namesakes).map(|instance| instance.backend).collect()
    }

    /// Whether the split in the kernel leaves no way to it.
    fn closed_in_kernel(&self, split: Option<Split>) -> bool {
        let Some(split) = split else { return false };
        // Another generation than that of the state looked at: it may have been opened meanwhile.
        if self.closed_at == 0 || split.generation != self.service.generation {
            return false;
        }
        let mut start = 0;
        for entry in split.entries.iter().take(split.count as usize) {
            if self.version.rings().any(|ring| entry.rings.contains(&ring)) && entry.bound > start {
                // It has a share: closed only if the instance is off the ring.
                return self.instances.iter().all(|instance| !instance.in_ring());
            }
            start = start.max(entry.bound);
        }
        true
    }
}

/// Instances of the service, with their versions, that have the same sockets under other ids.
fn namesakes<'a>(
    service: &'a ServiceState,
    instances: &[InstanceState],
) -> Vec<(&'a VersionState, &'a InstanceState)> {
    let same = |other: &InstanceState| {
        instances.iter().any(|own| own.addr == other.addr)
            && instances.iter().all(|own| own.backend != other.backend)
    };
    service.instances().filter(|(_, other)| same(other)).collect()
}

impl Daemon {
    /// The verdict on a target, and on what other services use of it.
    ///
    /// # Errors
    /// Usage for an unknown target, or the kernel's.
    pub async fn judge(&self, query: &TargetQuery) -> Result<(Subject, IdleReport), ApiError> {
        let (subject, mut report) = self.judge_alone(query).await?;
        for other in shared::elsewhere(&self.state().await, &subject) {
            let (_, theirs) = self.judge_alone(&other).await?;
            shared::add(&mut report, &other, &theirs);
        }
        Ok((subject, report))
    }

    /// The verdict within its service: `samples` looks at its counters, then a walk of the tables.
    async fn judge_alone(&self, query: &TargetQuery) -> Result<(Subject, IdleReport), ApiError> {
        self.refresh_interfaces().await?;
        let (subject, drain, detached) = {
            let mut core = self.core.lock().await;
            let service = service_mut(&mut core.state, &query.service)?.clone();
            let drain = core.config.service(&query.service).map(|s| s.drain()).unwrap_or_default();
            (Subject::find(&service, &query.target)?, drain, core.detached())
        };
        let backends = subject.backends();
        let mut samples = Vec::new();
        // A busy target needs no long look.
        let live = Walk::take(&self.reader, self.jiffies()?)?.tally(&backends).flows;
        let inquiry = Inquiry::of(&subject);
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
        let drift = self.drift_of(&subject.service.name).await?;
        let facts = self.facts(&subject, samples, drain.settle(), detached, sockets, drift)?;
        let mut report = self.report(query, &subject, &facts, judge(&facts));
        let live = report.counts.active;
        if live > 0 {
            let after = subject.service.settings.keepalive_only.after();
            report.busy_with = Some(self.occupation(&backends, after)?);
        }
        if subject.is_drained() {
            report.outlook = Some(self.outlook(query, live)).filter(|_| live > 0);
        }
        Ok((subject, report))
    }

    fn facts(
        &self,
        subject: &Subject,
        mut samples: Vec<Totals>,
        settle: Duration,
        detached: Vec<String>,
        sockets: Option<Sockets>,
        drift: i64,
    ) -> Result<Facts, ApiError> {
        let backends = subject.backends();
        let mut walk = Walk::take(&self.reader, self.jiffies()?)?;
        let mut after = Totals::read(&self.reader, &backends)?;
        for _ in 1..WALKS {
            if samples.last().map(Totals::live) == Some(after.live()) {
                break;
            }
            samples.push(after);
            walk = Walk::take(&self.reader, self.jiffies()?)?;
            after = Totals::read(&self.reader, &backends)?;
        }
        let now = self.jiffies()?;
        let tally = walk.tally(&backends);
        let meta = self.reader.meta()?;
        let lost_past = subject
            .instances
            .iter()
            .chain(&subject.namesakes)
            .filter(|instance| instance.epoch < meta.evidence_epoch)
            .map(|instance| instance.id.clone())
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

    /// Writes a receipt, if the verdict allows it.
    ///
    /// # Errors
    /// Busy or unknown with the reasons, or as for the verdict.
    pub async fn write_receipt(&self, query: &TargetQuery) -> Result<Receipt, ApiError> {
        let (subject, report) = self.judge(query).await?;
        let code = match report.verdict {
            Verdict::Idle => None,
            Verdict::Busy => Some(ErrorCode::Busy),
            Verdict::Unknown => Some(ErrorCode::Unknown),
        };
        if let Some(code) = code {
            return Err(ApiError::new(
                code,
                format!(
                    "receipt {}: it is {}: {}",
                    query.target,
                    report.verdict,
                    report.reasons.join("; ")
                ),
            )
            .hint("releasectl idle check --explain shows the evidence"));
        }
        let meta = self.reader.meta()?;
        let mut counters = std::collections::BTreeMap::new();
        for instance in &subject.instances {
            let totals = Totals::read(&self.reader, &[instance.backend])?;
            counters.insert(instance.id.clone(), totals.counters);
        }
        let receipt = Receipt {
            schema: SCHEMA,
            id: 0,
            at: super::events::now(),
            boot_id: boot_id_text(&meta.boot_id),
            evidence_epoch: meta.evidence_epoch,
            counters,
            report,
            hash: String::new(),
        };
        let receipt = self.core.lock().await.store.add_receipt(receipt)?;
        self.events.publish(
            "receipt",
            Some(&query.service),
            Some(&query.target),
            format!("receipt {} for {}/{}", receipt.id, query.service, query.target),
        );
        Ok(receipt)
    }
}

/// A boot id as the kernel writes it.
pub fn boot_id_text(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::commands;
    use crate::control::reconcile::reconcile;
    use crate::control::state::{DrainState, State};

    fn config(v1: &str, v2: &str) -> Config {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [\"192.0.2.10:80/tcp\"]\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [{v1}]\n\
             [[service.version]]\nname = \"v2\"\ninstances = [{v2}]\n"
        );
        Config::from_str(&text, "t").unwrap()
    }

    const A: &str = "\"10.0.0.1:80\"";
    const C: &str = "\"10.0.0.2:80\"";

    /// A socket that moved to another version has two ids: a verdict on either covers both.
    #[test]
    fn a_socket_with_two_ids_is_one_subject() {
        let both = format!("{A}, {C}");
        let (state, _) = reconcile(&State::default(), &config(&both, ""), 1).unwrap();
        let (next, _) = reconcile(&state, &config(C, A), 1).unwrap();
        let service = &next.services[0];
        let ids: Vec<u32> = service
            .instances()
            .filter(|(_, i)| i.id == "10.0.0.1:80")
            .map(|(_, i)| i.backend)
            .collect();
        assert_eq!(ids.len(), 2);
        for target in ["v2", "10.0.0.1:80"] {
            let subject = Subject::find(service, target).unwrap();
            assert!(ids.iter().all(|id| subject.backends().contains(id)), "{target}");
            assert_eq!(subject.closed_at, 2, "{target}: closed when the other id was");
        }
    }

    /// Test clients reach a version of weight 0 until it is drained.
    #[test]
    fn a_version_under_test_is_open() {
        let text = "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
                    frontends = [\"192.0.2.10:80/tcp\"]\ntest_sources.v2 = [\"198.51.100.0/24\"]\n\
                    version = [{ name = \"v1\", weight = 1, instances = [\"10.0.0.1:80\"] },\n\
                    { name = \"v2\", instances = [\"10.0.0.2:80\"] }]\n";
        let config = Config::from_str(text, "t").unwrap();
        let (state, _) = reconcile(&State::default(), &config, 1).unwrap();
        let mut service = state.services[0].clone();
        for target in ["v2", "10.0.0.2:80"] {
            assert_eq!(Subject::find(&service, target).unwrap().closed_at, 0, "{target}");
        }
        let drain = DrainState {
            weight_before: 0,
            since: String::new(),
            since_boot_ms: 0,
            deadline_s: None,
            force: None,
        };
        commands::drain(&mut service, &Target::Version("v2".to_owned()), &drain, false).unwrap();
        for target in ["v2", "10.0.0.2:80"] {
            assert_eq!(Subject::find(&service, target).unwrap().closed_at, 2, "{target}");
        }
    }

    /// The old name of a version whose sockets serve under a new one is not closed.
    #[test]
    fn a_socket_that_serves_under_another_version_is_open() {
        let (state, _) = reconcile(&State::default(), &config(A, C), 1).unwrap();
        let mut service = state.services[0].clone();
        let mut moved = service.versions[0].instances[0].clone();
        moved.backend = 9;
        service.versions[1].weight = 1;
        service.versions[1].instances.push(moved);
        service.versions[0].weight = 0;
        service.versions[0].closed_at = 4;
        let subject = Subject::find(&service, "v1").unwrap();
        assert_eq!(subject.closed_at, 0);
        assert!(!subject.closed_in_kernel(Some(Split::empty(9))));
    }
}
