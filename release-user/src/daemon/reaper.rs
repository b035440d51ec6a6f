//! Expiry: silent flows, closed ones that have lingered, old handshakes; and freeing the ids of
//! orphaned instances that nothing names any more.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use release_common::abi::{Endpoint4, FlowKey4, reap_op};
use release_common::tcp::word::FlowWord;

use super::core::Daemon;
use crate::api::types::ApiError;
use crate::config::{Config, Family, Frontend};
use crate::control::apply;
use crate::control::state::{InstanceState, State};
use crate::verdict::walk::Walk;

/// How often the tables are looked through.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How long a closed flow lingers for retransmits: a peer that lost the last acknowledgement
/// repeats its FIN (RFC 9293 §3.6.1; Linux's TIME_WAIT takes 60 s).
const LINGER: Duration = Duration::from_secs(60);
/// How long a handshake may take: a Linux server gives up its SYN-ACKs after 63 s.
const HANDSHAKE: Duration = Duration::from_secs(75);

/// Keys to remove; flows by the silence in jiffies that a live one must have.
#[derive(Default)]
struct Work {
    flows: HashMap<u32, Vec<FlowKey4>>,
    embryos: Vec<FlowKey4>,
}

impl Daemon {
    /// One look through the tables. Returns how many flows were removed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn reap(&self) -> Result<usize, ApiError> {
        let limits = self.idle_limits().await;
        let work = self.find_work(&limits)?;
        let (handshake, linger) = (self.clock.jiffies(HANDSHAKE), self.clock.jiffies(LINGER));
        if !work.embryos.is_empty() {
            self.programs.reap(reap_op::EMBRYOS, &work.embryos, handshake, handshake)?;
        }
        let mut claimed = Vec::new();
        for (limit, keys) in work.flows {
            let keys = self.programs.reap(reap_op::CLAIM, &keys, limit, linger)?;
            if !keys.is_empty() {
                claimed.push((limit, keys));
            }
        }
        if claimed.is_empty() {
            return Ok(0);
        }
        // One grace period: every program that looked before the claim has ended.
        tokio::task::block_in_place(grace_period);
        let mut removed = 0;
        for (limit, keys) in claimed {
            removed += self.programs.reap(reap_op::REAP, &keys, limit, linger)?.len();
        }
        Ok(removed)
    }

    /// Idle timeout in jiffies by instance id.
    async fn idle_limits(&self) -> HashMap<u32, u32> {
        let core = self.core.lock().await;
        let default = crate::config::IdleTimeout::DEFAULT.get();
        core.state
            .instances()
            .map(|(service, _, instance)| {
                let timeout = core
                    .config
                    .service(&service.name)
                    .map_or(default, |service| service.idle_timeout().get());
                (instance.backend, self.clock.jiffies(timeout))
            })
            .collect()
    }

    fn find_work(&self, limits: &HashMap<u32, u32>) -> Result<Work, ApiError> {
        let now = self.jiffies()? as u32;
        let linger = self.clock.jiffies(LINGER);
        let handshake = self.clock.jiffies(HANDSHAKE);
        let old = |then: u32, limit: u32| {
            let age = now.wrapping_sub(then);
            age >= limit && age < 1 << 31
        };
        let mut work = Work::default();
        self.reader.walk_embryos(|key, embryo| {
            if old(embryo.created, handshake) {
                work.embryos.push(*key);
            }
        })?;
        self.reader.walk_flows(|key, flow| {
            // An instance nobody knows: nothing can be said for its flows.
            let limit = limits.get(&flow.backend).copied().unwrap_or(linger);
            let wait = if FlowWord(flow.state).is_live() { limit } else { linger };
            if old(flow.last_packet, wait) {
                work.flows.entry(limit).or_default().push(*key);
            }
        })?;
        Ok(work)
    }

    /// Frontends that some entry names.
    fn used_frontends(&self) -> Result<HashSet<Endpoint4>, ApiError> {
        let mut used = HashSet::new();
        let of = |key: &FlowKey4| Endpoint4::tcp(key.frontend, key.frontend_port);
        self.reader.walk_embryos(|key, _| {
            used.insert(of(key));
        })?;
        self.reader.walk_flows(|key, _| {
            used.insert(of(key));
        })?;
        Ok(used)
    }

    /// Frees orphaned instances, removed versions and services that no entry names: two walks, a
    /// grace period after the last split, must agree.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub async fn collect_orphans(&self) -> Result<(), ApiError> {
        let mut core = self.core.lock().await;
        if !has_leftovers(&core.state, &core.config) {
            return Ok(());
        }
        let used = self.used_frontends()?;
        let first = Walk::take(&self.reader)?;
        let second = Walk::take(&self.reader)?;
        let named = |instance: &InstanceState| {
            first.by_backend.contains_key(&instance.backend)
                || second.by_backend.contains_key(&instance.backend)
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
            for version in &mut service.versions {
                version.instances.retain(|instance| {
                    let keep = !instance.orphaned || named(instance);
                    if !keep {
                        freed.push((service.name.clone(), instance.clone()));
                    }
                    keep
                });
            }
            service.versions.retain(|version| !version.removed || !version.instances.is_empty());
        }
        next.services.retain(|service| !service.removed || !service.versions.is_empty());
        if next == core.state {
            return Ok(());
        }
        renumber(&mut next, &core.state);
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

/// Whether anything is kept only for its flows.
fn has_leftovers(state: &State, config: &Config) -> bool {
    state.instances().any(|(_, _, instance)| instance.orphaned)
        || state.services.iter().any(|service| {
            let configured = configured_frontends(config, &service.name);
            service.removed
                || service.versions.iter().any(|version| version.removed)
                || service.all_frontends().any(|at| !configured.contains(&at))
        })
}

fn configured_frontends(config: &Config, service: &str) -> Vec<Frontend> {
    config.service(service).into_iter().flat_map(|service| service.all_frontends()).collect()
}

fn in_use(used: &HashSet<Endpoint4>, at: Frontend) -> bool {
    match at.socket() {
        SocketAddr::V4(socket) => used.contains(&Endpoint4::from(socket)),
        SocketAddr::V6(_) => false,
    }
}

/// A service whose versions changed gets a new generation.
fn renumber(next: &mut State, old: &State) {
    for service in &mut next.services {
        let before = old.service(&service.name);
        let count = |s: &crate::control::state::ServiceState| s.versions.len();
        if before.map(count) != Some(count(service)) {
            service.generation += 1;
        }
    }
}

/// Waits for an RCU grace period: the membarrier command "global" is `synchronize_rcu`
/// (kernel/sched/membarrier.c), and BPF programs run inside read-side sections.
fn grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Not available (nohz_full): far longer than any program runs.
        std::thread::sleep(Duration::from_millis(100));
    }
}
