//! Time that no administrator sets: since boot, the same for every process.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The same in milliseconds, as it is written down.
pub fn since_boot_ms() -> u64 {
    monotonic().as_millis() as u64
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// CPU time of the calling thread.
pub fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
