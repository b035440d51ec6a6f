//! Replies of instances on this host, as its own stack sends them. Everything that the host sends
//! passes here: what is not ours is not counted.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use release_common::abi::{Addr6, Be32, stages};
use release_common::packet::{self, Ip, Link};
use release_common::pipeline::{Action, Next, Stage, act_egress, adopt_stage, first_egress};

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
    go_on::<A>(ctx, next.stage as u32)
}

/// Goes on in another program; see the journey of what came in.
#[inline(always)]
fn go_on<A: FamilyMaps>(ctx: &TcContext, stage: u32) -> i32 {
    let place = stages::place(Egress::KIND, A::INDEX, stage);
    // SAFETY: nothing here needs dropping.
    unsafe { maps::TC_PROGRAMS.tail_call(ctx, place) };
    TC_ACT_UNSPEC
}

/// A stage of family `A`; a macro for the same reason as in the journey of what came in.
macro_rules! stage {
    ($family:ty, $ctx:expr, $decide:path) => {
        match $crate::work::Work::<$family>::of::<$crate::tables::Egress>() {
            Some(work) => {
                let next = $decide(
                    &$crate::egress::frame($ctx),
                    &$crate::egress::tables(),
                    work.headers(),
                );
                $crate::egress::decided::<$family>($ctx, &work, next)
            }
            None => aya_ebpf::bindings::TC_ACT_UNSPEC,
        }
    };
}
pub(crate) use stage;

/// Does what a stage decided, or goes on in the next.
#[inline(always)]
pub fn decided<A: FamilyMaps>(ctx: &TcContext, work: &Work<A>, next: Next) -> i32 {
    if matches!(next.stage, Stage::Adopt) {
        work.keep_decision(next.decision);
        work.keep_embryo(next.embryo);
    }
    if !matches!(next.stage, Stage::Decided) {
        return go_on::<A>(ctx, next.stage as u32);
    }
    let decision = next.decision;
    if decision.at_once().is_some_and(|outcome| matches!(outcome.action, Action::Pass)) {
        return TC_ACT_UNSPEC;
    }
    work.keep_decision(decision);
    go_on::<A>(ctx, stages::ACT)
}

/// Stage [`Stage::Adopt`] of family `A`.
#[inline(always)]
pub fn adopt<A: FamilyMaps>(ctx: &TcContext) -> i32 {
    let Some(work) = Work::<A>::of::<Egress>() else { return TC_ACT_UNSPEC };
    let next = adopt_stage(&tables(), work.headers(), work.decision(), work.embryo());
    decided::<A>(ctx, &work, next)
}

/// Last stage of family `A`: what was decided is done.
#[inline(always)]
pub fn end<A: FamilyMaps>(ctx: &TcContext) -> i32 {
    let Some(work) = Work::<A>::of::<Egress>() else { return TC_ACT_UNSPEC };
    let outcome = act_egress(&mut frame(ctx), &tables(), work.headers(), work.decision());
    maps::count_reason(outcome.reason);
    match outcome.action {
        Action::Drop => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
pub fn frame(ctx: &TcContext) -> SkbFrame {
    SkbFrame::new(ctx.as_ptr().cast::<__sk_buff>())
}

#[inline(always)]
pub fn tables() -> KernelTables<Egress> {
    KernelTables::new(core::ptr::null_mut())
}
