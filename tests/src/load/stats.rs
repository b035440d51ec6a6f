//! Where clients write down what happens to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::report::{BUCKET, Bucket, ErrorKind, Report, Snapshot};

/// How many errors and moves are kept in words.
const KEPT: usize = 12;

/// Shared by all clients of a load.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    inner: Mutex<Inner>,
    changed: Condvar,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    totals: Snapshot,
    errors_by_kind: BTreeMap<ErrorKind, u64>,
    first_errors: Vec<String>,
    first_moved: Vec<String>,
    series: Vec<Bucket>,
}

/// An open connection to a version; dropping it writes down its close.
#[derive(Debug)]
pub struct Open {
    stats: Arc<Stats>,
    version: String,
}

impl Stats {
    pub fn new(started: Instant) -> Self {
        Self { started, inner: Mutex::default(), changed: Condvar::new(), notify: Notify::new() }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// A connection that began at `begun` had its first answer: only now it is known whose it is.
    pub fn opened(self: &Arc<Self>, begun: Instant, version: &str, instance: &str) -> Open {
        let begun = begun.saturating_duration_since(self.started);
        self.change(|inner, _| inner.opened(begun, version, instance));
        Open { stats: Arc::clone(self), version: version.to_owned() }
    }

    pub fn answered(&self) {
        self.change(|inner, _| inner.totals.requests += 1);
    }

    pub fn moved(&self, message: &str) {
        self.change(|inner, at| {
            inner.totals.moved += 1;
            keep(&mut inner.first_moved, at, message);
        });
    }

    pub fn error(&self, kind: ErrorKind, message: &str) {
        self.change(|inner, at| {
            inner.totals.errors += 1;
            *inner.errors_by_kind.entry(kind).or_default() += 1;
            if let Some(bucket) = inner.series.last_mut() {
                bucket.errors += 1;
            }
            keep(&mut inner.first_errors, at, &format!("{kind}: {message}"));
        });
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().totals.clone()
    }

    pub fn report(&self) -> Report {
        let mut inner = self.lock();
        inner.advance(self.started.elapsed());
        Report {
            totals: inner.totals.clone(),
            errors_by_kind: inner.errors_by_kind.clone(),
            first_errors: inner.first_errors.clone(),
            first_moved: inner.first_moved.clone(),
            series: inner.series.clone(),
        }
    }

    pub fn wait(&self, deadline: Duration, condition: impl Fn(&Snapshot) -> bool) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), deadline, |inner| !condition(&inner.totals))
            .unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    pub async fn reached(&self, condition: impl Fn(&Snapshot) -> bool) {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            // Registered before looking: a change in between is not missed.
            notified.as_mut().enable();
            if condition(&self.lock().totals) {
                return;
            }
            notified.await;
        }
    }

    fn closed(&self, version: &str) {
        self.change(|inner, at| {
            if let Some(totals) = inner.totals.versions.get_mut(version) {
                totals.active -= 1;
                totals.last_close = Some(at);
            }
        });
    }

    fn change(&self, write: impl FnOnce(&mut Inner, Duration)) {
        let mut inner = self.lock();
        // Under the lock, so that times are written down in order.
        let at = self.started.elapsed();
        inner.advance(at);
        write(&mut inner, at);
        drop(inner);
        self.changed.notify_all();
        self.notify.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// In the series it counts from its begin, which may lie in elements that have ended.
    fn opened(&mut self, begun: Duration, version: &str, instance: &str) {
        self.totals.connections += 1;
        let totals = self.totals.versions.entry(version.to_owned()).or_default();
        totals.connections += 1;
        totals.active += 1;
        totals.last_begun = totals.last_begun.max(Some(begun));
        *totals.instances.entry(instance.to_owned()).or_default() += 1;
        let first = index_of(begun);
        if let Some(bucket) = self.series.get_mut(first) {
            *bucket.new.entry(version.to_owned()).or_default() += 1;
        }
        for bucket in self.series.iter_mut().skip(first) {
            *bucket.active.entry(version.to_owned()).or_default() += 1;
        }
    }

    /// Completes the elements of the series that have ended by `at`.
    fn advance(&mut self, at: Duration) {
        while self.series.len() <= index_of(at) {
            let active: BTreeMap<String, u64> =
                self.totals.versions.iter().map(|(name, v)| (name.clone(), v.active)).collect();
            if let Some(ended) = self.series.last_mut() {
                ended.active.clone_from(&active);
            }
            self.series.push(Bucket { active, ..Bucket::default() });
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.closed(&self.version);
    }
}

/// The element of the series that a moment lies in.
fn index_of(at: Duration) -> usize {
    usize::try_from(at.as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX)
}

fn keep(list: &mut Vec<String>, at: Duration, message: &str) {
    if list.len() < KEPT {
        list.push(format!("{:.3} s: {message}", at.as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_version_and_closed_once() {
        let stats = Arc::new(Stats::new(Instant::now()));
        let first = stats.opened(Instant::now(), "v1", "a");
        let second = stats.opened(Instant::now(), "v1", "b");
        drop(first);
        let snapshot = stats.snapshot();
        assert_eq!((snapshot.connections, snapshot.active("v1")), (2, 1));
        assert!(stats.wait(Duration::ZERO, |s| s.connections_to("v1") == 2));
        assert!(!stats.wait(Duration::from_millis(5), |s| s.active("v1") == 0));
        drop(second);
        assert!(stats.snapshot().versions["v1"].last_close.is_some());
        assert_eq!(stats.snapshot().versions["v1"].instances["b"], 1);
    }

    #[test]
    fn the_series_has_no_gaps() {
        let began = Instant::now().checked_sub(BUCKET * 2).unwrap();
        let stats = Arc::new(Stats::new(began));
        let open = stats.opened(began + BUCKET + BUCKET / 2, "v1", "a");
        stats.error(ErrorKind::Reset, "cut");
        let report = stats.report();
        assert!(report.series.len() >= 3);
        assert_eq!(report.series[1].new["v1"], 1, "counted when it began, not when answered");
        assert_eq!(report.series[1].active["v1"], 1);
        assert_eq!(report.series[2].errors, 1);
        assert_eq!(report.totals.versions["v1"].last_begun, Some(BUCKET * 3 / 2));
        assert!(report.series[0].new.is_empty());
        assert_eq!(report.errors_in_words(), "1 reset");
        assert!(!report.is_clean());
        drop(open);
    }

    #[test]
    fn active_is_that_of_the_elements_end() {
        let mut inner = Inner::default();
        inner.advance(Duration::ZERO);
        inner.totals.versions.entry("v1".into()).or_default().active = 5;
        inner.advance(BUCKET);
        inner.totals.versions.entry("v1".into()).or_default().active = 2;
        inner.advance(BUCKET * 3);
        let active: Vec<u64> = inner.series.iter().map(|b| b.active["v1"]).collect();
        assert_eq!(active, [5, 2, 2, 2]);
    }
}
