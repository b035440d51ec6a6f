//! One table of packet cases, run through the host build and through the kernel's test run.
//!
//! A [`Case`] is a script: packets with what must become of each, clock advances, shifts, and
//! checks of entries and counters. A [`Runner`] executes it; after every step the engine also
//! checks that flows and embryos are conserved.

mod engine;
mod failover;
mod handshake;
mod lifecycle;
mod placement;
mod reset;
mod rewrite;
mod runner;
mod script;
mod untouched;

pub use engine::{Report, run_case};
pub use runner::{ModelRunner, Run, Runner};
pub use script::{Case, EmbryoIs, FlowIs, Packet, Setting, Step, Verdict, Want, Way};

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(untouched::cases());
    cases.extend(placement::cases());
    cases.extend(handshake::cases());
    cases.extend(lifecycle::cases());
    cases.extend(reset::cases());
    cases.extend(failover::cases());
    cases.extend(rewrite::cases());
    cases
}
