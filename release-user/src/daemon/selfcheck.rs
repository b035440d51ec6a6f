//! Once in a while: do the gauges of live flows agree with the tables, and are the maps still
//! pinned? They must, or something here is wrong, or has been changed from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::core::{Daemon, lock, looking};
use super::epoch::replaced;
use super::regularly::{Pace, REST, log_failure};
use crate::api::types::ApiError;
use crate::control::state::ServiceState;
use crate::verdict::drift::{Books, drift};
use crate::verdict::walk::{Totals, Walk};

/// How often there is a look.
const INTERVAL: Duration = Duration::from_secs(5);
/// Rest after a look at the tables, in times the CPU time that it took: nobody waits for this one,
/// and a walk of a million entries takes half a second.
const LONG_REST: u32 = 1000;

/// Services whose gauge differs from the tables.
#[derive(Debug, Default)]
pub struct Drifts {
    /// Seen at the last look.
    last: BTreeMap<String, i64>,
    /// Seen at the last two, and reported.
    confirmed: BTreeMap<String, i64>,
    /// Pins that lead elsewhere.
    pins: Vec<String>,
}

impl Drifts {
    /// By how much a service's gauge is off, as far as that is certain.
    pub fn of(&self, service: &str) -> i64 {
        self.confirmed.get(service).copied().unwrap_or(0)
    }

    /// Takes a look in. Returns the services that began or ceased to be off.
    fn take(&mut self, seen: BTreeMap<String, i64>) -> Vec<(String, i64)> {
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

    /// Takes in the pins that are gone or lead to other maps. Returns whether they are others than
    /// before.
    fn take_pins(&mut self, pins: Vec<String>) -> bool {
        let news = self.pins != pins;
        self.pins = pins;
        news
    }
}

impl Daemon {
    /// Looks, until told to stop.
    pub async fn check_regularly(self: Arc<Self>) {
        let mut pace = Pace::new(INTERVAL, 0);
        let mut again = Instant::now();
        loop {
            pace.next().await;
            log_failure(self.check_pins());
            if Instant::now() < again {
                continue;
            }
            match self.check_gauges().await {
                Ok(took) => {
                    // What was seen is to be confirmed, or is to be told when it is over.
                    let rest = if lock(&self.drifts).last.is_empty() { LONG_REST } else { REST };
                    again = Instant::now() + took * rest;
                }
                failed => log_failure(failed.map(drop)),
            }
        }
    }

    /// A service's books now.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn books(&self, service: &ServiceState) -> Result<Books, ApiError> {
        let steps = Totals::read(&self.reader, &service.backends())?.steps().iter().sum();
        Ok(Books { steps, gauge: self.reader.gauge(service.id)? })
    }

    /// How far a service's gauge is from a walk, taken after `before`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn drift(
        &self,
        service: &ServiceState,
        before: Books,
        walk: &Walk,
    ) -> Result<i64, ApiError> {
        let walked = walk.tally(&service.backends()).flows.active;
        Ok(drift(before, walked, self.books(service)?))
    }

    /// Compares gauges with the tables. Returns the CPU time that it took.
    async fn check_gauges(&self) -> Result<Duration, ApiError> {
        let services = self.state().await.services;
        let (seen, took) = looking(|| -> Result<_, ApiError> {
            let begun = clock::own_cpu();
            let before = services
                .iter()
                .map(|service| self.books(service))
                .collect::<Result<Vec<_>, _>>()?;
            let walk = Walk::take(&self.reader, self.jiffies()?)?;
            let mut seen = BTreeMap::new();
            for (service, before) in services.iter().zip(before) {
                let off = self.drift(service, before, &walk)?;
                if off != 0 {
                    seen.insert(service.name.clone(), off);
                }
            }
            Ok((seen, clock::own_cpu().saturating_sub(begun)))
        })?;
        for (service, off) in lock(&self.drifts).take(seen) {
            let (kind, text) = if off == 0 {
                ("alarm-cleared", format!("{service}: gauge and table agree again"))
            } else {
                ("alarm", format!("{service}: its gauge is off by {off} from the flow table"))
            };
            self.events.publish(kind, Some(&service), None, text);
        }
        Ok(took)
    }

    /// Looks whether all pins lead to the data plane's maps.
    fn check_pins(&self) -> Result<(), ApiError> {
        let pins = replaced(&self.map_ids, &self.reader.ids()?);
        let names = pins.join(", ");
        if lock(&self.drifts).take_pins(pins) {
            let (kind, text) = if names.is_empty() {
                ("alarm-cleared", "all pins lead to the data plane's maps again".to_owned())
            } else {
                let text = format!(
                    "pins removed or replaced from outside: {names}; the data plane goes on with \
                     its own maps, the next start will begin a new evidence epoch, or be refused"
                );
                ("alarm", text)
            };
            self.events.publish(kind, None, None, text);
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
        assert_eq!(drifts.of("web"), 0);
        assert!(drifts.take(BTreeMap::new()).is_empty());
        assert!(drifts.take(seen(2)).is_empty());
        assert_eq!(drifts.take(seen(3)), [("web".to_owned(), 3)]);
        assert_eq!(drifts.of("web"), 3);
        assert!(drifts.take(seen(3)).is_empty(), "said once");
        assert_eq!(drifts.take(BTreeMap::new()), [("web".to_owned(), 0)]);
        assert_eq!(drifts.of("web"), 0);
    }
}
