//! The journey of a packet that came in, or of one that might: from program to program.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use release_common::abi::{Addr6, Address, Be32, Explained, stages};
use release_common::packet::{self, Headers, Ip, Link};
use release_common::pipeline::{
    Action, Next, Outcome, Stage, act, act_at_once, adopt_stage, first, reply_stage,
};
use release_common::reason::Reason;

use crate::copies;
use crate::frame::XdpFrame;
use crate::maps::{self, FamilyMaps};
use crate::tables::{KernelTables, Run};
use crate::work::Work;

/// Entry point, and all of the journey for nearly every packet.
#[inline(always)]
pub fn enter<R: Run>(ctx: &XdpContext) -> u32 {
    if R::LOOKS_ONLY {
        copies::begin();
    }
    let outcome = match packet::link(&XdpFrame::new(ctx.ctx)) {
        Ok(link) if link.ethertype == Be32::ETHERTYPE => return begin::<Be32, R>(ctx, link),
        Ok(link) if link.ethertype == Addr6::ETHERTYPE => return begin::<Addr6, R>(ctx, link),
        Ok(_) => Outcome::pass(Reason::NotIp),
        Err(reason) => Outcome::pass(reason),
    };
    verdict::<R>(ctx, outcome)
}

/// First stage of family `A`, and that of replies in IPv4: in IPv6 it would be more than the stack
/// holds.
#[inline(always)]
fn begin<A: FamilyMaps, R: Run>(ctx: &XdpContext, link: Link) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let tables = KernelTables::<R>::new(ctx.ctx);
    let headers = match packet::parse::<A, _>(&frame, link) {
        Ok(headers) => headers,
        Err(reason) => return verdict::<R>(ctx, Outcome::pass(reason)),
    };
    let mut next = first(&frame, &tables, &headers);
    if A::VERSION == 4 && matches!(next.stage, Stage::Reply) {
        next = reply_stage(&frame, &tables, &headers);
    }
    if let Some(outcome) = at_once(&mut frame, &tables, &headers, &next) {
        return verdict::<R>(ctx, outcome);
    }
    let Some(work) = Work::<A>::of::<R>() else { return lost::<R>(ctx) };
    if A::VERSION == 4 {
        work.keep_headers(headers);
    } else {
        // Read once more: carried along until here, they take more of the stack than Linux 6.1 has.
        match packet::parse::<A, _>(&frame, link) {
            Ok(headers) => work.keep_headers(headers),
            Err(_) => return lost::<R>(ctx),
        }
    }
    decided::<A, R>(ctx, &work, next)
}

/// What becomes of a packet that no other program is needed for.
#[inline(always)]
fn at_once<A: FamilyMaps, R: Run>(
    frame: &mut XdpFrame,
    tables: &KernelTables<R>,
    headers: &Headers<A>,
    next: &Next,
) -> Option<Outcome> {
    if !matches!(next.stage, Stage::Decided) {
        return None;
    }
    match next.decision.at_once() {
        None => act_at_once(frame, tables, headers, &next.decision),
        outcome => outcome,
    }
}

/// A stage of family `A`: where the packet goes from there. A macro, since the compiler does not
/// inline what is handed to a function, and the stack of a call adds up.
macro_rules! stage {
    ($family:ty, $run:ty, $ctx:expr, $decide:path) => {
        match $crate::work::Work::<$family>::of::<$run>() {
            Some(work) => {
                let frame = $crate::frame::XdpFrame::new($ctx.ctx);
                let tables = $crate::tables::KernelTables::<$run>::new($ctx.ctx);
                let next = $decide(&frame, &tables, work.headers());
                $crate::journey::decided::<$family, $run>($ctx, &work, next)
            }
            None => $crate::journey::lost::<$run>($ctx),
        }
    };
}
pub(crate) use stage;

/// Goes where a stage says.
#[inline(always)]
pub fn decided<A: FamilyMaps, R: Run>(ctx: &XdpContext, work: &Work<A>, next: Next) -> u32 {
    if matches!(next.stage, Stage::Adopt) {
        work.keep_decision(next.decision);
        work.keep_embryo(next.embryo);
    }
    if !matches!(next.stage, Stage::Decided) {
        return verdict::<R>(ctx, go_on::<A, R>(ctx, next.stage as u32));
    }
    if let Some(outcome) = next.decision.at_once() {
        return verdict::<R>(ctx, outcome);
    }
    work.keep_decision(next.decision);
    verdict::<R>(ctx, go_on::<A, R>(ctx, stages::ACT))
}

/// Stage [`Stage::Adopt`] of family `A`.
#[inline(always)]
pub fn adopt<A: FamilyMaps, R: Run>(ctx: &XdpContext) -> u32 {
    let Some(work) = Work::<A>::of::<R>() else { return lost::<R>(ctx) };
    let tables = KernelTables::<R>::new(ctx.ctx);
    let next = adopt_stage(&tables, work.headers(), work.decision(), work.embryo());
    decided::<A, R>(ctx, &work, next)
}

/// The packet under way is not there.
#[inline(always)]
pub fn lost<R: Run>(ctx: &XdpContext) -> u32 {
    verdict::<R>(ctx, Outcome::drop(Reason::BrokenReference))
}

/// Last stage of family `A`: what was decided is done.
#[inline(always)]
pub fn end<A: FamilyMaps, R: Run>(ctx: &XdpContext) -> u32 {
    let outcome = match Work::<A>::of::<R>() {
        Some(work) => {
            let tables = KernelTables::<R>::new(ctx.ctx);
            let mut frame = XdpFrame::new(ctx.ctx);
            act(&mut frame, &tables, work.headers(), work.decision())
        }
        None => Outcome::drop(Reason::BrokenReference),
    };
    verdict::<R>(ctx, outcome)
}

/// Goes on in another program. Returns only if that is missing: the loader puts all in their places
/// before the entry point is attached.
#[inline(always)]
fn go_on<A: Address, R: Run>(ctx: &XdpContext, stage: u32) -> Outcome {
    // SAFETY: nothing here needs dropping.
    unsafe { maps::PROGRAMS.tail_call(ctx, stages::place(R::KIND, A::INDEX, stage)) };
    Outcome::pass(Reason::BrokenReference)
}

/// Tells the kernel, or whoever wants an explanation.
#[inline(always)]
fn verdict<R: Run>(ctx: &XdpContext, outcome: Outcome) -> u32 {
    if R::LOOKS_ONLY {
        return explain(outcome);
    }
    maps::count_reason(outcome.reason);
    log_rare(ctx, outcome);
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

/// Writes the answer down.
#[inline(always)]
fn explain(outcome: Outcome) -> u32 {
    if let Some(explained) = maps::EXPLAINED.get_ptr_mut(0) {
        let says = Explained {
            action: outcome.action as u32,
            reason: outcome.reason as u32,
            backend: outcome.backend,
            ifindex: outcome.ifindex,
        };
        // SAFETY: user space runs one such program at a time, and reads when it is done.
        unsafe { *explained = says };
    }
    xdp_action::XDP_PASS
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
        | Reason::NotIp
        | Reason::NotOurProtocol => {}
        rare => debug!(ctx, "reason {} on interface {}", rare as u32, ctx.ingress_ifindex()),
    }
}
