//! A daemon of fixed answers, for tests.

use super::release::{
    OrderRequest, ReleaseId, ReleaseLine, ReleaseQuery, ReleaseShow, StageLine, StartRelease,
    Started, StepLine,
};
use super::types::*;
use crate::release::machine::tests::a_release;
use crate::release::sample::{Sample, tests::a_sample};
use crate::verdict::occupation::{Occupation, Outlook};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;

/// Knows one service, `web`, with the versions `v1` and `v2`.
pub(crate) struct Fake {
    /// What it was asked to change.
    pub asked: Mutex<Vec<String>>,
    /// Changes that were carried out to their end.
    pub done: AtomicU64,
    /// How long a change takes.
    pub slow: Duration,
    /// Answers of `idle` in order; the last one stays.
    pub verdicts: Mutex<Vec<IdleReport>>,
    /// Where new events go.
    pub events: broadcast::Sender<EventLine>,
}

impl Fake {
    pub fn new() -> Self {
        Self {
            asked: Mutex::default(),
            done: AtomicU64::new(0),
            slow: Duration::ZERO,
            verdicts: Mutex::new(vec![report(Verdict::Idle)]),
            events: broadcast::channel(16).0,
        }
    }

    pub fn with_verdicts(verdicts: &[Verdict]) -> Self {
        let fake = Self::new();
        *fake.verdicts.lock().unwrap() = verdicts.iter().map(|verdict| report(*verdict)).collect();
        fake
    }

    fn note(&self, what: &str, value: &impl serde::Serialize) {
        let json = serde_json::to_string(value).unwrap();
        self.asked.lock().unwrap().push(format!("{what} {json}"));
    }
}

pub(crate) fn event(seq: u64) -> EventLine {
    EventLine {
        seq,
        at: "2026-01-01T00:00:00Z".into(),
        kind: "shift".into(),
        service: Some("web".into()),
        target: None,
        message: format!("event {seq}"),
    }
}

pub(crate) fn report(verdict: Verdict) -> IdleReport {
    let busy = verdict == Verdict::Busy;
    let item = |name: &str, ok: bool, detail: &str| Evidence {
        name: name.into(),
        ok,
        detail: detail.into(),
    };
    IdleReport {
        schema: SCHEMA,
        service: "web".into(),
        target: "v1".into(),
        generation: 7,
        verdict,
        reasons: match verdict {
            Verdict::Idle => vec![],
            Verdict::Busy => vec!["12 active flows".into()],
            Verdict::Unknown => vec!["3 flows expired".into(), "1 flow untracked".into()],
        },
        evidence: vec![
            item("no-new-flows", true, "none placed since generation 6"),
            item("flow-table", !busy, "12 of 40210 entries"),
        ],
        counts: IdleCounts {
            active: if busy { 12 } else { 0 },
            half_closed: u64::from(busy),
            closing: 3,
            ..IdleCounts::default()
        },
        sockets: None,
        busy_with: busy.then_some(Occupation {
            with_data: 3,
            keepalive_only: 9,
            half_closed: 1,
            client_unreachable: 2,
        }),
        outlook: busy.then_some(Outlook::Converging { from_s: 40, to_s: 200 }),
        oldest_flow_s: busy.then_some(242),
        last_packet_age_ms: Some(412),
    }
}

pub(crate) fn forced(client: &str) -> ForcedFlow {
    ForcedFlow {
        at: "2026-01-01T00:00:00.250Z".into(),
        client: client.into(),
        frontend: "192.0.2.10:80".into(),
        protocol: "tcp".into(),
        instance: "10.0.0.11:8080".into(),
        how: How::Reset,
        because: Because::Drain,
        last_data_age_ms: 242_000,
        client_end: "unreachable".into(),
    }
}

