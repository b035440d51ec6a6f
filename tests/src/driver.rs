//! The kernel programs `bench` of `tests/ebpf`: what the packet path is measured with.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use bytemuck::{Pod, Zeroable};

use crate::raw_map::Raw;

/// What `tests/build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// Bytes of a frame that each run gets anew. What follows stays as it was.
pub const RENEWED: usize = 64;
/// Index of each namespace's loopback interface (include/net/net_namespace.h: `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// Bits of a flow's number that are in the client's port; the others are in its address.
const PORT_BITS: u32 = 14;

/// A program to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Nothing.
    Floor,
    /// Headers, bounds, and one hit in a hash table.
    Lookup,
}

impl Reference {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Lookup => "lookup",
        }
    }
}

/// What each run's packet is like. The layout is known to `tests/ebpf/src/bench`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Order {
    frame: [u8; RENEWED],
    add: u32,
    mask: u32,
    seq_step: u32,
    reply: u32,
    forgets: u32,
    pad: u32,
}

// SAFETY: plain old data.
unsafe impl aya::Pod for Order {}

/// Where the runs are.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Progress {
    flow: u32,
    seq: u32,
}

// SAFETY: plain old data.
unsafe impl aya::Pod for Progress {}

/// Packets for a program to be measured: an IPv4 frame, varied from run to run.
#[derive(Clone, Debug)]
pub struct Packets {
    /// The frame of flow 0, at least [`RENEWED`] bytes.
    pub frame: Vec<u8>,
    /// log2 of the number of flows, which come in an order that no cache foresees.
    pub flows: u32,
    /// Added to the TCP sequence number from packet to packet.
    pub seq_step: u32,
    /// The client is the receiver.
    pub reply: bool,
    /// The handshake that the packet's flow has is removed first.
    pub forgets: bool,
}

/// What a run of a program over packets was.
#[derive(Clone, Debug)]
pub struct Driven {
    /// Time of one run, to a nanosecond.
    pub each: Duration,
    /// What the program returned last.
    pub action: u32,
    /// The frame it left last.
    pub frame: Vec<u8>,
    /// The number of the flow whose packet that was.
    pub flow: u32,
    /// Its TCP sequence number, if they advance.
    pub seq: u32,
}

/// The programs, loaded.
#[derive(Debug)]
pub struct Driver {
    ebpf: Ebpf,
    /// What [`Reference::Lookup`] knows.
    entries: Raw,
    /// Where the packets to come begin.
    next: Progress,
}

