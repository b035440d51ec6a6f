//! The daemon's side of the API.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::core::{Daemon, describe_weights, drain_from_now};
use crate::api::release::{
    OrderRequest, ReleaseId, ReleaseLine, ReleaseQuery, ReleaseShow, StartRelease, Started,
};
use crate::api::types::{
    Api, ApiError, DeregisterRequest, Deregistered, DrainRequest, EventLine, ExplainQuery,
    Explanation, FlowLine, FlowQuery, IdleReport, InForce, InstanceLine, MaintRequest, Offline,
    OfflineRequest, Receipt, ReceiptQuery, RegisterRequest, Registered, Reloaded, RetireRequest,
    Retired, ShiftRequest, Status, TargetQuery,
};
use crate::config::Config;
use crate::control::commands::{self, Target};
use crate::control::force;
use crate::control::state::DrainState;
use crate::release::sample::Sample;

impl Api for Daemon {
    async fn status(&self, service: Option<String>) -> Result<Status, ApiError> {
        self.status_of(service.as_deref()).await
    }

    async fn flows(&self, query: FlowQuery) -> Result<Vec<FlowLine>, ApiError> {
        self.flow_lines(&query).await
    }

    async fn instances(&self) -> Result<Vec<InstanceLine>, ApiError> {
        self.instance_lines().await
    }

    async fn shift(&self, request: ShiftRequest) -> Result<InForce, ApiError> {
        self.not_in_release(&request.service)?;
        let done = self
            .change(&request.service, |service| {
                commands::shift(service, &request.weights, request.allow_empty)
            })
            .await?;
        self.report_change("shift", None, &done);
        Ok(done)
    }

    async fn drain(&self, request: DrainRequest) -> Result<InForce, ApiError> {
        self.not_in_release(&request.service)?;
        let drain = DrainState {
            deadline_s: request.deadline_s,
            force: request.force_per_second.filter(|_| request.deadline_s.is_some()),
            ..drain_from_now()
        };
        let done = self
            .change(&request.service, |service| {
                let target = Target::find(service, &request.target)?;
                if drain.force.is_some() {
                    force::possible(service, &target)?;
                    Self::can_force(service)?;
                }
                commands::drain(service, &target, &drain, request.allow_empty)
            })
            .await?;
        self.report_change("drain", Some(&request.target), &done);
        Ok(done)
    }

    async fn undrain(&self, request: DrainRequest) -> Result<InForce, ApiError> {
        self.not_in_release(&request.service)?;
        let done = self
            .change(&request.service, |service| {
                let target = Target::find(service, &request.target)?;
                commands::undrain(service, &target)
            })
            .await?;
        self.report_change("undrain", Some(&request.target), &done);
        Ok(done)
    }

    async fn idle(&self, target: TargetQuery) -> Result<IdleReport, ApiError> {
        Ok(self.judge(&target).await?.1)
    }

    async fn receipt(&self, target: TargetQuery) -> Result<Receipt, ApiError> {
        self.write_receipt(&target).await
    }

    async fn receipts(&self, query: ReceiptQuery) -> Result<Vec<Receipt>, ApiError> {
        let mut receipts = self.core.lock().await.store.receipts(&query.service)?;
        receipts.retain(|receipt| {
            query.target.as_ref().is_none_or(|target| *target == receipt.report.target)
                && query.id.is_none_or(|id| id == receipt.id)
        });
        Ok(receipts)
    }

    async fn retire(&self, request: RetireRequest) -> Result<Retired, ApiError> {
        self.not_in_release(&request.service)?;
        self.retire_target(&request).await
    }

    async fn start_release(&self, request: StartRelease) -> Result<Started, ApiError> {
        self.begin_release(request).await
    }

    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<ReleaseLine>, ApiError> {
        self.release_lines(&query)
    }

    async fn show_release(&self, which: ReleaseId) -> Result<ReleaseShow, ApiError> {
        self.release_show(&which.release, which.skip)
    }

    async fn release_samples(&self, which: ReleaseId) -> Result<Vec<Sample>, ApiError> {
        let release = self.find_release(&which.release, false)?;
        Ok(self.journal().samples(release.id)?)
    }

    async fn order_release(&self, request: OrderRequest) -> Result<ReleaseLine, ApiError> {
        self.order(request).await
    }

    async fn roll_back(&self, which: ReleaseId) -> Result<Started, ApiError> {
        self.go_back(&which.release).await
    }

    async fn register(&self, request: RegisterRequest) -> Result<Registered, ApiError> {
        self.register_instance(request).await
    }

    async fn deregister(&self, request: DeregisterRequest) -> Result<Deregistered, ApiError> {
        self.deregister_instance(request).await
    }

    async fn offline(&self, request: OfflineRequest) -> Result<Offline, ApiError> {
        self.offline_instance(request).await
    }

    async fn maint(&self, request: MaintRequest) -> Result<InForce, ApiError> {
        self.maintain_instance(request).await
    }

    async fn explain(&self, query: ExplainQuery) -> Result<Explanation, ApiError> {
        self.explain_packet(&query).await
    }

    async fn reload(&self) -> Result<Reloaded, ApiError> {
        self.reload_config().await
    }

    async fn detach(&self) -> Result<(), ApiError> {
        self.take_down().await?;
        self.stop.notify_one();
        Ok(())
    }

    fn events(&self) -> (Vec<EventLine>, broadcast::Receiver<EventLine>) {
        self.events.subscribe()
    }
}

impl Daemon {
    fn report_change(&self, kind: &str, target: Option<&str>, done: &InForce) {
        if done.changed {
            let message = format!(
                "{}{}: generation {} in force after {:.1} ms: {}",
                done.service,
                target.map(|target| format!("/{target}")).unwrap_or_default(),
                done.generation,
                done.took_ms,
                describe_weights(&done.weights)
            );
            self.events.publish(kind, Some(&done.service), target, message);
        }
    }

    /// Reads the configuration again. An invalid one changes nothing.
    ///
    /// # Errors
    /// Usage with every mistake of the file, or as for attaching.
    pub async fn reload_config(&self) -> Result<Reloaded, ApiError> {
        let config = load_config(self.paths.config.as_deref())?;
        let agents = super::witnesses::agents(&config)?;
        let mut core = self.core.lock().await;
        core.up()?;
        super::release::keeps_releases(&*self.journal(), &core.state, &config)?;
        let managed_before = |name: &str| {
            core.config.daemon().interfaces().iter().any(|interface| interface.as_str() == name)
        };
        let ours = core.links.list();
        super::checks::interfaces(&config, &core.interfaces, &ours, managed_before)?;
        let mut changes = tokio::task::block_in_place(|| core.adopt_config(config))?;
        changes.extend(core.attach_all(false)?);
        self.witnesses.set_agents(agents);
        drop(core);
        self.health.reloaded.notify_one();
        for change in &changes {
            self.events.publish("reload", None, None, change.clone());
        }
        if let Err(error) = self.look_at_host().await {
            log::error!("{error}");
        }
        Ok(Reloaded { changes })
    }
}

/// Loads the configuration, all mistakes in one error.
///
/// # Errors
/// Usage.
pub fn load_config(path: Option<&std::path::Path>) -> Result<Arc<Config>, ApiError> {
    use crate::api::types::ErrorCode;
    Config::load(path).map(Arc::new).map_err(|errors| {
        ApiError::new(ErrorCode::Usage, format!("configuration: {errors}"))
            .hint("releasectl check shows all mistakes")
    })
}