pub(crate) fn instance(id: &str, addr: &str, active: u64) -> InstanceStatus {
    InstanceStatus {
        id: id.into(),
        addr: addr.into(),
        state: "active".into(),
        healthy: None,
        why_down: None,
        orphaned: false,
        source: "configured".into(),
        registration: None,
        flows: FlowCounts { active, ..FlowCounts::default() },
        counters: InstanceCounters { placed: 993, opened: 991, ..InstanceCounters::default() },
        last_packet_age_ms: Some(412),
    }
}

pub(crate) fn status() -> Status {
    let v1_flows = FlowCounts { embryonic: 0, active: 12, half_closed: 1, closing: 3 };
    let mut draining = instance("10.0.0.11:8080", "10.0.0.11:8080", 12);
    draining.state = "draining".into();
    draining.flows = v1_flows;
    let version = |name: &str, weight, share, state: &str, flows, instances| VersionStatus {
        name: name.into(),
        weight,
        weight_actual: share,
        state: state.into(),
        flows,
        sessions_held: 0,
        new_flows_per_second: share * 1234.56,
        first_flow_at: None,
        measured: MeasuredStatus::default(),
        instances,
    };
    let v2_flows = FlowCounts { embryonic: 4, active: 40198, half_closed: 20, closing: 311 };
    Status {
        schema: SCHEMA,
        data_plane: DataPlaneStatus {
            interfaces: vec![
                InterfaceStatus { name: "eth0".into(), mode: "native".into() },
                InterfaceStatus { name: "eth1".into(), mode: "generic".into() },
            ],
            flow_entries: 40524,
            flow_capacity: 1_048_576,
            embryos: 4,
            alarm: None,
            evidence_epoch: 1,
            warnings: Vec::new(),
        },
        services: vec![ServiceStatus {
            name: "web".into(),
            generation: 7,
            mode: "nat".into(),
            conversation: "flow".into(),
            frontends: vec!["192.0.2.10:80/tcp".into(), "192.0.2.10:443/tcp".into()],
            refused: RefusedCounts::default(),
            sessions: None,
            drift: 0,
            warnings: Vec::new(),
            release: None,
            versions: vec![
                version("v1", 0, 0.0, "draining", v1_flows, vec![draining]),
                version(
                    "v2",
                    100,
                    1.0,
                    "active",
                    v2_flows,
                    vec![
                        instance("10.0.0.21:8080", "10.0.0.21:8080", 20000),
                        instance("web-b", "10.0.0.22:8080", 20198),
                    ],
                ),
            ],
        }],
    }
}

pub(crate) fn release() -> ReleaseLine {
    ReleaseLine {
        schema: SCHEMA,
        id: 3,
        service: "web".into(),
        from: "v1".into(),
        to: "v2".into(),
        plan: "gray".into(),
        strategy: "side-by-side".into(),
        state: "shifting".into(),
        step: Some(StepLine { number: 2, of: 4 }),
        doing: Some("v2 gets 10 % of new flows".into()),
        reasons: Vec::new(),
        deadline: None,
        instances: vec!["10.0.0.21:8080".into()],
        live: Some(1),
        receipts: Vec::new(),
        forced: false,
        over: false,
        waits: false,
        started_at: "2026-01-01T00:00:00Z".into(),
        ended_at: None,
        exit_code: None,
    }
}

fn known(service: &str) -> Result<(), ApiError> {
    if service == "web" {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Usage, format!("service {service:?}: unknown"))
        .hint("services: web"))
}

impl Api for Fake {
    async fn status(&self, service: Option<String>) -> Result<Status, ApiError> {
        service.as_deref().map_or(Ok(()), known).map(|()| status())
    }

    async fn flows(&self, query: FlowQuery) -> Result<Vec<FlowLine>, ApiError> {
        self.note("flows", &query);
        Ok(vec![FlowLine {
            client: "198.51.100.7:40000".into(),
            frontend: "192.0.2.10:80".into(),
            protocol: "tcp".into(),
            service: "web".into(),
            version: "v1".into(),
            instance: "10.0.0.11:8080".into(),
            state: "half-closed".into(),
            generation: 6,
            age_s: 242.4,
            last_packet_age_ms: 412,
            last_data_age_ms: 61_000,
            client_end: "alive".to_owned(),
            server_end: "unknown".to_owned(),
        }])
    }

