//! Asking silent connections whether they are still there, and ending those that are to end: while
//! a target drains, and before the reaper gives a connection up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use release_common::abi::{Addr6, Address as _, Be32, Flow, IPPROTO_TCP};
use release_common::tcp::word::{End, FlowWord, Marks};

use super::clock;
use super::core::{Daemon, lock};
use super::forced::Ended;
use crate::api::types::ApiError;
use crate::config::{KeepaliveOnly, OnKeepalive};
use crate::control::state::{DrainState, State};
use crate::kernel::Tuple;
use crate::probe::inject::Injector;
use crate::probe::segment::{Leg, Segment, probe, resets};
use crate::probe::watch::{Liveness, Rhythm, Watch};

/// How often there is a look.
const INTERVAL: Duration = Duration::from_millis(250);
/// Part of the time that may go into it: walks of a large table take long.
const SHARE: u32 = 20;
/// Most connections asked in one look.
const MOST: usize = 1000;
/// How long an answer is good for the reaper, which looks every 5 s.
const OF_LATE: Duration = Duration::from_secs(60);

/// What is known of silent connections.
#[derive(Debug)]
pub struct Prober {
    injector: Injector,
    watches: HashMap<Tuple, Watch>,
    /// Those that the reaper would give up, and how they are asked.
    due: HashMap<Tuple, Rhythm>,
    /// Those that were told to end.
    ending: HashMap<Tuple, Ending>,
}

/// A connection that was told to end.
#[derive(Clone, Copy, Debug)]
struct Ending {
    tag: u32,
    told: Instant,
    times: u32,
}

/// Both ends of a flow.
#[derive(Clone, Copy, Debug)]
struct Legs {
    server: Leg,
    client: Leg,
}

/// What to do about the connections of one instance.
#[derive(Clone, Copy)]
struct Orders {
    rhythm: Option<Rhythm>,
    /// All are to end, that many a second.
    force: Option<u32>,
    /// Those without data for so long are to end.
    reset_after: Option<Duration>,
}

/// Connections without data that are ended a second.
const RESETS: u32 = 100;

/// Attempts to end a connection, a second apart: each has newer numbers.
const ENDINGS: u32 = 10;
const BETWEEN_ENDINGS: Duration = Duration::from_secs(1);

impl Prober {
    /// Opens its sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> std::io::Result<Self> {
        let (watches, due, ending) = (HashMap::new(), HashMap::new(), HashMap::new());
        Ok(Self { injector: Injector::open()?, watches, due, ending })
    }

    /// What is known of the client's and the server's end.
    pub fn ends(&self, tuple: &Tuple, word: FlowWord) -> (Liveness, Liveness) {
        let watch = self.watches.get(tuple).filter(|watch| watch.is_about(word));
        watch
            .map_or_else(Default::default, |watch| (watch.end(End::Client), watch.end(End::Server)))
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
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let start = Instant::now();
            if let Err(error) = self.probe().await {
                log::error!("{error}");
            }
            tokio::time::sleep(start.elapsed() * SHARE).await;
        }
    }

    async fn probe(&self) -> Result<(), ApiError> {
        let orders = orders(&self.state().await);
        let ended = self.look_at_silent(&orders)?;
        self.record(&ended).await
    }

    /// Looks at all connections that there is something to do about, and does it. Returns those
    /// that were ended on order and are to be written down.
    fn look_at_silent(&self, orders: &HashMap<u32, Orders>) -> Result<Vec<Ended>, ApiError> {
        let mut ended = Vec::new();
        let mut prober = lock(&self.prober);
        let waits = prober.watches.values().any(Watch::is_asking) || !prober.ending.is_empty();
        if orders.is_empty() && prober.due.is_empty() && !waits {
            let now = Instant::now();
            prober.watches.retain(|_, watch| watch.settled_within(OF_LATE, now));
            return Ok(ended);
        }
        let mut silent = Vec::new();
        self.reader.walk_flows(|tuple, flow| {
            let wanted = orders.contains_key(&flow.backend) || prober.due.contains_key(tuple);
            if wanted && tuple.proto == IPPROTO_TCP && FlowWord(flow.state).is_live() {
                silent.push((*tuple, *flow));
            } else if self.is_unrecorded(tuple, flow) {
                ended.push(Ended::new(tuple, flow, &prober));
            }
        })?;
        let now = self.jiffies()?;
        self.ask(&mut prober, orders, &silent, now)?;
        self.force(&mut prober, orders, &silent)?;
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
        Ok(ended)
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
                    send(&prober.injector, &probe(flow, End::Server, legs.server));
                }
                if Marks(marks).has(Marks::ASKED_CLIENT) {
                    send(&prober.injector, &probe(flow, End::Client, legs.client));
                }
            }
        }
        Ok(())
    }

    /// Ends connections, those without a reachable client first, then those whose last data is the
    /// oldest. The instance gets a RST, and at once the question whether it has the connection: its
    /// own RST then closes the flow, and is what the client gets. So nothing is called ended that
    /// the instance still has.
    fn force(
        &self,
        prober: &mut Prober,
        orders: &HashMap<u32, Orders>,
        silent: &[(Tuple, Flow)],
    ) -> Result<(), ApiError> {
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
        let tuples: Vec<Tuple> = next.iter().map(|(tuple, _)| *tuple).collect();
        let marked = self.programs.mark(&tuples, Marks::FORCED.with(Marks::ASKED_SERVER))?;
        for (tuple, flow) in next {
            if !marked.contains(tuple) {
                continue;
            }
            let Some(Legs { server, .. }) = self.legs(tuple, flow)? else { continue };
            for reset in resets(flow, End::Server, server) {
                send(&prober.injector, &reset);
            }
            send(&prober.injector, &probe(flow, End::Server, server));
            let tag = FlowWord(flow.state).tag();
            let ending = prober.ending.entry(*tuple).or_insert(Ending { tag, told: now, times: 0 });
            *ending = Ending { tag, told: now, times: ending.times + 1 };
        }
        Ok(())
    }

    /// Both ends of a flow. None if what stands for the client is not known any more.
    fn legs(&self, tuple: &Tuple, flow: &Flow) -> Result<Option<Legs>, ApiError> {
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

/// How many connections one look may end.
fn per_look(rate: u32) -> usize {
    let looks = (Duration::from_secs(1).as_millis() / INTERVAL.as_millis()) as u32;
    rate.div_ceil(looks) as usize
}

fn send(injector: &Injector, segment: &Segment) {
    if let Err(error) = injector.send(segment) {
        // No route to a client that is gone: it stays unreachable.
        log::debug!("{}: {error}", segment.destination);
    }
}

/// Instances that no new flow reaches, with what is to be done about their connections.
fn orders(state: &State) -> HashMap<u32, Orders> {
    let mut orders = HashMap::new();
    for service in &state.services {
        let settings = &service.settings;
        if settings.mode.is_one_way() || !settings.conversation.tracks_flows() {
            continue;
        }
        let rhythm = settings.probes.enabled().then(|| settings.probes.rhythm());
        for version in &service.versions {
            for instance in &version.instances {
                let drain = instance.drain.as_ref().or(version.drain.as_ref());
                let closed = !version.open() || !instance.in_ring();
                let force = drain.and_then(forced);
                let reset_after = drain.and_then(|_| reset_after(settings.keepalive_only));
                let order = Orders { rhythm, force, reset_after };
                if closed && (rhythm.is_some() || force.is_some() || reset_after.is_some()) {
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
fn forced(drain: &DrainState) -> Option<u32> {
    drain.force.filter(|_| drain.is_overdue(clock::monotonic()))
}
