//! Instances that register themselves, ask to leave, or are lost.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::core::{Daemon, lock};
use super::idle::Subject;
use super::report::absence_word;
use super::{clock, events};
use crate::api::types::{
    ApiError, DeregisterRequest, Deregistered, ErrorCode, InForce, MaintRequest, Offline,
    OfflineRequest, RegisterRequest, Registered, RegistrationStatus, RetireRequest, SCHEMA,
};
use crate::config::{Endpoint, InstanceId, InstanceWeight, Invalid, Name};
use crate::control::commands::service_mut;
use crate::control::register::{self, Absence, Entry, Registration, Watch};
use crate::control::state::{DrainState, InstanceState, ServiceState, State};
use crate::net::namespace::pid_namespace;
use crate::release::hook::birth;

/// Shortest and longest lease.
const LEASES: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Who renewed when. It is not kept over a restart: while there is no daemon nobody can renew, so
/// leases begin anew with it.
#[derive(Default)]
pub struct Renewals {
    at: std::sync::Mutex<HashMap<u32, Instant>>,
    changed: Notify,
}

impl Renewals {
    /// What is left of an instance's lease.
    fn left(&self, backend: u32, lease_s: f64) -> Duration {
        let renewed = *lock(&self.at).entry(backend).or_insert_with(Instant::now);
        Duration::from_secs_f64(lease_s).saturating_sub(renewed.elapsed())
    }

    fn renew(&self, backend: u32) {
        lock(&self.at).insert(backend, Instant::now());
        self.changed.notify_one();
    }

    fn keep(&self, state: &State) {
        let known: HashSet<u32> = state.instances().map(|(_, _, i)| i.backend).collect();
        lock(&self.at).retain(|backend, _| known.contains(backend));
    }

    /// A registration for `instance list`.
    pub fn status(&self, instance: &InstanceState) -> Option<RegistrationStatus> {
        let Registration { at, meta, lease_s, watch } = instance.registered.as_ref()?;
        let running = lease_s.filter(|_| !instance.orphaned);
        Some(RegistrationStatus {
            at: at.clone(),
            meta: meta.clone(),
            lease_s: *lease_s,
            lease_left_s: running.map(|lease| self.left(instance.backend, lease).as_secs_f64()),
            watch_pid: watch.map(|watch| watch.pid),
        })
    }

    /// Why an instance is lost, or how long its lease lasts.
    fn look(&self, instance: &InstanceState) -> Result<Option<Duration>, String> {
        let Some(registered) = instance.registered.as_ref().filter(|_| !instance.orphaned) else {
            return Ok(None);
        };
        if let Some(Watch { pid, born }) = registered.watch
            && birth(pid) != Some(born)
        {
            return Err(format!("its process {pid} has ended"));
        }
        let Some(lease) = registered.lease_s else { return Ok(None) };
        match self.left(instance.backend, lease) {
            Duration::ZERO => Err(format!("it did not renew its lease of {lease} s")),
            left => Ok(Some(left)),
        }
    }
}

impl Daemon {
    /// Registers an instance, or renews what it registered.
    ///
    /// # Errors
    /// As [`register::register`]; usage for what is no address, name, weight or process.
    pub async fn register_instance(
        &self,
        request: RegisterRequest,
    ) -> Result<Registered, ApiError> {
        let entry = entry(request)?;
        let (service, id) = (entry.service.clone(), entry.id.to_string());
        let mut backend = 0;
        let done = self
            .change_knowing(&service, |state, config, epoch, next| {
                let (registered, changed) = register::register(state, config, epoch, &entry)?;
                *next = registered;
                backend = register::find(next, &id)?.1.backend;
                // Under the lock, so that no look in between finds the old one.
                self.renewals.renew(backend);
                Ok(changed)
            })
            .await?;
        let answer = self.registered(&service, &id, &done).await?;
        if done.changed {
            let Registered { version, addr, state, generation, .. } = &answer;
            let text = format!(
                "{service}/{version}/{id} at {addr} is registered, {state}, generation {generation}"
            );
            self.events.publish("registered", Some(&service), Some(&id), text);
            // Whether the host can reach it, and who is to be asked for its address.
            if let Err(error) = self.look_at_host().await {
                log::error!("{error}");
            }
        }
        Ok(answer)
    }

