//! The kernel program of `tests/ebpf` at the far end of a wire: strips outer headers and hands
//! packets that had some to a [`crate::capture::Capture`].

use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::{Xdp, XdpMode};

use crate::netns::Netns;

/// What `tests/build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/wire"));

/// Place of the packets that were not handed over, in the map of counts.
const NOT_HANDED: u32 = 15;

/// What a packet's outer headers were. Numbers as in `tests/ebpf/src/headers.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Kind {
    Plain = 0,
    Ipv4InIpv4 = 1,
    Ipv6InIpv4 = 2,
    Ipv4InIpv6 = 3,
    Ipv6InIpv6 = 4,
    GueIpv4InIpv4 = 5,
    GueIpv6InIpv4 = 6,
    GueIpv4InIpv6 = 7,
    GueIpv6InIpv6 = 8,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Plain,
        Self::Ipv4InIpv4,
        Self::Ipv6InIpv4,
        Self::Ipv4InIpv6,
        Self::Ipv6InIpv6,
        Self::GueIpv4InIpv4,
        Self::GueIpv6InIpv4,
        Self::GueIpv4InIpv6,
        Self::GueIpv6InIpv6,
    ];
}

/// The program on one interface; detached when dropped.
pub struct Wire {
    ebpf: Ebpf,
    tunnelled: Mutex<Option<RingBuf<MapData>>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// Loads the program and attaches it natively to an interface in a namespace.
    ///
    /// # Errors
    /// The kernel refuses the program, or there is no such interface.
    pub fn attach(namespace: &Netns, device: &str) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("cannot load the program for wires")?;
        let map = ebpf.take_map("TUNNELLED").context("no map TUNNELLED")?;
        let tunnelled = Mutex::new(Some(RingBuf::try_from(map)?));
        let program: &mut Xdp = ebpf.program_mut("wire").context("no program")?.try_into()?;
        program.load()?;
        // In the driver, or not at all: generic XDP brings no NAPI.
        namespace
            .enter(|| program.attach(device, XdpMode::Driver))?
            .with_context(|| format!("cannot attach to {device} in {}", namespace.name()))?;
        Ok(Self { ebpf, tunnelled })
    }

    /// Packets of a kind so far.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn count(&self, kind: Kind) -> Result<u64> {
        self.sum(kind as u32)
    }

    /// Packets with outer headers that no capture got because it was too slow.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn not_handed(&self) -> Result<u64> {
        self.sum(NOT_HANDED)
    }

    fn sum(&self, index: u32) -> Result<u64> {
        let map = self.ebpf.map("COUNTS").context("no map COUNTS")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(counts.get(&index, 0)?.iter().sum())
    }

    /// Packets as they came from the wire, if they had outer headers. Whoever takes it has it for
    /// good.
    pub(crate) fn take_tunnelled(&self) -> Option<RingBuf<MapData>> {
        self.tunnelled.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The packet in a record of the ring; `None` if it was longer than a record.
pub(crate) fn packet_of(record: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes = record.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let (length, kept) = (number(0)?, number(4)?);
    (length == kept).then(|| record.get(8..8 + kept)).flatten()
}
