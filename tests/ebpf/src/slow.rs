//! A program that takes its time with each packet: what waits for programs to end can be seen to.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's entry point macros drop the comments")]

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use release_common::atomic::add;

/// How often the clock is read for a packet: some 100 ms.
const READINGS: u32 = 1 << 22;
/// Packets begun with, and packets done with. The places are known to `release_tests::slow`.
const BEGUN: u32 = 0;
const ENDED: u32 = 1;

#[btf_map]
static COUNTS: Array<u64, 2> = Array::new();

#[xdp]
pub fn slow(_ctx: XdpContext) -> u32 {
    count(BEGUN);
    // SAFETY: the callback is what Linux 5.17 expects, and uses no context.
    unsafe { bpf_loop(READINGS, read_clock as *mut c_void, null_mut(), 0) };
    count(ENDED);
    xdp_action::XDP_DROP
}

extern "C" fn read_clock(_index: u32, _context: *mut c_void) -> i64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() };
    0
}

#[inline(always)]
fn count(what: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(what) {
        // SAFETY: an aligned element of a map.
        unsafe { add(count, 1) };
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
