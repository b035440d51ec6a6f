//! What happens by itself, once a second: rates, first flows, alarms, drains that end, expiry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use release_common::abi::{Event, IPPROTO_UDP};

use super::core::{Daemon, lock};
use super::idle::Subject;
use super::regularly::{Pace, REST, log_failure};
use super::report::nearly_full;
use super::{clock, events, reaper};
use crate::api::types::{ApiError, TargetQuery, Verdict};
use crate::config::Protocol;
use crate::control::state::{DrainState, ServiceState};
use crate::verdict::walk::Totals;

const SECOND: Duration = Duration::from_secs(1);

/// How often at most a target that is idle is looked at again though its counters say nothing new:
/// interfaces, sockets or tables may be others.
const IDLE_AGAIN: Duration = Duration::from_secs(5);
/// Rest after such a look, in times what it took.
const IDLE_REST: u32 = 200;

/// A service and a version or instance.
type Name = (String, String);

/// What was reported already, so that each is reported once.
#[derive(Default)]
struct Reported {
    overdue: HashSet<Name>,
    table: bool,
    /// The last look at each drain.
    looks: HashMap<Name, Look>,
}

/// A look at a drain.
struct Look {
    /// When the next one is due, unless the service has another generation by then.
    due: Instant,
    generation: u32,
    /// If it was idle: its instances and what they had counted, which a mid-flow packet that is
    /// adopted changes.
    idle: Option<(Vec<u32>, Totals)>,
}

impl Daemon {
    /// Rates, alarms and drains, until told to stop.
    pub async fn tick(self: Arc<Self>) {
        let mut reported = Reported::default();
        let mut pace = Pace::new(SECOND, 0);
        loop {
            pace.next().await;
            log_failure(self.every_second(&mut reported).await);
        }
    }

    /// Expiry, until told to stop: a task of its own, since watching drains takes its time.
    pub async fn reap_regularly(self: Arc<Self>) {
        let mut pace = Pace::new(reaper::INTERVAL, 0);
        let mut due = reaper::Due::default();
        loop {
            pace.next().await;
            log_failure(self.expire(&mut due).await);
        }
    }

    async fn expire(&self, due: &mut reaper::Due) -> Result<(), ApiError> {
        let removed = self.reap(due).await?;
        log::debug!("{removed} flow entries removed");
        self.release_orphans().await?;
        self.collect_orphans().await
    }

    async fn every_second(&self, reported: &mut Reported) -> Result<(), ApiError> {
        let state = self.state().await;
        let mut sample = HashMap::new();
        for (_, _, instance) in state.instances() {
            let counters = self.reader.counters(instance.backend)?;
            sample.insert(instance.backend, (counters.placed, counters.opened));
        }
        self.first_flows(&sample).await?;
        lock(&self.rates).add(Instant::now(), sample);
        self.table_alarm(reported)?;
        let mut draining = HashSet::new();
        for service in &state.services {
            for version in &service.versions {
                // Of what is retired nothing more is to be said: its servers may be gone.
                if version.retired.is_some() {
                    continue;
                }
                if let Some(drain) = &version.drain {
                    draining.insert((service.name.clone(), version.name.clone()));
                    self.watch_drain(service, &version.name, drain, reported).await?;
                }
                for instance in &version.instances {
                    if let Some(drain) = &instance.drain {
                        draining.insert((service.name.clone(), instance.id.clone()));
                        self.watch_drain(service, &instance.id, drain, reported).await?;
                    }
                }
            }
        }
        lock(&self.idle).retain(|target| draining.contains(target));
        lock(&self.declines).retain(|target, _| draining.contains(target));
        reported.overdue.retain(|target| draining.contains(target));
        reported.looks.retain(|target, _| draining.contains(target));
        Ok(())
    }

    /// Notes when each version got its first flow.
    async fn first_flows(&self, sample: &HashMap<u32, (u64, u64)>) -> Result<(), ApiError> {
        let mut core = self.core.lock().await;
        let mut changed = Vec::new();
        for service in &mut core.state.services {
            let mut touched = false;
            for version in service.versions.iter_mut().filter(|v| v.first_flow_at.is_none()) {
                let opened = |i: &crate::control::state::InstanceState| {
                    sample.get(&i.backend).is_some_and(|(_, opened)| *opened > 0)
                };
                if version.instances.iter().any(opened) {
                    version.first_flow_at = Some(events::now());
                    touched = true;
                }
            }
            if touched {
                changed.push(service.clone());
            }
        }
        for service in changed {
            core.store.save(&service)?;
        }
        Ok(())
    }

