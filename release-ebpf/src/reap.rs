//! Removing entries without races.
//!
//! User space cannot compare-and-delete a hash entry, so it has this program do it over batches of
//! keys (BPF_PROG_TEST_RUN): a first run claims silent flows (live → dying); one grace period later
//! a second run removes those still dying. A packet that meets a dying flow takes the claim back.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use release_common::abi::{
    Embryo, Flow, FlowKey4, GAUGE_ENTRIES, Reap, UserCounters, reap_op, reap_result,
};
use release_common::packet::{Packet, View};
use release_common::shared::Shared;
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use crate::frame::XdpFrame;
use crate::maps::{self, shared};

const HEAD: usize = size_of::<Reap>();
const KEY: usize = size_of::<FlowKey4>();

/// Carries out the order in the frame, see [`Reap`].
#[inline(always)]
pub fn run(frame: &XdpFrame) -> Option<()> {
    let head: View<'_, HEAD> = frame.view(0)?;
    let (op, count) = (head.be32::<0>().0, head.be32::<4>().0);
    let limits = Limits { live: head.be32::<8>().0, closed: head.be32::<12>().0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_jiffies64() };
    if op == reap_op::CLOCK {
        let out: View<'_, 8> = frame.view(HEAD)?;
        out.set_be32::<0>(release_common::abi::Be32(now as u32));
        out.set_be32::<4>(release_common::abi::Be32((now >> 32) as u32));
        return Some(());
    }
    for index in 0..Reap::BATCH {
        if index as u32 >= count {
            break;
        }
        let view: View<'_, KEY> = frame.view(HEAD + index * KEY)?;
        let key = FlowKey4 {
            client: view.be32::<0>(),
            frontend: view.be32::<4>(),
            client_port: view.be16::<8>(),
            frontend_port: view.be16::<10>(),
            proto: view.u8::<12>(),
            pad: [0; 3],
        };
        let done = match op {
            reap_op::CLAIM => claim(&key, now as u32, limits),
            reap_op::REAP => reap(&key, now as u32, limits),
            reap_op::EMBRYOS => reap_embryo(&key, now as u32, limits.live),
            _ => return None,
        };
        let result = if done { reap_result::DONE } else { reap_result::KEPT };
        view.set_u8::<{ KEY - 1 }>(result);
    }
    Some(())
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
fn claim(key: &FlowKey4, now: u32, limits: Limits) -> bool {
    let Some(flow) = shared(maps::FLOWS4.get_ptr_mut(key)) else { return false };
    let word = FlowWord(flow.state().get());
    !matches!(word.phase(), Phase::Dead)
        && limits.passed(word, flow.last_packet().get(), now)
        && flow.state().swap_if(word.0, word.with_dying().0)
}

/// Second run: removes a flow that is still marked and still silent.
#[inline(always)]
fn reap(key: &FlowKey4, now: u32, limits: Limits) -> bool {
    let Some(flow) = shared(maps::FLOWS4.get_ptr_mut(key)) else { return false };
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
fn remove(flow: Shared<'_, Flow>, key: &FlowKey4, word: FlowWord, backend: u32) -> bool {
    if maps::FLOWS4.remove(key).is_err() {
        // The kernel could not take the bucket's lock here: put it back for the next round.
        flow.state().swap_if(word.with_phase(Phase::Dead).0, word.0);
        return false;
    }
    maps::add_gauge(GAUGE_ENTRIES, -1);
    if word.is_live() {
        if let Some(entry) = maps::BACKENDS.get(backend)
            && entry.service < GAUGE_ENTRIES
        {
            maps::add_gauge(entry.service, -1);
        }
        count(backend, |counters| counters.expired().add(1));
    } else {
        count(backend, |counters| counters.purged().add(1));
    }
    true
}

/// Removes an embryo older than the limit, or one whose remover was refused by the kernel.
#[inline(always)]
fn reap_embryo(key: &FlowKey4, now: u32, limit: u32) -> bool {
    let Some(embryo): Option<Shared<'_, Embryo>> = shared(maps::EMBRYOS4.get_ptr_mut(key)) else {
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
    if maps::EMBRYOS4.remove(key).is_err() {
        return false;
    }
    if !ended {
        count(backend, |counters| counters.embryos_expired().add(1));
    }
    true
}

#[inline(always)]
fn count(backend: u32, step: impl FnOnce(Shared<'_, UserCounters>)) {
    if let Some(counters) = shared(maps::USER_COUNTERS.get_ptr_mut(backend)) {
        step(counters);
    }
}
