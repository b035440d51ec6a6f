//! Executes cases and judges every step.

mod compare;
mod packets;
mod sent;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io::{Write, stderr};
use std::net::{IpAddr, SocketAddr};

use compare::{outcome, same, untouched};
use release_common::abi::{Counters, ServiceCounters};
use release_common::pipeline::{Counter, Refusal, Timed};
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::runner::Runner;
use super::script::{Case, EmbryoIs, FlowIs, Measure, Setting, Step, Verdict, Want};
use crate::model::scene::Instance;
use crate::model::{Key, Scene};

/// What came of running a table.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that held, by category and variant.
    pub passed: BTreeMap<(&'static str, &'static str), usize>,
    /// Cases that need what the runner cannot do.
    pub not_applicable: Vec<String>,
    /// Frames that the runner does not take.
    pub frames_not_taken: usize,
    /// Cases that did not hold, with the step and what was wrong.
    pub failed: Vec<String>,
}

impl Report {
    /// Runs `cases`, each on a runner of its own.
    pub fn of<R: Runner>(cases: &[Case], mut runner: impl FnMut(&Scene) -> R) -> Self {
        let mut report = Self::default();
        for case in cases {
            let mut not_taken = 0;
            match run_case(case, &mut runner(&case.scene), &mut not_taken) {
                Ok(true) => {
                    *report.passed.entry((case.category, case.variant)).or_default() += 1;
                }
                Ok(false) => report.not_applicable.push(case.name.clone()),
                Err(why) => {
                    let Case { category, variant, name, .. } = case;
                    report.failed.push(format!("{category}: {variant}: {name}: {why}"));
                }
            }
            report.frames_not_taken += not_taken;
        }
        report
    }

    /// Number of cases that held.
    pub fn count(&self) -> usize {
        self.passed.values().sum()
    }

    /// The cases that held as a table: a line for each category.
    pub fn table(&self) -> String {
        let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((category, variant), count) in &self.passed {
            lines.entry(category).or_default().push(format!("{count} {variant}"));
        }
        let line = |(category, counts): (&str, Vec<String>)| {
            format!("{category:>12}  {}\n", counts.join(", "))
        };
        let lines: String = lines.into_iter().map(line).collect();
        format!("{lines}{:>12}  {}", "all", self.count())
    }
}

/// Writes a line to standard error itself: the test runner swallows what passing tests print.
pub fn say(what: impl Display) {
    // Where standard error is closed, nobody listens.
    let _ = writeln!(stderr().lock(), "{what}");
}

/// Runs a case. `Ok(false)`: the runner cannot do what it needs. Counts the raw frames it does not
/// take in `not_taken`.
///
/// # Errors
/// The number of the step and what was wrong with its outcome.
pub fn run_case(
    case: &Case,
    runner: &mut dyn Runner,
    not_taken: &mut usize,
) -> Result<bool, String> {
    let scene = &case.scene;
    let (pins, sources, tunnels) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut play = Play { scene, runner, pins, sources, tunnels, not_taken: 0 };
    for (number, step) in case.steps.iter().enumerate() {
        let outcome = play.step(step).and_then(|done| {
            play.conserved()?;
            Ok(done)
        });
        match outcome {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => return Err(format!("step {number}: {why}")),
        }
    }
    *not_taken = play.not_taken;
    Ok(true)
}

