//! Replies of instances on this host, as its own stack sends them. Everything that the host sends
//! passes here: what is not ours is not counted.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, __sk_buff};
use aya_ebpf::programs::TcContext;
use release_common::abi::{Addr6, Be32, stages};
use release_common::packet::{self, Headers, Ip, Link};
use release_common::pipeline::{Action, Next, Stage, act_egress, first_egress};

use crate::frame::SkbFrame;
use crate::maps::{self, FamilyMaps};
use crate::tables::{Egress, KernelTables, Run};
use crate::work::Work;

/// Entry point: what may be ours goes on.
#[inline(always)]
pub fn enter(ctx: &TcContext) -> i32 {
    match packet::link(&frame(ctx)) {
        Ok(link) if link.ethertype == Be32::ETHERTYPE => begin::<Be32>(ctx, link),
        Ok(link) if link.ethertype == Addr6::ETHERTYPE => begin::<Addr6>(ctx, link),
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn begin<A: FamilyMaps>(ctx: &TcContext, link: Link) -> i32 {
    let Ok(headers) = packet::parse::<A, _>(&frame(ctx), link) else { return TC_ACT_UNSPEC };
    let next = first_egress(&tables(), &headers);
    if matches!(next.stage, Stage::Decided) {
        return TC_ACT_UNSPEC;
    }
    let Some(work) = Work::<A>::of::<Egress>() else { return TC_ACT_UNSPEC };
    work.keep_headers(headers);
    go_on::<A>(ctx, next.stage)
}

/// Goes on in another program; see the journey of what came in.
#[inline(always)]
fn go_on<A: FamilyMaps>(ctx: &TcContext, stage: Stage) -> i32 {
    let place = stages::place(Egress::KIND, A::INDEX, stage as u32);
    // SAFETY: nothing here needs dropping.
    unsafe { maps::TC_PROGRAMS.tail_call(ctx, place) };
    TC_ACT_UNSPEC
}

/// A stage of family `A`, and what it decided.
#[inline(always)]
pub fn stage<A: FamilyMaps>(
    ctx: &TcContext,
    decide: impl FnOnce(&SkbFrame, &KernelTables<Egress>, &Headers<A>) -> Next<A>,
) -> i32 {
    let Some(work) = Work::<A>::of::<Egress>() else { return TC_ACT_UNSPEC };
    let mut frame = frame(ctx);
    let next = decide(&frame, &tables(), work.headers());
    if !matches!(next.stage, Stage::Decided) {
        return go_on::<A>(ctx, next.stage);
    }
    let decision = next.decision;
    if decision.at_once().is_some_and(|outcome| matches!(outcome.action, Action::Pass)) {
        return TC_ACT_UNSPEC;
    }
    work.keep_decision(decision);
    let outcome = act_egress(&mut frame, &tables(), work.headers(), work.decision());
    maps::count_reason(outcome.reason);
    match outcome.action {
        Action::Drop => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn frame(ctx: &TcContext) -> SkbFrame {
    SkbFrame::new(ctx.as_ptr().cast::<__sk_buff>())
}

#[inline(always)]
fn tables() -> KernelTables<Egress> {
    KernelTables::new(core::ptr::null_mut())
}
