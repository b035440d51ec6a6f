//! Time that no administrator sets: since boot, the same for every process.

use std::time::Duration;

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}
