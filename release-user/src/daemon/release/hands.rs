//! What a release is carried out with: this daemon.

use std::ops::DerefMut;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::core::{Daemon, lock};
use super::super::idle::Subject;
use super::super::{clock, events};
use super::alarm::Alarm;
use crate::api::types::{ApiError, Receipt, SCHEMA};
use crate::control::state::{InstanceState, ServiceState};
use crate::release::hook::{self, Call};
use crate::release::journal::{Entry, Journal};
use crate::release::machine::{Event, Release};
use crate::release::phase::{Part, Point, Proof, Want};
use crate::release::runner::World;
use crate::release::words::one_line;
use crate::store::StoreError;

/// Carries one release out.
pub struct Hands {
    pub(super) daemon: Arc<Daemon>,
    pub(super) id: u64,
    pub(super) service: String,
    pub(super) alarm: Mutex<Alarm>,
    /// What the hook `event` is still to be told.
    events: Mutex<Option<mpsc::UnboundedSender<(Release, Entry)>>>,
}

impl Hands {
    /// For a release, with the task that runs its hook `event`.
    pub fn new(
        daemon: Arc<Daemon>,
        release: &Release,
    ) -> (Arc<Self>, impl Future<Output = ()> + use<>) {
        let (events, mut coming) = mpsc::unbounded_channel::<(Release, Entry)>();
        let last = |kind| daemon.journal().last_entry(release.id, kind).ok().flatten();
        let alarm = Alarm::left(last("alarm"), last("alarm-cleared"));
        let hands = Arc::new(Self {
            daemon,
            id: release.id,
            service: release.service.clone(),
            alarm: Mutex::new(alarm),
            events: Mutex::new(Some(events)),
        });
        let teller = Arc::clone(&hands);
        let told = async move {
            while let Some((release, entry)) = coming.recv().await {
                teller.run_event_hook(&release, &entry).await;
            }
        };
        (hands, told)
    }

    /// Nothing more is told to the hook `event`.
    pub fn close(&self) {
        lock(&self.events).take();
    }

    async fn run_event_hook(self: &Arc<Self>, release: &Release, entry: &Entry) {
        let Some(hook) = release.hook(Point::Event) else { return };
        let mut call = self.call(release, Point::Event, None, None).await;
        if let Value::Object(input) = &mut call.input {
            input.insert("event".to_owned(), json!(entry));
        }
        let ran = hook::run(hook, &call, |_| ()).await;
        if ran.outcome != hook::Outcome::Done {
            let text = format!("hook event: {:?}: {}", ran.outcome, one_line(&ran.output));
            self.daemon.events.publish("warning", Some(&self.service), Some(&self.name()), text);
        }
    }

    /// "release 3".
    pub fn name(&self) -> String {
        format!("release {}", self.id)
    }

    /// Tells people that nothing can be written down.
    pub fn cannot_write(&self, error: &StoreError) {
        let text = format!("{} stands still: {error}", self.name());
        lock(&self.alarm).raise_unwritten(self, &text);
    }

    /// Writes down what happened without moving the release.
    pub fn note(&self, release: &Release, kind: &str, text: String, data: Value) {
        let (at, state) = (events::now(), release.state().to_owned());
        let entry = Entry { at, state, kind: kind.to_owned(), text, data };
        if let Err(error) = self.daemon.journal().note_entry(self.id, &entry) {
            log::error!("{}: {error}", self.name());
        }
        self.publish(kind, &entry.text);
    }

    pub(super) fn publish(&self, kind: &str, text: &str) {
        let (service, name) = (Some(self.service.as_str()), self.name());
        let kind = if kind.starts_with("alarm") { kind } else { "release" };
        self.daemon.events.publish(kind, service, Some(&name), text.to_owned());
    }

    /// The service as it is now.
    pub async fn state(&self) -> Option<ServiceState> {
        self.daemon.state().await.service(&self.service).cloned()
    }

    /// Receipts of the service, newest first.
    pub async fn receipts(&self) -> Result<Vec<Receipt>, StoreError> {
        self.daemon.core.lock().await.store.receipts(&self.service)
    }

    /// Whether every receipt of a proof says of its target as that is now.
    async fn still_proven(&self, proof: &Proof) -> Result<bool, ApiError> {
        let Some(state) = self.state().await else { return Ok(false) };
        let receipts = self.receipts().await?;
        for id in proof.receipts() {
            let Some(receipt) = receipts.iter().find(|receipt| receipt.id == *id) else {
                return Ok(false);
            };
            let subject = Subject::find(&state, &receipt.report.target)?;
            if !self.daemon.holds(receipt, &subject)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// An instance of a service that is not gone.
pub fn find<'a>(service: &'a ServiceState, id: &str) -> Option<&'a InstanceState> {
    let mut all = service.instances().filter(|(_, instance)| !instance.orphaned);
    all.find(|(_, instance)| instance.id == id).map(|(_, instance)| instance)
}

impl World for Arc<Hands> {
    fn journal(&self) -> impl DerefMut<Target = dyn Journal + Send> {
        self.daemon.journal()
    }

    fn now(&self) -> String {
        events::now()
    }

    fn since_boot(&self) -> Duration {
        clock::monotonic()
    }

