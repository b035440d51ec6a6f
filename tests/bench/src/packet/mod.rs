//! Packet path: programs run over packets by BPF_PROG_TEST_RUN.
//!
//! Every figure is taken in rounds; in each round the references and all cases run one after the
//! other. What a case costs is its time less that of the driver and an empty program; its ratio is
//! to what the same makes of a program that finds one entry in a hash table.

mod cases;
mod check;
mod rig;

use anyhow::Result;

use crate::row::Measured;
use crate::{Scope, say};

/// Measures.
///
/// # Errors
/// What cannot be measured, or was not what it should have been.
pub fn measure(scope: Scope) -> Result<Measured> {
    // Its thread enters a namespace, and stays on one CPU.
    std::thread::scope(|threads| {
        let measured = threads.spawn(|| cases::measure(scope)).join();
        measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .inspect(|_| say("packet path: done"))
}
