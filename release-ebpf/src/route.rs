//! The way to a destination: a cached answer of the FIB while the daemon vouches for it, else the
//! FIB itself.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup, xdp_md,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use release_common::abi::{NextHop, next_hop};
use release_common::pipeline::{Hop, Route};

use crate::maps::{self, DEVICES, FamilyMaps, NEXT_HOP_SLOTS};
use crate::tables::Run;

/// More jiffies than a lease has, 3 s, on every kernel.
const LONGEST_LEASE: u32 = 10_000;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The FIB takes the length in 16 bits.
const LONGEST: u32 = 65_535;

/// What is cached of the way to a destination, by the interface that the packet came in by.
struct Cached<A: FamilyMaps> {
    ingress: u32,
    epoch: u32,
    /// The destination's place in the cache.
    hop: &'static mut NextHop<A>,
    /// Whether it holds the answer.
    holds: bool,
}

#[inline(always)]
fn cached<A: FamilyMaps>(ctx: *mut xdp_md, destination: A, now: u32) -> Option<Cached<A>> {
    // SAFETY: `ctx` is the program's own context.
    let ingress = unsafe { (*ctx).ingress_ifindex };
    let meta = maps::meta()?;
    let words = destination.words();
    let slot = words[0] ^ words[1] ^ words[2] ^ words[3];
    let slot = slot ^ slot >> 16;
    let slot = (slot ^ slot >> 8) & (NEXT_HOP_SLOTS - 1);
    // SAFETY: per-CPU element. Only an explaining program can be interrupted by another that touches
    // it, and what it reads then misleads nobody but itself.
    let hop = unsafe { &mut *A::next_hops().get_ptr_mut(slot)? };
    // Not merely "not over": a lease that nobody renews, or that nobody ever gave, would come into
    // force again half a turn of these 32 bits later (with 1,000 jiffies a second, after 25 days).
    let left = meta.routing_lease.wrapping_sub(now);
    let holds = left.wrapping_sub(1) < LONGEST_LEASE
        && hop.kind == next_hop::SEND
        && hop.destination == destination
        && hop.ingress == ingress
        && hop.epoch == meta.routing_epoch;
    Some(Cached { ingress, epoch: meta.routing_epoch, hop, holds })
}

/// The next hop of a packet of `len` bytes, if it is cached and large enough.
#[inline(always)]
pub fn known<A: FamilyMaps>(ctx: *mut xdp_md, destination: A, len: u32, now: u32) -> Option<Hop> {
    let Cached { hop, holds, .. } = cached(ctx, destination, now)?;
    match via(hop, len) {
        Route::Via(hop) if holds => Some(hop),
        _ => None,
    }
}

/// The way of a packet of `len` bytes that came in by the context's interface.
#[inline(always)]
pub fn route<A: FamilyMaps, R: Run>(
    ctx: *mut xdp_md,
    source: A,
    destination: A,
    tos: u8,
    len: u32,
    now: u32,
) -> Route {
    let Some(cached) = cached(ctx, destination, now) else { return Route::Kernel };
    // The epoch is read before the FIB is asked: a change in between makes the answer stale, not
    // the other way round.
    let Cached { ingress, epoch, hop, holds } = cached;
    if holds {
        return via(hop, len);
    }
    // SAFETY: plain integers, for which zero is valid.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.l4_protocol = IPPROTO_TCP;
    fib.ifindex = ingress;
    let asked = if len > LONGEST { LONGEST } else { len };
    fib.__bindgen_anon_1.tot_len = asked as u16;
    if A::VERSION == 4 {
        fib.family = AF_INET;
        fib.__bindgen_anon_2.tos = tos;
        fib.__bindgen_anon_3.ipv4_src = source.words()[0];
        fib.__bindgen_anon_4.ipv4_dst = destination.words()[0];
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = source.words();
        fib.__bindgen_anon_4.ipv6_dst = destination.words();
    }
    // SAFETY: the helper reads and writes `fib`, whose size it is given.
    let answer =
        unsafe { bpf_fib_lookup(ctx.cast(), &raw mut fib, size_of::<FibLookup>() as i32, 0) };
    // SAFETY: the kernel has written the MTU whenever it found a route.
    let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
    if answer == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        return Route::TooBig(mtu);
    }
    if answer != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        return Route::Kernel;
    }
    // An interface without our program would lose what is redirected to it.
    if fib.ifindex != ingress && DEVICES.get_ifindex(fib.ifindex).is_none() {
        return Route::Kernel;
    }
    // Of an MTU above 65535 bytes the kernel tells the low 16 bits: less than it has just found to
    // fit. It is no limit then.
    let mtu = if u32::from(mtu) < asked { 0 } else { u32::from(mtu) };
    let found = NextHop {
        destination,
        kind: next_hop::SEND,
        epoch,
        ifindex: fib.ifindex,
        ingress,
        mtu,
        dmac: fib.dmac,
        smac: fib.smac,
    };
    // Half written, it would send a packet that comes meanwhile to another's next hop.
    if !R::LOOKS_ONLY {
        *hop = found;
    }
    via(&found, len)
}

#[inline(always)]
fn via<A: FamilyMaps>(hop: &NextHop<A>, len: u32) -> Route {
    if len > hop.mtu && hop.mtu != 0 {
        return Route::TooBig(hop.mtu as u16);
    }
    let ifindex = if hop.ifindex == hop.ingress { None } else { Some(hop.ifindex) };
    Route::Via(Hop { ifindex, dmac: hop.dmac, smac: hop.smac })
}
