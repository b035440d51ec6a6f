//! What the clients are told: stop, or end your sessions with a version.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

/// Orders to all clients of a load.
#[derive(Debug)]
pub struct Control(watch::Sender<Orders>);

#[derive(Debug, Default, Clone)]
struct Orders {
    stop: bool,
    abort: bool,
    retired: BTreeMap<String, Retirement>,
}

#[derive(Debug, Clone, Copy)]
struct Retirement {
    from: Instant,
    over: Duration,
}

impl Control {
    pub fn new() -> Self {
        Self(watch::Sender::new(Orders::default()))
    }

    /// All sessions end at their next pause, and no new ones begin.
    pub fn stop(&self) {
        self.0.send_modify(|orders| orders.stop = true);
    }

    /// Everything is cut at once.
    pub fn abort(&self) {
        self.0.send_modify(|orders| (orders.stop, orders.abort) = (true, true));
    }

    pub fn retire(&self, version: &str, over: Duration) {
        let retirement = Retirement { from: Instant::now(), over };
        self.0.send_modify(|orders| {
            orders.retired.insert(version.to_owned(), retirement);
        });
    }

    pub fn stopping(&self) -> bool {
        self.0.borrow().stop
    }

    pub async fn stopped(&self) {
        self.until(|orders| orders.stop.then_some(())).await;
    }

    pub async fn aborted(&self) {
        self.until(|orders| orders.abort.then_some(())).await;
    }

    /// Resolves when a stop has been under way for too long.
    pub async fn overdue(&self, limit: Duration) {
        self.stopped().await;
        time::sleep(limit).await;
    }

    /// Resolves when a session with `version` shall end: at the stop, or at its place in the
    /// version's retirement. `place` is between 0 (first) and 1 (last).
    pub async fn session_over(&self, version: &str, place: f64) {
        let retired = self.until(|orders| {
            if orders.stop {
                return Some(None);
            }
            orders.retired.get(version).map(|retirement| Some(*retirement))
        });
        if let Some(Retirement { from, over }) = retired.await {
            tokio::select! {
                () = time::sleep_until(from + over.mul_f64(place)) => {}
                () = self.stopped() => {}
            }
        }
    }

    /// Waits for orders of which `find` makes something.
    async fn until<T>(&self, find: impl Fn(&Orders) -> Option<T>) -> T {
        let mut receiver = self.0.subscribe();
        loop {
            let found = find(&receiver.borrow_and_update());
            if let Some(found) = found {
                return found;
            }
            if receiver.changed().await.is_err() {
                // Not while `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_retired_version_ends() {
        let control = Control::new();
        control.retire("v1", Duration::from_millis(10));
        control.session_over("v1", 1.0).await;
        let other = time::timeout(Duration::from_millis(30), control.session_over("v2", 0.0));
        assert!(other.await.is_err());
        control.stop();
        control.session_over("v2", 0.0).await;
        assert!(control.stopping());
    }
}
