//! Time that no administrator sets: since boot, the same for every process.

use std::time::Duration;

/// The same in milliseconds, as it is written down.
pub fn since_boot_ms() -> u64 {
    monotonic().as_millis() as u64
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}
