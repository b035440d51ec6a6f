//! Executes cases and judges every step.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

use release_common::abi::{Be16, Counters, FlowKey4};
use release_common::pipeline::Counter;
use release_common::reason::Reason;
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::runner::{Run, Runner};
use super::script::{Case, EmbryoIs, FlowIs, Packet, Sender, Step, Verdict, Want};
use crate::frames::{Tcp, destination, flags, icmp_error, padded, verify};
use crate::model::Scene;

/// What came of running a table.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that held, by category.
    pub passed: BTreeMap<&'static str, usize>,
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
                Ok(true) => *report.passed.entry(case.category).or_default() += 1,
                Ok(false) => report.not_applicable.push(case.name.clone()),
                Err(why) => report.failed.push(format!("{}: {}: {why}", case.category, case.name)),
            }
            report.frames_not_taken += not_taken;
        }
        report
    }
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
    let mut play = Play { scene: &case.scene, runner, pins: HashMap::new(), not_taken: 0 };
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

/// All counted steps of an instance, as numbered by [`Counter`].
fn fields(counters: Counters) -> [u64; Counters::FIELDS] {
    bytemuck::cast(counters)
}

struct Play<'a> {
    scene: &'a Scene,
    runner: &'a mut dyn Runner,
    pins: HashMap<usize, SocketAddrV4>,
    not_taken: usize,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<bool, String> {
        match step {
            Step::Packet(packet) => self.packet(packet)?,
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
            Step::Set(setting) => return Ok(self.runner.set(*setting)),
            Step::Flow(connection, want) => {
                let is = self.flow_is(*connection);
                same("flow", &is, want)?;
            }
            Step::Embryo(connection, want) => {
                let is = self.embryo_is(*connection);
                same("embryo", &is, want)?;
            }
            Step::Check(connection, what, check) => {
                let key = self.key(*connection);
                let flow = self.runner.flow(&key).ok_or("no flow")?;
                if !check(&flow) {
                    return Err(format!("not so: {what}: {flow:?}"));
                }
            }
            Step::Counts(want) => {
                let mut all = [0; Counters::FIELDS];
                want.iter().for_each(|(counter, count)| all[*counter as usize] = *count);
                let is = self.sum();
                same("counters", &named(&is), &named(&all))?;
            }
        }
        Ok(true)
    }

    /// I3: what was opened is live, or was closed; what was begun became a flow, ended or is there.
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
        let created = count(Counter::Placed) + count(Counter::Trials);
        let gone = begun + count(Counter::EmbryosEnded) + tally.evicted;
        same("embryos conserved", &created, &(gone + tally.embryos))
    }

    fn sum(&mut self) -> [u64; Counters::FIELDS] {
        let mut sum = [0; Counters::FIELDS];
        for instance in self.scene.instances() {
            let counters = fields(self.runner.counters(instance.id));
            sum.iter_mut().zip(counters).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    fn client(connection: usize) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 40_000 + connection.max(1) as u16)
    }

    fn frontend(&self, connection: usize) -> SocketAddrV4 {
        self.scene.frontends[usize::from(connection == 1)]
    }

    fn key(&self, connection: usize) -> FlowKey4 {
        let (client, frontend) = (Self::client(connection), self.frontend(connection));
        FlowKey4::tcp(
            (*client.ip()).into(),
            Be16::new(client.port()),
            (*frontend.ip()).into(),
            Be16::new(frontend.port()),
        )
    }

    fn flow_is(&mut self, connection: usize) -> FlowIs {
        let key = self.key(connection);
        let Some(flow) = self.runner.flow(&key) else { return FlowIs::None };
        let word = FlowWord(flow.state);
        match word.phase() {
            Phase::Live if word.half_closed() => FlowIs::HalfClosed,
            Phase::Live => FlowIs::Live,
            Phase::ClosedFin => FlowIs::ClosedFin,
            Phase::ClosedRst | Phase::Dead => FlowIs::ClosedRst,
        }
    }

    fn embryo_is(&mut self, connection: usize) -> EmbryoIs {
        let key = self.key(connection);
        match self.runner.embryo(&key).map(|embryo| EmbryoWord(embryo.state).phase()) {
            None | Some(EmbryoPhase::Ended) => EmbryoIs::None,
            Some(EmbryoPhase::Syn) => EmbryoIs::Syn,
            Some(EmbryoPhase::SynAck) => EmbryoIs::SynAck,
            Some(EmbryoPhase::Trial) => EmbryoIs::Trial,
        }
    }

    fn pin(&self, connection: usize) -> Result<SocketAddrV4, String> {
        self.pins.get(&connection).copied().ok_or_else(|| "the connection has no instance".into())
    }

    fn ends(&self, packet: &Packet) -> Result<(SocketAddrV4, SocketAddrV4), String> {
        let client = Self::client(packet.connection);
        Ok(match packet.sender {
            Sender::Client => (client, self.frontend(packet.connection)),
            Sender::Server => (self.pin(packet.connection)?, client),
            Sender::Instance(id) => {
                let instance = self.scene.instances().find(|instance| instance.id == id);
                (instance.ok_or("no such instance")?.socket, client)
            }
        })
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), String> {
        let (source, destination) = self.ends(packet)?;
        let segment = Tcp {
            window: packet.window,
            options: packet.options.clone(),
            ttl: packet.ttl,
            tos: packet.tos,
            dont_fragment: packet.dont_fragment,
            ..Tcp::new(source, destination, packet.flags)
        };
        let segment = segment.numbers(packet.seq, packet.ack).data(packet.data);
        let shape = |segment: &Tcp| {
            if packet.padded { padded(segment.build()) } else { segment.build() }
        };
        let frame = shape(&segment);
        let run = self.runner.run(&frame);
        match packet.want {
            Want::Untouched(reason) => untouched(&run, &frame, reason),
            Want::Dropped(reason) => outcome(&run, Verdict::Drop, reason),
            Want::To(version, reason) => {
                let to = crate::frames::destination(&run.frame);
                let serves = |i: &crate::model::scene::Instance| i.socket == to;
                if !self.scene.versions[version].instances.iter().any(serves) {
                    return Err(format!("sent to {to}, {run:?}"));
                }
                self.pins.insert(packet.connection, to);
                self.sent(&run, Tcp { destination: to, ..segment }, shape, reason)
            }
            Want::Pinned(reason) => {
                let to = self.pin(packet.connection)?;
                self.sent(&run, Tcp { destination: to, ..segment }, shape, reason)
            }
            Want::PinnedByKernel => {
                let to = self.pin(packet.connection)?;
                by_kernel(&run, &shape(&Tcp { destination: to, ..segment }))
            }
            Want::Replied => {
                let frontend = self.frontend(packet.connection);
                self.sent(&run, Tcp { source: frontend, ..segment }, shape, Reason::Replied)
            }
            Want::RepliedByKernel => {
                let frontend = self.frontend(packet.connection);
                by_kernel(&run, &shape(&Tcp { source: frontend, ..segment }))
            }
            Want::Reset(reason) => {
                outcome(&run, Verdict::Bounce, reason)?;
                bytes(&run.frame, &refusal_of(&segment).build())
            }
            Want::TimeExceeded => {
                outcome(&run, Verdict::Bounce, Reason::TtlExceeded)?;
                verify(&run.frame)?;
                bytes(&run.frame, &icmp_error(&frame, 11, 0, 0))
            }
            Want::TooBig(mtu) => {
                outcome(&run, Verdict::Bounce, Reason::TooBig)?;
                verify(&run.frame)?;
                bytes(&run.frame, &icmp_error(&frame, 3, 4, mtu))
            }
        }
    }

    /// Sent by us: translated as in `segment`, TTL one lower, MACs of the way.
    fn sent(
        &mut self,
        run: &Run,
        segment: Tcp,
        shape: impl Fn(&Tcp) -> Vec<u8>,
        reason: Reason,
    ) -> Result<(), String> {
        let mut want = Tcp { ttl: segment.ttl - 1, ..segment };
        match self.runner.way(*destination(&run.frame).ip()) {
            Some((verdict, dmac, smac)) => {
                outcome(run, verdict, reason)?;
                (want.dmac, want.smac) = (dmac, smac);
            }
            None => {
                if !matches!(run.verdict, Verdict::Bounce | Verdict::Send(_)) {
                    return Err(format!("not sent: {:?} {:?}", run.verdict, run.reason));
                }
                same("reason", &run.reason, &reason)?;
                want.dmac.copy_from_slice(&run.frame[..6]);
                want.smac.copy_from_slice(&run.frame[6..12]);
            }
        }
        verify(&run.frame)?;
        bytes(&run.frame, &shape(&want))
    }
}