    async fn instances(&self) -> Result<Vec<InstanceLine>, ApiError> {
        Ok(vec![InstanceLine {
            service: "web".into(),
            version: "v1".into(),
            instance: instance("web-b", "10.0.0.22:8080", 12),
        }])
    }

    async fn shift(&self, request: ShiftRequest) -> Result<InForce, ApiError> {
        known(&request.service)?;
        self.note("shift", &request);
        tokio::time::sleep(self.slow).await;
        self.done.fetch_add(1, Ordering::SeqCst);
        if !request.allow_empty && request.weights.values().all(|weight| *weight == 0) {
            return Err(ApiError::new(ErrorCode::Conflict, "web: no version would serve")
                .hint("--allow-empty"));
        }
        Ok(InForce {
            service: request.service,
            generation: 8,
            weights: request.weights,
            changed: true,
            took_ms: 3.21,
        })
    }

    async fn drain(&self, request: DrainRequest) -> Result<InForce, ApiError> {
        known(&request.service)?;
        self.note("drain", &request);
        Ok(InForce {
            service: request.service,
            generation: 8,
            weights: BTreeMap::from([("v1".into(), 0), ("v2".into(), 100)]),
            changed: false,
            took_ms: 0.1,
        })
    }

    async fn undrain(&self, request: DrainRequest) -> Result<InForce, ApiError> {
        self.note("undrain", &request);
        self.drain(request).await
    }

    async fn idle(&self, target: TargetQuery) -> Result<IdleReport, ApiError> {
        known(&target.service)?;
        let mut verdicts = self.verdicts.lock().unwrap();
        Ok(if verdicts.len() > 1 { verdicts.remove(0) } else { verdicts[0].clone() })
    }

    async fn receipt(&self, target: TargetQuery) -> Result<Receipt, ApiError> {
        let report = self.idle(target).await?;
        match report.verdict {
            Verdict::Idle => Ok(Receipt {
                schema: SCHEMA,
                id: 3,
                at: "2026-01-01T00:00:00Z".into(),
                boot_id: "b00t".into(),
                evidence_epoch: 1,
                counters: BTreeMap::from([(
                    "10.0.0.11:8080".into(),
                    instance("10.0.0.11:8080", "10.0.0.11:8080", 0).counters,
                )]),
                forced: vec![forced("198.51.100.7:40000")],
                forced_not_listed: 2,
                report,
                hash: "00ff".into(),
            }),
            Verdict::Busy => Err(ApiError::new(ErrorCode::Busy, "web v1: busy")),
            Verdict::Unknown => Err(ApiError::new(ErrorCode::Unknown, "web v1: unknown")),
        }
    }

    async fn receipts(&self, query: ReceiptQuery) -> Result<Vec<Receipt>, ApiError> {
        self.note("receipts", &query);
        let target = TargetQuery { service: query.service, target: "v1".into() };
        let receipt = self.receipt(target).await?;
        Ok(Vec::from_iter(query.id.is_none_or(|id| id == receipt.id).then_some(receipt)))
    }

    async fn retire(&self, request: RetireRequest) -> Result<Retired, ApiError> {
        self.note("retire", &request);
        let lost = Vec::from_iter(request.force.then(|| "12 active flows".to_owned()));
        Ok(Retired {
            schema: SCHEMA,
            service: request.service,
            target: request.target,
            at: "2026-01-01T00:00:00Z".into(),
            receipt: (!request.force).then_some(3),
            lost,
            changed: true,
        })
    }

    async fn start_release(&self, request: StartRelease) -> Result<Started, ApiError> {
        known(&request.service)?;
        self.note("start", &request);
        let does = vec!["v2 gets 10 % of new flows".into()];
        let outline = vec![StageLine { state: "shifting".into(), does }];
        Ok(Started { release: release(), dry_run: request.dry_run, outline })
    }

    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<ReleaseLine>, ApiError> {
        self.note("releases", &query);
        Ok(vec![release()])
    }

