//! Expiry: silent flows, closed ones that have lingered, old handshakes; and freeing the ids of
//! orphaned instances that nothing names any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use release_common::abi::{IPPROTO_UDP, SessionWord, reap_op};
use release_common::tcp::word::{End, FlowWord};

use super::clock;
use super::core::{Daemon, lock, looking};
use super::forced::Ended;
use crate::api::types::ApiError;
use crate::config::{Config, Family, Frontend, Protocol, Timeouts};
use crate::control::apply;
use crate::control::retire::forget;
use crate::control::settings::Settings;
use crate::control::state::{InstanceState, ServiceState, State, VersionState};
use crate::kernel::{At, SessionAt, Tuple, grace_period};
use crate::probe::watch::Rhythm;

/// How often the tables are looked through.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How long a closed flow lingers for retransmits: a peer that lost the last acknowledgement
/// repeats its FIN (RFC 9293 §3.6.1; Linux's TIME_WAIT takes 60 s).
const LINGER: Duration = Duration::from_secs(60);
/// How long a handshake may take: a Linux server gives up its SYN-ACKs after 63 s.
const HANDSHAKE: Duration = Duration::from_secs(75);
/// How long a connection whose instance answers the client directly is kept after the client's FIN:
/// the instance's does not pass here, but the client's acknowledgements of what it still sends do.
const ONE_WAY_FIN: Duration = Duration::from_secs(300);

/// Rest after a look, in times the CPU time that it took, as far as no entry is kept for more than
/// twice as long as it may be silent.
const LONG_REST: u32 = 400;
/// With so many parts of the table more in use there is a look at once.
const GROWN: i64 = 16;

/// When the tables are to be looked through again. Nothing can become due much before, as long as the
/// configuration is the same.
#[derive(Default)]
pub struct Due {
    at: Option<Instant>,
    config: Option<Arc<Config>>,
    /// Entries at the last look.
    entries: i64,
}

/// Entries to remove; flows and embryos by the silence in jiffies that a live one must have.
#[derive(Default)]
struct Work {
    flows: HashMap<u32, Vec<Tuple>>,
    embryos: HashMap<u32, Vec<Tuple>>,
    sessions: HashMap<u32, Vec<SessionAt>>,
    /// Flows that were ended on order, to be written down before they may go.
    forced: Vec<Ended>,
    /// Jiffies until the first of the others is due.
    wait: u32,
    /// Jiffies until the first of them is kept twice as long as it may be silent.
    late: u32,
}

impl Work {
    /// Whether an entry is due that has been silent since `then`, and may be for `limit` jiffies.
    fn is_due(&mut self, now: u32, then: u32, limit: u32) -> bool {
        let age = now.wrapping_sub(then);
        // A stamp taken after `now` was read is young, not old.
        let left = if age < 1 << 31 { limit.saturating_sub(age) } else { limit };
        if left > 0 {
            self.wait = self.wait.min(left);
            self.late = self.late.min(left.saturating_add(limit));
        }
        left == 0
    }

    /// How many entries there are to remove.
    fn len(&self) -> usize {
        let tuples = self.flows.values().chain(self.embryos.values()).map(Vec::len);
        tuples.chain(self.sessions.values().map(Vec::len)).sum()
    }

    /// What could not be written down stays in its table.
    fn keep_forced(&mut self) {
        let kept: HashSet<Tuple> = self.forced.iter().map(Ended::tuple).collect();
        for tuples in self.flows.values_mut() {
            tuples.retain(|tuple| !kept.contains(tuple));
        }
    }
}

/// How many entries went.
#[derive(Clone, Copy, Default)]
struct Removed {
    flows: usize,
    /// Embryos and sessions.
    others: usize,
}

impl Removed {
    fn all(self) -> usize {
        self.flows + self.others
    }
}

/// How long an instance's flows are kept.
struct Limits {
    timeouts: Timeouts,
    /// How silent connections are asked, if they are.
    rhythm: Option<Rhythm>,
}

