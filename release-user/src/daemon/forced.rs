//! Writing down which connections were ended on the operator's order.
//!
//! Their entries stay in the flow table, closed and marked, until the reaper removes them, and no
//! reaper runs without a daemon. So the table is what is written down, by whoever walks it: a daemon
//! that is killed in between has lost nothing.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use release_common::abi::Flow;
use release_common::tcp::word::{FlowWord, Marks, Phase};

use super::core::{Core, Daemon, lock, looking};
use super::events;
use super::prober::{Prober, forced};
use crate::api::types::{ApiError, Because, ForcedFlow, How, MOST_FORCED};
use crate::config::{OnDown, Protocol};
use crate::control::state::{InstanceState, ServiceState, VersionState};
use crate::kernel::Tuple;
use crate::probe::watch::Liveness;
use crate::store::Forced;

/// Whether the packet path counted a flow as `forced`.
fn was_forced(flow: &Flow) -> bool {
    let word = FlowWord(flow.state);
    word.phase() == Phase::ClosedRst && word.marks().has(Marks::FORCED)
}

/// A flow that was ended on order, or is about to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    tuple: Tuple,
    flow: Flow,
    /// What is known of the client's end.
    client: Liveness,
}

impl Ended {
    /// With what is known of it now.
    pub(super) fn new(tuple: &Tuple, flow: &Flow, prober: &Prober) -> Self {
        let (client, _) = prober.ends(tuple, FlowWord(flow.state));
        Self { tuple: *tuple, flow: *flow, client }
    }

    /// Its key in the flow table.
    pub(super) fn tuple(&self) -> Tuple {
        self.tuple
    }

    /// Its key and what tells it from the next one of the same.
    fn entry(&self) -> (Tuple, u32) {
        (self.tuple, FlowWord(self.flow.state).tag())
    }
}

/// What this daemon has written down, by instance: the entries and their tags.
#[derive(Debug, Default)]
pub struct Recorded(HashMap<u32, HashSet<(Tuple, u32)>>);

impl Recorded {
    /// Whether a flow is to be written down: it is not yet, and there is room.
    fn lacks(&self, tuple: &Tuple, flow: &Flow) -> bool {
        let entry = (*tuple, FlowWord(flow.state).tag());
        let known = self.0.get(&flow.backend);
        known.is_none_or(|known| known.len() < MOST_FORCED && !known.contains(&entry))
    }

    fn note(&mut self, found: &[Ended]) {
        for ended in found {
            self.0.entry(ended.flow.backend).or_default().insert(ended.entry());
        }
    }
}

/// Why connections of an instance are ended at present.
pub(super) fn because(
    service: &ServiceState,
    version: &VersionState,
    instance: &InstanceState,
) -> Because {
    let drain = instance.drain.as_ref().or(version.drain.as_ref());
    let down = instance.down.is_some() && service.settings.on_down == OnDown::Reset;
    if down && drain.and_then(forced).is_none() { Because::Down } else { Because::Drain }
}

impl Daemon {
    /// Whether a flow was ended on order and is still to be written down.
    pub(super) fn is_unrecorded(&self, tuple: &Tuple, flow: &Flow) -> bool {
        was_forced(flow) && lock(&self.recorded).lacks(tuple, flow)
    }

    /// Writes flows down that were found to be ended on order.
    ///
    /// # Errors
    /// The store's or the kernel's; then they are found again.
    pub(super) async fn record(&self, found: &[Ended]) -> Result<(), ApiError> {
        if found.is_empty() {
            return Ok(());
        }
        let now = (SystemTime::now(), self.jiffies()?);
        let epoch = self.reader.meta()?.evidence_epoch;
        let mut core = self.core.lock().await;
        let ids: HashMap<u32, (String, Because)> = core
            .state
            .instances()
            .map(|(service, version, i)| (i.backend, (i.id.clone(), because(service, version, i))))
            .collect();
        let records: Vec<Forced> = found
            .iter()
            .filter_map(|ended| {
                let whose = ids.get(&ended.flow.backend)?.clone();
                Some(self.describe_forced(ended, whose, How::Reset, now))
            })
            .collect();
        tokio::task::block_in_place(|| core.store.add_forced(epoch, &records))?;
        lock(&self.recorded).note(found);
        Ok(())
    }

    /// What is told of a flow that was ended just now, or, if it is closed, when its last packet
    /// came. `now`: by both clocks.
    pub(super) fn describe_forced(
        &self,
        &Ended { tuple, flow, client }: &Ended,
        (instance, because): (String, Because),
        how: How,
        now: (SystemTime, u64),
    ) -> Forced {
        let word = FlowWord(flow.state);
        let silence = self.clock.age(flow.last_packet, now.1);
        let without_data = self.clock.age(flow.last_data, now.1);
        let ago = if word.is_live() { Default::default() } else { silence };
        let told = ForcedFlow {
            at: events::at(now.0.checked_sub(ago).unwrap_or(now.0)),
            client: tuple.client.to_string(),
            frontend: tuple.frontend.to_string(),
            protocol: Protocol::Tcp.to_string(),
            instance,
            how,
            because,
            last_data_age_ms: without_data.saturating_sub(ago).as_millis() as u64,
            client_end: client.as_str().to_owned(),
        };
        Forced { backend: flow.backend, tag: word.tag(), flow: told }
    }

    /// The flows of some instances that were ended on order, and how many more were: `counted` in
    /// all.
    pub(super) async fn forced_of(
        &self,
        backends: &[u32],
        counted: u64,
    ) -> Result<(Vec<ForcedFlow>, u64), ApiError> {
        let epoch = self.reader.meta()?.evidence_epoch;
        let mut forced = self.core.lock().await.store.forced(epoch, backends)?;
        if (forced.len() as u64) < counted {
            self.record_all().await?;
            forced = self.core.lock().await.store.forced(epoch, backends)?;
        }
        forced.truncate(MOST_FORCED);
        let not_listed = counted.saturating_sub(forced.len() as u64);
        Ok((forced, not_listed))
    }

    /// How many sockets of some instances were destroyed on order.
    ///
    /// # Errors
    /// The store's or the kernel's.
    pub(super) async fn destroyed_of(&self, backends: &[u32]) -> Result<u64, ApiError> {
        let epoch = self.reader.meta()?.evidence_epoch;
        Ok(self.core.lock().await.store.destroyed(epoch, backends)?)
    }

    /// Forgets those of instances that are no more.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn forget_forced(&self, core: &mut Core, freed: &[u32]) -> Result<(), ApiError> {
        core.store.forget_forced(freed)?;
        lock(&self.recorded).0.retain(|backend, _| !freed.contains(backend));
        Ok(())
    }

    /// Looks the flow table through.
    async fn record_all(&self) -> Result<(), ApiError> {
        let mut found = Vec::new();
        looking(|| {
            self.reader.walk_flows(|tuple, flow| {
                if self.is_unrecorded(tuple, flow) {
                    found.push(Ended::new(tuple, flow, &lock(&self.prober)));
                }
            })
        })?;
        self.record(&found).await
    }
}
