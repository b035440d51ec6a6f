//! What a daemon offers.

use super::types::{
    ApiError, DrainRequest, EventLine, ExplainQuery, Explanation, FlowLine, FlowQuery, IdleReport,
    InForce, InstanceLine, Receipt, ReceiptQuery, Reloaded, RetireRequest, Retired, ShiftRequest,
    Status, TargetQuery,
};

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