    fn table_alarm(&self, reported: &mut Reported) -> Result<(), ApiError> {
        let capacity = i64::from(self.reader.meta()?.flow_capacity);
        let entries = self.reader.fullest_table()?;
        let high = nearly_full(entries, capacity);
        if high != reported.table {
            reported.table = high;
            let (kind, word) = if high { ("alarm", "above") } else { ("alarm-cleared", "below") };
            let text = format!("flow table {word} 80 %: {entries} of {capacity} entries");
            self.events.publish(kind, None, None, text);
        }
        Ok(())
    }

    /// Reports a drain's end, and raises its alarm once at the deadline.
    async fn watch_drain(
        &self,
        state: &ServiceState,
        target: &str,
        drain: &DrainState,
        reported: &mut Reported,
    ) -> Result<(), ApiError> {
        let (service, generation) = (state.name.as_str(), state.generation);
        let name = (service.to_owned(), target.to_owned());
        let start = Instant::now();
        if let Some(look) = reported.looks.get(&name)
            && look.due > start
            && look.generation == generation
            && !self.has_news(look)?
        {
            return Ok(());
        }
        let backends = Subject::find(state, target)?.backends();
        let before = Totals::read(&self.reader, &backends)?;
        let overdue = drain.is_overdue(clock::monotonic());
        let query = TargetQuery { service: name.0.clone(), target: name.1.clone() };
        let (_, report) = self.judge(&query).await?;
        let idle = report.verdict == Verdict::Idle;
        // The samples were slept through, not worked.
        let slept = self.sampling(service).await;
        let took = start.elapsed().saturating_sub(slept);
        let wait = if idle { (took * IDLE_REST).max(IDLE_AGAIN) } else { took * REST };
        let look = Look { due: start + wait, generation, idle: idle.then_some((backends, before)) };
        reported.looks.insert(name.clone(), look);
        let new = {
            let mut known = lock(&self.idle);
            if idle {
                known.insert(name.clone())
            } else {
                known.remove(&name);
                false
            }
        };
        if idle {
            if new {
                let text = format!("{service}/{target} is idle: nobody loses anything if it stops");
                self.events.publish("idle", Some(service), Some(target), text);
            }
        } else if overdue && reported.overdue.insert(name) {
            let text = format!(
                "{service}/{target} is {} at its deadline: {}",
                report.verdict,
                report.reasons.join("; ")
            );
            self.events.publish("alarm", Some(service), Some(target), text);
        }
        Ok(())
    }

    /// Whether an idle target has counted anything since.
    fn has_news(&self, look: &Look) -> Result<bool, ApiError> {
        match &look.idle {
            Some((backends, then)) => Ok(Totals::read(&self.reader, backends)? != *then),
            None => Ok(false),
        }
    }

    /// Time a verdict of a service spends between its samples.
    async fn sampling(&self, service: &str) -> Duration {
        let core = self.core.lock().await;
        let drain = core.config.service(service).map(|service| service.drain()).unwrap_or_default();
        drain.every() * drain.samples().saturating_sub(1)
    }

    /// Publishes an event of the packet path.
    pub fn kernel_event(&self, event: &Event) {
        let (client, frontend) = event.ends();
        let name = self.core.try_lock().ok().and_then(|core| {
            core.state
                .instances()
                .find(|(_, _, instance)| instance.backend == event.backend)
                .map(|(service, _, instance)| (service.name.clone(), instance.id.clone()))
        });
        let (service, target) = name.unzip();
        let more = match event.suppressed {
            0 => String::new(),
            n => format!(" ({n} events suppressed before this one)"),
        };
        let protocol = if event.key.proto == IPPROTO_UDP { Protocol::Udp } else { Protocol::Tcp };
        let text =
            format!("{client} to {frontend}/{protocol}, generation {}{more}", event.generation);
        let kind = events::kind_name(event.kind);
        self.events.publish(kind, service.as_deref(), target.as_deref(), text);
    }
}
