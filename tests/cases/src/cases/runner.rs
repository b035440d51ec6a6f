//! Who executes a case.

use std::net::IpAddr;

use release_common::abi::{Counters, Embryo, Flow, ServiceCounters, SessionWord, backend_state};
use release_common::pipeline::{Action, Hop, Outcome, Route, Tables, Timed};
use release_common::reason::Reason;

use super::script::{Setting, Verdict, Way};
use crate::model::tables::{egress_on, way_to};
use crate::model::{Key, ModelTables, Scene, Tally};

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
    /// Sends a frame through that the host is about to send; `None`: the runner cannot.
    fn egress(&mut self, frame: &[u8]) -> Option<Run>;
    /// Lets time pass. Returns whether it can: cases that need it do not apply otherwise.
    fn advance(&mut self, jiffies: u64) -> bool;
    /// Puts new weights in force, as a shift does.
    fn shift(&mut self, weights: &[u32]);
    /// Changes the surroundings. Returns whether it can.
    fn set(&mut self, setting: Setting) -> bool;
    /// Makes an instance take no new flows. Returns whether it can.
    fn close(&mut self, backend: u32) -> bool;
    /// A copy of a flow.
    fn flow(&mut self, key: &Key) -> Option<Flow>;
    /// A copy of an embryo.
    fn embryo(&mut self, key: &Key) -> Option<Embryo>;
    /// An instance's counters, summed over CPUs.
    fn counters(&mut self, backend: u32) -> Counters;
    /// How often it was measured how long an instance took.
    fn timed(&mut self, backend: u32, what: Timed) -> u64;
    /// New flows that the service refused, summed over CPUs.
    fn refusals(&mut self) -> ServiceCounters;
    /// Live flows that a client's session counts.
    fn session(&mut self, client: IpAddr) -> Option<u32>;
    /// A walk over all entries.
    fn tally(&mut self) -> Tally;
    /// The verdict and both MACs (destination, source) of a frame sent to this address, if known.
    fn way(&mut self, destination: IpAddr) -> Option<(Verdict, [u8; 6], [u8; 6])>;
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

impl From<(Outcome, Vec<u8>)> for Run {
    fn from((outcome, frame): (Outcome, Vec<u8>)) -> Self {
        let verdict = match outcome.action {
            Action::Pass => Verdict::Pass,
            Action::Drop => Verdict::Drop,
            Action::Bounce => Verdict::Bounce,
            Action::Send => Verdict::Send(Some(outcome.ifindex)),
        };
        Self { verdict, frame, reason: outcome.reason }
    }
}

impl Runner for ModelRunner {
    fn run(&mut self, frame: &[u8]) -> Run {
        self.tables.run(frame).into()
    }

    fn egress(&mut self, frame: &[u8]) -> Option<Run> {
        Some(egress_on(&self.tables, frame).into())
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
                let frontend = self.tables.scene().frontends.get(index);
                let socket = frontend.map(|frontend| frontend.socket);
                self.tables.gone.borrow_mut().extend(socket);
            }
            Setting::Closed(_) => return false,
            Setting::Way(Way::Mtu(mtu)) => self.tables.mtu.set(mtu.into()),
            Setting::Way(way) => {
                self.tables.mtu.set(u32::MAX);
                self.tables.way.set(match way {
                    Way::Same => {
                        Some(Route::Via(Hop { ifindex: None, dmac: [2; 6], smac: [4; 6] }))
                    }
                    Way::Kernel => Some(Route::Kernel),
                    Way::Known | Way::Mtu(_) => None,
                });
            }
        }
        true
    }

    fn close(&mut self, backend: u32) -> bool {
        let Some(&entry) = self.tables.backend(backend) else { return false };
        let closed = release_common::abi::Backend { state: backend_state::CLOSED, ..entry };
        self.tables.set_backend(backend, closed);
        true
    }

    fn flow(&mut self, key: &Key) -> Option<Flow> {
        self.tables.flow_at(key)
    }

    fn embryo(&mut self, key: &Key) -> Option<Embryo> {
        self.tables.embryo_at(key)
    }

    fn counters(&mut self, backend: u32) -> Counters {
        self.tables.counters(backend)
    }

    fn timed(&mut self, backend: u32, what: Timed) -> u64 {
        self.tables.times(backend, what).len() as u64
    }

    fn refusals(&mut self) -> ServiceCounters {
        self.tables.refusals()
    }

    fn session(&mut self, client: IpAddr) -> Option<u32> {
        Some(SessionWord(self.tables.session_of(client)?.state).live())
    }

    fn tally(&mut self) -> Tally {
        self.tables.tally()
    }

    fn way(&mut self, destination: IpAddr) -> Option<(Verdict, [u8; 6], [u8; 6])> {
        if let Some(Route::Via(Hop { dmac, smac, .. })) = self.tables.way.get() {
            return Some((Verdict::Bounce, dmac, smac));
        }
        let (ifindex, dmac, smac) = way_to(destination);
        Some((Verdict::Send(Some(ifindex)), dmac, smac))
    }
}
