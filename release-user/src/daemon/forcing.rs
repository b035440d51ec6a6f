//! Ending connections on the operator's order.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use release_common::abi::Flow;
use release_common::tcp::word::{End, FlowWord, Marks};

use super::core::{Daemon, lock};
use super::forced::Ended;
use super::prober::{INTERVAL, Orders, Prober};
use crate::api::types::{ApiError, ErrorCode, How};
use crate::config::Protocol;
use crate::control::state::ServiceState;
use crate::kernel::Tuple;
use crate::net::namespace::Namespace;
use crate::probe::segment::{Leg, probe, resets};
use crate::probe::watch::Liveness;
use crate::sockets::destroy::is_supported;
use crate::sockets::{DestroyError, destroy};
use crate::store::Forced;

/// Connections that are ended a second where no operator said how many: those without data, and those
/// of instances that are down.
pub(super) const RESETS: u32 = 100;
/// Attempts to end a connection, a second apart: each has newer numbers.
const ENDINGS: u32 = 10;
const BETWEEN_ENDINGS: Duration = Duration::from_secs(1);
/// Attempts by RST alone, before the instance's kernel is told to end a connection.
const BY_RESET: u32 = 3;
/// Most sockets ended in one look: each takes the kernel a look through its table.
const MOST_DESTROYED: usize = 250;

/// A connection that was told to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// The entry's.
    pub tag: u32,
    told: Instant,
    times: u32,
}

/// A connection that its instance's kernel is to end.
#[derive(Debug)]
pub(super) struct Doomed {
    tuple: Tuple,
    /// Its end will not pass here.
    unseen: bool,
    namespace: Namespace,
    /// The instance's end.
    leg: Leg,
    /// How it is written down.
    forced: Forced,
}

impl Daemon {
    /// Ends connections, those without a reachable client first, then those whose last data is the
    /// oldest. The instance gets a RST, and at once the question whether it has the connection: its
    /// own RST then closes the flow, and is what the client gets. So nothing is called ended that
    /// the instance still has. One that is down may never answer: after some attempts the client gets
    /// its RST from us, and its own closes the flow. Returns those that the instance's kernel is to
    /// end: where RSTs did not help, and where their numbers are not known.
    pub(super) fn force(
        &self,
        prober: &mut Prober,
        orders: &HashMap<u32, Orders>,
        silent: &[(Tuple, Flow)],
    ) -> Result<Vec<Doomed>, ApiError> {
        let (now, jiffies) = (Instant::now(), self.jiffies()?);
        let mut rate = 0;
        let mut next: Vec<&(Tuple, Flow)> = Vec::new();
        for entry in silent {
            let Some(order) = orders.get(&entry.1.backend) else { continue };
            let without_data = self.clock.age(entry.1.last_data, jiffies);
            let most = match (order.force, order.reset_after) {
                (Some(most), _) => most,
                (None, Some(after)) if without_data >= after => RESETS,
                _ => continue,
            };
            rate = rate.max(most);
            let told = prober.ending.get(&entry.0).filter(|ending| {
                ending.tag == FlowWord(entry.1.state).tag()
                    && (ending.times >= ENDINGS
                        || now.saturating_duration_since(ending.told) < BETWEEN_ENDINGS)
            });
            if told.is_none() {
                next.push(entry);
            }
        }
        next.sort_by_key(|(tuple, flow)| {
            let (client, _) = prober.ends(tuple, FlowWord(flow.state));
            let silence = self.clock.age(flow.last_data, jiffies);
            (client != Liveness::Unreachable, std::cmp::Reverse(silence))
        });
        next.truncate(per_look(rate));
        let seen: Vec<Tuple> =
            next.iter().filter(|(_, flow)| !unseen(flow)).map(|(tuple, _)| *tuple).collect();
        let marks = Marks::FORCED.with(Marks::ASKED_SERVER);
        let marked: HashSet<Tuple> = self.programs.mark(&seen, marks)?.into_iter().collect();
        let mut doomed = Vec::new();
        for (tuple, flow) in next {
            if doomed.len() == MOST_DESTROYED {
                break;
            }
            let leg = if unseen(flow) {
                Leg { peer: tuple.client, end: tuple.frontend }
            } else {
                let legs = if marked.contains(tuple) { self.legs(tuple, flow)? } else { None };
                let Some(legs) = legs else { continue };
                for reset in resets(flow, End::Server, legs.server) {
                    prober.send(&reset);
                }
                prober.send(&probe(flow, End::Server, legs.server));
                let attempts = prober.ending.get(tuple).map_or(0, |ending| ending.times);
                if orders.get(&flow.backend).is_some_and(|o| o.silent) && attempts >= BY_RESET {
                    for reset in resets(flow, End::Client, legs.client) {
                        prober.send(&reset);
                    }
                    prober.send(&probe(flow, End::Client, legs.client));
                }
                legs.server
            };
            let tag = FlowWord(flow.state).tag();
            let ending = prober.ending.entry(*tuple).or_insert(Ending { tag, told: now, times: 0 });
            *ending = Ending { tag, told: now, times: ending.times + 1 };
            let helpless = unseen(flow) || ending.times > BY_RESET;
            let Some(order) = orders.get(&flow.backend) else { continue };
            if let Some(namespace) = order.place.clone().filter(|_| helpless)
                && !prober.destroys_none
            {
                let ended = Ended::new(tuple, flow, prober);
                let (at, how) = ((SystemTime::now(), jiffies), How::SocketDestroyed);
                let forced =
                    self.describe_forced(&ended, (order.instance.clone(), order.because), how, at);
                doomed.push(Doomed { tuple: *tuple, unseen: unseen(flow), namespace, leg, forced });
            }
        }
        Ok(doomed)
    }

