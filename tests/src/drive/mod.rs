//! A release in small: many conversations, a change of weights in their middle, and what each of
//! them saw.
//!
//! Half of them have begun when the change begins, and half of these have been answered; a tenth
//! lives across it. A quarter begins only after the change has returned. Each flow (TCP connection or UDP flow) asks several
//! times, and must be answered by one and the same server.

mod flow;
mod outcome;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

pub use outcome::Outcome;

use crate::netns::{Netns, NsHandle};
use crate::topology::Protocol;
use flow::Flow;

/// So many flows are under way at once, not counting those that live across the change.
const WORKERS: u32 = 24;
/// Every so many-th flow of the first half lives across the change.
const HELD: u32 = 10;
/// After so many errors nothing more is begun: each may have taken seconds.
const TOO_MANY: u64 = 20;
/// How long half of the flows may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Where clients go to.
    pub target: SocketAddr,
    /// TCP connections or UDP flows.
    pub protocol: Protocol,
    /// Client addresses, used in turn; empty: the kernel's choice.
    pub sources: Vec<IpAddr>,
    /// Number of flows, at least 40.
    pub flows: u32,
    /// Exchanges of a short flow, at least 1.
    pub exchanges: u32,
    /// Length of UDP questions in bytes, if they are not as short as they can be: 20 to 8900. An
    /// answer is a little longer.
    pub datagram: Option<usize>,
}

/// When a flow began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    During,
    After,
}

#[derive(Debug)]
struct State {
    begun: u32,
    phase: Phase,
    stopped: bool,
    outcome: Outcome,
}

#[derive(Debug)]
struct Run<'a> {
    drive: &'a Drive,
    state: Mutex<State>,
    changed: Condvar,
}

impl Drive {
    /// Runs the clients inside a namespace, and the change when half of them have begun.
    ///
    /// # Errors
    /// The change fails, or the flows do not come so far. What happens to flows is in the outcome.
    pub fn run(&self, namespace: &Netns, change: impl FnOnce() -> Result<()>) -> Result<Outcome> {
        ensure!(self.flows >= 40 && self.exchanges >= 1, "too little: {self:?}");
        let outcome = Outcome::default();
        let state = State { begun: 0, phase: Phase::Before, stopped: false, outcome };
        let run = Run { drive: self, state: Mutex::new(state), changed: Condvar::new() };
        let changed = thread::scope(|scope| {
            // Workers that wait must not wait for ever.
            let _stop = StopOnFailure(&run);
            for _ in 0..WORKERS {
                let (run, namespace) = (&run, namespace.handle());
                scope.spawn(move || run.worker(&namespace));
            }
            run.half_begun()?;
            run.set_phase(Phase::During);
            change()?;
            run.set_phase(Phase::After);
            anyhow::Ok(())
        });
        changed?;
        let state = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(state.outcome)
    }
}

/// Ends the flows unless the change has been made: it may have failed or panicked.
struct StopOnFailure<'a>(&'a Run<'a>);

impl Drop for StopOnFailure<'_> {
    fn drop(&mut self) {
        if self.0.lock().phase != Phase::After {
            self.0.stop();
        }
    }
}

impl Run<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn half_begun(&self) -> Result<()> {
        let half = self.drive.flows / 2;
        let come = |state: &State| {
            let Outcome { flows, errors, .. } = state.outcome;
            state.begun >= half && u64::from(flows) + errors >= u64::from(half / 2)
        };
        let not_yet = |state: &mut State| !come(state) && !state.stopped;
        let waited = self.changed.wait_timeout_while(self.lock(), BEGIN, not_yet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if come(&state) {
            return Ok(());
        }
        let State { begun, outcome, .. } = &*state;
        Err(anyhow!("{begun} of {} flows, {:?}", self.drive.flows, outcome.first_errors))
    }

    /// Number and phase of the next flow, when it may begin.
    fn next(&self) -> Option<(u32, Phase)> {
        let Drive { flows, .. } = *self.drive;
        let wait = |state: &mut State| {
            let limit = match state.phase {
                // The change begins when half have begun, and at least a quarter begins after it.
                Phase::Before => flows / 2,
                Phase::During => flows / 4 * 3,
                Phase::After => return false,
            };
            state.begun >= limit && !state.stopped
        };
        let waited = self.changed.wait_while(self.lock(), wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.stopped || state.begun == flows {
            return None;
        }
        let next = (state.begun, state.phase);
        state.begun += 1;
        drop(state);
        self.changed.notify_all();
        Some(next)
    }

    /// Begins one flow after the other, and keeps those talking that live on.
    fn worker(&self, namespace: &NsHandle) {
        if let Err(error) = namespace.join() {
            self.failed(&error);
            return self.stop();
        }
        let mut held: Vec<Flow> = Vec::new();
        let mut turn = 0;
        while let Some((number, phase)) = self.next() {
            match self.begin(number, phase) {
                Ok(flow) if phase == Phase::Before && number % HELD == 0 => held.push(flow),
                Ok(mut flow) => {
                    for _ in 1..self.drive.exchanges {
                        self.ask(&mut flow);
                    }
                }
                Err(error) => self.failed(&error),
            }
            turn += 1;
            let turns = held.len().max(1);
            if let Some(flow) = held.get_mut(turn % turns) {
                self.ask(flow);
            }
        }
        for flow in &mut held {
            self.ask(flow);
        }
    }

    fn begin(&self, number: u32, phase: Phase) -> Result<Flow> {
        let Drive { target, protocol, sources, datagram, .. } = self.drive;
        let count = u32::try_from(sources.len().max(1))?;
        let source = sources.get(usize::try_from(number % count)?).copied();
        let mut flow = Flow::open(*protocol, *target, source, number, number / count)?;
        flow.pad(datagram.unwrap_or(0));
        let owner = flow.ask()?.clone();
        let mut state = self.lock();
        let now = state.phase;
        let outcome = &mut state.outcome;
        outcome.flows += 1;
        outcome.exchanges += 1;
        outcome.repeated += flow.take_repeated();
        // What was asked before the change may have been placed after it, if no answer came before.
        let by_version = match (phase, now) {
            (Phase::Before, Phase::Before) => &mut outcome.before,
            (Phase::After, _) => &mut outcome.after,
            _ => &mut outcome.during,
        };
        *by_version.entry(owner.version).or_default() += 1;
        *outcome.instances.entry(owner.instance).or_default() += 1;
        drop(state);
        self.changed.notify_all();
        Ok(flow)
    }

    fn ask(&self, flow: &mut Flow) {
        let Some(first) = flow.owner().cloned() else { return };
        match flow.ask() {
            Ok(owner) => {
                let moved = (*owner != first).then(|| format!("{first:?} → {owner:?}"));
                let mut state = self.lock();
                state.outcome.exchanges += 1;
                state.outcome.repeated += flow.take_repeated();
                state.outcome.moved(moved);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &anyhow::Error) {
        let mut state = self.lock();
        state.outcome.error(error);
        state.stopped |= state.outcome.errors >= TOO_MANY;
        drop(state);
        self.changed.notify_all();
    }
}
