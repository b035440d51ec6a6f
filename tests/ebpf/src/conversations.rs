//! Both ends of TCP connections by the ten thousand a second, without a socket: who gets a segment
//! turns it round into the next one.
//!
//! ```text
//! client                 server
//!   SYN       ──────▶              made by `generate`, one by one
//!             ◀──────  SYN ACK
//!   ACK       ──────▶
//!             ◀──────  FIN ACK     the server has said all that it had to say
//!   FIN ACK   ──────▶
//!             ◀──────  ACK         the client counts it as finished
//! ```
//! Neither end remembers anything: each segment says by its flags and numbers what comes next.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's entry point macros drop the comments")]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use release_common::atomic::{add, load};

/// Clients are 198.18.0.0/15 (RFC 2544, for tests of devices).
const CLIENTS: u32 = 0xc612_0000;
const CLIENT_BITS: u32 = 17;
/// Their ports have this bit.
const PORTS: u16 = 1 << 15;
const PORT_BITS: u32 = 15;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What is counted. The places are known to `release_tests::conversations`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Count {
    /// SYNs made.
    Begun = 0,
    /// SYNs that reached a server.
    Accepted = 1,
    /// SYN-ACKs that reached the client.
    Established = 2,
    /// Connections whose last acknowledgement reached the client.
    Finished = 3,
    /// Segments of connections that nobody has an answer to.
    Odd = 4,
}

#[btf_map]
static COUNTS: PerCpuArray<u64, 8> = PerCpuArray::new();
/// The SYN without what tells one client from the other, by user space.
#[btf_map]
static TEMPLATE: Array<[u8; 56], 1> = Array::new();
/// When and how fast connections begin, by user space.
#[btf_map]
static PACE: Array<Pace, 1> = Array::new();
/// Connections begun since then, and those under way at all: by all CPUs.
#[btf_map]
static BEGUN: Array<u64, 1> = Array::new();
/// As above.
#[btf_map]
static UNDER_WAY: Array<u64, 1> = Array::new();

/// The layout is known to `release_tests::conversations`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pace {
    /// Nanoseconds of the monotonic clock at the begin.
    since: u64,
    /// So many connections may have begun by the end.
    most: u64,
    /// Nanoseconds from one to the next.
    interval: u64,
    /// So many may be under way.
    under_way: u64,
    /// Number of the first one.
    first: u64,
}

/// A TCP segment without options or data, in network order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    ethertype: [u8; 2],
    version: u8,
    tos: u8,
    length: [u8; 2],
    fragment: [u8; 4],
    ttl: u8,
    protocol: u8,
    ip_check: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
    source_port: [u8; 2],
    destination_port: [u8; 2],
    seq: [u8; 4],
    ack: [u8; 4],
    offset: u8,
    flags: u8,
    window: [u8; 2],
    check: [u8; 2],
    urgent: [u8; 2],
}

const _: () = assert!(size_of::<Frame>() == 54 && align_of::<Frame>() == 1);

/// Adds 16-bit words.
macro_rules! sum {
    ($($bytes:expr),+) => {
        0u32 $( + words(&$bytes) )+
    };
}

#[inline(always)]
fn words<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at + 1 < N {
        sum += u32::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}

#[inline(always)]
fn checksum(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_ne_bytes()
}

impl Frame {
    #[inline(always)]
    fn seal(&mut self) {
        let addresses = sum!(self.source, self.destination);
        self.ip_check = checksum(
            addresses
                + sum!([self.version, self.tos], self.length, self.fragment)
                + sum!([self.ttl, self.protocol]),
        );
        let pseudo = addresses + sum!([0, self.protocol], 20u16.to_be_bytes());
        self.check = checksum(
            pseudo
                + sum!(self.source_port, self.destination_port, self.seq, self.ack)
                + sum!([self.offset, self.flags], self.window, self.urgent),
        );
    }

    /// The answer with these flags; `taken`: numbers that the segment took.
    #[inline(always)]
    fn turn(&mut self, flags: u8, taken: u32) {
        let Self { source_mac, destination_mac, source, destination, .. } = *self;
        let (port, seq) = (self.source_port, u32::from_be_bytes(self.seq));
        (self.source_mac, self.destination_mac) = (destination_mac, source_mac);
        (self.source, self.destination) = (destination, source);
        self.source_port = self.destination_port;
        self.destination_port = port;
        // A SYN has no acknowledgement: its answer begins at 0.
        self.seq = self.ack;
        self.ack = seq.wrapping_add(taken).to_be_bytes();
        self.flags = flags;
        self.ttl = 64;
        self.seal();
    }
}