    /// Has the kernels of instances on this host end connections. What will not pass here is
    /// written down before: a daemon that is killed in between loses none.
    ///
    /// # Errors
    /// The store's or the kernel's.
    pub(super) async fn destroy(&self, doomed: Vec<Doomed>) -> Result<(), ApiError> {
        if doomed.is_empty() {
            return Ok(());
        }
        let epoch = self.reader.meta()?.evidence_epoch;
        let unseen: Vec<Forced> =
            doomed.iter().filter(|one| one.unseen).map(|one| one.forced.clone()).collect();
        let new = {
            let mut core = self.core.lock().await;
            tokio::task::block_in_place(|| core.store.add_forced(epoch, &unseen))?
        };
        let ended = tokio::task::spawn_blocking(move || {
            let end = |one: Doomed| {
                let (namespace, Leg { peer, end }) = (&one.namespace, one.leg);
                (destroy(namespace, Protocol::Tcp, end, peer), one)
            };
            doomed.into_iter().map(end).collect::<Vec<_>>()
        });
        let ended = ended
            .await
            .map_err(|error| ApiError::new(ErrorCode::Internal, format!("sockets: {error}")))?;
        let (mut new, mut undone, mut failed) = (new.into_iter(), Vec::new(), Vec::new());
        for (result, one) in ended {
            // Another look at it may have been the one that did it.
            let ours = one.unseen && new.next() == Some(true);
            if ours && result.is_err() {
                undone.push(one.forced.clone());
            }
            if let Err(error) = self.after_destroying(&one, result) {
                failed.push(format!("{} in {}: {error}", one.leg.peer, one.namespace));
            }
        }
        if let Some(first) = failed.first() {
            log::warn!("{} sockets could not be ended, such as that of {first}", failed.len());
        }
        let mut core = self.core.lock().await;
        Ok(core.store.remove_forced(epoch, &undone)?)
    }

    /// Takes in what a kernel said.
    ///
    /// # Errors
    /// What may be different another time.
    fn after_destroying(
        &self,
        one: &Doomed,
        result: Result<(), DestroyError>,
    ) -> Result<(), DestroyError> {
        let mut prober = lock(&self.prober);
        match result {
            Ok(()) | Err(DestroyError::NoSuchSocket) if one.unseen => {
                // Its entry stays, and says nothing any more.
                let ending = prober.ending.get_mut(&one.tuple);
                if let Some(ending) = ending.filter(|ending| ending.tag == one.forced.tag) {
                    ending.times = ENDINGS;
                }
            }
            Err(error @ (DestroyError::Unsupported | DestroyError::NotAllowed)) => {
                if !std::mem::replace(&mut prober.destroys_none, true) {
                    let text = format!("connections that RSTs do not end are left: {error}");
                    self.events.publish("warning", None, None, text);
                }
            }
            Ok(()) | Err(DestroyError::NoSuchSocket) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether the kernel does what ending a service's connections needs.
    ///
    /// # Errors
    /// Usage, with what it lacks.
    pub(super) fn can_force(service: &ServiceState) -> Result<(), ApiError> {
        let mode = service.settings.mode;
        if !mode.is_one_way() {
            return Ok(());
        }
        is_supported().map_err(|error| {
            let why = format!("mode {mode}: connections cannot be ended: {error}");
            ApiError::new(ErrorCode::Usage, why).hint("use --on-deadline hold")
        })
    }
}

/// Whether what the instance says does not pass here, nor do we know its numbers.
const fn unseen(flow: &Flow) -> bool {
    FlowWord(flow.state).one_way()
}

/// How many connections one look may end.
fn per_look(rate: u32) -> usize {
    let looks = (Duration::from_secs(1).as_millis() / INTERVAL.as_millis()) as u32;
    rate.div_ceil(looks) as usize
}
