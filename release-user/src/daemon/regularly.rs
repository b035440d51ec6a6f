//! Doing something again and again.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::api::types::ApiError;

/// Rest after work that walks tables, in times what the work took: a large table takes long.
pub const REST: u32 = 20;

/// When to look again.
pub struct Pace {
    interval: Interval,
    rest: u32,
    began: Option<Instant>,
    took: Option<Duration>,
}

impl Pace {
    /// Every `period`, but after a rest of `rest` times what the last look took.
    pub fn new(period: Duration, rest: u32) -> Self {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { interval, rest, began: None, took: None }
    }

    /// Waits until it is time; the first time is now.
    pub async fn next(&mut self) {
        self.worked();
        sleep(self.took.take().unwrap_or_default() * self.rest).await;
        self.interval.tick().await;
        self.began = Some(Instant::now());
    }

    /// What is done from here on is not counted as work.
    pub fn worked(&mut self) {
        self.took = self.took.or(self.began.map(|began| began.elapsed()));
    }
}

/// What fails is tried again the next time.
pub fn log_failure(result: Result<(), ApiError>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}
