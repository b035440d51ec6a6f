//! Instances that register themselves, and ask to leave.

use super::core::{Daemon, drain_from_now};
use super::events;
use super::idle::Subject;
use super::report::absence_word;
use crate::api::types::{
    ApiError, DeregisterRequest, Deregistered, ErrorCode, InForce, MaintRequest, Offline,
    OfflineRequest, RegisterRequest, Registered, RetireRequest, SCHEMA,
};
use crate::config::{Endpoint, InstanceId, InstanceWeight, Invalid, Name};
use crate::control::commands::service_mut;
use crate::control::leave::{self, Absence};
use crate::control::register::{self, Entry, Registration, Watch};
use crate::control::state::{DrainState, ServiceState};
use crate::net::namespace::pid_namespace;
use crate::release::hook::birth;

/// Shortest and longest lease.
const LEASES: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

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
                backend = leave::find(next, &id)?.1.backend;
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
            // Whether the host can reach it, and who is to be asked for its address: nobody waits for
            // that, it takes a while for each instance that there is.
            self.look.notify_one();
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
        let (version, instance) = leave::find(service_mut(&mut state, service)?, id)?;
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
    /// As [`leave::deregister`].
    pub async fn deregister_instance(
        &self,
        request: DeregisterRequest,
    ) -> Result<Deregistered, ApiError> {
        let DeregisterRequest { service, id, force, allow_empty } = request;
        let done = self
            .change(&service, |state| leave::deregister(state, &id, allow_empty || force))
            .await?;
        if done.changed {
            let text = format!("{service}/{id} was deregistered and is kept until its flows end");
            self.events.publish("deregistered", Some(&service), Some(&id), text);
        }
        let mut state = self.state().await;
        let (version, instance) = leave::find(service_mut(&mut state, &service)?, &id)?;
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
    /// As [`leave::absent`].
    pub async fn offline_instance(&self, request: OfflineRequest) -> Result<Offline, ApiError> {
        let OfflineRequest { service, id, deadline_s, allow_empty } = request;
        let drain = DrainState { deadline_s, ..drain_from_now() };
        let done = self
            .change(&service, |state| {
                leave::absent(state, &id, Absence::Offline, &drain, allow_empty)
            })
            .await?;
        let mut state = self.state().await;
        let of = service_mut(&mut state, &service)?;
        let (version, instance) = leave::find(of, &id)?;
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
    /// As [`leave::absent`] and [`leave::present`].
    pub async fn maintain_instance(&self, request: MaintRequest) -> Result<InForce, ApiError> {
        let MaintRequest { service, id, on, allow_empty } = request;
        let command = |state: &mut ServiceState| {
            if on {
                leave::absent(state, &id, Absence::Maint, &drain_from_now(), allow_empty)
            } else {
                leave::present(state, &id)
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
}

/// What is asked for, checked value by value.
fn entry(request: RegisterRequest) -> Result<Entry, ApiError> {
    let RegisterRequest { service, version, addr, id, weight, meta, lease_s, .. } = request;
    let usage = |what: &str, why: &str| ApiError::new(ErrorCode::Usage, format!("{what}: {why}"));
    let invalid = |what: &'static str| {
        move |invalid: Invalid| ApiError::invalid(ErrorCode::Usage, what, &invalid)
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
