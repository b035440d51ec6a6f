//! Asking silent connections whether they are still there, and ending those that are to end: while
//! a target drains, and before the reaper gives a connection up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use release_common::abi::{Addr6, Address as _, Be32, Flow, IPPROTO_TCP};
use release_common::tcp::word::{End, FlowWord, Marks};

use super::clock;
use super::core::{Daemon, lock, looking};
use super::forced::{Ended, because};
use super::forcing::{Doomed, Ending, RESETS};
use super::regularly::{Pace, REST, log_failure};
use crate::api::types::{ApiError, Because};
use crate::config::{KeepaliveOnly, OnDown, OnKeepalive};
use crate::control::force;
use crate::control::state::{DrainState, State};
use crate::kernel::Tuple;
use crate::net::namespace::Namespace;
use crate::probe::inject::Injector;
use crate::probe::segment::{Leg, Segment, probe};
use crate::probe::watch::{Liveness, Rhythm, Watch};
use crate::verdict::walk::Totals;

/// How often there is a look.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);
/// Most connections asked in one look.
const MOST: usize = 1000;
/// How long an answer is good for the reaper, which looks every 5 s.
const OF_LATE: Duration = Duration::from_secs(60);

/// What a look leaves to be done.
#[derive(Default)]
struct Found {
    /// Were ended on order, and are to be written down.
    ended: Vec<Ended>,
    /// Their instances' kernels are to end them.
    doomed: Vec<Doomed>,
}

/// What is known of silent connections.
#[derive(Debug)]
pub struct Prober {
    injector: Injector,
    watches: HashMap<Tuple, Watch>,
    /// Those that the reaper would give up, and how they are asked.
    due: HashMap<Tuple, Rhythm>,
    /// Those that were told to end.
    pub(super) ending: HashMap<Tuple, Ending>,
    /// The kernel refuses to end sockets.
    pub(super) destroys_none: bool,
}

/// Both ends of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Legs {
    /// The instance's.
    pub server: Leg,
    /// The client's.
    pub client: Leg,
}

/// What to do about the connections of one instance.
pub(super) struct Orders {
    /// The instance's id.
    pub instance: String,
    /// Why its connections are ended, if they are.
    pub because: Because,
    /// They are asked, if silent.
    pub rhythm: Option<Rhythm>,
    /// All are to end, that many a second.
    pub force: Option<u32>,
    /// It is down, so that it may never say that a connection has ended.
    pub silent: bool,
    /// Those without data for so long are to end.
    pub reset_after: Option<Duration>,
    /// Where its sockets are, if that is on this host.
    pub place: Option<Namespace>,
}

impl Orders {
    /// Whether there is something to do about a connection without a packet, and without data, for so
    /// long.
    fn is_about(&self, silence: Duration, without_data: Duration) -> bool {
        self.force.is_some()
            || self.reset_after.is_some_and(|after| without_data >= after)
            || self.rhythm.is_some_and(|rhythm| silence >= rhythm.after)
    }
}

impl Prober {
    /// Opens its sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self {
            injector: Injector::open()?,
            watches: HashMap::new(),
            due: HashMap::new(),
            ending: HashMap::new(),
            destroys_none: false,
        })
    }

    /// Whether a flow is watched, or told to end.
    fn knows(&self, tuple: &Tuple) -> bool {
        self.watches.contains_key(tuple) || self.ending.contains_key(tuple)
    }

    /// What is known of the client's and the server's end.
    pub fn ends(&self, tuple: &Tuple, word: FlowWord) -> (Liveness, Liveness) {
        let watch = self.watches.get(tuple).filter(|watch| watch.is_about(word));
        watch
            .map_or_else(Default::default, |watch| (watch.end(End::Client), watch.end(End::Server)))
    }

    /// Sends a segment.
    pub(super) fn send(&self, segment: &Segment) {
        if let Err(error) = self.injector.send(segment) {
            // No route to a client that is gone: it stays unreachable.
            log::debug!("{}: {error}", segment.destination);
        }
    }

    /// Whether the reaper may give up a connection that has been silent too long: one that was asked
    /// of late, in vain. Has it asked otherwise.
    pub fn gives_up(&mut self, tuple: &Tuple, word: FlowWord, rhythm: Rhythm) -> bool {
        let watch = self.watches.get(tuple).filter(|watch| watch.is_about(word));
        if let Some(watch) = watch.filter(|watch| watch.settled_within(OF_LATE, Instant::now())) {
            return watch.has_lost_an_end();
        }
        self.due.insert(*tuple, rhythm);
        false
    }
}

impl Daemon {
    /// Probes, until told to stop.
    pub async fn probe_regularly(self: Arc<Self>) {
        let mut pace = Pace::new(INTERVAL, REST);
        loop {
            pace.next().await;
            let orders = orders(&self.state().await);
            let found = looking(|| self.look_at_silent(&self.needed(orders)?));
            // The kernels of instances take their own time.
            pace.worked();
            log_failure(self.follow_up(found).await);
        }
    }

