//! Once in a while: do the gauges of live flows agree with the tables? They must, or something here
//! is wrong, or has been changed from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::{Daemon, lock};
use crate::api::types::ApiError;
use crate::control::state::ServiceState;
use crate::verdict::drift::{Books, drift};
use crate::verdict::walk::{Totals, Walk};

/// How often there is a look.
const INTERVAL: Duration = Duration::from_secs(5);
/// Part of the time that may go into it.
const SHARE: u32 = 20;

/// Services whose gauge differs from the tables.
#[derive(Debug, Default)]
pub struct Drifts {
    /// Seen at the last look.
    last: BTreeMap<String, i64>,
    /// Seen at the last two, and reported.
    confirmed: BTreeMap<String, i64>,
    /// Looks so far.
    looks: u32,
}

impl Drifts {
    /// Whether that is certain of all: after a start, nothing is at first.
    fn are_certain(&self) -> bool {
        self.looks >= 2
    }

    /// By how much a service's gauge is off, as far as that is certain.
    pub fn of(&self, service: &str) -> i64 {
        self.confirmed.get(service).copied().unwrap_or(0)
    }

    /// Takes a look in. Returns the services that began or ceased to be off.
    fn take(&mut self, seen: BTreeMap<String, i64>) -> Vec<(String, i64)> {
        self.looks = self.looks.saturating_add(1);
        // A packet may be between its two steps at the very moment: twice is no accident.
        let confirmed: BTreeMap<String, i64> = seen
            .iter()
            .filter(|(service, _)| self.last.contains_key(*service))
            .map(|(service, drift)| (service.clone(), *drift))
            .collect();
        let began = confirmed.iter().filter(|(service, _)| !self.confirmed.contains_key(*service));
        let mut news: Vec<(String, i64)> =
            began.map(|(service, drift)| (service.clone(), *drift)).collect();
        let ceased = self.confirmed.keys().filter(|service| !seen.contains_key(*service));
        news.extend(ceased.map(|service| (service.clone(), 0)));
        self.last = seen;
        self.confirmed = confirmed;
        news
    }
}

impl Daemon {
    /// Looks, until told to stop.
    pub async fn check_regularly(self: Arc<Self>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let start = Instant::now();
            if let Err(error) = self.check().await {
                log::error!("{error}");
            }
            tokio::time::sleep(start.elapsed() * SHARE).await;
        }
    }

    /// By how much a service's gauge is off. Who asks before there were looks enough takes them.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn drift_of(&self, service: &str) -> Result<i64, ApiError> {
        while !lock(&self.drifts).are_certain() {
            self.check().await?;
        }
        Ok(lock(&self.drifts).of(service))
    }

    async fn check(&self) -> Result<(), ApiError> {
        let services = self.state().await.services;
        let books = |service: &ServiceState| -> Result<Books, ApiError> {
            let backends: Vec<u32> = service.instances().map(|(_, i)| i.backend).collect();
            let steps = Totals::read(&self.reader, &backends)?.steps().iter().sum();
            Ok(Books { steps, gauge: self.reader.gauge(service.id)? })
        };
        let before = services.iter().map(books).collect::<Result<Vec<_>, _>>()?;
        let walk = Walk::take(&self.reader, self.jiffies()?)?;
        let mut seen = BTreeMap::new();
        for (service, before) in services.iter().zip(before) {
            let backends: Vec<u32> = service.instances().map(|(_, i)| i.backend).collect();
            let walked = walk.tally(&backends).flows.active;
            let off = drift(before, walked, books(service)?);
            if off != 0 {
                seen.insert(service.name.clone(), off);
            }
        }
        for (service, off) in lock(&self.drifts).take(seen) {
            let (kind, text) = if off == 0 {
                ("alarm-cleared", format!("{service}: gauge and table agree again"))
            } else {
                ("alarm", format!("{service}: its gauge is off by {off} from the flow table"))
            };
            self.events.publish(kind, Some(&service), None, text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(drift: i64) -> BTreeMap<String, i64> {
        BTreeMap::from([("web".to_owned(), drift)])
    }

    #[test]
    fn twice_is_no_accident() {
        let mut drifts = Drifts::default();
        assert!(drifts.take(seen(1)).is_empty());
        assert!(!drifts.are_certain());
        assert_eq!(drifts.of("web"), 0);
        assert!(drifts.take(BTreeMap::new()).is_empty());
        assert!(drifts.are_certain());
        assert!(drifts.take(seen(2)).is_empty());
        assert_eq!(drifts.take(seen(3)), [("web".to_owned(), 3)]);
        assert_eq!(drifts.of("web"), 3);
        assert!(drifts.take(seen(3)).is_empty(), "said once");
        assert_eq!(drifts.take(BTreeMap::new()), [("web".to_owned(), 0)]);
        assert_eq!(drifts.of("web"), 0);
    }
}
