//! An interface whose packets take their time: the kernel program of `tests/ebpf/src/slow.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{Xdp, XdpMode};

use crate::netns::Netns;

/// What `tests/build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/slow"));
/// How long the first packet may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program on an interface; detached when dropped.
#[derive(Debug)]
pub struct Slow(Ebpf);

impl Slow {
    /// Loads it and attaches it natively.
    ///
    /// # Errors
    /// The kernel refuses the program, or there is no such interface.
    pub fn attach(namespace: &Netns, device: &str) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("cannot load the slow program")?;
        let program: &mut Xdp = ebpf.program_mut("slow").context("no program")?.try_into()?;
        program.load()?;
        namespace
            .enter(|| program.attach(device, XdpMode::Driver))?
            .with_context(|| format!("cannot attach to {device} in {}", namespace.name()))?;
        Ok(Self(ebpf))
    }

    /// Packets that it began with.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn begun(&self) -> Result<u64> {
        self.count(0)
    }

    /// Packets that it is done with.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn ended(&self) -> Result<u64> {
        self.count(1)
    }

    fn count(&self, index: u32) -> Result<u64> {
        let map = self.0.map("COUNTS").context("no map COUNTS")?;
        Ok(Array::<_, u64>::try_from(map)?.get(&index, 0)?)
    }

    /// Waits until it is at work, and returns how many packets it has begun with.
    ///
    /// # Errors
    /// No packet comes.
    pub fn at_work(&self) -> Result<u64> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (ended, begun) = (self.ended()?, self.begun()?);
            if begun > ended {
                return Ok(begun);
            }
            ensure!(Instant::now() < until, "no packet has come");
            std::thread::yield_now();
        }
    }
}
