//! Finding out which instances are able to serve, and taking those that are not out of new flows.
//!
//! Each check has a task of its own, so that a slow one holds up nobody; what traffic says is judged
//! once a second. Both come together in [`Daemon::settle`], which puts a change in force as any
//! command is: state, store, maps, a generation of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::core::{Daemon, lock};
use super::regularly::log_failure;
use super::traffic::Traffic;
use super::{clock, events};
use crate::api::types::ApiError;
use crate::config::{Config, OnDown};
use crate::control::health::{Down, Finder, bereft, set, would_bereave};
use crate::control::state::{InstanceState, ServiceState, State};
use crate::health::{Failure, Plan, Signs, Streak, Wanted, probe, settle};

/// How often there is a look at the state, and at traffic.
const LOOK: Duration = Duration::from_secs(1);
/// Checks at a time: what this host runs out of must not be taken for the instances' fault.
const AT_ONCE: usize = 256;
/// First checks are spread over so much, or over the interval if that is shorter.
const SPREAD: Duration = Duration::from_secs(2);

/// What is known of an instance whose health somebody asks for.
struct Known {
    service: String,
    instance: String,
    streak: Streak,
    /// Why it is not able to serve, as the last check that failed said.
    why: String,
    /// Why it could not be asked the last time.
    unasked: Option<String>,
    down: bool,
}

/// Health of all instances.
pub struct Health {
    /// By index in the maps.
    known: std::sync::Mutex<HashMap<u32, Known>>,
    /// Versions that an alarm was raised for, with its text.
    bereft: std::sync::Mutex<BTreeMap<(String, String), String>>,
    /// There is another configuration.
    pub reloaded: Notify,
    turns: Semaphore,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            known: Default::default(),
            bereft: Default::default(),
            reloaded: Notify::new(),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

/// An instance and how it is checked.
#[derive(Clone, PartialEq)]
struct Checked {
    at: Place,
    /// Where it is asked.
    address: SocketAddr,
    plan: Plan,
}

/// Which instance.
#[derive(Clone, PartialEq)]
pub(super) struct Place {
    pub service: String,
    pub instance: String,
    /// Index in the maps.
    pub backend: u32,
}

impl Place {
    pub fn of(service: &ServiceState, instance: &InstanceState) -> Self {
        let (service, id) = (service.name.clone(), instance.id.clone());
        Self { service, instance: id, backend: instance.backend }
    }
}

/// Instances whose health is of interest: those that may get new flows, now or later.
pub(super) fn watched(service: &ServiceState) -> impl Iterator<Item = &InstanceState> {
    let versions = service.versions.iter().filter(|v| !v.removed && v.retired.is_none());
    versions.flat_map(|version| &version.instances).filter(|instance| !instance.orphaned)
}

impl Daemon {
    /// Checks instances, until told to stop.
    pub async fn watch_health(self: Arc<Self>) {
        let mut running: HashMap<u32, (Checked, AbortHandle)> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut traffic = Traffic::default();
        let mut pace = interval(LOOK);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = self.health.reloaded.notified() => {}
            }
            let (state, config) = {
                let core = self.core.lock().await;
                (core.state.clone(), Arc::clone(&core.config))
            };
            let wanted = self.know(&state, &config);
            running.retain(|backend, (checked, task)| {
                let stays = wanted.get(backend) == Some(checked);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (backend, checked) in wanted {
                running.entry(backend).or_insert_with(|| {
                    let task = tasks.spawn(Arc::clone(&self).check_one(checked.clone()));
                    (checked, task)
                });
            }
            while tasks.try_join_next().is_some() {}
            log_failure(self.judge_traffic(&mut traffic, &state, &config).await);
            self.raise_alarms().await;
        }
    }

