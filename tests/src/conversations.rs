//! Whole TCP connections by the ten thousand a second: the kernel programs of
//! `tests/ebpf/src/conversations.rs` on the wires of clients and servers, and SYNs made by running
//! one of them on live frames (Linux 5.18).
//!
//! The clients are all of 198.18.0.0/15. A connection that loses a segment stays open for good: what
//! was begun must be what has finished.

use std::fmt;
use std::net::SocketAddrV4;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, Pod};
use nix::net::if_::if_nametoindex;
use nix::time::{ClockId, clock_gettime};

use crate::netns::Netns;
use crate::packet_socket::mac;
use crate::packets;

/// What `tests/build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/conversations"));

/// Where the clients are, to be routed to the client's host.
pub const CLIENTS: &str = "198.18.0.0/15";
/// Frames looked at in a row, and connections under way at the same time: a veth holds 256 frames.
const BATCH: u32 = 64;
const UNDER_WAY: u64 = 192;
/// Frames of one system call, which takes a grace period to begin and end.
const FRAMES: u32 = 1 << 18;
/// How often to look whether the last have finished.
const PAUSE: Duration = Duration::from_micros(100);
/// How long the last ones may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What both ends have seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// SYNs made.
    pub begun: u64,
    /// SYNs that reached a server.
    pub accepted: u64,
    /// SYN-ACKs that reached the client.
    pub established: u64,
    /// Connections whose last acknowledgement reached the client.
    pub finished: u64,
    /// Segments that nobody has an answer to.
    pub odd: u64,
}

/// An end of a wire: namespace and interface.
pub type End<'a> = (&'a Netns, &'a str);

/// Both ends; detached when dropped.
pub struct Conversations<'a> {
    ebpf: Ebpf,
    client: &'a Netns,
    ifindex: u32,
    frame: Vec<u8>,
}

impl fmt::Debug for Conversations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversations").field("ifindex", &self.ifindex).finish_non_exhaustive()
    }
}

impl<'a> Conversations<'a> {
    /// Attaches the programs, natively, to a client's interface and to servers'. Connections will go
    /// to `target`, behind the neighbour with MAC address `gateway`.
    ///
    /// # Errors
    /// The kernel refuses the programs, or there is no such interface.
    pub fn attach(
        client: End<'a>,
        servers: &[End<'_>],
        gateway: [u8; 6],
        target: SocketAddrV4,
    ) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("cannot load the programs for conversations")?;
        let (namespace, device) = client;
        for (name, ends) in [("client", &[client][..]), ("server", servers)] {
            let program = program(&mut ebpf, name)?;
            program.load()?;
            for (namespace, device) in ends {
                namespace.enter(|| program.attach(device, XdpMode::Driver))?.with_context(
                    || format!("cannot attach to {device} in {}", namespace.name()),
                )?;
            }
        }
        program(&mut ebpf, "generate")?.load()?;
        let from = SocketAddrV4::new([0; 4].into(), 0);
        let syn = packets::tcp(from.into(), target.into(), 0x02, 0, &[]);
        let frame = packets::frame(gateway, mac(namespace, device)?, &syn);
        let mut template = [0; 56];
        template[..frame.len()].copy_from_slice(&frame);
        let ifindex = namespace.enter(|| if_nametoindex(device))??;
        let mut conversations = Self { ebpf, client: namespace, ifindex, frame };
        conversations.set("TEMPLATE", template)?;
        Ok(conversations)
    }

    /// What both ends have seen so far.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let map = self.ebpf.map("COUNTS").context("no map COUNTS")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?;
        let sum = |index: u32| -> Result<u64> { Ok(counts.get(&index, 0)?.iter().sum()) };
        Ok(Counts {
            begun: sum(0)?,
            accepted: sum(1)?,
            established: sum(2)?,
            finished: sum(3)?,
            odd: sum(4)?,
        })
    }

    /// Opens and closes so many connections a second, or as many as can be, and waits for the last to
    /// finish. Returns how many there were, and in what time they were begun.
    ///
    /// # Errors
    /// Some do not finish: a segment was lost, or refused.
    pub fn run(&mut self, rate: u32, time: Duration) -> Result<(u64, Duration)> {
        let before = self.counts()?;
        ensure!(before.begun == before.finished, "others are under way: {before:?}");
        let took = self.client.enter(|| self.generate(before.begun, rate, time))??;
        let until = Instant::now() + PATIENCE;
        let mut counts = self.counts()?;
        while counts.finished < counts.begun && Instant::now() < until {
            thread::sleep(PAUSE);
            counts = self.counts()?;
        }
        let Counts { begun, accepted, established, finished, odd } = counts;
        let all = [accepted, established, finished].into_iter().all(|count| count == begun);
        ensure!(all && odd == before.odd, "not all connections finished: {counts:?}");
        Ok((begun - before.begun, took))
    }

    /// Sends SYNs, as many as are due, until the time is over.
    fn generate(&mut self, first: u64, rate: u32, time: Duration) -> Result<Duration> {
        let interval = 1_000_000_000 / u64::from(rate.max(1));
        let most = u64::try_from(time.as_nanos())? / interval;
        let since = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let since = u64::try_from(since.as_nanos())?;
        self.set("BEGUN", 0_u64)?;
        self.set("PACE", [since, most, interval, UNDER_WAY, first])?;
        let program: &Xdp = self.ebpf.program("generate").context("no program")?.try_into()?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let words = [0, u32::try_from(self.frame.len())?, 0, self.ifindex, 0, 0];
        let context: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let begin = Instant::now();
        // Whoever cannot keep the pace does not get more time.
        while begin.elapsed() < time && self.counts()?.begun - first < most {
            let options = TestRunOptions {
                data_in: Some(&self.frame),
                ctx_in: Some(&context),
                repeat: FRAMES,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            program.test_run(options).context("live frames (Linux 5.18)")?;
        }
        Ok(begin.elapsed())
    }

    fn set<T: Pod>(&mut self, map: &str, value: T) -> Result<()> {
        let map = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        Ok(Array::<_, T>::try_from(map)?.set(0, value, 0)?)
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("no program {name}"))?;
    Ok(program.try_into()?)
}
