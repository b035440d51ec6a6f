//! Rates over the last seconds, from the counters.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Length of the window.
const WINDOW: Duration = Duration::from_secs(5);

/// Placed and opened flows of each instance at one moment.
type Sample = HashMap<u32, (u64, u64)>;

/// Samples of the last seconds.
#[derive(Default)]
pub struct Rates {
    samples: VecDeque<(Instant, Sample)>,
}

/// What some instances did during the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Flows placed.
    pub placed: u64,
    /// Flows opened a second.
    pub opened_per_second: f64,
}

impl Rates {
    /// Adds a sample.
    pub fn add(&mut self, at: Instant, sample: Sample) {
        self.samples.push_back((at, sample));
        while self.samples.len() > 2 && at.duration_since(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
    }

    /// What `backends` did during the window.
    pub fn of(&self, backends: &[u32]) -> Rate {
        let (Some((start, first)), Some((end, last))) = (self.samples.front(), self.samples.back())
        else {
            return Rate::default();
        };
        let seconds = end.duration_since(*start).as_secs_f64();
        let (mut placed, mut opened) = (0, 0);
        for backend in backends {
            let before = first.get(backend).copied().unwrap_or_default();
            let now = last.get(backend).copied().unwrap_or_default();
            placed += now.0.saturating_sub(before.0);
            opened += now.1.saturating_sub(before.1);
        }
        let opened_per_second = if seconds > 0.0 { opened as f64 / seconds } else { 0.0 };
        Rate { placed, opened_per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_over_the_window() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for second in 0..20u64 {
            let sample = HashMap::from([(1, (second * 10, second * 8)), (2, (0, 0))]);
            rates.add(start + Duration::from_secs(second), sample);
        }
        let rate = rates.of(&[1, 2]);
        assert_eq!(rate, Rate { placed: 50, opened_per_second: 8.0 });
        assert_eq!(rates.of(&[2]), Rate::default());
    }
}