impl Driver {
    /// Loads them, in a namespace that is used for nothing else. `entries`: capacity of the table that
    /// [`Reference::Lookup`] looks into; `bpffs`: where the maps of the programs to be measured are
    /// pinned.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn load(entries: u32, bpffs: &Path) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("ENTRIES", entries)
            .map_pin_path("EMBRYOS4", bpffs.join("EMBRYOS4"))
            .load(OBJECT)
            .context("cannot load the programs of the benchmark")?;
        for name in ["floor", "lookup", "drive"] {
            program(&mut ebpf, name)?.load().with_context(|| name.to_owned())?;
        }
        // The kernel calls an attached program by its dispatcher. One that isn't attached goes there for
        // each BPF_PROG_TEST_RUN, and waits twice until no CPU is in it: many times the run itself.
        program(&mut ebpf, "drive")?.attach_to_if_index(LOOPBACK, XdpMode::Skb)?;
        let map = ebpf.take_map("ENTRIES").context("no map ENTRIES")?;
        let Map::HashMap(data) = map else { bail!("ENTRIES: no hash table") };
        Ok(Self { ebpf, entries: Raw::of("ENTRIES", data)?, next: Progress::zeroed() })
    }

    /// Says which program packets are for: a reference.
    ///
    /// # Errors
    /// The kernel's.
    pub fn measure(&mut self, what: Reference) -> Result<()> {
        let fd = program(&mut self.ebpf, what.name())?.fd()?.try_clone()?;
        self.go_on_in(&fd)
    }

    /// The same: a pinned program.
    ///
    /// # Errors
    /// It is not there.
    pub fn measure_pinned(&mut self, path: &Path) -> Result<()> {
        let kind = aya_obj::programs::XdpAttachType::Interface;
        let program = Xdp::from_pin(path, kind).with_context(|| path.display().to_string())?;
        self.go_on_in(program.fd()?)
    }

    fn go_on_in(&mut self, fd: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut("MEASURED").context("no map MEASURED")?;
        Ok(ProgramArray::try_from(map)?.set(0, fd, 0)?)
    }

    /// Makes [`Reference::Lookup`] know the flows of packets, and no others.
    ///
    /// # Errors
    /// The kernel's.
    pub fn know(&mut self, packets: &Packets) -> Result<()> {
        self.entries.clear()?;
        let count = 1_u32 << packets.flows;
        let keys: Vec<u8> = (0..count)
            .flat_map(|flow| {
                let frame = packets.of(flow);
                let mut key = [0; 16];
                key[..8].copy_from_slice(&frame[26..34]);
                key[8..12].copy_from_slice(&frame[34..38]);
                key[12] = frame[23];
                key
            })
            .collect();
        self.entries.fill(&keys, &vec![0; count as usize * 64])
    }

    /// Runs the program so many times. Flows and sequence numbers go on where they were.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&mut self, packets: &Packets, times: u32) -> Result<Driven> {
        ensure!(packets.frame.len() >= RENEWED, "a frame of {} bytes", packets.frame.len());
        let mut order = Order {
            frame: [0; RENEWED],
            // With the factor in the program: Numerical Recipes in C, §7.1.
            add: 1_013_904_223,
            mask: (1_u32 << packets.flows) - 1,
            seq_step: packets.seq_step,
            reply: u32::from(packets.reply),
            forgets: u32::from(packets.forgets),
            pad: 0,
        };
        order.frame.copy_from_slice(&packets.frame[..RENEWED]);
        let map = self.ebpf.map_mut("ORDER").context("no map ORDER")?;
        Array::<_, Order>::try_from(map)?.set(0, order, 0)?;
        let map = self.ebpf.map_mut("PROGRESS").context("no map PROGRESS")?;
        let mut progress = PerCpuArray::<_, Progress>::try_from(map)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let begin = Progress { flow: self.next.flow & order.mask, ..self.next };
        progress.set(0, PerCpuValues::try_from(vec![begin; cpus])?, 0)?;
        let ran = test_run(program(&mut self.ebpf, "drive")?, &packets.frame, times)?;
        let map = self.ebpf.map("PROGRESS").context("no map PROGRESS")?;
        let all = PerCpuArray::<_, Progress>::try_from(map)?.get(&0, 0)?;
        // One CPU went on, the others are where they were.
        let went = all.iter().find(|now| (now.flow, now.seq) != (begin.flow, begin.seq));
        let went = *went.unwrap_or(&begin);
        self.next = went;
        Ok(Driven { flow: went.flow, seq: went.seq, ..ran })
    }

    /// Where flows and sequence numbers go on: behind these.
    pub fn go_on_from(&mut self, flow: u32, seq: u32) {
        self.next = Progress { flow, seq };
    }

    /// Runs a reference by itself.
    ///
    /// # Errors
    /// The kernel's.
    pub fn alone(&mut self, what: Reference, frame: &[u8], times: u32) -> Result<Driven> {
        test_run(program(&mut self.ebpf, what.name())?, frame, times)
    }
}

impl Packets {
    /// Those of one flow's client, all the same.
    #[must_use]
    pub const fn of_one(frame: Vec<u8>) -> Self {
        Self { frame, flows: 0, seq_step: 0, reply: false, forgets: false }
    }

    /// The frame of a flow, its checksums those of flow 0.
    #[must_use]
    pub fn of(&self, flow: u32) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let (address, port) = if self.reply { (30, 36) } else { (26, 34) };
        let (high, low) = (flow >> PORT_BITS, flow & ((1 << PORT_BITS) - 1));
        for (at, byte) in high.to_be_bytes().iter().enumerate() {
            frame[address + at] ^= byte;
        }
        for (at, byte) in low.to_be_bytes()[2..].iter().enumerate() {
            frame[port + at] ^= byte;
        }
        frame
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn test_run(program: &Xdp, frame: &[u8], times: u32) -> Result<Driven> {
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        repeat: times,
        ..TestRunOptions::new()
    };
    let result = program.test_run(options)?;
    out.truncate(result.data_size_out as usize);
    Ok(Driven { each: result.duration, action: result.return_value, frame: out, flow: 0, seq: 0 })
}
