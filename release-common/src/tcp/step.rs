//! What a segment did to a flow.

use super::word::{FlowWord, Marks, Phase};

/// What a segment did to a flow. Each variant but the first two and the last is returned exactly
/// once per step of the flow's life, whichever CPUs see the packets: the change is one
/// compare-and-swap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing to count.
    None,
    /// The numbers fit neither end: forwarded, changed nothing.
    Unverified,
    /// Both FINs are acknowledged now.
    ClosedFin,
    /// An acceptable RST was seen.
    ClosedRst,
    /// The same, of a flow that the operator wants ended.
    Forced,
    /// Valid traffic showed that a closed flow lives.
    Reopened,
    /// The first data of its sender, of a flow that is measured.
    Spoke,
    /// Nothing to count: the answer to a probe. It goes no further.
    Answer,
}

impl Step {
    /// What happened between two words.
    #[inline(always)]
    pub const fn between(before: FlowWord, now: FlowWord) -> Self {
        match (before.is_live(), now.is_live(), now.phase()) {
            (true, false, Phase::ClosedRst) if before.marks().has(Marks::FORCED) => Self::Forced,
            (true, false, Phase::ClosedRst) => Self::ClosedRst,
            (true, false, _) => Self::ClosedFin,
            (false, true, _) => Self::Reopened,
            _ if now.has_spoken() & !before.has_spoken() != 0 => Self::Spoke,
            _ => Self::None,
        }
    }
}

/// What came of looking at a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// What it did to the flow.
    pub step: Step,
    /// It carries data, and is to be measured.
    pub data: bool,
    /// Of those: it begins before what its sender had sent already.
    pub again: bool,
    /// From the server: when the client's first data passed, see [`crate::abi::Side::fin`]; 0 if it is
    /// not known.
    pub asked_at: u32,
}

impl Seen {
    /// Nothing to be measured.
    pub(super) const fn nothing(step: Step) -> Self {
        Self { step, data: false, again: false, asked_at: 0 }
    }
}