    async fn registered(
        &self,
        service: &str,
        id: &str,
        done: &InForce,
    ) -> Result<Registered, ApiError> {
        let mut state = self.state().await;
        let (version, instance) = register::find(service_mut(&mut state, service)?, id)?;
        let registration = instance.registered.clone().unwrap_or_default();
        let draining = !instance.in_ring() || version.drain.is_some();
        let word = absence_word(instance).unwrap_or(if draining { "draining" } else { "active" });
        Ok(Registered {
            schema: SCHEMA,
            service: service.to_owned(),
            version: version.name.clone(),
            id: id.to_owned(),
            addr: instance.addr.to_string(),
            backend: instance.backend,
            state: word.to_owned(),
            generation: done.generation,
            at: registration.at,
            lease_s: registration.lease_s,
            changed: done.changed,
        })
    }

    /// Takes a registered instance out; it is forgotten once it is idle, or at once by force.
    ///
    /// # Errors
    /// As [`register::deregister`].
    pub async fn deregister_instance(
        &self,
        request: DeregisterRequest,
    ) -> Result<Deregistered, ApiError> {
        let DeregisterRequest { service, id, force, allow_empty } = request;
        let done = self
            .change(&service, |state| register::deregister(state, &id, allow_empty || force))
            .await?;
        if done.changed {
            let text = format!("{service}/{id} was deregistered and is kept until its flows end");
            self.events.publish("deregistered", Some(&service), Some(&id), text);
        }
        let mut state = self.state().await;
        let (version, instance) = register::find(service_mut(&mut state, &service)?, &id)?;
        let (mut receipt, mut lost) = match &instance.released {
            Some(by) => (by.receipt, by.lost.clone()),
            None => (None, Vec::new()),
        };
        let version = version.name.clone();
        if force {
            let request =
                RetireRequest { service: service.clone(), target: id.clone(), force: true };
            let retired = self.retire_target(&request).await?;
            (receipt, lost) = (retired.receipt, retired.lost);
        }
        let (generation, changed) = (done.generation, done.changed);
        Ok(Deregistered {
            schema: SCHEMA,
            service,
            version,
            id,
            generation,
            receipt,
            lost,
            changed,
        })
    }

    /// The instance asks to go offline: it gets no new flows, and is told that it may shut down
    /// once it is idle.
    ///
    /// # Errors
    /// As [`register::absent`].
    pub async fn offline_instance(&self, request: OfflineRequest) -> Result<Offline, ApiError> {
        let OfflineRequest { service, id, deadline_s, allow_empty } = request;
        let drain = DrainState { deadline_s, ..begins_now() };
        let done = self
            .change(&service, |state| {
                register::absent(state, &id, Absence::Offline, &drain, allow_empty)
            })
            .await?;
        let mut state = self.state().await;
        let of = service_mut(&mut state, &service)?;
        let (version, instance) = register::find(of, &id)?;
        let receipt = match &instance.released {
            Some(by) => by.receipt,
            None => self.receipt_in_force(&Subject::find(of, &id)?, &id).await?,
        };
        if done.changed {
            let text = format!("{service}/{id} goes offline, generation {}", done.generation);
            self.events.publish("offline", Some(&service), Some(&id), text);
        }
        Ok(Offline {
            schema: SCHEMA,
            service,
            version: version.name.clone(),
            id,
            shutdown: true,
            since: instance.drain.as_ref().map(|drain| drain.since.clone()),
            generation: done.generation,
            receipt,
            changed: done.changed,
        })
    }

    /// Begins or ends maintenance of an instance.
    ///
    /// # Errors
    /// As [`register::absent`] and [`register::present`].
    pub async fn maintain_instance(&self, request: MaintRequest) -> Result<InForce, ApiError> {
        let MaintRequest { service, id, on, allow_empty } = request;
        let command = |state: &mut ServiceState| {
            if on {
                register::absent(state, &id, Absence::Maint, &begins_now(), allow_empty)
            } else {
                register::present(state, &id)
            }
        };
        let done = self.change(&service, command).await?;
        if done.changed {
            let what = if on { "is in maintenance" } else { "is back from maintenance" };
            let text = format!("{service}/{id} {what}, generation {}", done.generation);
            self.events.publish("maint", Some(&service), Some(&id), text);
        }
        Ok(done)
    }

