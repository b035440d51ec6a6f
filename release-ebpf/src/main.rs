//! The kernel programs of `releasectl`.
//!
//! * `release_xdp` – every packet's journey, on each managed interface. It goes on in a program for
//!   each stage and address family (`xdp4_tcp`, …), since the verifier follows every way through
//!   each program, and each has its own 512 bytes of stack;
//! * `release_tc` – replies of instances on this host, on their way out, likewise;
//! * `release_explain` – the same journey, changing nothing;
//! * `release_reap`, `release_reap6` – run by user space over batches of keys: expiry without races,
//!   and the clock;
//! * `release_mark`, `release_mark6` – likewise: probes and orders noted on flows.
//!
//! What decides is in `release-common`; here are map statics, context access and helpers.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's entry point macros drop the comments")]

mod copies;
mod egress;
mod events;
mod frame;
mod journey;
mod maps;
mod mark;
mod order;
mod reap;
mod route;
mod tables;
mod work;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use release_common::abi::{Addr6, Be32};
use release_common::pipeline;

use crate::frame::XdpFrame;
use crate::tables::{Explaining, Ingress};

/// Declares the programs of a journey: an entry point, and one program for each stage and family.
macro_rules! journey {
    ($run:ty: $entry:ident; $($family:ty: $tcp:ident, $udp:ident, $place:ident,
        $siblings:ident, $reply:ident, $answer:ident, $adopt:ident, $icmp:ident, $fragment:ident,
        $act:ident;)+) => {
        /// Entry point.
        #[xdp(frags)]
        #[inline(always)]
        pub fn $entry(ctx: XdpContext) -> u32 {
            journey::enter::<$run>(&ctx)
        }
        $(
            /// See [`release_common::pipeline::Stage::Tcp`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $tcp(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::tcp_stage)
            }
            /// See [`release_common::pipeline::Stage::Udp`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $udp(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::udp_stage)
            }
            /// See [`release_common::pipeline::Stage::Place`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $place(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::place_stage)
            }
            /// See [`release_common::pipeline::Stage::Siblings`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $siblings(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::siblings_stage)
            }
            /// See [`release_common::pipeline::Stage::Answer`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $answer(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::answer_stage)
            }
            /// See [`release_common::pipeline::Stage::Adopt`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $adopt(ctx: XdpContext) -> u32 {
                journey::adopt::<$family, $run>(&ctx)
            }
            /// See [`release_common::pipeline::Stage::Reply`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $reply(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::reply_stage)
            }
            /// See [`release_common::pipeline::Stage::Icmp`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $icmp(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::icmp_stage)
            }
            /// See [`release_common::pipeline::Stage::Fragment`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $fragment(ctx: XdpContext) -> u32 {
                journey::stage!($family, $run, &ctx, pipeline::fragment_stage)
            }
            /// See [`release_common::pipeline::act`].
            #[xdp(frags)]
            #[inline(always)]
            pub fn $act(ctx: XdpContext) -> u32 {
                journey::end::<$family, $run>(&ctx)
            }
        )+
    };
}

journey!(Ingress: release_xdp;
    Be32: xdp4_tcp, xdp4_udp, xdp4_place,
        xdp4_siblings, xdp4_reply, xdp4_answer, xdp4_adopt, xdp4_icmp, xdp4_fragment, xdp4_act;
    Addr6: xdp6_tcp, xdp6_udp, xdp6_place,
        xdp6_siblings, xdp6_reply, xdp6_answer, xdp6_adopt, xdp6_icmp, xdp6_fragment, xdp6_act;);
journey!(Explaining: release_explain;
    Be32: explain4_tcp, explain4_udp, explain4_place,
        explain4_siblings, explain4_reply, explain4_answer, explain4_adopt, explain4_icmp, explain4_fragment, explain4_act;
    Addr6: explain6_tcp, explain6_udp, explain6_place,
        explain6_siblings, explain6_reply, explain6_answer, explain6_adopt, explain6_icmp, explain6_fragment, explain6_act;);

/// Declares the programs for what the host sends.
macro_rules! egress {
    ($entry:ident; $($family:ty: $reply:ident, $answer:ident, $adopt:ident, $icmp:ident,
        $fragment:ident, $act:ident;)+) => {
        /// Entry point.
        #[classifier]
        pub fn $entry(ctx: TcContext) -> i32 {
            egress::enter(&ctx)
        }
        $(
            /// See [`release_common::pipeline::Stage::Reply`].
            #[classifier]
            #[inline(always)]
            pub fn $reply(ctx: TcContext) -> i32 {
                egress::stage!($family, &ctx, pipeline::reply_stage)
            }
            /// See [`release_common::pipeline::Stage::Answer`].
            #[classifier]
            #[inline(always)]
            pub fn $answer(ctx: TcContext) -> i32 {
                egress::stage!($family, &ctx, pipeline::answer_stage)
            }
            /// See [`release_common::pipeline::Stage::Adopt`].
            #[classifier]
            #[inline(always)]
            pub fn $adopt(ctx: TcContext) -> i32 {
                egress::adopt::<$family>(&ctx)
            }
            /// See [`release_common::pipeline::icmp_egress`].
            #[classifier]
            #[inline(always)]
            pub fn $icmp(ctx: TcContext) -> i32 {
                egress::stage!($family, &ctx, pipeline::icmp_egress)
            }
            /// See [`release_common::pipeline::Stage::Fragment`].
            #[classifier]
            #[inline(always)]
            pub fn $fragment(ctx: TcContext) -> i32 {
                egress::stage!($family, &ctx, pipeline::fragment_stage)
            }
            /// See [`release_common::pipeline::act_egress`].
            #[classifier]
            #[inline(always)]
            pub fn $act(ctx: TcContext) -> i32 {
                egress::end::<$family>(&ctx)
            }
        )+
    };
}

egress!(release_tc;
    Be32: tc4_reply, tc4_answer, tc4_adopt, tc4_icmp, tc4_fragment, tc4_act;
    Addr6: tc6_reply, tc6_answer, tc6_adopt, tc6_icmp, tc6_fragment, tc6_act;);

/// Entry point for user space, see [`reap`].
#[xdp]
pub fn release_reap(ctx: XdpContext) -> u32 {
    carried_out(reap::run4(&XdpFrame::new(ctx.ctx)))
}

/// Entry point for user space, see [`reap`].
#[xdp]
pub fn release_reap6(ctx: XdpContext) -> u32 {
    carried_out(reap::run6(&XdpFrame::new(ctx.ctx)))
}

/// Entry point for user space, see [`mark`].
#[xdp]
pub fn release_mark(ctx: XdpContext) -> u32 {
    carried_out(mark::run4(&XdpFrame::new(ctx.ctx)))
}

/// Entry point for user space, see [`mark`].
#[xdp]
pub fn release_mark6(ctx: XdpContext) -> u32 {
    carried_out(mark::run6(&XdpFrame::new(ctx.ctx)))
}

#[inline(always)]
fn carried_out(done: Option<()>) -> u32 {
    match done {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
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
