//! Releases under way: each is a task that carries one out.

mod alarm;
mod begin;
mod hands;
mod judging;
mod live;
mod moves;
mod sampling;
mod show;
mod webhook;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::hands::Hands;
pub use self::webhook::token;
use super::core::{Daemon, lock};
use crate::api::release::{OrderRequest, ReleaseLine};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::Config;
use crate::control::state::State;
use crate::release::journal::Journal;
use crate::release::machine::{Event, Refused, Release};
use crate::release::runner::{Order, World as _, arrive, carry_out};
use crate::store::StoreError;

/// How long the end of the daemon waits for hooks that run.
const GRACE: Duration = Duration::from_secs(60);
/// How long after something could not be written down it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A release that is to be carried out, and where orders come from.
type Begun = (Release, mpsc::Receiver<Order>);

/// Releases of this daemon.
pub struct Releases {
    journal: Mutex<Box<dyn Journal + Send>>,
    running: Mutex<HashMap<u64, Running>>,
    begun: mpsc::UnboundedSender<Begun>,
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Begun>>>,
    stop: watch::Sender<bool>,
}

/// What is known of a release under way that is not written down.
struct Running {
    orders: mpsc::Sender<Order>,
    /// Why the part that is drained is not idle.
    reasons: Vec<String>,
    /// How many of the instances waited for are live.
    live: Option<usize>,
}

impl Releases {
    /// With none under way.
    pub fn new(journal: Box<dyn Journal + Send>) -> Self {
        let (begun, waiting) = mpsc::unbounded_channel();
        Self {
            journal: Mutex::new(journal),
            running: Mutex::default(),
            begun,
            waiting: Mutex::new(Some(waiting)),
            stop: watch::channel(false).0,
        }
    }

    /// Has a release carried out, unless it is: one that is started while the journal is read is
    /// found there, too.
    fn carry(&self, release: Release) {
        let (orders, receiver) = mpsc::channel(8);
        match lock(&self.running).entry(release.id) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => {
                place.insert(Running { orders, reasons: Vec::new(), live: None });
            }
        }
        // Nobody to receive it: the daemon ends, and the next one finds it in the journal.
        let _ = self.begun.send((release, receiver));
    }

    fn note(&self, id: u64, change: impl FnOnce(&mut Running)) {
        if let Some(running) = lock(&self.running).get_mut(&id) {
            change(running);
        }
    }

    /// Nothing more is begun.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Daemon {
    /// Goes on with what the journal has, and carries out what is started, until told to stop.
    pub async fn carry_releases(self: Arc<Self>) {
        let Some(mut begun) = lock(&self.releases.waiting).take() else { return };
        match self.journal().releases(None, false) {
            Ok(under_way) => {
                for release in under_way.into_iter().rev() {
                    log::info!("release {} of {} goes on", release.id, release.service);
                    self.releases.carry(release);
                }
            }
            Err(error) => log::error!("releases cannot be resumed: {error}"),
        }
        let mut stopped = self.releases.stop.subscribe();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some((release, orders)) = begun.recv() => {
                    tasks.spawn(Arc::clone(&self).carry_one(release, orders));
                }
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        log::error!("a release stands still until the daemon is restarted: {error}");
                    }
                }
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(GRACE, all).await.is_err() {
            log::warn!("hooks of releases still run after {GRACE:?}: they are ended");
        }
    }

    async fn carry_one(self: Arc<Self>, release: Release, mut orders: mpsc::Receiver<Order>) {
        let id = release.id;
        let (hands, events) = Hands::new(Arc::clone(&self), &release);
        let (over, ended) = oneshot::channel();
        let samples = self.sample_release(release.clone(), ended);
        let work = async {
            let mut release = release;
            loop {
                let carried = match hands.on_firm_ground(&release).await {
                    Ok(next) => {
                        // Killed before it was raised, if it was.
                        lock(&hands.alarm).follow(&hands, &next);
                        carry_out(&hands, next, &mut orders).await
                    }
                    Err(error) => Err(error),
                };
                match carried {
                    Ok(_) => break,
                    Err(error) => {
                        hands.cannot_write(&error);
                        let mut stopped = self.releases.stop.subscribe();
                        tokio::select! {
                            () = sleep(AGAIN) => {}
                            _ = stopped.wait_for(|stop| *stop) => break,
                        }
                        if let Ok(Some(stored)) = self.journal().release(id) {
                            release = stored;
                        }
                    }
                }
            }
            // Nothing more comes: the hook `event` ends with what it has.
            hands.close();
            drop(over);
        };
        tokio::join!(work, events, samples);
        lock(&self.releases.running).remove(&id);
    }

    /// Tells a release under way what somebody said.
    ///
    /// # Errors
    /// Conflict if it cannot be now, usage if there is no such release.
    pub async fn order(&self, request: OrderRequest) -> Result<ReleaseLine, ApiError> {
        let release = self.find_release(&request.release, true)?;
        let orders = lock(&self.releases.running).get(&release.id).map(|one| one.orders.clone());
        let over = || {
            let text = format!("release {}: is {}, it is over", release.id, release.state());
            ApiError::new(ErrorCode::Conflict, text)
        };
        let Some(orders) = orders else { return Err(over()) };
        let (answer, answered) = oneshot::channel();
        orders.send((request.command, answer)).await.map_err(|_| over())?;
        let moved = answered.await.map_err(|_| {
            let text = format!("release {}: the order could not be written down", release.id);
            ApiError::new(ErrorCode::Internal, text).hint("the daemon's log has the reason")
        })?;
        self.release_line(&moved.map_err(ApiError::from)?)
    }

    /// Refuses what would get in the way of a release of a service, unless it waits for somebody.
    ///
    /// # Errors
    /// Conflict.
    pub fn not_in_release(&self, service: &str) -> Result<(), ApiError> {
        match self.under_way(service)? {
            Some(release) if !release.phase.waits() => Err(ApiError::new(
                ErrorCode::Conflict,
                format!("service {service}: release {} is {}", release.id, release.state()),
            )
            .hint(format!(
                "it does this by itself; else first: releasectl release pause {service}, or abort"
            ))),
            _ => Ok(()),
        }
    }

    /// Where releases are written down.
    pub fn journal(&self) -> JournalGuard<'_> {
        JournalGuard(lock(&self.releases.journal))
    }
}

