//! Who executes a case.

use release_common::abi::{Counters, Embryo, Endpoint4, Flow, FlowKey4};
use release_common::pipeline::{Action, Route};
use release_common::reason::Reason;
use std::net::Ipv4Addr;

use super::script::{Setting, Verdict, Way};
use crate::model::tables::way_to;
use crate::model::{ModelTables, Scene, Tally};

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Run {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The reason counted.
    pub reason: Reason,
}

/// A packet path with its tables, loaded with a scene.
pub trait Runner {
    /// Whether such a frame can be sent through.
    fn takes(&self, _frame: &[u8]) -> bool {
        true
    }
    /// Sends a frame through.
    fn run(&mut self, frame: &[u8]) -> Run;
    /// Lets time pass. Returns whether it can: cases that need it do not apply otherwise.
    fn advance(&mut self, jiffies: u64) -> bool;
    /// Puts new weights in force, as a shift does.
    fn shift(&mut self, weights: &[u32]);
    /// Changes the surroundings. Returns whether it can.
    fn set(&mut self, setting: Setting) -> bool;
    /// A copy of a flow.
    fn flow(&mut self, key: &FlowKey4) -> Option<Flow>;
    /// A copy of an embryo.
    fn embryo(&mut self, key: &FlowKey4) -> Option<Embryo>;
    /// An instance's counters, summed over CPUs.
    fn counters(&mut self, backend: u32) -> Counters;
    /// A walk over all entries.
    fn tally(&mut self) -> Tally;
    /// The verdict and both MACs (destination, source) of a frame sent to this address, if known.
    fn way(&mut self, destination: Ipv4Addr) -> Option<(Verdict, [u8; 6], [u8; 6])>;
}

/// The host build over [`ModelTables`].
pub struct ModelRunner {
    /// The tables.
    pub tables: ModelTables,
}

impl ModelRunner {
    /// Loads a scene.
    pub fn new(scene: &Scene) -> Self {
        Self { tables: ModelTables::new(scene, 64, 64) }
    }
}

impl Runner for ModelRunner {
    fn run(&mut self, frame: &[u8]) -> Run {
        let (outcome, frame) = self.tables.run(frame);
        let verdict = match outcome.action {
            Action::Pass => Verdict::Pass,
            Action::Drop => Verdict::Drop,
            Action::Bounce => Verdict::Bounce,
            Action::Send => Verdict::Send(Some(outcome.ifindex)),
        };
        Run { verdict, frame, reason: outcome.reason }
    }

    fn advance(&mut self, jiffies: u64) -> bool {
        self.tables.clock.set(self.tables.clock.get() + jiffies);
        true
    }

    fn shift(&mut self, weights: &[u32]) {
        self.tables.shift(weights);
    }

    fn set(&mut self, setting: Setting) -> bool {
        match setting {
            Setting::TableFull => self.tables.full.set(true),
            Setting::FrontendGone(index) => {
                let frontend = self.tables.scene().frontends.get(index).copied();
                self.tables.gone.borrow_mut().extend(frontend.map(Endpoint4::from));
            }
            Setting::Way(way) => self.tables.way.set(match way {
                Way::Known => None,
                Way::Same => Some(Route::Via { ifindex: None, dmac: [2; 6], smac: [4; 6] }),
                Way::Kernel => Some(Route::Kernel),
                Way::Mtu(mtu) => Some(Route::TooBig(mtu)),
            }),
        }
        true
    }

    fn flow(&mut self, key: &FlowKey4) -> Option<Flow> {
        self.tables.flows.copy(key)
    }

    fn embryo(&mut self, key: &FlowKey4) -> Option<Embryo> {
        self.tables.embryos.copy(key)
    }

    fn counters(&mut self, backend: u32) -> Counters {
        self.tables.counters(backend)
    }

    fn tally(&mut self) -> Tally {
        self.tables.tally()
    }

    fn way(&mut self, destination: Ipv4Addr) -> Option<(Verdict, [u8; 6], [u8; 6])> {
        if let Some(Route::Via { dmac, smac, .. }) = self.tables.way.get() {
            return Some((Verdict::Bounce, dmac, smac));
        }
        let (ifindex, dmac, smac) = way_to(destination);
        Some((Verdict::Send(Some(ifindex)), dmac, smac))
    }
}
