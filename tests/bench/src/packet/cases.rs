//! The cases.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use release_common::reason::Reason;
use release_tests::driver::{Driven, Driver, Packets, RENEWED, Reference};
use release_tests::frames::{Segment, flags, syn_options};
use release_tests::model::Scene;
use release_user::kernel::Capacities;

use super::check;
use super::rig::Rig;
use crate::row::{Measured, Row, Section, Stats, Target};
use crate::{Scope, say};

/// Actions of XDP programs (include/uapi/linux/bpf.h).
const PASS: u32 = 2;
const TX: u32 = 3;
const REDIRECT: u32 = 4;
/// Capacities of the tables: the defaults.
const FLOWS: u32 = 1 << 20;
const EMBRYOS: u32 = 1 << 16;
/// A window scale that leaves room for all that one side sends in a benchmark.
const SCALE: u8 = 14;
/// New flows between two looks at an empty table.
const BATCH: u32 = 1024;
/// Bytes of data in a segment: the frame is then of 64 bytes.
const DATA: usize = 10;

/// What Katran took on such a machine, net of an empty program, in terms of `lookup`'s net: the
/// middle of what was measured.
mod katran {
    pub const MANY: f64 = 374.5 / 31.0;
    pub const SYN: f64 = 304.5 / 31.0;
    pub const SYN_CHURNING: f64 = 740.0 / 31.0;
    pub const NOT_OURS: f64 = 50.0 / 31.0;
    pub const UDP: f64 = 161.5 / 31.0;
}

/// One thing to measure.
struct Case {
    id: &'static str,
    what: &'static str,
    packets: Packets,
    /// Packets at a time.
    times: u32,
    /// How many times in a round.
    runs: u32,
    /// What comes of each.
    action: u32,
    reason: Reason,
    /// Where it goes.
    to: To,
    /// Table that is emptied before each round.
    fresh: Option<&'static str>,
    /// The sequence number before the next packet's.
    seq: Option<u32>,
    target: Option<f64>,
}

/// Where a packet goes, or where the client sees it come from.
#[derive(Clone, Copy)]
enum To {
    /// It stays as it is.
    Nowhere,
    End(SocketAddr),
    AnyInstance,
}

/// Times of all rounds, in nanoseconds.
#[derive(Default)]
struct Times {
    floor: Vec<f64>,
    drive: Vec<f64>,
    lookup: Vec<f64>,
}

pub fn measure(scope: Scope) -> Result<Measured> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let times = if scope.quick { 200_000 } else { 1_000_000 };
    say("packet path: loading the programs");
    let mut scene = Scene::new(&[1], 4);
    scene.frontends.truncate(1);
    let capacities = Capacities { flows: FLOWS, ..Capacities::small(FLOWS, EMBRYOS) };
    let mut rig = Rig::new(capacities, scene)?;
    let mut driver = Driver::load(1024)?;
    let one = Connection::open(&mut rig, CLIENT)?;
    let frame = padded(one.from_client(0));
    let reference = Packets { frame, flows: 0, seq_step: 0, reply: false };
    driver.know(&reference)?;
    let mut run = Rounds { scope, rig, driver, times, reference, measured: Measured::default() };
    run.established(&one)?;
    run.handshakes()?;
    run.others()?;
    Ok(run.measured)
}

/// What is measured, and with what.
struct Rounds {
    scope: Scope,
    rig: Rig,
    driver: Driver,
    /// Packets of a case in a round.
    times: u32,
    /// What the references run over: without data, of an established flow.
    reference: Packets,
    measured: Measured,
}

/// A connection through the programs: what its client and its instance send.
struct Connection {
    client: SocketAddr,
    frontend: SocketAddr,
    instance: SocketAddr,
    /// Next numbers of client and server.
    next: [u32; 2],
}

impl Connection {
    /// Opens it, by packets.
    fn open(rig: &mut Rig, client: SocketAddr) -> Result<Self> {
        let frontend = rig.scene.frontends[0].socket;
        let options = syn_options(Some(SCALE));
        let syn =
            Segment { options: options.clone(), ..Segment::tcp(client, frontend, flags::SYN) };
        let (_, out) = rig.packet(&syn.numbers(999, 0).build())?;
        let instance = release_tests::frames::destination(&out);
        let mut this = Self { client, frontend, instance, next: [1000, 5000] };
        let both = flags::SYN | flags::ACK;
        let answer = Segment { options, ..Segment::tcp(instance, client, both) };
        for frame in [
            answer.numbers(4999, 1000).build(),
            this.from_client(0),
            this.from_client(DATA),
            this.from_server(DATA),
        ] {
            let (action, _) = rig.packet(&frame)?;
            ensure!(action == REDIRECT, "no connection: action {action}");
        }
        this.next = [this.next[0] + DATA as u32, this.next[1] + DATA as u32];
        Ok(this)
    }

