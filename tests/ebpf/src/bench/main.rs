//! What the packet path is measured with.
//!
//! * `floor` – nothing: what it takes to run a program;
//! * `lookup` – headers, bounds and one hit in a hash table, written for its speed: the least that
//!   any program needs that keeps flows;
//! * `drive` – makes each run's packet anew and goes on in the program to be measured, since
//!   BPF_PROG_TEST_RUN hands a program what it made of its packet the run before. Its own cost is
//!   that of `drive` and then `floor`.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's entry point macros drop the comments")]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use release_common::abi::{Be16, Be32, Embryo, FlowKey};

/// Bytes of a frame that each run gets anew.
const FRAME: usize = 64;
/// EtherType of IPv4 as it stands in memory.
const IPV4: u16 = 0x0800_u16.to_be();
/// IP version 4 with a header of 20 bytes.
const PLAIN_HEADER: u8 = 0x45;
const TCP: u8 = 6;

/// What `drive` makes. The layout is known to `release_tests::driver`.
#[repr(C)]
struct Order {
    /// The frame.
    frame: [u64; FRAME / 8],
    /// Added to the run's number, for the next one's: odd, times four and one.
    add: u32,
    /// Number of different flows less one; that number is a power of two.
    mask: u32,
    /// Added to the TCP sequence number in each run.
    seq_step: u32,
    /// 1: the client is the receiver.
    reply: u32,
    /// 1: the handshake that the packet's flow has is removed first.
    forgets: u32,
    /// Zero.
    pad: u32,
}

/// Where the runs are.
#[repr(C)]
struct Progress {
    /// Number of the flow before.
    flow: u32,
    /// TCP sequence number of the run before.
    seq: u32,
}

#[btf_map]
static ORDER: Array<Order, 1> = Array::new();
#[btf_map]
static PROGRESS: PerCpuArray<Progress, 1> = PerCpuArray::new();
/// The program to be measured.
#[btf_map]
static MEASURED: ProgramArray<1> = ProgramArray::new();
/// Handshakes, of the programs that are measured: pinned by them.
#[btf_map]
static EMBRYOS4: LruHashMap<FlowKey<Be32>, Embryo, 65_536> = LruHashMap::new();
/// What `lookup` looks up: key and value are as large as those of a flow.
#[btf_map]
static ENTRIES: HashMap<[u32; 4], [u64; 8], 1024> = HashMap::new();

/// What it takes to run a program.
#[xdp(frags)]
pub fn floor(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// What it takes to find an entry.
#[xdp(frags)]
pub fn lookup(ctx: XdpContext) -> u32 {
    match found(ctx.ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn found(ctx: *mut xdp_md) -> Option<()> {
    let frame = frame(ctx)?;
    // SAFETY: within the frame, see `frame`; addresses in a packet are not aligned.
    let key = unsafe {
        let at = |offset: usize| frame.add(offset);
        if at(12).cast::<u16>().read_unaligned() != IPV4
            || at(14).read() != PLAIN_HEADER
            || at(23).read() != TCP
        {
            return None;
        }
        [
            at(26).cast::<u32>().read_unaligned(),
            at(30).cast::<u32>().read_unaligned(),
            at(34).cast::<u32>().read_unaligned(),
            u32::from(TCP),
        ]
    };
    ENTRIES.get_ptr(key).map(|_| ())
}

/// The frame, of which at least [`FRAME`] bytes are there.
#[inline(always)]
fn frame(ctx: *mut xdp_md) -> Option<*mut u8> {
    // SAFETY: the program's own context.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    if data + FRAME <= end { Some(data as *mut u8) } else { None }
}

/// Makes the packet anew, and goes on with it.
#[xdp(frags)]
pub fn drive(ctx: XdpContext) -> u32 {
    if made(ctx.ctx).is_some() {
        // SAFETY: nothing here needs dropping.
        unsafe { MEASURED.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn made(ctx: *mut xdp_md) -> Option<()> {
    let order = ORDER.get(0)?;
    // SAFETY: this CPU's own; one program runs on it at a time.
    let progress = unsafe { &mut *PROGRESS.get_ptr_mut(0)? };
    let frame = frame(ctx)?;
    for (index, word) in order.frame.iter().enumerate() {
        // SAFETY: within the frame, see `frame`.
        unsafe { frame.add(8 * index).cast::<u64>().write_unaligned(*word) };
    }
    // Each number below the mask comes once, in an order that no cache foresees (a linear
    // congruential generator of full period: Knuth, The Art of Computer Programming 2, §3.2.1.2).
    let flow = progress.flow.wrapping_mul(1_664_525).wrapping_add(order.add) & order.mask;
    progress.flow = flow;
    progress.seq = progress.seq.wrapping_add(order.seq_step);
    // The low bits of such numbers repeat soon: they go to the high bits of the address.
    let address = (flow >> 14).to_be();
    let port = (flow as u16 & 0x3fff).to_be();
    let (address_at, port_at) = if order.reply == 0 { (26, 34) } else { (30, 36) };
    // SAFETY: as above.
    unsafe {
        let to = frame.add(address_at).cast::<u32>();
        to.write_unaligned(to.read_unaligned() ^ address);
        let to = frame.add(port_at).cast::<u16>();
        to.write_unaligned(to.read_unaligned() ^ port);
        if order.seq_step != 0 {
            frame.add(38).cast::<u32>().write_unaligned(progress.seq.to_be());
        }
    }
    if order.forgets != 0 {
        // SAFETY: as above.
        forget(unsafe { &*frame.cast::<[u8; FRAME]>() });
    }
    Some(())
}

/// Removes the handshake of a client's frame, if there is one.
#[inline(always)]
fn forget(frame: &[u8; FRAME]) {
    // SAFETY: within the frame; addresses in a packet are not aligned.
    let key = unsafe {
        let at = |offset: usize| frame.as_ptr().add(offset);
        FlowKey {
            client: Be32(at(26).cast::<u32>().read_unaligned()),
            frontend: Be32(at(30).cast::<u32>().read_unaligned()),
            client_port: Be16(at(34).cast::<u16>().read_unaligned()),
            frontend_port: Be16(at(36).cast::<u16>().read_unaligned()),
            proto: TCP,
            pad: 0,
            pad_end: 0,
        }
    };
    let _ = EMBRYOS4.remove(key);
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used are offered to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
