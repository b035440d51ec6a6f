//! Releases from `release start` to their ends, with real servers, clients and hooks.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod analysis;
mod crash;
mod faults;
mod gates;
mod harness;
mod in_place;
mod report;
mod side_by_side;
mod soak;
