//! What the tables say of each instance at one moment.

use std::collections::{HashMap, HashSet};

use release_common::abi::{Embryo, Flow, Session, SessionWord, service_flag};
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use crate::api::types::{FlowCounts, InstanceCounters};
use crate::kernel::{KernelError, Maps};

/// Entries that name one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries by state.
    pub flows: FlowCounts,
    /// Highest generation among flows and handshakes; trials carry none.
    pub newest_generation: u32,
    /// When the oldest live flow was opened, in the unit of [`Flow::opened_at`].
    pub oldest_opened_at: Option<u32>,
    /// Client sessions that lead new flows to it.
    pub sessions: u64,
}

impl Tally {
    /// Adds another instance's entries.
    pub fn add(&mut self, other: &Self) {
        self.flows.embryonic += other.flows.embryonic;
        self.flows.active += other.flows.active;
        self.flows.half_closed += other.flows.half_closed;
        self.flows.closing += other.flows.closing;
        self.sessions += other.sessions;
        self.newest_generation = self.newest_generation.max(other.newest_generation);
        self.oldest_opened_at = match (self.oldest_opened_at, other.oldest_opened_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Counts a flow.
    pub fn flow(&mut self, flow: &Flow) {
        let word = FlowWord(flow.state);
        match word.phase() {
            Phase::Live => {
                self.flows.active += 1;
                self.flows.half_closed += u64::from(word.half_closed());
                self.oldest_opened_at =
                    Some(self.oldest_opened_at.map_or(flow.opened_at, |o| o.min(flow.opened_at)));
            }
            Phase::ClosedFin | Phase::ClosedRst | Phase::Dead => self.flows.closing += 1,
        }
        self.newest_generation = self.newest_generation.max(flow.generation);
    }

    /// Counts an embryo.
    pub fn embryo(&mut self, embryo: &Embryo) {
        match EmbryoWord(embryo.state).phase() {
            EmbryoPhase::Ended => {}
            phase => {
                self.flows.embryonic += 1;
                if phase != EmbryoPhase::Trial {
                    self.newest_generation = self.newest_generation.max(embryo.generation);
                }
            }
        }
    }
}

/// What a session means at this time, by its service.
struct Remembered {
    /// The client's next flow finds it.
    lasts: bool,
    /// It leads new flows to its instance, drained or not.
    leads: bool,
}

fn remembered(
    maps: &Maps,
    service: u32,
    session: &Session,
    now: u32,
) -> Result<Remembered, KernelError> {
    let settings = maps.service(service)?;
    let age = now.wrapping_sub(session.last_seen);
    let lasts = SessionWord(session.state).live() != 0 || age < settings.session_timeout;
    Ok(Remembered { lasts, leads: lasts && settings.has(service_flag::HOLD_SESSIONS) })
}

/// All entries, by instance.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// By instance id.
    pub by_backend: HashMap<u32, Tally>,
    /// Entries of the flow tables.
    pub entries: u64,
    /// Of those, IPv6.
    pub entries6: u64,
    /// Embryos.
    pub embryos: u64,
    /// Of those, IPv6.
    pub embryos6: u64,
    /// Instances that sessions name, whatever their time.
    pub sessions: HashSet<u32>,
    /// Clients that are remembered, by service id.
    pub remembered: HashMap<u32, u64>,
}

impl Walk {
    /// Walks embryos, then flows: an entry moves in that direction only, so none is missed. Then
    /// sessions, which flows begin. `now` is in jiffies.
    ///
    /// # Errors
    /// The system call's.
    pub fn take(maps: &Maps, now: u64) -> Result<Self, KernelError> {
        let mut walk = Self::default();
        maps.walk_embryos(|at, embryo| {
            walk.embryos += 1;
            walk.embryos6 += u64::from(at.client.is_ipv6());
            walk.by_backend.entry(embryo.backend).or_default().embryo(embryo);
        })?;
        maps.walk_flows(|at, flow| {
            walk.entries += 1;
            walk.entries6 += u64::from(at.client.is_ipv6());
            walk.by_backend.entry(flow.backend).or_default().flow(flow);
        })?;
        let mut sessions = Vec::new();
        maps.walk_sessions(|at, session| sessions.push((at.service, *session)))?;
        for (service, session) in sessions {
            walk.sessions.insert(session.backend);
            let remembered = remembered(maps, service, &session, now as u32)?;
            if remembered.lasts {
                *walk.remembered.entry(service).or_default() += 1;
            }
            if remembered.leads {
                walk.by_backend.entry(session.backend).or_default().sessions += 1;
            }
        }
        Ok(walk)
    }

