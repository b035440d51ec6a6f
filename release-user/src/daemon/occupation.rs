//! What a busy target is busy with.

use std::time::Duration;

use release_common::tcp::word::FlowWord;

use super::clock;
use super::core::{Daemon, lock};
use crate::api::types::{ApiError, TargetQuery};
use crate::probe::watch::Liveness;
use crate::verdict::occupation::{Occupation, Outlook};

impl Daemon {
    /// Looks at the live flows of some instances. `after`: time without data after which a flow
    /// counts as one that is only kept alive.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn occupation(
        &self,
        backends: &[u32],
        after: Duration,
    ) -> Result<Occupation, ApiError> {
        let now = self.jiffies()?;
        let mut found = Occupation::default();
        let prober = lock(&self.prober);
        self.reader.walk_flows(|tuple, flow| {
            let word = FlowWord(flow.state);
            if !word.is_live() || !backends.contains(&flow.backend) {
                return;
            }
            if self.clock.age(flow.last_data, now) < after {
                found.with_data += 1;
            } else {
                found.keepalive_only += 1;
            }
            found.half_closed += u64::from(word.half_closed());
            let (client, _) = prober.ends(tuple, word);
            found.client_unreachable += u64::from(client == Liveness::Unreachable);
        })?;
        Ok(found)
    }

    /// Notes how many flows a drained target has, and says when the last will be gone.
    pub(super) fn outlook(&self, query: &TargetQuery, live: u64) -> Outlook {
        let name = (query.service.clone(), query.target.clone());
        let mut declines = lock(&self.declines);
        let decline = declines.entry(name).or_default();
        decline.note(clock::monotonic(), live);
        decline.outlook()
    }
}