    /// Takes out those who are lost, until told to stop.
    pub async fn watch_registered(self: Arc<Self>) {
        let mut ends = JoinSet::new();
        let mut watched = HashSet::new();
        loop {
            let next = match self.look_at_registered(&mut watched, &mut ends).await {
                Ok(next) => next,
                Err(error) => {
                    log::error!("{error}");
                    Some(Instant::now() + AGAIN)
                }
            };
            let due = async {
                match next {
                    Some(next) => sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.renewals.changed.notified() => {}
                Some(ended) = ends.join_next(), if !ends.is_empty() => {
                    if let Ok(ended) = ended {
                        watched.remove(&ended);
                    }
                }
            }
        }
    }

    /// Takes out those who are lost now; when to look again for leases, if there are any.
    async fn look_at_registered(
        &self,
        watched: &mut HashSet<Watch>,
        ends: &mut JoinSet<Watch>,
    ) -> Result<Option<Instant>, ApiError> {
        let state = self.state().await;
        self.renewals.keep(&state);
        let mut next: Option<Duration> = None;
        for (service, _, instance) in state.instances() {
            match self.renewals.look(instance) {
                Ok(left) => next = left.or(next).map(|left| left.min(next.unwrap_or(left))),
                Err(_) => self.lose(&service.name, instance).await?,
            }
            let watch = instance.registered.as_ref().and_then(|registered| registered.watch);
            if let Some(watch) = watch
                && !instance.orphaned
                && watched.insert(watch)
            {
                ends.spawn(async move {
                    if let Err(error) = ended(watch).await
                        && birth(watch.pid) == Some(watch.born)
                    {
                        log::warn!("process {}: {error}", watch.pid);
                        sleep(AGAIN).await;
                    }
                    watch
                });
            }
        }
        Ok(next.map(|left| Instant::now() + left))
    }

    async fn lose(&self, service: &str, instance: &InstanceState) -> Result<(), ApiError> {
        let (id, backend) = (instance.id.as_str(), instance.backend);
        let mut why = None;
        let leaving = instance.absence == Some(Absence::Offline);
        let done = self
            .change(service, |state| {
                // It may have renewed meanwhile.
                let now = state.instances().find(|(_, i)| i.backend == backend);
                why = now.and_then(|(_, instance)| self.renewals.look(instance).err());
                Ok(why.is_some() && register::lose(state, backend))
            })
            .await?;
        let Some(why) = why.filter(|_| done.changed) else { return Ok(()) };
        if leaving {
            let text = format!("{service}/{id} has gone offline: {why}");
            self.events.publish("deregistered", Some(service), Some(id), text);
        } else {
            let text = format!(
                "{service}/{id} is lost: {why}; it gets no new flows, and is kept until its own end"
            );
            self.events.publish("instance-lost", Some(service), Some(id), text);
        }
        Ok(())
    }
}

fn begins_now() -> DrainState {
    DrainState {
        since: events::now(),
        since_boot_ms: clock::monotonic().as_millis() as u64,
        ..DrainState::default()
    }
}

/// What is asked for, checked value by value.
fn entry(request: RegisterRequest) -> Result<Entry, ApiError> {
    let RegisterRequest { service, version, addr, id, weight, meta, lease_s, .. } = request;
    let usage = |what: &str, why: &str| ApiError::new(ErrorCode::Usage, format!("{what}: {why}"));
    let invalid = |what: &'static str| {
        move |invalid: Invalid| {
            let error = usage(what, invalid.what());
            match invalid.hint_text() {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
    };
    let addr = Endpoint::parse(&addr).map_err(invalid("address"))?;
    let version = Name::new(&version).map_err(invalid("version"))?;
    let id = match id {
        // Its default, said aloud.
        Some(text) if text == addr.to_string() => addr.into(),
        Some(text) => Name::new(&text).map_err(invalid("id"))?.into(),
        None => InstanceId::from(addr),
    };
    if let Some(lease) = lease_s.filter(|lease| !LEASES.contains(lease)) {
        return Err(usage("lease", &format!("{lease} s is out of range (1s to 1day)")));
    }
    let watch = match request.watch_pid {
        None => None,
        Some(pid) => {
            if request.pid_namespace.is_some_and(|theirs| Some(theirs) != pid_namespace()) {
                let why = format!("process {pid} is in another PID namespace than the daemon");
                return Err(usage("watch-pid", &why).hint("take a lease"));
            }
            let born = birth(pid).ok_or_else(|| {
                usage("watch-pid", &format!("there is no process {pid}"))
                    .hint("of processes of other hosts, take a lease")
            })?;
            Some(Watch { pid, born })
        }
    };
    Ok(Entry {
        service,
        version: version.to_string(),
        id,
        addr,
        weight: InstanceWeight::new(weight.into()).map_err(invalid("weight"))?,
        registration: Registration { at: events::now(), meta, lease_s, watch },
    })
}

/// Waits for the end of a process.
async fn ended(watch: Watch) -> io::Result<()> {
    // SAFETY: two integers; no memory is touched.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, watch.pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given it to us, nobody else owns it.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a descriptor that is owned names the same file for as long as it is here.
    let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
    // Another one may have got the number before it was opened.
    if birth(watch.pid) == Some(watch.born) {
        process.readable().await?.retain_ready();
    }
    Ok(())
}