/// Refuses a configuration that takes away what a release is about.
///
/// # Errors
/// Conflict, or the store's.
pub fn keeps_releases(
    journal: &(impl Journal + ?Sized),
    state: &State,
    next: &Config,
) -> Result<(), ApiError> {
    for release in journal.releases(None, false)? {
        let service = state.service(&release.service);
        // What registered itself is in no configuration.
        let configured = |name: &str| {
            let version = service.and_then(|service| service.version(name));
            version.is_some_and(|version| !version.removed && !version.registered)
        };
        let stays =
            |name: &str| next.service(&release.service).is_some_and(|s| s.version(name).is_some());
        let lost = |name: &&&String| configured(name) && !stays(name);
        if let Some(version) = [&release.from, &release.to].iter().find(lost) {
            let text = format!(
                "version {}/{version}: release {} is about it, and is {}",
                release.service,
                release.id,
                release.state()
            );
            return Err(ApiError::new(ErrorCode::Conflict, text)
                .hint("take it out when that is over, or abort it first"));
        }
    }
    Ok(())
}

/// The journal, for as long as this is held.
pub struct JournalGuard<'a>(MutexGuard<'a, Box<dyn Journal + Send>>);

impl Deref for JournalGuard<'_> {
    type Target = dyn Journal + Send;

    fn deref(&self) -> &Self::Target {
        &**self.0
    }
}

impl DerefMut for JournalGuard<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut **self.0
    }
}

impl Hands {
    /// The release as it is now: what was proven and is not used yet may hold no more.
    async fn on_firm_ground(self: &Arc<Self>, release: &Release) -> Result<Release, StoreError> {
        let Some(proof) = release.phase.proof() else { return Ok(release.clone()) };
        match release.after(&Event::Void) {
            Ok(next) if !self.holds(release, proof).await => {
                arrive(self, release, next, &Event::Void)
            }
            _ => Ok(release.clone()),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(ErrorCode::Conflict, refused.to_string())
    }
}
