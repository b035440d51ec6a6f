//! Removing entries without races.
//!
//! User space cannot compare-and-delete a hash entry, so it has this program do it over batches of
//! keys (BPF_PROG_TEST_RUN): a first run claims silent flows (live → dying); one grace period later
//! a second run removes those still dying. A packet that meets a dying flow takes the claim back.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use release_common::abi::{
    Addr6, Be32, Embryo, Flow, FlowKey, GAUGE_ENTRIES, IPPROTO_TCP, SessionKey, SessionWord,
    SnatKey, UserCounters, reap_op,
};
use release_common::packet::{Packet, View};
use release_common::shared::Shared;
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use crate::frame::XdpFrame;
use crate::maps::{self, FamilyMaps, shared};
use crate::order::{HEAD, KEY4, KEY6, Order};

const SESSION_KEY: usize = size_of::<SessionKey>();

/// Carries out the order in the frame on IPv4's tables, or on those without a family, see [`Order`].
#[inline(always)]
pub fn run4(frame: &XdpFrame) -> Option<()> {
    let order = Order::read(frame)?;
    match order.op {
        reap_op::CLOCK => clock(frame),
        reap_op::SESSIONS => order
            .each::<SESSION_KEY, SessionKey>(frame, |key| end_session(key, order.now, order.limit)),
        _ => run::<KEY4, Be32>(frame, &order),
    }
}

/// Carries out the order in the frame on IPv6's tables.
#[inline(always)]
pub fn run6(frame: &XdpFrame) -> Option<()> {
    run::<KEY6, Addr6>(frame, &Order::read(frame)?)
}

#[inline(always)]
fn clock(frame: &XdpFrame) -> Option<()> {
    // SAFETY: no arguments.
    let now = unsafe { bpf_jiffies64() };
    let out: View<'_, 8> = frame.view(HEAD)?;
    out.set_be32::<0>(Be32(now as u32));
    out.set_be32::<4>(Be32((now >> 32) as u32));
    Some(())
}

#[inline(always)]
fn run<const KEY: usize, A: FamilyMaps>(frame: &XdpFrame, order: &Order) -> Option<()>
where
    FlowKey<A>: bytemuck::Pod,
    SnatKey<A>: bytemuck::Pod,
{
    let (now, limits) = (order.now, Limits { live: order.limit, closed: order.linger });
    match order.op {
        reap_op::CLAIM => order.each::<KEY, FlowKey<A>>(frame, |key| claim(key, now, limits)),
        reap_op::REAP => order.each::<KEY, FlowKey<A>>(frame, |key| reap(key, now, limits)),
        reap_op::EMBRYOS => {
            order.each::<KEY, FlowKey<A>>(frame, |key| reap_embryo(key, now, limits.live))
        }
        reap_op::SNAT => {
            order.each::<KEY, SnatKey<A>>(frame, |key| free_port(key, now, limits.live))
        }
        _ => None,
    }
}

/// Silence in jiffies after which a flow may go, by what it is when the program looks: user space
/// saw it a while ago.
#[derive(Clone, Copy)]
struct Limits {
    live: u32,
    closed: u32,
}

impl Limits {
    #[inline(always)]
    fn passed(self, word: FlowWord, then: u32, now: u32) -> bool {
        older(then, now, if word.is_live() { self.live } else { self.closed })
    }
}

/// Whether `now` is at least `limit` jiffies after `then`.
#[inline(always)]
fn older(then: u32, now: u32, limit: u32) -> bool {
    let age = now.wrapping_sub(then);
    age >= limit && age < 1 << 31
}

/// First run: marks a silent flow, whatever its phase.
#[inline(always)]
fn claim<A: FamilyMaps>(key: &FlowKey<A>, now: u32, limits: Limits) -> bool {
    let Some(flow) = shared(A::flows().get_ptr_mut(key)) else { return false };
    let word = FlowWord(flow.state().get());
    !matches!(word.phase(), Phase::Dead)
        && limits.passed(word, flow.last_packet().get(), now)
        && flow.state().swap_if(word.0, word.with_dying().0)
}

/// Second run: removes a flow that is still marked and still silent.
#[inline(always)]
fn reap<A: FamilyMaps>(key: &FlowKey<A>, now: u32, limits: Limits) -> bool {
    let Some(flow) = shared(A::flows().get_ptr_mut(key)) else { return false };
    let word = FlowWord(flow.state().get());
    if !word.dying()
        || matches!(word.phase(), Phase::Dead)
        || !limits.passed(word, flow.last_packet().get(), now)
    {
        return false;
    }
    let backend = flow.backend().get();
    if !flow.state().swap_if(word.0, word.with_phase(Phase::Dead).0) {
        return false;
    }
    remove(flow, key, word, backend)
}