    /// Begins to know instances that are new, and forgets those that are gone. Returns whom to
    /// check, and how.
    fn know(&self, state: &State, config: &Config) -> HashMap<u32, Checked> {
        let mut checked = HashMap::new();
        let mut present = BTreeSet::new();
        let mut known = lock(&self.health.known);
        for service in &state.services {
            let Some(configured) = config.service(&service.name) else { continue };
            let plan = configured.health();
            if plan.is_none() && configured.passive().is_none() {
                continue;
            }
            for instance in watched(service) {
                let at = Place::of(service, instance);
                present.insert(at.backend);
                let known = known.entry(at.backend).or_insert_with(|| Known::of(&at, instance));
                known.down = instance.down.is_some();
                let Some(plan) = plan.cloned() else {
                    known.streak = Streak::default();
                    continue;
                };
                let port = plan.port.unwrap_or(instance.addr.port());
                let address = SocketAddr::new(instance.addr.ip(), port);
                checked.insert(at.backend, Checked { at, address, plan });
            }
        }
        known.retain(|backend, _| present.contains(backend));
        checked
    }

    async fn check_one(self: Arc<Self>, checked: Checked) {
        let Checked { at, address, plan } = checked;
        let first = Instant::now() + phase(at.backend, plan.interval.min(SPREAD));
        let mut pace = interval_at(first, plan.interval);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let said = {
                let Ok(_turn) = self.health.turns.acquire().await else { return };
                probe(&plan.check, &at.instance, address, plan.timeout).await
            };
            self.note(&at, &plan, said);
            log_failure(self.settle(&at, None).await.map(drop));
        }
    }

    /// Takes in what a check said.
    fn note(&self, at: &Place, plan: &Plan, said: Result<(), Failure>) {
        let mut all = lock(&self.health.known);
        let Some(known) = all.get_mut(&at.backend) else { return };
        let unasked = match said {
            Ok(()) => {
                known.streak.take(true, plan.fall, plan.rise);
                None
            }
            Err(Failure::Instance(why)) => {
                known.why = why;
                known.streak.take(false, plan.fall, plan.rise);
                None
            }
            Err(Failure::Ours(why)) => Some(why),
        };
        let before = std::mem::replace(&mut known.unasked, unasked.clone());
        drop(all);
        if let Some(why) = unasked.filter(|why| before.as_ref() != Some(why)) {
            let text = format!("{} was not checked, it stays as it is: {why}", at.instance);
            self.events.publish("warning", Some(&at.service), Some(&at.instance), text);
        }
    }

    /// Brings the state in line with what speaks for and against an instance. Returns whether
    /// traffic speaks against it, and it stays since nobody else is left: that all are to blame is
    /// less likely than that their clients or the network are.
    ///
    /// # Errors
    /// The store's or the kernel's; then it is tried again with the next check.
    pub(super) async fn settle(&self, at: &Place, passive: Option<&str>) -> Result<bool, ApiError> {
        let (down, back_after) = {
            let core = self.core.lock().await;
            let service = core.state.service(&at.service);
            let instance =
                service.and_then(|s| watched(s).find(|instance| instance.backend == at.backend));
            let Some(instance) = instance else { return Ok(false) };
            let passive = core.config.service(&at.service).and_then(|service| service.passive());
            (instance.down.clone(), passive.map(|passive| passive.back_after).unwrap_or_default())
        };
        let (active, why) = match lock(&self.health.known).get(&at.backend) {
            Some(known) => (known.streak.is_up(), known.why.clone()),
            None => return Ok(false),
        };
        let signs = Signs { active, why: &why, passive, back_after };
        let now = clock::monotonic();
        let next = match settle(down.as_ref(), signs, now) {
            Wanted::AsItIs => return Ok(false),
            Wanted::Up => None,
            Wanted::Down(by, why) => Some(Down {
                by,
                why: why.to_owned(),
                since: events::now(),
                since_boot_ms: now.as_millis() as u64,
            }),
        };
        let mut spared = false;
        let mut flows = OnDown::default();
        let done = self
            .change_knowing(&at.service, |_, config, _, service| {
                // Asked before a reload, said after it: nobody would say otherwise any more.
                let configured = config.service(&at.service);
                let asks =
                    |down: &Down| configured.is_some_and(|service| down.by.is_configured(service));
                if !next.as_ref().is_none_or(asks) {
                    return Ok(false);
                }
                flows = service.settings.on_down;
                spared = next.as_ref().is_some_and(|down| down.by == Finder::Traffic)
                    && would_bereave(service, at.backend);
                if spared { Ok(false) } else { set(service, at.backend, next.clone()) }
            })
            .await?;
        if done.changed {
            if let Some(known) = lock(&self.health.known).get_mut(&at.backend) {
                known.down = next.is_some();
            }
            self.report_health(at, down.as_ref(), next.as_ref(), flows, done.generation);
            self.raise_alarms().await;
        }
        Ok(spared)
    }