/// The RST that refuses a SYN (RFC 9293 §3.10.7.1).
fn refusal_of(syn: &Tcp) -> Tcp {
    let reset = Tcp::new(syn.destination, syn.source, flags::RST | flags::ACK);
    let reset = Tcp { window: 0, ident: 0, dmac: syn.smac, smac: syn.dmac, ..reset };
    reset.numbers(0, syn.end())
}

fn by_kernel(run: &Run, want: &[u8]) -> Result<(), String> {
    outcome(run, Verdict::Pass, Reason::HandedToKernel)?;
    verify(&run.frame)?;
    bytes(&run.frame, want)
}

fn untouched(run: &Run, frame: &[u8], reason: Reason) -> Result<(), String> {
    outcome(run, Verdict::Pass, reason)?;
    bytes(&run.frame, frame)
}

fn outcome(run: &Run, verdict: Verdict, reason: Reason) -> Result<(), String> {
    same("outcome", &(run.verdict, run.reason), &(verdict, reason))
}

fn bytes(is: &[u8], want: &[u8]) -> Result<(), String> {
    if is == want { Ok(()) } else { Err(format!("frame {is:02x?}\n  instead of {want:02x?}")) }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, want: &T) -> Result<(), String> {
    if is == want { Ok(()) } else { Err(format!("{what}: {is:?} instead of {want:?}")) }
}

/// The counted steps that are not 0, by name. Packets, bytes and times are not steps.
fn named(fields: &[u64; Counters::FIELDS]) -> Vec<(&'static str, u64)> {
    const NAMES: [&str; 12] = [
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
    ];
    NAMES.into_iter().zip(*fields).filter(|(_, count)| *count != 0).collect()
}