    async fn follow_up(&self, found: Result<Found, ApiError>) -> Result<(), ApiError> {
        let Found { ended, doomed } = found?;
        self.record(&ended).await?;
        self.destroy(doomed).await
    }

    /// The orders without those that only ask, of instances without a connection: a version may stand
    /// by or be drained for long, and is no reason to walk the tables.
    fn needed(&self, orders: HashMap<u32, Orders>) -> Result<HashMap<u32, Orders>, ApiError> {
        let mut needed = HashMap::with_capacity(orders.len());
        for (backend, order) in orders {
            let ends = order.force.is_some() || order.reset_after.is_some();
            if ends || Totals::read(&self.reader, &[backend])?.live() != 0 {
                needed.insert(backend, order);
            }
        }
        Ok(needed)
    }

    /// Looks at all connections that there is something to do about, and does it.
    fn look_at_silent(&self, orders: &HashMap<u32, Orders>) -> Result<Found, ApiError> {
        let mut ended = Vec::new();
        let mut prober = lock(&self.prober);
        let waits = prober.watches.values().any(Watch::is_asking) || !prober.ending.is_empty();
        if orders.is_empty() && prober.due.is_empty() && !waits {
            let now = Instant::now();
            prober.watches.retain(|_, watch| watch.settled_within(OF_LATE, now));
            return Ok(Found::default());
        }
        let (mut silent, now) = (Vec::new(), self.jiffies()?);
        self.reader.walk_flows(|tuple, flow| {
            let ordered = orders.get(&flow.backend).is_some_and(|order| {
                // Most connections of a busy instance that drains are none of them.
                let (packet, data) = (flow.last_packet, flow.last_data);
                prober.knows(tuple)
                    || order.is_about(self.clock.age(packet, now), self.clock.age(data, now))
            });
            let wanted = ordered || prober.due.contains_key(tuple);
            if wanted && tuple.proto == IPPROTO_TCP && FlowWord(flow.state).is_live() {
                silent.push((*tuple, *flow));
            } else if self.is_unrecorded(tuple, flow) {
                ended.push(Ended::new(tuple, flow, &prober));
            }
        })?;
        self.ask(&mut prober, orders, &silent, now)?;
        let doomed = self.force(&mut prober, orders, &silent)?;
        let known: HashMap<&Tuple, FlowWord> =
            silent.iter().map(|(tuple, flow)| (tuple, FlowWord(flow.state))).collect();
        let lives = |tuple: &Tuple, tag: u32| known.get(tuple).is_some_and(|w| w.tag() == tag);
        self.forget(&mut prober, &known)?;
        prober.ending.retain(|tuple, ending| lives(tuple, ending.tag));
        let now = Instant::now();
        prober.watches.retain(|tuple, watch| match known.get(tuple) {
            Some(word) => watch.is_about(*word),
            // The reaper has yet to see the answer.
            None => watch.settled_within(OF_LATE, now),
        });
        let Prober { due, watches, .. } = &mut *prober;
        due.retain(|tuple, _| {
            known.contains_key(tuple) && !watches.get(tuple).is_some_and(Watch::is_resting)
        });
        Ok(Found { ended, doomed })
    }

    /// Takes the marks off flows that are none of our business any more: their instance takes new
    /// flows again.
    fn forget(
        &self,
        prober: &mut Prober,
        known: &HashMap<&Tuple, FlowWord>,
    ) -> Result<(), ApiError> {
        let asked = prober.watches.iter().filter(|(_, watch)| watch.is_asking());
        let marked = asked.map(|(tuple, _)| tuple).chain(prober.ending.keys());
        let gone: Vec<Tuple> = marked.filter(|tuple| !known.contains_key(tuple)).copied().collect();
        // What has closed meanwhile keeps its marks, and needs none.
        self.programs.mark(&gone, Marks::default())?;
        for tuple in &gone {
            prober.watches.remove(tuple);
        }
        Ok(())
    }

    /// Asks those that have been silent long enough.
    fn ask(
        &self,
        prober: &mut Prober,
        orders: &HashMap<u32, Orders>,
        silent: &[(Tuple, Flow)],
        now: u64,
    ) -> Result<(), ApiError> {
        let mut asked: HashMap<u32, Vec<(Tuple, Flow)>> = HashMap::new();
        let mut count = 0;
        for (tuple, flow) in silent {
            let order = orders.get(&flow.backend);
            let rhythm = prober.due.get(tuple).copied().or(order.and_then(|order| order.rhythm));
            let (Some(rhythm), word) = (rhythm, FlowWord(flow.state)) else { continue };
            if prober.ending.contains_key(tuple) || count >= MOST {
                continue;
            }
            let watch = prober.watches.entry(*tuple).or_insert_with(|| Watch::new(word));
            if !watch.is_about(word) {
                *watch = Watch::new(word);
            }
            let silence = self.clock.age(flow.last_packet, now);
            if let Some(marks) = watch.look(word, silence, &rhythm, Instant::now()) {
                asked.entry(marks.0).or_default().push((*tuple, *flow));
                count += 1;
            }
        }
        for (marks, flows) in asked {
            let tuples: Vec<Tuple> = flows.iter().map(|(tuple, _)| *tuple).collect();
            let marked = self.programs.mark(&tuples, Marks(marks))?;
            for (tuple, flow) in flows.iter().filter(|(tuple, _)| marked.contains(tuple)) {
                let Some(legs) = self.legs(tuple, flow)? else { continue };
                if Marks(marks).has(Marks::ASKED_SERVER) {
                    prober.send(&probe(flow, End::Server, legs.server));
                }
                if Marks(marks).has(Marks::ASKED_CLIENT) {
                    prober.send(&probe(flow, End::Client, legs.client));
                }
            }
        }
        Ok(())
    }

