//! What a daemon offers.

use super::release::{
    OrderRequest, ReleaseId, ReleaseLine, ReleaseQuery, ReleaseShow, StartRelease, Started,
};
use super::types::{
    ApiError, DeregisterRequest, Deregistered, DrainRequest, EventLine, ExplainQuery, Explanation,
    FlowLine, FlowQuery, IdleReport, InForce, InstanceLine, MaintRequest, Offline, OfflineRequest,
    Receipt, ReceiptQuery, RegisterRequest, Registered, Reloaded, RetireRequest, Retired,
    ShiftRequest, Status, TargetQuery,
};
use crate::release::sample::Sample;

/// What the daemon offers; the server is generic over it.
pub trait Api: Send + Sync + 'static {
    /// Services, versions, instances, flows; all, or one service.
    fn status(
        &self,
        service: Option<String>,
    ) -> impl Future<Output = Result<Status, ApiError>> + Send;
    /// Flows.
    fn flows(
        &self,
        query: FlowQuery,
    ) -> impl Future<Output = Result<Vec<FlowLine>, ApiError>> + Send;
    /// Instances.
    fn instances(&self) -> impl Future<Output = Result<Vec<InstanceLine>, ApiError>> + Send;
    /// Changes weights.
    fn shift(
        &self,
        request: ShiftRequest,
    ) -> impl Future<Output = Result<InForce, ApiError>> + Send;
    /// Takes a version or instance out of new flows.
    fn drain(
        &self,
        request: DrainRequest,
    ) -> impl Future<Output = Result<InForce, ApiError>> + Send;
    /// Puts it back.
    fn undrain(
        &self,
        request: DrainRequest,
    ) -> impl Future<Output = Result<InForce, ApiError>> + Send;
    /// The verdict with its evidence.
    fn idle(
        &self,
        target: TargetQuery,
    ) -> impl Future<Output = Result<IdleReport, ApiError>> + Send;
    /// Writes a receipt; refused unless the verdict is `idle`.
    fn receipt(
        &self,
        target: TargetQuery,
    ) -> impl Future<Output = Result<Receipt, ApiError>> + Send;
    /// Receipts written so far, newest first.
    fn receipts(
        &self,
        query: ReceiptQuery,
    ) -> impl Future<Output = Result<Vec<Receipt>, ApiError>> + Send;
    /// Retires a version, or gives an instance free that was removed.
    fn retire(
        &self,
        request: RetireRequest,
    ) -> impl Future<Output = Result<Retired, ApiError>> + Send;
    /// Begins a release, or says what it would do.
    fn start_release(
        &self,
        request: StartRelease,
    ) -> impl Future<Output = Result<Started, ApiError>> + Send;
    /// Releases.
    fn releases(
        &self,
        query: ReleaseQuery,
    ) -> impl Future<Output = Result<Vec<ReleaseLine>, ApiError>> + Send;
    /// One release with all that happened.
    fn show_release(
        &self,
        which: ReleaseId,
    ) -> impl Future<Output = Result<ReleaseShow, ApiError>> + Send;
    /// What was measured of both versions during a release, the first first.
    fn release_samples(
        &self,
        which: ReleaseId,
    ) -> impl Future<Output = Result<Vec<Sample>, ApiError>> + Send;
    /// Pauses a release, gives it up, and so on.
    fn order_release(
        &self,
        request: OrderRequest,
    ) -> impl Future<Output = Result<ReleaseLine, ApiError>> + Send;
    /// Goes back from a promoted release.
    fn roll_back(&self, which: ReleaseId)
    -> impl Future<Output = Result<Started, ApiError>> + Send;
    /// Registers an instance, or renews what it registered.
    fn register(
        &self,
        request: RegisterRequest,
    ) -> impl Future<Output = Result<Registered, ApiError>> + Send;
    /// Takes a registered instance out, and forgets it once it is idle.
    fn deregister(
        &self,
        request: DeregisterRequest,
    ) -> impl Future<Output = Result<Deregistered, ApiError>> + Send;
    /// An instance asks to go offline: no new flows.
    fn offline(
        &self,
        request: OfflineRequest,
    ) -> impl Future<Output = Result<Offline, ApiError>> + Send;
    /// Begins or ends maintenance of an instance.
    fn maint(
        &self,
        request: MaintRequest,
    ) -> impl Future<Output = Result<InForce, ApiError>> + Send;
    /// Where a packet would go.
    fn explain(
        &self,
        query: ExplainQuery,
    ) -> impl Future<Output = Result<Explanation, ApiError>> + Send;
    /// Reads the configuration again.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, ApiError>> + Send;
    /// Takes the data plane down and ends the daemon.
    fn detach(&self) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// The last events, and a channel for those to come.
    fn events(&self) -> (Vec<EventLine>, tokio::sync::broadcast::Receiver<EventLine>);
}
