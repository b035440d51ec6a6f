//! What is against what must be.

use std::fmt::Debug;

use release_common::abi::{Counters, ServiceCounters};
use release_common::reason::Reason;

use super::super::runner::Run;
use super::super::script::{Measure, Verdict};

/// All that is measured.
pub(super) const MEASURES: [Measure; 8] = [
    Measure::Connects,
    Measure::FirstBytes,
    Measure::Unmeasured,
    Measure::SynsRefused,
    Measure::ClientResets,
    Measure::ServerResets,
    Measure::Segments,
    Measure::Retransmits,
];

pub(super) fn untouched(run: &Run, frame: &[u8], reason: Reason) -> Result<(), String> {
    outcome(run, Verdict::Pass, reason)?;
    bytes(&run.frame, frame)
}

pub(super) fn outcome(run: &Run, verdict: Verdict, reason: Reason) -> Result<(), String> {
    same("outcome", &(run.verdict, run.reason), &(verdict, reason))
}

pub(super) fn bytes(is: &[u8], want: &[u8]) -> Result<(), String> {
    if is == want { Ok(()) } else { Err(format!("frame {is:02x?}\n  instead of {want:02x?}")) }
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, is: &T, want: &T) -> Result<(), String> {
    if is == want { Ok(()) } else { Err(format!("{what}: {is:?} instead of {want:?}")) }
}

/// The counted steps that are not 0, by name. Packets, bytes and times are not steps.
pub(super) fn steps(fields: &[u64; Counters::FIELDS]) -> Vec<(&'static str, u64)> {
    const NAMES: [&str; 16] = [
        "placed",
        "trials",
        "embryos_ended",
        "opened",
        "adopted",
        "closed_fin",
        "closed_rst",
        "superseded",
        "reopened",
        "refused",
        "untracked",
        "unverified",
        "ruled",
        "sticky",
        "datagrams",
        "migrated",
    ];
    NAMES.into_iter().zip(*fields).filter(|(_, count)| *count != 0).collect()
}

/// The refusals that are not 0, by name.
pub(super) fn refusals(fields: &[u64; ServiceCounters::FIELDS]) -> Vec<(&'static str, u64)> {
    const NAMES: [&str; ServiceCounters::FIELDS] = ["empty", "full", "max_flows", "rate", "ports"];
    NAMES.into_iter().zip(*fields).filter(|(_, count)| *count != 0).collect()
}