/// The frame, if it is a segment as those here. It is there for as long as the program runs.
#[inline(always)]
fn frame(ctx: XdpContext) -> Option<&'static mut Frame> {
    let start = ctx.data();
    if start + size_of::<Frame>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie between data and data_end, as the verifier proves too; any bytes are a
    // `Frame`, whose alignment is 1, and nobody else has a reference to them.
    let frame = unsafe { &mut *(start as *mut Frame) };
    let is_tcp = frame.ethertype == [8, 0] && frame.version == 0x45 && frame.protocol == 6;
    is_tcp.then_some(frame)
}

#[inline(always)]
fn is_client(address: [u8; 4]) -> bool {
    u32::from_be_bytes(address) >> CLIENT_BITS == CLIENTS >> CLIENT_BITS
}

#[inline(always)]
fn count(what: Count) {
    if let Some(count) = COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: this CPU's own element; XDP programs are not interrupted by one another.
        unsafe { *count += 1 };
    }
}

/// Run from user space on live frames, again and again: if it is time for the next connection, its
/// SYN, whatever the frame holds. One run at a time.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let (Some(template), Some(pace), Some(begun), Some(under_way)) =
        (TEMPLATE.get(0), PACE.get(0), BEGUN.get_ptr_mut(0), UNDER_WAY.get_ptr_mut(0))
    else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: elements of maps, aligned to 8 bytes; the helper has no arguments.
    let (number, flying, now) = unsafe { (load(begun), load(under_way), bpf_ktime_get_ns()) };
    let due = now.wrapping_sub(pace.since) >= number.wrapping_mul(pace.interval);
    if number >= pace.most || flying >= pace.under_way || !due {
        return xdp_action::XDP_DROP;
    }
    let start = ctx.data();
    if start + size_of::<Frame>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: as in `frame`; the template is at least as long, and nobody writes it meanwhile.
    let frame = unsafe {
        let frame = &mut *(start as *mut Frame);
        *frame = *core::ptr::from_ref(template).cast::<Frame>();
        add(begun, 1);
        add(under_way, 1);
        frame
    };
    let number = (pace.first + number) as u32;
    frame.source = (CLIENTS | (number >> PORT_BITS) & ((1 << CLIENT_BITS) - 1)).to_be_bytes();
    frame.source_port = (PORTS | number as u16 & (PORTS - 1)).to_be_bytes();
    frame.seq = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    frame.seal();
    count(Count::Begun);
    xdp_action::XDP_TX
}

/// The servers' end.
#[xdp]
pub fn server(ctx: XdpContext) -> u32 {
    let Some(frame) = frame(ctx).filter(|frame| is_client(frame.source)) else {
        return xdp_action::XDP_PASS;
    };
    match frame.flags {
        SYN => {
            count(Count::Accepted);
            frame.turn(SYN | ACK, 1);
        }
        ACK => frame.turn(FIN | ACK, 0),
        flags if flags == FIN | ACK => frame.turn(ACK, 1),
        _ => {
            count(Count::Odd);
            return xdp_action::XDP_DROP;
        }
    }
    xdp_action::XDP_TX
}

/// The clients' end.
#[xdp]
pub fn client(ctx: XdpContext) -> u32 {
    let Some(frame) = frame(ctx).filter(|frame| is_client(frame.destination)) else {
        return xdp_action::XDP_PASS;
    };
    if frame.flags == SYN | ACK {
        count(Count::Established);
        frame.turn(ACK, 1);
        return xdp_action::XDP_TX;
    }
    if frame.flags == FIN | ACK {
        frame.turn(FIN | ACK, 1);
        return xdp_action::XDP_TX;
    }
    if frame.flags == ACK {
        count(Count::Finished);
        if let Some(under_way) = UNDER_WAY.get_ptr_mut(0) {
            // SAFETY: as in `generate`.
            unsafe { add(under_way, u64::MAX) };
        }
    } else {
        count(Count::Odd);
    }
    xdp_action::XDP_DROP
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