    /// Both ends of a flow. None if what stands for the client is not known any more.
    pub(super) fn legs(&self, tuple: &Tuple, flow: &Flow) -> Result<Option<Legs>, ApiError> {
        let backend = self.reader.backend(flow.backend)?;
        let instance = match tuple.client.ip() {
            IpAddr::V4(_) => backend.endpoint::<Be32>(tuple.proto).socket(),
            IpAddr::V6(_) => backend.endpoint::<Addr6>(tuple.proto).socket(),
        };
        let mut peer = tuple.client;
        let snat = flow.snat;
        if snat.port.get() != 0 {
            let service = self.reader.service(backend.service)?;
            let index = usize::from(snat.index);
            let source = match tuple.client.ip() {
                IpAddr::V4(_) => service.snat_address::<Be32>(index).map(|addr| addr.ip()),
                IpAddr::V6(_) => service.snat_address::<Addr6>(index).map(|addr| addr.ip()),
            };
            let Some(source) = source else { return Ok(None) };
            peer = SocketAddr::new(source, snat.port.get());
        }
        Ok(Some(Legs {
            server: Leg { peer, end: instance },
            client: Leg { peer: tuple.frontend, end: tuple.client },
        }))
    }
}

/// Instances that no new flow reaches, with what is to be done about their connections.
fn orders(state: &State) -> HashMap<u32, Orders> {
    let mut orders = HashMap::new();
    for service in &state.services {
        let settings = &service.settings;
        let one_way = settings.mode.is_one_way();
        if !settings.conversation.tracks_flows() {
            continue;
        }
        let rhythm = (settings.probes.enabled() && !one_way).then(|| settings.probes.rhythm());
        for version in &service.versions {
            for instance in &version.instances {
                let drain = instance.drain.as_ref().or(version.drain.as_ref());
                let closed = !version.open() || !instance.in_ring();
                let place = force::place(settings.mode, instance);
                let silent = instance.down.is_some() && settings.on_down == OnDown::Reset;
                let force = drain.and_then(forced).max(silent.then_some(RESETS));
                let force = force.filter(|_| !one_way || place.is_some());
                let reset_after =
                    drain.filter(|_| !one_way).and_then(|_| reset_after(settings.keepalive_only));
                if closed && (rhythm.is_some() || force.is_some() || reset_after.is_some()) {
                    let instance_id = instance.id.clone();
                    let because = because(service, version, instance);
                    let order = Orders {
                        instance: instance_id,
                        because,
                        rhythm,
                        force,
                        silent,
                        reset_after,
                        place,
                    };
                    orders.insert(instance.backend, order);
                }
            }
        }
    }
    orders
}

fn reset_after(keepalive_only: KeepaliveOnly) -> Option<Duration> {
    (keepalive_only.action() == OnKeepalive::Reset).then(|| keepalive_only.after())
}

/// How many connections a second a drain may end by now.
pub(super) fn forced(drain: &DrainState) -> Option<u32> {
    drain.force.filter(|_| drain.is_overdue(clock::monotonic()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::health::{Down, Finder, set};
    use crate::control::reconcile::reconcile;

    fn with_one_down(options: &str) -> State {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [\"192.0.2.10:80/tcp\"]\nhealth = {{ tcp = true }}\n{options}\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\n\
             instances = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n"
        );
        let config = Config::from_str(&text, "t").unwrap();
        let mut state = reconcile(&State::default(), &config, 1).unwrap().0;
        let down =
            Down { by: Finder::Check, why: String::new(), since: String::new(), since_boot_ms: 0 };
        set(&mut state.services[0], 1, Some(down)).unwrap();
        state
    }

    #[test]
    fn flows_of_an_instance_that_is_down_are_ended_only_if_that_was_said() {
        let ended = |options: &str| {
            let orders = orders(&with_one_down(options));
            assert!(!orders.contains_key(&2), "the other one serves");
            orders.get(&1).map(|order| (order.force, order.silent, order.because))
        };
        assert_eq!(ended("on_down = \"reset\""), Some((Some(RESETS), true, Because::Down)));
        assert_eq!(
            ended(""),
            Some((None, false, Because::Drain)),
            "asked, as those of a drained one are"
        );
        assert_eq!(ended("probes = { enabled = false }"), None);
        let dsr = "mode = \"dsr\"\nsockets = \"host\"\non_down = \"reset\"";
        assert_eq!(ended(dsr), Some((Some(RESETS), true, Because::Down)));
    }
}
