//! Registered instances that are lost: their lease runs out, or their process ends.

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
use crate::api::types::{ApiError, RegistrationStatus};
use crate::control::leave::{self, Absence};
use crate::control::register::{Registration, Watch};
use crate::control::state::{InstanceState, State};
use crate::release::hook::birth;

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

    /// An instance is there: its lease begins anew, and its process is watched.
    pub fn renew(&self, backend: u32) {
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
                Ok(why.is_some() && leave::lose(state, backend))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(lease_s: Option<f64>, watch: Option<Watch>) -> InstanceState {
        let registration = Registration { lease_s, watch, ..Registration::default() };
        InstanceState {
            id: "a".to_owned(),
            addr: "10.0.0.1:80".parse().unwrap(),
            weight: 1,
            server_id: None,
            sockets: None,
            backend: 7,
            epoch: 1,
            down: None,
            drain: None,
            orphaned: false,
            closed_at: 0,
            released: None,
            registered: Some(registration),
            absence: None,
        }
    }

    #[test]
    fn leases_run_from_the_first_look_or_the_last_renewal() {
        let renewals = Renewals::default();
        let short = instance(Some(0.05), None);
        assert!(renewals.look(&short).unwrap().is_some(), "nobody could renew before");
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(renewals.look(&short).unwrap_err(), "it did not renew its lease of 0.05 s");
        assert_eq!(renewals.status(&short).unwrap().lease_left_s, Some(0.0));
        renewals.renew(7);
        assert!(renewals.look(&short).unwrap().is_some());
        let mut gone = short.clone();
        gone.orphaned = true;
        assert_eq!(renewals.look(&gone), Ok(None), "lost once");
        assert_eq!(renewals.look(&instance(None, None)), Ok(None), "for ever");
        // Ids that are free are others' next.
        renewals.keep(&State::default());
        assert!(lock(&renewals.at).is_empty());
    }

    /// The number of a process that ended may be another's by now.
    #[test]
    fn a_process_is_itself_alone() {
        let pid = std::process::id();
        let born = birth(pid).unwrap();
        let renewals = Renewals::default();
        assert_eq!(renewals.look(&instance(None, Some(Watch { pid, born }))), Ok(None));
        let another = instance(None, Some(Watch { pid, born: born - 1 }));
        assert_eq!(renewals.look(&another), Err(format!("its process {pid} has ended")));
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = tokio::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = child.id().unwrap();
        let watch = Watch { pid, born: birth(pid).unwrap() };
        // One that had the number before has ended long ago.
        ended(Watch { born: watch.born - 1, ..watch }).await.unwrap();
        let watching = tokio::spawn(ended(watch));
        tokio::task::yield_now().await;
        assert!(!watching.is_finished());
        child.start_kill().unwrap();
        tokio::time::timeout(Duration::from_secs(20), watching).await.unwrap().unwrap().unwrap();
        assert_eq!(birth(pid), None);
    }
}
