//! The kernel programs of `releasectl`.
//!
//! * `release_xdp` – every packet's journey, on each managed interface;
//! * `release_reap` – run by user space over batches of keys: expiry without races, and the clock.
//!
//! What decides is in `release-common`; here are map statics, context access and helpers.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's entry point macros drop the comments")]

mod frame;
mod maps;
mod reap;
mod route;
mod tables;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use release_common::pipeline::{Action, Outcome, process};
use release_common::reason::Reason;

use crate::frame::XdpFrame;
use crate::tables::KernelTables;

/// Entry point on an interface.
#[xdp(frags)]
pub fn release_xdp(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let tables = KernelTables::new(ctx.ctx);
    let outcome = process(&mut frame, &tables);
    maps::count_reason(outcome.reason);
    log_rare(&ctx, outcome);
    match outcome.action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        // By redirect, since veth drops what XDP_TX sends to a peer without an XDP program.
        Action::Bounce => {
            let fallback = xdp_action::XDP_TX;
            let ingress = ctx.ingress_ifindex() as u32;
            maps::DEVICES.redirect(ingress, u64::from(fallback)).unwrap_or(fallback)
        }
        // The fall-back is PASS: an interface that left the map a moment ago.
        Action::Send => {
            let fallback = xdp_action::XDP_PASS;
            maps::DEVICES.redirect(outcome.ifindex, u64::from(fallback)).unwrap_or(fallback)
        }
    }
}

/// Entry point for user space, see [`reap`].
#[xdp]
pub fn release_reap(ctx: XdpContext) -> u32 {
    match reap::run(&XdpFrame::new(ctx.ctx)) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Logs what is not everyday traffic, when the operator asked for it: the level is a constant that
/// the loader sets, so the verifier removes this otherwise.
#[inline(always)]
fn log_rare(ctx: &XdpContext, outcome: Outcome) {
    match outcome.reason {
        Reason::Forwarded
        | Reason::Replied
        | Reason::Placed
        | Reason::NotOurPort
        | Reason::NotIpv4
        | Reason::NotTcp => {}
        rare => debug!(ctx, "reason {} on interface {}", rare as u32, ctx.ingress_ifindex()),
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