struct Play<'a> {
    scene: &'a Scene,
    runner: &'a mut dyn Runner,
    /// The instance that a connection's packets go to.
    pins: HashMap<usize, Instance>,
    /// Mode `snat`: what stands for a connection's client.
    sources: HashMap<usize, SocketAddr>,
    /// Tunnel modes: outer source and source port of a connection's packets.
    tunnels: HashMap<usize, (IpAddr, u16)>,
    not_taken: usize,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<bool, String> {
        match step {
            Step::Packet(packet) => return self.packet(packet),
            Step::Fragments(packet, cuts, arrivals) => {
                return self.fragments(packet, cuts, arrivals);
            }
            Step::Icmp(icmp) => return self.icmp(icmp),
            Step::Frame(frame, _) if !self.runner.takes(frame) => self.not_taken += 1,
            Step::Frame(frame, want) => {
                let run = self.runner.run(frame);
                match want {
                    Want::Untouched(reason) => untouched(&run, frame, *reason)?,
                    Want::Dropped(reason) => outcome(&run, Verdict::Drop, *reason)?,
                    _ => return Err("a raw frame is untouched or dropped".into()),
                }
            }
            Step::Advance(jiffies) => return Ok(self.runner.advance(*jiffies)),
            Step::Shift(weights) => self.runner.shift(weights),
            Step::Set(Setting::Closed(connection)) => {
                let instance = self.pin(*connection)?;
                return Ok(self.runner.close(instance.id));
            }
            Step::Set(setting) => return Ok(self.runner.set(*setting)),
            step => self.look(step)?,
        }
        Ok(true)
    }

    /// Steps that change nothing.
    fn look(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Flow(connection, want) => same("flow", &self.flow_is(*connection), want),
            Step::Embryo(connection, want) => same("embryo", &self.embryo_is(*connection), want),
            Step::Check(connection, what, check) => {
                let flow = self.runner.flow(&self.key(*connection)).ok_or("no flow")?;
                if check(&flow) { Ok(()) } else { Err(format!("not so: {what}: {flow:?}")) }
            }
            Step::Counts(want) => {
                let mut all = [0; Counters::FIELDS];
                want.iter().for_each(|(counter, count)| all[*counter as usize] = *count);
                same("counters", &compare::steps(&self.sum()), &compare::steps(&all))
            }
            Step::Refusals(want) => {
                let mut all = [0; ServiceCounters::FIELDS];
                want.iter().for_each(|(refusal, count)| all[*refusal as usize] = *count);
                let is = bytemuck::cast(self.runner.refusals());
                same("refusals", &compare::refusals(&is), &compare::refusals(&all))
            }
            Step::Measures(want) => {
                let wanted = |measure: &Measure| {
                    want.iter().find(|(of, _)| of == measure).map_or(0, |(_, count)| *count)
                };
                let wanted = compare::MEASURES.map(|measure| (measure, wanted(&measure)));
                same("measured", &self.measured(), &wanted)
            }
            Step::Session(connection, want) => {
                let is = self.runner.session(self.scene.client_socket(*connection).ip());
                same("live flows of the session", &is, want)
            }
            Step::Same(a, b) => same("instance", &self.pin(*a)?.id, &self.pin(*b)?.id),
            Step::Apart(a, b) if self.pin(*a)?.id != self.pin(*b)?.id => Ok(()),
            Step::Apart(a, b) => Err(format!("connections {a} and {b} go to one instance")),
            _ => Err("no step that only looks".into()),
        }
    }

    /// I3: what was opened is live, or was closed; what was begun became a flow, ended or is there.
    /// Sessions count the live flows that say so.
    fn conserved(&mut self) -> Result<(), String> {
        let tally = self.runner.tally();
        let sum = self.sum();
        let count = |counter: Counter| sum[counter as usize];
        let begun = count(Counter::Opened) + count(Counter::Adopted);
        let made = begun + count(Counter::Reopened);
        let closed =
            count(Counter::ClosedFin) + count(Counter::ClosedRst) + count(Counter::Superseded);
        same("flows conserved", &made, &(tally.live + closed))?;
        same("gauge", &tally.gauge, &(tally.live as i64))?;
        same("entries", &tally.entries, &((tally.live + tally.closed) as i64))?;
        same("flows in sessions", &tally.sessions, &tally.in_sessions)?;
        let created = count(Counter::Placed) + count(Counter::Trials);
        let gone = begun + count(Counter::EmbryosEnded) + tally.evicted;
        same("embryos conserved", &created, &(gone + tally.embryos))
    }

    fn measured(&mut self) -> [(Measure, u64); compare::MEASURES.len()] {
        let all: Counters = bytemuck::cast(self.sum());
        let ids: Vec<u32> = self.scene.instances().map(|instance| instance.id).collect();
        let mut timed = |what| ids.iter().map(|&id| self.runner.timed(id, what)).sum();
        compare::MEASURES.map(|measure| {
            let count = match measure {
                Measure::Connects => timed(Timed::Connect),
                Measure::FirstBytes => timed(Timed::FirstByte),
                Measure::Unmeasured => all.unmeasured,
                Measure::SynsRefused => all.syns_refused,
                Measure::ClientResets => all.client_resets,
                Measure::ServerResets => all.server_resets,
                Measure::Segments => all.segments,
                Measure::Retransmits => all.retransmits,
            };
            (measure, count)
        })
    }

    fn sum(&mut self) -> [u64; Counters::FIELDS] {
        let mut sum = [0; Counters::FIELDS];
        for instance in self.scene.instances() {
            let counters: [u64; Counters::FIELDS] =
                bytemuck::cast(self.runner.counters(instance.id));
            sum.iter_mut().zip(counters).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    fn key(&self, connection: usize) -> Key {
        let frontend = self.scene.frontend(connection);
        let (client, protocol) = (self.scene.client_socket(connection), frontend.protocol);
        Key { client, frontend: frontend.socket, protocol }
    }

    fn flow_is(&mut self, connection: usize) -> FlowIs {
        let Some(flow) = self.runner.flow(&self.key(connection)) else { return FlowIs::None };
        let word = FlowWord(flow.state);
        match word.phase() {
            Phase::Live if word.half_closed() => FlowIs::HalfClosed,
            Phase::Live => FlowIs::Live,
            Phase::ClosedFin => FlowIs::ClosedFin,
            Phase::ClosedRst | Phase::Dead => FlowIs::ClosedRst,
        }
    }

    fn embryo_is(&mut self, connection: usize) -> EmbryoIs {
        let embryo = self.runner.embryo(&self.key(connection));
        match embryo.map(|embryo| EmbryoWord(embryo.state).phase()) {
            None | Some(EmbryoPhase::Ended) => EmbryoIs::None,
            Some(EmbryoPhase::Syn) => EmbryoIs::Syn,
            Some(EmbryoPhase::SynAck) => EmbryoIs::SynAck,
            Some(EmbryoPhase::Trial) => EmbryoIs::Trial,
        }
    }

    fn pin(&self, connection: usize) -> Result<Instance, String> {
        self.pins.get(&connection).copied().ok_or_else(|| "the connection has no instance".into())
    }
}

const _: () = assert!(Refusal::Ports as usize + 1 == ServiceCounters::FIELDS);
