//! Are instances live? And warming them up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::time::sleep;

use super::hands::{Hands, find};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::Protocol;
use crate::control::state::{InstanceState, ServiceState};
use crate::health::{Check, probe};
use crate::release::hook::{self, Outcome};
use crate::release::machine::Release;
use crate::release::phase::Point;
use crate::release::runner::World as _;
use crate::release::words::one_line;

/// How often instances are asked whether they are live.
const EVERY: Duration = Duration::from_millis(500);
/// How long a connection to an instance may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one request of the warm-up may take: caches are cold.
const WARM: Duration = Duration::from_secs(30);

impl Hands {
    /// Waits until so many of some instances are live.
    pub(super) async fn ready(
        self: &Arc<Self>,
        release: &Release,
        instances: &[String],
        count: usize,
    ) -> Result<(), ApiError> {
        let mut told = None;
        loop {
            let why = self.not_live(release, instances).await;
            let live = instances.len() - why.len();
            self.daemon.releases.note(self.id, |running| running.reasons.clone_from(&why));
            if told != Some(live) {
                told = Some(live);
                let all = instances.len();
                let more =
                    if live < count { format!(": {}", why.join("; ")) } else { String::new() };
                let text = format!("{live}/{all} instances live, {count} needed{more}");
                self.note(release, "live", text, json!({ "live": live, "of": all, "not": why }));
            }
            if live >= count {
                self.daemon.releases.note(self.id, |running| running.reasons.clear());
                return Ok(());
            }
            sleep(EVERY).await;
        }
    }

    /// Asks some instances whether they are live, and returns why those are not that are not.
    pub(super) async fn not_live(
        self: &Arc<Self>,
        release: &Release,
        instances: &[String],
    ) -> Vec<String> {
        let asked = instances.iter().map(|id| self.is_live(release, id));
        let why: Vec<String> = join_all(asked).await.into_iter().filter_map(Result::err).collect();
        let live = instances.len() - why.len();
        self.daemon.releases.note(self.id, |running| running.live = Some(live));
        why
    }

    /// Whether an instance is live: its health check, or else a connection, says so, and so does the
    /// hook `probe`.
    ///
    /// # Errors
    /// Why it is not.
    async fn is_live(self: &Arc<Self>, release: &Release, id: &str) -> Result<(), String> {
        let not = |why: String| format!("{id}: {why}");
        let state = self.state().await;
        let found = state.as_ref().and_then(|service| Some((service, find(service, id)?)));
        let Some((service, instance)) = found else { return Err(not("is gone".to_owned())) };
        match self.daemon.health_of(&release.service, id) {
            Some(true) => {}
            Some(false) => return Err(not("its health check says it is down".to_owned())),
            None if answers_here(service) => {
                let asked = probe(&Check::Tcp, id, instance.addr, CONNECT);
                asked.await.map_err(|why| not(why.to_string()))?;
            }
            None => {}
        }
        let Some(hook) = release.hook(Point::Probe) else { return Ok(()) };
        let call = self.call(release, Point::Probe, Some(id), None).await;
        let ran = hook::run(hook, &call, |_| ()).await;
        match ran.outcome {
            Outcome::Done => Ok(()),
            Outcome::NotYet => Err(not("hook probe: not yet".to_owned())),
            Outcome::Failed(why) => {
                Err(not(format!("hook probe: {why} {}", one_line(&ran.output))))
            }
        }
    }

    /// Sends each live instance of the new version requests of our own. They go straight to it, so
    /// that nothing counts them. One that the threshold for `ready` does without is left alone.
    pub(super) async fn warm_up(
        self: &Arc<Self>,
        release: &Release,
        requests: u32,
        path: Option<&str>,
        concurrency: u32,
    ) -> Result<(), ApiError> {
        let state = self.state().await;
        let check = path.map_or(Check::Tcp, |path| Check::Http(path.to_owned()));
        let asked = release.instances.iter().map(|id| async move {
            let live = self.is_live(release, id).await;
            live.inspect_err(|why| {
                let text = format!("{why}: not live, not warmed up");
                self.note(release, "warm-up", text, json!({ "instance": id, "requests": 0 }));
            })
            .ok()
            .map(|()| id)
        });
        let live = join_all(asked).await.into_iter().flatten();
        let instances: Vec<InstanceState> =
            live.filter_map(|id| find(state.as_ref()?, id).cloned()).collect();
        if instances.is_empty() {
            let text = "warm-up: no instance is live";
            return Err(ApiError::new(ErrorCode::Internal, text));
        }
        let warm = instances.iter().map(|instance| {
            let one = |_| probe(&check, &instance.id, instance.addr, WARM);
            let all = stream::iter(0..requests).map(one).buffer_unordered(concurrency as usize);
            all.fold((0u32, None), |(failed, first), said| async move {
                match said {
                    Ok(()) => (failed, first),
                    Err(why) => (failed + 1, first.or(Some(why))),
                }
            })
        });
        let mut cold = Vec::new();
        for (instance, (failed, why)) in instances.iter().zip(join_all(warm).await) {
            let why = why.map(|why| why.to_string()).unwrap_or_default();
            let text = match failed {
                0 => format!("{}: warm after {requests} requests", instance.id),
                _ => format!("{}: {failed} of {requests} failed: {why}", instance.id),
            };
            let data = json!({ "instance": instance.id, "requests": requests, "failed": failed });
            self.note(release, "warm-up", text, data);
            // Some may fail while it warms up. All of them: it serves nobody.
            if failed == requests {
                cold.push(format!("{}: {why}", instance.id));
            }
        }
        if cold.is_empty() {
            return Ok(());
        }
        let text = format!("warm-up: no request succeeded: {}", cold.join("; "));
        Err(ApiError::new(ErrorCode::Internal, text))
    }
}

/// Whether its instances accept TCP connections at their own addresses. In one-way modes they may
/// listen at the frontend's alone.
fn answers_here(service: &ServiceState) -> bool {
    !service.settings.mode.is_one_way() && service.protocols().any(|p| p == Protocol::Tcp)
}