    async fn stopped(&self) {
        let mut stopped = self.daemon.releases.stop.subscribe();
        // The sender lives as long as the daemon.
        let _ = stopped.wait_for(|stop| *stop).await;
    }

    async fn instances(&self, release: &Release, part: Part) -> Vec<String> {
        match part {
            Part::New => release.instances.clone(),
            Part::Batch(batch) => release.batch(batch).to_vec(),
            Part::Old => {
                let state = self.state().await;
                let version = state.as_ref().and_then(|service| service.version(&release.from));
                let all = version.into_iter().flat_map(|version| &version.instances);
                all.filter(|instance| !instance.orphaned).map(|i| i.id.clone()).collect()
            }
        }
    }

    async fn call(
        &self,
        release: &Release,
        point: Point,
        instance: Option<&str>,
        by: Option<&Proof>,
    ) -> Call {
        let version = match point {
            Point::Stop | Point::PreDrain | Point::PostRelease => &release.from,
            _ => &release.to,
        };
        let state = self.state().await;
        let meta = {
            let core = self.daemon.core.lock().await;
            let service = core.config.service(&release.service);
            let configured = service.and_then(|service| service.version(version));
            configured.map(|version| version.meta().clone()).unwrap_or_default()
        };
        let found = instance.and_then(|id| find(state.as_ref()?, id));
        let addr = found.map(|instance| instance.addr.to_string());
        let of_instance = found.and_then(|i| i.registered.as_ref()).map(|r| r.meta.clone());
        let ids = by.map(Proof::receipts).unwrap_or_default();
        let all = self.receipts().await.unwrap_or_default();
        let receipts: Vec<&Receipt> = all.iter().filter(|one| ids.contains(&one.id)).collect();
        let list: Vec<String> = ids.iter().map(u64::to_string).collect();
        let mut variables = vec![
            ("ID", release.id.to_string()),
            ("SERVICE", release.service.clone()),
            ("FROM", release.from.clone()),
            ("TO", release.to.clone()),
            ("VERSION", version.clone()),
            ("STATE", release.state().to_owned()),
            ("POINT", point.name().to_owned()),
        ];
        variables.extend(instance.map(|id| ("INSTANCE", id.to_owned())));
        variables.extend(addr.clone().map(|addr| ("ADDRESS", addr)));
        if by.is_some() {
            variables.push(("RECEIPTS", list.join(",")));
        }
        let input = json!({
            "schema": SCHEMA,
            "release": {
                "id": release.id,
                "service": release.service,
                "from": release.from,
                "to": release.to,
                "plan": release.plan.name,
                "state": release.state(),
                "instances": release.instances,
            },
            "point": point.name(),
            "version": version,
            "instance": instance.map(|id| {
                json!({ "id": id, "addr": addr, "meta": of_instance.unwrap_or_default() })
            }),
            "meta": meta,
            "data": release.data,
            "receipts": receipts,
            "forced": by.is_some_and(Proof::is_forced),
        });
        Call {
            point,
            service: release.service.clone(),
            version: version.clone(),
            instance: instance.map(str::to_owned),
            variables: variables
                .into_iter()
                .map(|(name, value)| (format!("RELEASE_{name}"), value))
                .collect(),
            input,
        }
    }

    async fn holds(&self, _: &Release, proof: &Proof) -> bool {
        match self.still_proven(proof).await {
            Ok(holds) => holds,
            Err(error) => {
                log::warn!("{}: receipts: {error}", self.name());
                false
            }
        }
    }

    async fn perform(&self, release: &Release, want: &Want) -> Event {
        let done = match want {
            Want::Ready(count) => self.ready(release, &release.instances, *count as usize).await,
            Want::Healthy(batch) => {
                let batch = release.batch(*batch);
                self.ready(release, batch, batch.len()).await
            }
            Want::Test(sources) => self.test(release, sources).await,
            Want::Shift(percent) => self.shift(release, *percent).await,
            Want::Warmup { requests, path, concurrency } => {
                self.warm_up(release, *requests, path.as_deref(), *concurrency).await
            }
            Want::Testing(time) | Want::Window(time) => {
                self.wait(release, *time).await;
                Ok(())
            }
            Want::Hold(time) => return self.hold(release, *time).await,
            Want::Judge => return Event::Judged(self.judge_step(release).await),
            Want::Approve(webhook) => {
                self.approve(release, webhook).await;
                Ok(())
            }
            Want::Drain(part) => self.drain(release, *part).await,
            Want::Idle(part) => return self.until_idle(release, *part).await,
            Want::Admit(batch) => self.admit(release, *batch).await,
            Want::Retire(_) => self.retire(release).await,
            // The runner's own.
            Want::Hook { .. } => Ok(()),
        };
        match done {
            Ok(()) => Event::Done,
            Err(error) => Event::Failed(error.in_full()),
        }
    }

    fn tell(&self, release: &Release, entry: &Entry) {
        self.publish(&entry.kind, &entry.text);
        if let Some(events) = &*lock(&self.events) {
            // The task that runs the hook lives as long as this.
            let _ = events.send((release.clone(), entry.clone()));
        }
        lock(&self.alarm).follow(self, release);
    }
}

impl Hands {
    /// Waits until so much time has passed since the release came to what it wants now.
    pub(super) async fn wait(&self, release: &Release, time: Duration) {
        sleep(release.left(time, clock::monotonic())).await;
    }
}