/// Removes a flow whose word this call has made dead.
#[inline(always)]
fn remove<A: FamilyMaps>(
    flow: Shared<'_, Flow>,
    key: &FlowKey<A>,
    word: FlowWord,
    backend: u32,
) -> bool {
    if A::flows().remove(key).is_err() {
        // The kernel could not take the bucket's lock here: put it back for the next round.
        flow.state().swap_if(word.with_phase(Phase::Dead).0, word.0);
        return false;
    }
    maps::add_gauge(maps::entries_gauge::<A>(), -1);
    if word.is_live() {
        if let Some(entry) = maps::BACKENDS.get(backend)
            && entry.service < GAUGE_ENTRIES
        {
            maps::add_gauge(entry.service, -1);
            if word.in_session() {
                let client = SessionKey::new(key.client, entry.service);
                if let Some(session) = shared(maps::SESSIONS.get_ptr_mut(client)) {
                    session.change_live(-1);
                    // SAFETY: no arguments.
                    session.last_seen().set(unsafe { bpf_jiffies64() } as u32);
                }
            }
        }
        // For UDP silence is how a conversation ends.
        if key.proto == IPPROTO_TCP {
            count(backend, |counters| counters.expired().add(1));
        } else {
            count(backend, |counters| counters.timed_out().add(1));
        }
    } else {
        count(backend, |counters| counters.purged().add(1));
    }
    true
}

/// Removes an embryo older than the limit, or one whose remover was refused by the kernel.
#[inline(always)]
fn reap_embryo<A: FamilyMaps>(key: &FlowKey<A>, now: u32, limit: u32) -> bool {
    let Some(embryo): Option<Shared<'_, Embryo>> = shared(A::embryos().get_ptr_mut(key)) else {
        return false;
    };
    let word = EmbryoWord(embryo.state().get());
    if !older(embryo.created().get(), now, limit) {
        return false;
    }
    let backend = embryo.backend().get();
    let ended = matches!(word.phase(), EmbryoPhase::Ended);
    if !ended && !embryo.state().swap_if(word.0, word.ended().0) {
        return false;
    }
    if A::embryos().remove(key).is_err() {
        return false;
    }
    if !ended {
        count(backend, |counters| {
            counters.embryos_expired().add(1);
            counters.unanswered().add(u64::from(word.waits()));
        });
    }
    true
}

/// Removes a session without live flows whose time is over.
#[inline(always)]
fn end_session(key: &SessionKey, now: u32, limit: u32) -> bool {
    let Some(session) = shared(maps::SESSIONS.get_ptr_mut(key)) else { return false };
    let word = SessionWord(session.state().get());
    // One that is dead already is left over from a removal that the kernel refused.
    if word.live() != 0
        || !older(session.last_seen().get(), now, limit)
        || !word.is_dead() && !session.state().swap_if(word.0, word.dead().0)
    {
        return false;
    }
    maps::SESSIONS.remove(key).is_ok()
}

/// Gives a translated source back whose flow is gone. Embryos are asked first: one that becomes a
/// flow meanwhile is in the flow table before it leaves its own.
#[inline(always)]
fn free_port<A: FamilyMaps>(key: &SnatKey<A>, now: u32, limit: u32) -> bool {
    // SAFETY: copied at once; a value is written by whoever inserts it, and never after.
    let Some(owner) = unsafe { A::snat().get(key) }.copied() else { return false };
    if !older(owner.claimed, now, limit) {
        return false;
    }
    let embryo: Option<Shared<'_, Embryo>> = shared(A::embryos().get_ptr_mut(owner.key));
    if embryo.is_some_and(|embryo| embryo.snat().get().port == key.source_port) {
        return false;
    }
    let flow: Option<Shared<'_, Flow>> = shared(A::flows().get_ptr_mut(owner.key));
    if flow.is_some_and(|flow| flow.snat().get().port == key.source_port) {
        return false;
    }
    A::snat().remove(key).is_ok()
}

#[inline(always)]
fn count(backend: u32, step: impl FnOnce(Shared<'_, UserCounters>)) {
    if let Some(counters) = shared(maps::USER_COUNTERS.get_ptr_mut(backend)) {
        step(counters);
    }
}
