//! What the packet path has seen of each instance of late.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use release_common::abi::IPPROTO_TCP;
use release_common::tcp::word::{EmbryoPhase, EmbryoWord};

use super::core::Daemon;
use super::health::{Place, watched};
use crate::api::types::{ApiError, InstanceCounters};
use crate::config::Config;
use crate::control::state::State;
use crate::health::{Passive, Window, judge};
use crate::verdict::walk::Totals;

/// How long a SYN may remain without an answer: a client has repeated it by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where each instance's window began, with the counts at that time, by its index in the maps.
#[derive(Default)]
pub struct Traffic {
    windows: HashMap<u32, Begun>,
    /// Those that traffic speaks against, and that stay since nobody else is left.
    spared: HashSet<u32>,
}

/// When a window began, and what was counted then.
struct Begun {
    at: Instant,
    counters: InstanceCounters,
    /// Connections that the instance itself had reset.
    resets: u64,
}

/// A window that is over.
struct Over {
    at: Place,
    plan: Passive,
    length: Duration,
    counted: Window,
}

impl Daemon {
    /// Judges all instances whose window is over, and has those back that were left alone for long
    /// enough.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub(super) async fn judge_traffic(
        &self,
        traffic: &mut Traffic,
        state: &State,
        config: &Config,
    ) -> Result<(), ApiError> {
        let mut watching = HashSet::new();
        let (mut resting, mut over) = (Vec::new(), Vec::new());
        for service in &state.services {
            let passive = config.service(&service.name).and_then(|service| service.passive());
            let Some(plan) = passive else { continue };
            for instance in watched(service) {
                let at = Place::of(service, instance);
                if instance.down.is_some() {
                    resting.push(at);
                } else if instance.in_ring() {
                    watching.insert(at.backend);
                    over.extend(self.window(traffic, at, plan)?);
                }
            }
        }
        traffic.windows.retain(|backend, _| watching.contains(backend));
        traffic.spared.retain(|backend| watching.contains(backend));
        self.count_unanswered(&mut over)?;
        for at in resting {
            self.settle(&at, None).await?;
        }
        for Over { at, plan, counted, .. } in over {
            let why = judge(&plan, &counted);
            let spared = why.is_some() && self.settle(&at, why.as_deref()).await?;
            if !spared {
                traffic.spared.remove(&at.backend);
            } else if traffic.spared.insert(at.backend) {
                let (Place { service, instance, .. }, why) = (&at, why.unwrap_or_default());
                let text = format!("{service}/{instance} stays, as nobody else is left: {why}");
                self.events.publish("alarm", Some(service), Some(instance), text);
            }
        }
        Ok(())
    }

    /// Ends an instance's window if it is over, and begins the next.
    fn window(
        &self,
        traffic: &mut Traffic,
        at: Place,
        plan: Passive,
    ) -> Result<Option<Over>, ApiError> {
        let now = Instant::now();
        let begun = traffic.windows.get(&at.backend);
        let length = begun.map_or(Duration::ZERO, |begun| now.duration_since(begun.at));
        if begun.is_some() && length < plan.every {
            return Ok(None);
        }
        let counters = Totals::read(&self.reader, &[at.backend])?.counters;
        let resets = self.measured(&[at.backend])?.resets;
        let before = traffic.windows.insert(at.backend, Begun { at: now, counters, resets });
        let ended = |counters: InstanceCounters| counters.closed_fin + counters.closed_rst;
        let since = |before: Begun| {
            let reset = resets.saturating_sub(before.resets);
            let ended = ended(counters).saturating_sub(ended(before.counters));
            Window {
                answered: counters.opened.saturating_sub(before.counters.opened),
                refused: counters.refused.saturating_sub(before.counters.refused),
                unanswered: 0,
                // Clients may end theirs as they like.
                finished: ended.saturating_sub(reset),
                reset,
            }
        };
        Ok(before.map(|before| Over { at, plan, length, counted: since(before) }))
    }

    /// SYNs that got no answer are in no counter: they stay among the handshakes for a while. Each
    /// falls into one window only.
    fn count_unanswered(&self, over: &mut [Over]) -> Result<(), ApiError> {
        if over.iter().all(|over| over.plan.syn_failures.is_none()) {
            return Ok(());
        }
        let now = self.jiffies()?;
        let mut places: HashMap<u32, &mut Over> =
            over.iter_mut().map(|over| (over.at.backend, over)).collect();
        self.reader.walk_embryos(|key, embryo| {
            let asked = EmbryoWord(embryo.state).phase() == EmbryoPhase::Syn;
            if key.proto != IPPROTO_TCP || !asked {
                return;
            }
            if let Some(over) = places.get_mut(&embryo.backend) {
                let age = self.clock.age(embryo.created, now);
                let unanswered = (PATIENCE..PATIENCE + over.length).contains(&age);
                over.counted.unanswered += u64::from(unanswered);
            }
        })?;
        Ok(())
    }
}
