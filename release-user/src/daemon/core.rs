//! The daemon's one place that changes anything: state, store, maps.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Mutex, Notify};

use super::clock;
use super::events::{self, EventHub};
use super::rates::Rates;
use crate::api::types::{ApiError, ErrorCode, InForce};
use crate::config::Config;
use crate::control::plan::Desired;
use crate::control::reconcile::reconcile;
use crate::control::state::{DrainState, ServiceState, State};
use crate::control::{apply, commands};
use crate::kernel::{Clock, KernelError, Links, Loaded, Maps, Programs};
use crate::net::netlink::Interface;
use crate::net::sysctl::Found;
use crate::paths::Paths;
use crate::store::{Store, StoreError};
use crate::verdict::occupation::Decline;
use crate::verdict::walk::Walk;

impl From<KernelError> for ApiError {
    fn from(error: KernelError) -> Self {
        match &error {
            KernelError::Incompatible { .. } => Self::new(ErrorCode::Conflict, error.to_string())
                .hint(
                    "another version of the program made it; `releasectl detach` takes it down \
                     (live connections are then adopted anew)",
                ),
            KernelError::Absent { .. } => Self::new(ErrorCode::Conflict, error.to_string())
                .hint("start the daemon first: releasectl daemon"),
            _ => Self::new(ErrorCode::Internal, error.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }
}

/// What only one task at a time may touch.
pub struct Core {
    /// Maps, for writing.
    pub maps: Maps,
    /// Programs, for attaching.
    pub loaded: Loaded,
    /// Pinned links.
    pub links: Links,
    /// Where traffic goes.
    pub state: State,
    /// Where that is kept.
    pub store: Box<dyn Store>,
    /// What exists.
    pub config: Arc<Config>,
    /// Interfaces as last seen.
    pub interfaces: Vec<Interface>,
    /// Kernel settings as they were found.
    pub found: Found,
    /// Taken down: nothing is to be brought up again.
    pub down: bool,
    /// Hold the state folder and the pins.
    pub _locks: [File; 2],
}

/// The daemon.
pub struct Daemon {
    /// Its four paths.
    pub paths: Paths,
    /// What only one task at a time may touch.
    pub core: Mutex<Core>,
    /// Maps, for reading: walks do not wait for writers.
    pub reader: Maps,
    /// Programs, for running.
    pub programs: Programs,
    /// The kernel's clock.
    pub clock: Clock,
    /// Ids of the maps.
    pub map_ids: super::epoch::MapIds,
    /// Events.
    pub events: EventHub,
    /// Rates lately.
    pub rates: std::sync::Mutex<Rates>,
    /// Drained targets (service, version or instance) whose last verdict was `idle`.
    pub idle: std::sync::Mutex<HashSet<(String, String)>>,
    /// Whoever can be asked for sockets.
    pub witnesses: super::witnesses::Witnesses,
    /// Which instances are able to serve.
    pub health: super::health::Health,
    /// What the host lacks.
    pub warnings: std::sync::Mutex<super::warnings::Found>,
    /// Services whose gauge is off.
    pub drifts: std::sync::Mutex<super::selfcheck::Drifts>,
    /// How the flows of drained targets become fewer.
    pub declines: std::sync::Mutex<HashMap<(String, String), Decline>>,
    /// Looks at instances that were removed.
    pub orphans: std::sync::Mutex<super::retire::Orphans>,
    /// What is known of silent connections.
    pub prober: std::sync::Mutex<super::prober::Prober>,
    /// Which connections that were ended on order have been written down.
    pub recorded: std::sync::Mutex<super::forced::Recorded>,
    /// Releases under way.
    pub releases: super::release::Releases,
    /// When registered instances renewed.
    pub renewals: super::renewals::Renewals,
    /// Told to look at the host before it is time.
    pub look: Notify,
    /// Told to stop.
    pub stop: Notify,
}

impl Core {
    /// Puts one service's next state in force: store, then maps, then memory.
    ///
    /// # Errors
    /// The store's or the kernel's. If the maps could not be written the stored state is completed
    /// by the next start or change.
    pub fn put_in_force(&mut self, next: ServiceState) -> Result<(), ApiError> {
        self.store.save(&next)?;
        let id = next.id;
        // What is stored is the truth from here on, even if the kernel fails to follow.
        if let Some(slot) = self.state.service_mut(&next.name) {
            *slot = next;
        }
        let desired = Desired::of_one(&self.state, &self.config, id);
        apply::apply(&mut self.maps, &desired, Some(id))?;
        Ok(())
    }

    /// Brings state and maps in line with a configuration. Returns the changes in words.
    ///
    /// # Errors
    /// As above.
    pub fn adopt_config(&mut self, config: Arc<Config>) -> Result<Vec<String>, ApiError> {
        let epoch = self.maps.meta()?.evidence_epoch;
        let (state, changes) = reconcile(&self.state, &config, epoch)?;
        self.store_all(&state)?;
        self.state = state;
        self.config = config;
        self.apply_all()?;
        Ok(changes)
    }

    /// Stores what differs between the present state and `next`.
    fn store_all(&mut self, next: &State) -> Result<(), ApiError> {
        for service in &next.services {
            if self.state.service(&service.name) != Some(service) {
                self.store.save(service)?;
            }
        }
        for gone in &self.state.services {
            if next.service(&gone.name).is_none() {
                self.store.remove(&gone.name)?;
            }
        }
        Ok(())
    }

    /// Replaces the state by one without what has no entries any more.
    ///
    /// # Errors
    /// As above.
    pub fn replace_state(&mut self, next: State) -> Result<(), ApiError> {
        self.store_all(&next)?;
        self.state = next;
        self.apply_all()
    }

    /// Refuses what would bring up a data plane that was taken down.
    ///
    /// # Errors
    /// Conflict.
    pub fn up(&self) -> Result<(), ApiError> {
        if self.down {
            return Err(ApiError::new(ErrorCode::Conflict, "daemon: was detached and is ending"));
        }
        Ok(())
    }

    /// Brings all maps to the state.
    ///
    /// # Errors
    /// The kernel's.
    pub fn apply_all(&mut self) -> Result<(), ApiError> {
        let desired = Desired::of(&self.state, &self.config);
        apply::apply(&mut self.maps, &desired, None)?;
        Ok(())
    }
}

impl Daemon {
    /// Carries out a command on one service and puts the result in force.
    ///
    /// # Errors
    /// The command's, the store's or the kernel's.
    pub async fn change(
        &self,
        service: &str,
        command: impl FnOnce(&mut ServiceState) -> Result<bool, ApiError>,
    ) -> Result<InForce, ApiError> {
        self.change_knowing(service, |_, _, _, next| command(next)).await
    }

    /// As [`Daemon::change`], for a command that has to know the whole state, the configuration and
    /// the evidence epoch.
    ///
    /// # Errors
    /// As there.
    pub async fn change_knowing(
        &self,
        service: &str,
        command: impl FnOnce(&State, &Config, u32, &mut ServiceState) -> Result<bool, ApiError>,
    ) -> Result<InForce, ApiError> {
        let start = Instant::now();
        let mut core = self.core.lock().await;
        core.up()?;
        let mut next = commands::service_mut(&mut core.state, service)?.clone();
        let epoch = core.maps.meta()?.evidence_epoch;
        let changed = command(&core.state, &core.config, epoch, &mut next)?;
        let (generation, weights) = (next.generation, next.weights());
        if changed {
            lock(&self.idle).retain(|(name, _)| name != service);
            // A millisecond or two of system calls.
            tokio::task::block_in_place(|| core.put_in_force(next))?;
        } else {
            // What is stored may not be in force: an earlier attempt failed half-way. This only
            // compares if it is.
            tokio::task::block_in_place(|| core.apply_all())?;
        }
        Ok(InForce {
            service: service.to_owned(),
            generation,
            weights,
            changed,
            took_ms: start.elapsed().as_secs_f64() * 1000.0,
        })
    }

    /// Looks the tables through.
    ///
    /// # Errors
    /// The kernel's.
    pub fn walk(&self) -> Result<Walk, ApiError> {
        let now = self.jiffies()?;
        Ok(looking(|| Walk::take(&self.reader, now))?)
    }

    /// Jiffies now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn jiffies(&self) -> Result<u64, ApiError> {
        Ok(self.programs.jiffies()?)
    }

    /// Whether the last verdict on a drained target was `idle`.
    pub fn is_idle(&self, service: &str, target: &str) -> bool {
        lock(&self.idle).contains(&(service.to_owned(), target.to_owned()))
    }

    /// A copy of the state.
    pub async fn state(&self) -> State {
        self.core.lock().await.state.clone()
    }
}

/// Looks tables through: that takes a tenth of a second for a million entries, in which whoever asks
/// the daemon something is not to wait for a thread.
pub fn looking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Locks what is consistent at any moment: a panic elsewhere has left nothing half-done in it.
pub fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A drain that begins now.
pub fn drain_from_now() -> DrainState {
    DrainState {
        since: events::now(),
        since_boot_ms: clock::since_boot_ms(),
        ..DrainState::default()
    }
}

/// "v1 0, v2 100".
pub fn describe_weights(weights: &BTreeMap<String, u32>) -> String {
    let parts: Vec<String> =
        weights.iter().map(|(name, weight)| format!("{name} {weight}")).collect();
    parts.join(", ")
}