impl Daemon {
    /// Looks through the tables, unless nothing in them can be due. Returns how many flows were
    /// removed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn reap(&self, due: &mut Due) -> Result<usize, ApiError> {
        self.programs.free_ports(&self.reader, self.clock, self.jiffies()?)?;
        let (limits, least, config) = self.timeouts().await;
        let begun = Instant::now();
        let same = due.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, &config));
        let (entries, meta) = (self.reader.fullest_table()?, self.reader.meta()?);
        let grown = (entries - due.entries) * GROWN > i64::from(meta.flow_capacity);
        if same && !grown && due.at.is_some_and(|at| begun < at) {
            return Ok(0);
        }
        *due = Due { at: None, config: Some(config), entries };
        let (work, took) = looking(|| {
            let begun = clock::own_cpu();
            let work = self.find_work(&limits, least);
            (work, clock::own_cpu().saturating_sub(begun))
        });
        let work = work?;
        let time = |jiffies| Duration::from_secs_f64(f64::from(jiffies) / f64::from(self.clock.hz));
        let rest = (took * LONG_REST).min(time(work.late)).max(time(work.wait));
        let found = work.len();
        let removed = self.remove(work).await?;
        // What could not be removed is tried again.
        due.at = (removed.all() == found).then(|| begun + rest);
        Ok(removed.flows)
    }

    async fn remove(&self, mut work: Work) -> Result<Removed, ApiError> {
        if let Err(error) = self.record(&work.forced).await {
            log::error!("{error}");
            work.keep_forced();
        }
        let linger = self.clock.jiffies(LINGER);
        let mut removed = Removed::default();
        for (limit, tuples) in work.embryos {
            let gone = self.programs.reap(reap_op::EMBRYOS, &tuples, limit, limit)?;
            removed.others += gone.len();
        }
        for (limit, sessions) in work.sessions {
            removed.others += self.programs.reap_sessions(&sessions, limit)?;
        }
        let mut claimed = Vec::new();
        for (limit, tuples) in work.flows {
            let tuples = self.programs.reap(reap_op::CLAIM, &tuples, limit, linger)?;
            if !tuples.is_empty() {
                claimed.push((limit, tuples));
            }
        }
        if claimed.is_empty() {
            return Ok(removed);
        }
        // One grace period: every program that looked before the claim has ended.
        tokio::task::block_in_place(grace_period);
        for (limit, tuples) in claimed {
            removed.flows += self.programs.reap(reap_op::REAP, &tuples, limit, linger)?.len();
        }
        Ok(removed)
    }

    /// Timeouts by instance id; the shortest that any entry is kept; and the configuration that all
    /// that is of.
    async fn timeouts(&self) -> (HashMap<u32, Limits>, Duration, Arc<Config>) {
        let core = self.core.lock().await;
        let instances = core.state.instances();
        let limits = instances
            .map(|(service, _, instance)| {
                let Settings { timeouts, probes, mode, .. } = &service.settings;
                let probes = probes.enabled() && !mode.is_one_way();
                let rhythm = probes.then(|| service.settings.probes.rhythm());
                (instance.backend, Limits { timeouts: *timeouts, rhythm })
            })
            .collect();
        let least = core.state.services.iter().map(least).chain([LINGER, HANDSHAKE]).min();
        (limits, least.unwrap_or(LINGER), Arc::clone(&core.config))
    }

    /// Silence in jiffies after which a live flow may go.
    fn patience(&self, timeouts: &Timeouts, proto: u8, word: FlowWord) -> u32 {
        let patience = if proto != IPPROTO_UDP {
            let idle = timeouts.idle().get();
            let finished = word.one_way() && word.fin_seen(End::Client);
            if finished { idle.min(ONE_WAY_FIN) } else { idle }
        } else if word.replied() || word.one_way() {
            timeouts.udp().get()
        } else {
            timeouts.unreplied().get()
        };
        self.clock.jiffies(patience)
    }

    fn find_work(&self, limits: &HashMap<u32, Limits>, least: Duration) -> Result<Work, ApiError> {
        let now = self.jiffies()? as u32;
        let linger = self.clock.jiffies(LINGER);
        let handshake = self.clock.jiffies(HANDSHAKE);
        // Nothing that happens from here on is due sooner.
        let wait = self.clock.jiffies(least);
        let mut work = Work { wait, late: wait.saturating_mul(2), ..Work::default() };
        self.reader.walk_embryos(|at, embryo| {
            let limit = match limits.get(&embryo.backend) {
                Some(limits) if at.proto == IPPROTO_UDP => {
                    self.clock.jiffies(limits.timeouts.unreplied().get())
                }
                _ => handshake,
            };
            if work.is_due(now, embryo.created, limit) {
                work.embryos.entry(limit).or_default().push(*at);
            }
        })?;
        self.reader.walk_flows(|at, flow| {
            let word = FlowWord(flow.state);
            if self.is_unrecorded(at, flow) {
                work.forced.push(Ended::new(at, flow, &lock(&self.prober)));
            }
            // An instance nobody knows: nothing can be said for its flows.
            let known = limits.get(&flow.backend);
            let limit =
                known.map_or(linger, |known| self.patience(&known.timeouts, at.proto, word));
            let wait = if word.is_live() { limit } else { linger };
            if !work.is_due(now, flow.last_packet, wait) {
                return;
            }
            // A silent connection is asked before it is given up.
            let rhythm = known.and_then(|known| known.rhythm);
            let asked = rhythm.filter(|_| word.is_live() && at.proto != IPPROTO_UDP);
            if asked.is_none_or(|rhythm| lock(&self.prober).gives_up(at, word, rhythm)) {
                work.flows.entry(limit).or_default().push(*at);
            } else {
                // It may have answered by the next look.
                (work.wait, work.late) = (0, 0);
            }
        })?;
        let mut sessions = Vec::new();
        self.reader.walk_sessions(|at, session| {
            if SessionWord(session.state).live() == 0 {
                sessions.push((at, session.last_seen));
            }
        })?;
        for (at, last_seen) in sessions {
            let limit = self.reader.service(at.service)?.session_timeout;
            if work.is_due(now, last_seen, limit) {
                work.sessions.entry(limit).or_default().push(at);
            }
        }
        Ok(work)
    }

    /// Frontends that some entry names.
    fn used_frontends(&self) -> Result<HashSet<At>, ApiError> {
        let mut used = HashSet::new();
        self.reader.walk_embryos(|at, _| {
            used.insert(at.at());
        })?;
        self.reader.walk_flows(|at, _| {
            used.insert(at.at());
        })?;
        Ok(used)
    }

    /// Frees orphaned instances that were given free, removed versions and services that no entry
    /// names: two walks, a grace period after the last split, must agree.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub async fn collect_orphans(&self) -> Result<(), ApiError> {
        let (state, config) = {
            let core = self.core.lock().await;
            (core.state.clone(), Arc::clone(&core.config))
        };
        if !has_leftovers(&state, &config) {
            return Ok(());
        }
        // No command is to wait for the walks.
        let used = looking(|| self.used_frontends())?;
        let (first, second) = (self.walk()?, self.walk()?);
        let mut core = self.core.lock().await;
        if core.state != state || !Arc::ptr_eq(&core.config, &config) {
            // New flows may have been led to what nothing named: there will be another look.
            return Ok(());
        }
        let named = |instance: &InstanceState| {
            first.names(instance.backend) || second.names(instance.backend)
        };
        let mut next = core.state.clone();
        let mut freed = Vec::new();
        for service in &mut next.services {
            let configured = configured_frontends(&core.config, &service.name);
            for family in Family::ALL {
                let places = service.places_mut(family);
                for place in places.iter_mut() {
                    *place = place.filter(|at| configured.contains(at) || in_use(&used, *at));
                }
                while places.last() == Some(&None) {
                    places.pop();
                }
            }
            let orphans = service.instances().filter(|(_, i)| i.orphaned && i.released.is_some());
            let gone: Vec<InstanceState> =
                orphans.filter(|(_, i)| !named(i)).map(|(_, i)| i.clone()).collect();
            for instance in gone {
                forget(service, &instance);
                freed.push((service.name.clone(), instance));
            }
            service
                .versions
                .retain(|version| !version.is_passing() || !version.instances.is_empty());
        }
        next.services.retain(|service| !service.removed || !service.versions.is_empty());
        if next == core.state {
            return Ok(());
        }
        renumber(&mut next, &core.state);
        let ids: Vec<u32> = freed.iter().map(|(_, instance)| instance.backend).collect();
        self.forget_forced(&mut core, &ids)?;
        tokio::task::block_in_place(|| core.replace_state(next))?;
        for (service, instance) in freed {
            apply::free_backend(&mut core.maps, instance.backend)?;
            self.events.publish(
                "instance-gone",
                Some(&service),
                Some(&instance.id),
                format!("instance {service}/{} is gone, nothing names it any more", instance.id),
            );
        }
        Ok(())
    }
}