    fn report_health(
        &self,
        at: &Place,
        before: Option<&Down>,
        now: Option<&Down>,
        flows: OnDown,
        generation: u32,
    ) {
        let name = format!("{}/{}", at.service, at.instance);
        let (kind, text) = match now {
            Some(down) => {
                let flows = match flows {
                    OnDown::Keep => "kept",
                    OnDown::Reset => "reset",
                };
                let why = &down.why;
                ("instance-down", format!("{name} is down: {why}; its flows are {flows}"))
            }
            None => {
                let lasted = before.map(|down| down.lasted(clock::monotonic())).unwrap_or_default();
                let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
                ("instance-up", format!("{name} is up again after {lasted}"))
            }
        };
        let text = format!("{text} (generation {generation})");
        self.events.publish(kind, Some(&at.service), Some(&at.instance), text);
    }

    /// Says which versions have lost all their instances, and which have one again.
    async fn raise_alarms(&self) {
        let now: BTreeMap<(String, String), String> = {
            let core = self.core.lock().await;
            let all = core.state.services.iter().flat_map(|service| {
                let named = |(version, text)| ((service.name.clone(), version), text);
                bereft(service).into_iter().map(named)
            });
            all.collect()
        };
        let before = std::mem::replace(&mut *lock(&self.health.bereft), now.clone());
        for ((service, version), text) in &now {
            if before.get(&(service.clone(), version.clone())) != Some(text) {
                let text = format!("{service}/{text}");
                self.events.publish("alarm", Some(service), Some(version), text);
            }
        }
        for (service, version) in before.keys().filter(|name| !now.contains_key(*name)) {
            let text = format!("{service}/{version}: its new flows are served again");
            self.events.publish("alarm-cleared", Some(service), Some(version), text);
        }
    }

    /// Whether an instance is able to serve, as far as checks say; none: nobody checks it, or
    /// nothing is known yet.
    pub fn health_of(&self, service: &str, instance: &str) -> Option<bool> {
        let known = lock(&self.health.known);
        let is_it = |known: &&Known| known.service == service && known.instance == instance;
        let known = known.values().find(is_it)?;
        if known.down { Some(false) } else { known.streak.is_up() }
    }
}

impl Known {
    fn of(at: &Place, instance: &InstanceState) -> Self {
        let by_check = instance.down.as_ref().is_some_and(|down| down.by == Finder::Check);
        Self {
            service: at.service.clone(),
            instance: at.instance.clone(),
            streak: if by_check { Streak::down() } else { Streak::default() },
            why: String::new(),
            unasked: None,
            down: instance.down.is_some(),
        }
    }
}

/// When in an interval an instance has its turn: evenly spread whatever their number is (steps of
/// the golden section).
fn phase(backend: u32, spread: Duration) -> Duration {
    spread.mul_f64(f64::from(backend.wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_checks_are_spread() {
        let spread = Duration::from_millis(1000);
        let mut turns: Vec<Duration> = (1..=100).map(|backend| phase(backend, spread)).collect();
        turns.sort_unstable();
        assert!(turns.iter().all(|turn| *turn <= spread));
        let widest = turns.windows(2).map(|two| two[1] - two[0]).max().unwrap();
        assert!(widest < Duration::from_millis(30), "{widest:?}");
    }
}