    fn from_client(&self, data: usize) -> Vec<u8> {
        let [seq, ack] = self.next;
        Segment::tcp(self.client, self.frontend, flags::ACK).numbers(seq, ack).data(data).build()
    }

    fn from_server(&self, data: usize) -> Vec<u8> {
        let [ack, seq] = self.next;
        Segment::tcp(self.instance, self.client, flags::ACK).numbers(seq, ack).data(data).build()
    }
}

/// The client of flow 0: the numbers of other flows are added to its address and port.
const CLIENT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 128, 0, 0), 16384));

impl Rounds {
    /// One flow, and many.
    fn established(&mut self, one: &Connection) -> Result<()> {
        let data =
            Packets { frame: one.from_client(DATA), flows: 0, seq_step: DATA as u32, reply: false };
        let acks =
            Packets { frame: padded(one.from_client(0)), flows: 0, seq_step: 0, reply: false };
        let reply =
            Packets { frame: one.from_server(DATA), flows: 0, seq_step: DATA as u32, reply: true };
        let flow = self.rig.flow(&acks.frame)?;
        self.rounds(&mut [
            self.case("packet.established.data", "established, client to instance, data", &data)
                .to(one.instance)
                .at_most(1.8),
            self.case("packet.established.ack", "established, client to instance, no data", &acks)
                .to(one.instance)
                .at_most(1.8),
            Case {
                reason: Reason::Replied,
                ..self.case(
                    "packet.established.reply",
                    "established, instance to client, data",
                    &reply,
                )
            }
            .to(one.frontend)
            .at_most(2.8),
        ])?;
        for (flows, id, what, target) in [
            (
                18,
                "packet.established.262144",
                "established, 262,144 flows in random order",
                Some(0.6 * katran::MANY),
            ),
            (
                20,
                "packet.established.1048576",
                "established, 1,048,576 flows in random order",
                None,
            ),
        ] {
            let packets = Packets { flows, ..acks.clone() };
            self.rig.fill(&packets, flow, |_| flow.backend)?;
            let case = self.case(id, what, &packets).to(one.instance);
            self.rounds(&mut [Case { target, ..case }])?;
        }
        Ok(())
    }

    /// SYNs of new flows.
    fn handshakes(&mut self) -> Result<()> {
        self.rig.clear("FLOWS4")?;
        let frontend = self.rig.scene.frontends[0].socket;
        let syn = Segment {
            options: syn_options(Some(SCALE)),
            ..Segment::tcp(CLIENT, frontend, flags::SYN)
        };
        let frame = padded(syn.numbers(999, 0).build());
        let acks = Packets { frame: frame.clone(), flows: 0, seq_step: 0, reply: false };
        let new = |flows| Packets { flows, ..acks.clone() };
        // Few at a time, so that it is the writing that is measured, not a large table's memory.
        let room = Case {
            fresh: Some("EMBRYOS4"),
            times: BATCH,
            runs: self.times / BATCH / 4,
            reason: Reason::Placed,
            ..self.case("packet.syn", "SYN, pin written", &new(16))
        };
        let churning = Case {
            reason: Reason::Placed,
            ..self.case("packet.syn.churning", "SYN, always new, table churning", &new(26))
        };
        self.rounds(&mut [
            room.any().at_most(0.7 * katran::SYN),
            churning.any().at_most(0.7 * katran::SYN_CHURNING),
        ])
    }

    /// What is not ours, and UDP.
    fn others(&mut self) -> Result<()> {
        let frontend = self.rig.scene.frontends[0].socket;
        let other = SocketAddr::new(frontend.ip(), 9);
        let ack = Segment::tcp(CLIENT, other, flags::ACK).data(DATA).build();
        let packets = Packets { frame: ack, flows: 0, seq_step: 0, reply: false };
        let not_ours = Case {
            action: PASS,
            reason: Reason::NotOurPort,
            ..self.case("packet.not-ours", "not ours, left to the kernel", &packets)
        };
        self.rounds(&mut [not_ours.at_most(0.7 * katran::NOT_OURS)])?;
        let mut scene = Scene::new(&[1], 4).udp();
        scene.frontends.truncate(1);
        self.rig.install(scene)?;
        let datagram = Segment::udp(CLIENT, frontend).data(22).build();
        let (_, out) = self.rig.packet(&datagram)?;
        let instance = release_tests::frames::destination(&out);
        self.rig.packet(&Segment::udp(instance, CLIENT).data(22).build())?;
        let packets = Packets { frame: datagram, flows: 0, seq_step: 0, reply: false };
        self.rig.flow(&packets.frame)?;
        let udp =
            self.case("packet.udp", "UDP, established, client to instance", &packets).to(instance);
        self.rounds(&mut [udp.at_most(0.6 * katran::UDP)])
    }

