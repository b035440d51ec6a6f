//! What user space's reaper does to the tables, as `release-ebpf/src/reap.rs` does it.

use std::net::IpAddr;

use release_common::abi::{Addr6, Be32, FlowKey, SessionKey, SessionWord};
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::family::Key;
use super::scene::TCP;
use super::tables::{Model, ModelTables};

impl ModelTables {
    /// The reaper's first run over a key: claims a flow silent for `limit` jiffies.
    pub fn claim(&self, key: &Key, limit: u32) -> bool {
        match (key.of::<Be32>(), key.of::<Addr6>()) {
            (Some(four), _) => self.claim_in(&four, limit),
            (_, Some(six)) => self.claim_in(&six, limit),
            _ => false,
        }
    }

    /// Its second run: removes a flow still claimed.
    pub fn reap(&self, key: &Key) -> bool {
        match (key.of::<Be32>(), key.of::<Addr6>()) {
            (Some(four), _) => self.reap_in(&four),
            (_, Some(six)) => self.reap_in(&six),
            _ => false,
        }
    }

    /// Its run over an embryo that is too old.
    pub fn reap_embryo(&self, key: &Key) -> bool {
        match (key.of::<Be32>(), key.of::<Addr6>()) {
            (Some(four), _) => self.reap_embryo_in(&four),
            (_, Some(six)) => self.reap_embryo_in(&six),
            _ => false,
        }
    }

    /// Its run over a client's session: removes it if no flow lives, and none has for `limit`
    /// jiffies.
    pub fn end_session(&self, client: IpAddr, limit: u32) -> bool {
        let key = self.session_key(client);
        let Some(session) = self.sessions.get(&key) else { return false };
        let word = SessionWord(session.state().get());
        let age = (self.clock.get() as u32).wrapping_sub(session.last_seen().get());
        if word.live() != 0
            || age < limit
            || !word.is_dead() && !session.state().swap_if(word.0, word.dead().0)
        {
            return false;
        }
        self.sessions.remove(&key)
    }

    /// Its run over all translated sources claimed at least `limit` jiffies ago: gives back those
    /// whose flow is gone. Returns how many.
    pub fn free_ports(&self, limit: u32) -> usize {
        self.free_ports_in::<Be32>(limit) + self.free_ports_in::<Addr6>(limit)
    }

    fn silent(&self, then: u32, limit: u32) -> bool {
        (self.clock.get() as u32).wrapping_sub(then) >= limit
    }

    fn claim_in<A: Model>(&self, key: &FlowKey<A>, limit: u32) -> bool {
        let Some(flow) = A::of(self).flows.get(key) else { return false };
        let word = FlowWord(flow.state().get());
        word.phase() != Phase::Dead
            && self.silent(flow.last_packet().get(), limit)
            && flow.state().swap_if(word.0, word.with_dying().0)
    }

    fn reap_in<A: Model>(&self, key: &FlowKey<A>) -> bool {
        let model = A::of(self);
        let Some(flow) = model.flows.get(key) else { return false };
        let word = FlowWord(flow.state().get());
        let dead = word.with_phase(Phase::Dead);
        if !word.dying() || word.phase() == Phase::Dead || !flow.state().swap_if(word.0, dead.0) {
            return false;
        }
        let mut counters = self.user_counters.borrow_mut();
        let counters = counters.entry(flow.backend().get()).or_default();
        model.flows.remove(key);
        model.entries.set(model.entries.get() - 1);
        if !word.is_live() {
            counters.purged += 1;
            return true;
        }
        self.gauge.set(self.gauge.get() - 1);
        if word.in_session()
            && let Some(session) =
                self.sessions.get(&SessionKey::new(key.client, self.scene().service))
        {
            session.change_live(-1);
            session.last_seen().set(self.clock.get() as u32);
        }
        if key.proto == TCP {
            counters.expired += 1;
        } else {
            counters.timed_out += 1;
        }
        true
    }

    fn reap_embryo_in<A: Model>(&self, key: &FlowKey<A>) -> bool {
        let Some(embryo) = A::of(self).embryos.get(key) else { return false };
        let word = EmbryoWord(embryo.state().get());
        let ended = word.phase() == EmbryoPhase::Ended;
        let backend = embryo.backend().get();
        if !ended && !embryo.state().swap_if(word.0, word.ended().0) {
            return false;
        }
        A::of(self).embryos.remove(key);
        if !ended {
            let mut counters = self.user_counters.borrow_mut();
            let counters = counters.entry(backend).or_default();
            counters.embryos_expired += 1;
            counters.unanswered += u64::from(word.waits());
        }
        true
    }

    fn free_ports_in<A: Model>(&self, limit: u32) -> usize {
        let model = A::of(self);
        let mut snat = model.snat.borrow_mut();
        let before = snat.len();
        snat.retain(|key, owner| {
            !self.silent(owner.claimed, limit)
                || model.embryos.copy(&owner.key).is_some_and(|e| e.snat.port == key.source_port)
                || model.flows.copy(&owner.key).is_some_and(|f| f.snat.port == key.source_port)
        });
        before - snat.len()
    }
}