/// The shortest that any entry of a service is kept.
fn least(service: &ServiceState) -> Duration {
    let Settings { timeouts, session, .. } = &service.settings;
    let datagrams = service.protocols().any(|protocol| protocol == Protocol::Udp);
    let datagrams = datagrams.then(|| timeouts.udp().get().min(timeouts.unreplied().get()));
    let session = session.map(|session| session.timeout().get());
    [datagrams, session].into_iter().flatten().fold(timeouts.idle().get(), Duration::min)
}

/// Whether anything is kept only for its flows.
fn has_leftovers(state: &State, config: &Config) -> bool {
    state.instances().any(|(_, _, instance)| instance.orphaned)
        || state.services.iter().any(|service| {
            let configured = configured_frontends(config, &service.name);
            let passing =
                |version: &VersionState| version.is_passing() && version.instances.is_empty();
            service.removed
                || service.versions.iter().any(|version| version.removed || passing(version))
                || service.all_frontends().any(|at| !configured.contains(&at))
        })
}

fn configured_frontends(config: &Config, service: &str) -> Vec<Frontend> {
    config.service(service).into_iter().flat_map(|service| service.all_frontends()).collect()
}

fn in_use(used: &HashSet<At>, at: Frontend) -> bool {
    used.contains(&At { socket: at.socket(), proto: at.protocol().number() })
}

/// A service whose versions changed gets a new generation.
fn renumber(next: &mut State, old: &State) {
    for service in &mut next.services {
        let before = old.service(&service.name);
        let count = |s: &ServiceState| s.versions.len();
        if before.map(count) != Some(count(service)) {
            service.generation += 1;
        }
    }
}