    /// Whether any entry names an instance.
    pub fn names(&self, backend: u32) -> bool {
        self.by_backend.contains_key(&backend) || self.sessions.contains(&backend)
    }

    /// Entries that name any of `backends`.
    pub fn tally(&self, backends: &[u32]) -> Tally {
        let mut total = Tally::default();
        for backend in backends {
            if let Some(tally) = self.by_backend.get(backend) {
                total.add(tally);
            }
        }
        total
    }
}

/// Counters of some instances, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// As shown to people; `evicted` is filled in by [`Totals::evicted`].
    pub counters: InstanceCounters,
    /// Embryos made by anything but a split.
    pub trials: u64,
    /// Embryos that ended in the packet path.
    pub embryos_ended: u64,
    /// Embryos removed because they were too old.
    pub embryos_expired: u64,
    /// Jiffies at the last packet, 0 for none.
    pub last_packet: u64,
}

impl Totals {
    /// Reads and adds up the counters of `backends`.
    ///
    /// What was removed by programs run from user space is read first, then what closed, then what
    /// opened: a race over-estimates activity.
    ///
    /// # Errors
    /// The system call's.
    pub fn read(maps: &Maps, backends: &[u32]) -> Result<Self, KernelError> {
        let mut total = Self::default();
        for &backend in backends {
            let user = maps.user_counters(backend)?;
            let kernel = maps.counters(backend)?;
            let sum = &mut total.counters;
            sum.placed += kernel.placed;
            sum.opened += kernel.opened;
            sum.adopted += kernel.adopted;
            sum.closed_fin += kernel.closed_fin;
            sum.closed_rst += kernel.closed_rst;
            sum.forced += kernel.forced;
            sum.reopened += kernel.reopened;
            sum.superseded += kernel.superseded;
            sum.expired += user.expired;
            sum.timed_out += user.timed_out;
            sum.refused += kernel.refused;
            sum.untracked += kernel.untracked;
            sum.unverified += kernel.unverified;
            sum.ruled += kernel.ruled;
            sum.sticky += kernel.sticky;
            sum.datagrams += kernel.datagrams;
            sum.migrated += kernel.migrated;
            sum.packets += kernel.packets;
            sum.bytes += kernel.bytes;
            take_back(sum, kernel.reopened);
            total.trials += kernel.trials;
            total.embryos_ended += kernel.embryos_ended;
            total.embryos_expired += user.embryos_expired;
            total.last_packet = total.last_packet.max(kernel.last_packet);
        }
        Ok(total)
    }

    /// Flows that must be live if every step was counted once.
    pub fn live(&self) -> i64 {
        let c = &self.counters;
        (c.opened + c.adopted) as i64
            - (c.closed_fin + c.closed_rst + c.superseded + c.expired + c.timed_out + c.forced)
                as i64
    }

    /// All steps of flows so far: while these are equal, no flow began or ended.
    pub fn steps(&self) -> [u64; 9] {
        let c = &self.counters;
        [
            c.opened,
            c.adopted,
            c.reopened,
            c.closed_fin,
            c.closed_rst,
            c.superseded,
            c.expired,
            c.timed_out,
            c.forced,
        ]
    }

    /// Embryos that vanished without being counted, given those present.
    pub fn evicted(&self, present: u64) -> u64 {
        let c = &self.counters;
        let made = c.placed + self.trials;
        let accounted = c.opened + c.adopted + self.embryos_ended + self.embryos_expired + present;
        made.saturating_sub(accounted)
    }
}

/// Takes flows that proved alive out of the closed. Which of the counts had them is not known; most
/// of those that go on after a RST were reset by their client.
fn take_back(counters: &mut InstanceCounters, reopened: u64) {
    let InstanceCounters { closed_rst, closed_fin, forced, .. } = counters;
    let mut left = reopened;
    for count in [closed_rst, closed_fin, forced] {
        let taken = left.min(*count);
        *count -= taken;
        left -= taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_proved_alive_are_not_among_the_closed() {
        let net = |closed_rst, closed_fin, forced, reopened| {
            let mut counters =
                InstanceCounters { closed_rst, closed_fin, forced, ..Default::default() };
            take_back(&mut counters, reopened);
            (counters.closed_rst, counters.closed_fin, counters.forced)
        };
        assert_eq!(net(3, 2, 1, 0), (3, 2, 1));
        assert_eq!(net(3, 2, 1, 4), (0, 1, 1));
        // The only one was reset on order, and its instance went on all the same.
        assert_eq!(net(0, 0, 2, 1), (0, 0, 1));
    }
}