    async fn show_release(&self, which: ReleaseId) -> Result<ReleaseShow, ApiError> {
        self.note("release", &which);
        let line = ReleaseLine {
            state: "succeeded".into(),
            step: None,
            doing: None,
            over: true,
            receipts: vec![7],
            exit_code: Some(0),
            ended_at: Some("2026-01-01T01:00:00Z".into()),
            ..release()
        };
        let (history, hooks) = (Vec::new(), Vec::new());
        let details = a_release("web").plan;
        Ok(ReleaseShow { line, history, hooks, details, data: serde_json::Value::Null })
    }

    async fn release_samples(&self, which: ReleaseId) -> Result<Vec<Sample>, ApiError> {
        self.note("samples", &which);
        Ok((0..3).map(|n| a_sample(n * 2, [100 + 10 * n, 30 * n], [20 - n, 3 * n])).collect())
    }

    async fn order_release(&self, request: OrderRequest) -> Result<ReleaseLine, ApiError> {
        self.note("order", &request);
        Ok(release())
    }

    async fn roll_back(&self, which: ReleaseId) -> Result<Started, ApiError> {
        self.note("rollback", &which);
        Ok(Started { release: release(), dry_run: false, outline: Vec::new() })
    }

    async fn register(&self, request: RegisterRequest) -> Result<Registered, ApiError> {
        known(&request.service)?;
        self.note("register", &request);
        Ok(Registered {
            schema: SCHEMA,
            service: request.service,
            version: request.version,
            id: request.id.unwrap_or_else(|| request.addr.clone()),
            addr: request.addr,
            backend: 5,
            state: "active".into(),
            generation: 8,
            at: "2026-01-01T00:00:00Z".into(),
            lease_s: request.lease_s,
            changed: request.lease_s.is_none(),
        })
    }

    async fn deregister(&self, request: DeregisterRequest) -> Result<Deregistered, ApiError> {
        self.note("deregister", &request);
        let lost = Vec::from_iter(request.force.then(|| "12 active flows".to_owned()));
        Ok(Deregistered {
            schema: SCHEMA,
            service: request.service,
            version: "v2".into(),
            id: request.id,
            generation: 8,
            receipt: None,
            lost,
            changed: true,
        })
    }

    async fn offline(&self, request: OfflineRequest) -> Result<Offline, ApiError> {
        known(&request.service)?;
        self.note("offline", &request);
        Ok(Offline {
            schema: SCHEMA,
            service: request.service,
            version: "v2".into(),
            id: request.id,
            shutdown: true,
            since: Some("2026-01-01T00:00:00Z".into()),
            generation: 8,
            receipt: None,
            changed: true,
        })
    }

    async fn maint(&self, request: MaintRequest) -> Result<InForce, ApiError> {
        self.note("maint", &request);
        Ok(InForce {
            service: request.service,
            generation: 8,
            weights: BTreeMap::from([("v1".into(), 0), ("v2".into(), 100)]),
            changed: true,
            took_ms: 3.21,
        })
    }

    async fn explain(&self, query: ExplainQuery) -> Result<Explanation, ApiError> {
        self.note("explain", &query);
        Ok(Explanation {
            decision: "placement".into(),
            service: Some("web".into()),
            version: Some("v2".into()),
            instance: Some("web-b".into()),
            generation: Some(7),
            reason: "placed".to_owned(),
            because: vec!["no flow, no embryo".into(), "hash 0x1234: v2".into()],
        })
    }

    async fn reload(&self) -> Result<Reloaded, ApiError> {
        Ok(Reloaded { changes: vec!["web: version v3 added".into()] })
    }

    async fn detach(&self) -> Result<(), ApiError> {
        self.note("detach", &());
        Ok(())
    }

    fn events(&self) -> (Vec<EventLine>, broadcast::Receiver<EventLine>) {
        (vec![event(1), event(2)], self.events.subscribe())
    }
}