    fn case(&self, id: &'static str, what: &'static str, packets: &Packets) -> Case {
        Case {
            id,
            what,
            packets: packets.clone(),
            times: self.times,
            runs: 1,
            action: REDIRECT,
            reason: Reason::Forwarded,
            to: To::Nowhere,
            fresh: None,
            target: None,
            seq: first_seq(packets),
        }
    }

    /// All cases and the references in turn, in each round.
    fn rounds(&mut self, cases: &mut [Case]) -> Result<()> {
        let mut times = Times::default();
        let mut took = vec![Vec::new(); cases.len()];
        for _ in 0..self.scope.rounds() {
            times.floor.push(ns(&self.driver.alone(
                Reference::Floor,
                &self.reference.frame,
                self.times,
            )?));
            for (which, into) in
                [(Reference::Floor, &mut times.drive), (Reference::Lookup, &mut times.lookup)]
            {
                self.driver.measure(which)?;
                let driven = self.driver.run(&self.reference, self.times)?;
                ensure!(driven.action == TX, "{which:?}: action {}", driven.action);
                into.push(ns(&driven));
            }
            self.rig.drive(&mut self.driver)?;
            for (case, into) in cases.iter_mut().zip(&mut took) {
                let mut sum = 0.0;
                for _ in 0..case.runs {
                    sum += ns(&run(case, &mut self.rig, &mut self.driver).context(case.id)?);
                }
                into.push(sum / f64::from(case.runs));
            }
        }
        let lookup = net(&times.lookup, &times.drive);
        say(&format!(
            "floor {:?}, drive {:?}, lookup {:?}",
            Stats::of(&times.floor),
            Stats::of(&times.drive),
            Stats::of(&lookup)
        ));
        for (case, took) in cases.iter().zip(&took) {
            let net = net(took, &times.drive);
            let ratios: Vec<f64> = net.iter().zip(&lookup).map(|(a, b)| a / b).collect();
            let row = Row::new(Section::PacketPath, case.id, case.what, "ns", &net)
                .ratio("lookup, net", &ratios);
            say(&format!(
                "{:<40} {:>6.0} {:>6.0} {:.2} {:?}",
                case.what,
                row.value.min,
                row.value.median,
                row.compared().median,
                case.target
            ));
            self.measured.rows.push(match case.target {
                Some(bound) => row.target(Target::at_most(bound)),
                None => row,
            });
        }
        Ok(())
    }
}

impl Case {
    fn to(self, end: SocketAddr) -> Self {
        Self { to: To::End(end), ..self }
    }

    fn any(self) -> Self {
        Self { to: To::AnyInstance, ..self }
    }

    fn at_most(self, bound: f64) -> Self {
        Self { target: Some(bound), ..self }
    }
}

/// The number before the first packet's, if they advance.
fn first_seq(packets: &Packets) -> Option<u32> {
    let bytes = packets.frame[38..42].try_into().ok()?;
    (packets.seq_step != 0).then(|| u32::from_be_bytes(bytes).wrapping_sub(packets.seq_step))
}

/// As long as what each run gets anew.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(RENEWED), 0);
    frame
}

fn ns(driven: &Driven) -> f64 {
    driven.each.as_nanos() as f64
}

fn net(times: &[f64], floor: &[f64]) -> Vec<f64> {
    times.iter().zip(floor).map(|(time, floor)| time - floor).collect()
}

/// Runs a case once, and looks at what came of it.
fn run(case: &mut Case, rig: &mut Rig, driver: &mut Driver) -> Result<Driven> {
    if let Some(table) = case.fresh {
        rig.clear(table)?;
    }
    if let Some(seq) = case.seq {
        driver.set_seq(seq);
    }
    rig.renew()?;
    let before = rig.counted(case.reason)?;
    let driven = driver.run(&case.packets, case.times)?;
    let mut frame = case.packets.of(driven.flow);
    if let Some(seq) = &mut case.seq {
        *seq = driven.seq;
        frame[38..42].copy_from_slice(&driven.seq.to_be_bytes());
    }
    ensure!(driven.action == case.action, "action {} of {}", driven.action, case.action);
    let after = rig.counted(case.reason)?;
    let times = u64::from(case.times);
    ensure!(
        after.0 - before.0 == times,
        "{} of {times} packets were {:?}",
        after.0 - before.0,
        case.reason
    );
    let end = match case.to {
        To::Nowhere => {
            ensure!(frame == driven.frame, "the frame was changed");
            return Ok(driven);
        }
        To::End(end) => end,
        To::AnyInstance => {
            let to = release_tests::frames::destination(&driven.frame);
            ensure!(rig.scene.instances().any(|instance| instance.socket == to), "{to}");
            to
        }
    };
    ensure!(after.1 - before.1 == times, "{} packets counted", after.1 - before.1);
    let (source, destination) = release_tests::frames::ends(&frame).context("no ends")?;
    let between = if case.packets.reply { (end, destination) } else { (source, end) };
    check::sent_on(&frame, &driven.frame, between)?;
    Ok(driven)
}
