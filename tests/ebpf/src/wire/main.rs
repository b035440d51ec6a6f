//! What stands at the far end of a test's wire, in place of the tunnel devices that not every
//! kernel has.
//!
//! It strips the outer headers of IP in IP (all four pairs of families) and of GUE variant 1, and
//! passes what was inside to the network stack, as everything else. Packet sockets see only what
//! comes out, so that each packet with outer headers is handed to user space whole before.
//! Attached natively it also gives the interface NAPI, without which XDP cannot redirect to it.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's entry point macros drop the comments")]

mod headers;

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

use crate::headers::{Kind, Outer, parse, strip};

/// Longest packet that is handed to user space whole.
const LONGEST: usize = 2040;

/// A packet as it came from the wire. The layout is known to `release_tests::wire`.
#[repr(C)]
struct Record {
    /// Length of the packet, whether or not all of it is here.
    length: u32,
    /// Bytes that are here.
    kept: u32,
    bytes: [u8; LONGEST],
}

/// Packets by [`Kind`]; behind them, packets that user space did not get (the ring was full).
#[btf_map]
static COUNTS: PerCpuArray<u64, 16> = PerCpuArray::new();
/// Place of the latter.
const NOT_HANDED: u32 = 15;

/// Packets with outer headers, before these are stripped.
#[btf_map]
static TUNNELLED: RingBuf<Record, 16777216> = RingBuf::new();

/// Entry point.
#[xdp]
pub fn wire(ctx: XdpContext) -> u32 {
    let Some(outer) = parse(&ctx) else {
        count(Kind::Plain as u32);
        return xdp_action::XDP_PASS;
    };
    hand(&ctx);
    count(outer.kind as u32);
    let Outer { length, ethertype, .. } = outer;
    match strip(&ctx, length, ethertype) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Hands the packet to user space.
#[inline(always)]
fn hand(ctx: &XdpContext) {
    // SAFETY: the program's own context (helper since Linux 5.18).
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    let Some(mut entry) = TUNNELLED.reserve(0) else {
        count(NOT_HANDED);
        return;
    };
    let record = entry.as_mut_ptr();
    let kept = length.min(LONGEST as u32);
    // SAFETY: `record` points to reserved memory of this type, and `kept` bytes of the packet fit
    // into `bytes`; user space reads no others.
    let loaded = unsafe {
        addr_of_mut!((*record).length).write(length);
        addr_of_mut!((*record).kept).write(kept);
        // The verifier wants to see that it is not 0.
        kept > 0 && bpf_xdp_load_bytes(ctx.ctx, 0, addr_of_mut!((*record).bytes).cast(), kept) == 0
    };
    if loaded {
        entry.submit(0);
    } else {
        entry.discard(0);
        count(NOT_HANDED);
    }
}

#[inline(always)]
fn count(index: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(index) {
        // SAFETY: this CPU's own element; XDP programs are not interrupted by themselves.
        unsafe { *count += 1 };
    }
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
