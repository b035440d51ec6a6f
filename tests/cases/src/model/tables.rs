//! [`Tables`] over ordinary memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Ipv4Addr;

use release_common::abi::{
    Backend, BackendRef, Be16, Be32, Counters, Embryo, Endpoint4, Flow, FlowKey4, FrontendRef,
    PortBits, RING_BLOCK, RingBlock, Service, Split, UserCounters,
};
use release_common::packet::SliceFrame;
use release_common::pipeline::{Counter, Insert, InsertError, Outcome, Route, Tables, process};
use release_common::placement::FlowHash;
use release_common::reason::Reason;
use release_common::shared::Shared;
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::scene::{FIRST_GENERATION, Scene};
use super::slab::{Slab, WhenFull};

/// Interface and MACs of the way to instances.
pub const TO_BACKEND: (u32, [u8; 6], [u8; 6]) = (7, [2, 0, 0, 0, 0xb, 1], [2, 0, 0, 0, 0xb, 2]);
/// Interface and MACs of the way to clients.
pub const TO_CLIENT: (u32, [u8; 6], [u8; 6]) = (8, [2, 0, 0, 0, 0xc, 1], [2, 0, 0, 0, 0xc, 2]);
/// Head room in front of a frame, as drivers leave it.
const HEADROOM: usize = 256;

/// What a walk over all entries finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Live flows.
    pub live: u64,
    /// Closed flows that linger.
    pub closed: u64,
    /// Embryos.
    pub embryos: u64,
    /// The gauge of live flows.
    pub gauge: i64,
    /// The gauge of flow table entries.
    pub entries: i64,
    /// Embryos evicted, if that is known.
    pub evicted: u64,
}

/// The tables of one scene.
pub struct ModelTables {
    scene: Scene,
    service: Service,
    ports: [Box<PortBits>; 2],
    backends: HashMap<u32, Backend>,
    rings: HashMap<u32, Vec<RingBlock>>,
    split: Cell<&'static Split>,
    /// The clock, in jiffies.
    pub clock: Cell<u64>,
    /// The way of every packet; `None`: [`TO_BACKEND`] and [`TO_CLIENT`].
    pub way: Cell<Option<Route>>,
    /// Whether the flow table takes no new flows.
    pub full: Cell<bool>,
    /// Frontends that were taken away.
    pub gone: RefCell<Vec<Endpoint4>>,
    /// The flow table.
    pub flows: Slab<FlowKey4, Flow>,
    /// The embryo table.
    pub embryos: Slab<FlowKey4, Embryo>,
    counters: RefCell<HashMap<u32, Counters>>,
    user_counters: RefCell<HashMap<u32, UserCounters>>,
    gauge: Cell<i64>,
    entries: Cell<i64>,
    tags: Cell<u32>,
}

impl ModelTables {
    /// Loads a scene, with room for this many flows and embryos.
    pub fn new(scene: &Scene, flows: usize, embryos: usize) -> Self {
        let rings = scene.versions.iter().map(|v| (v.ring, scene.ring(v))).collect();
        let split = scene.split(&scene.weights(), FIRST_GENERATION);
        Self {
            service: scene.service_value(),
            ports: scene.ports(),
            backends: scene.backends().into_iter().collect(),
            rings,
            split: Cell::new(Box::leak(Box::new(split))),
            scene: scene.clone(),
            clock: Cell::new(1 << 33),
            way: Cell::new(None),
            full: Cell::new(false),
            gone: RefCell::default(),
            flows: Slab::new(flows, WhenFull::Refuse),
            embryos: Slab::new(embryos, WhenFull::EvictOldest),
            counters: RefCell::default(),
            user_counters: RefCell::default(),
            gauge: Cell::new(0),
            entries: Cell::new(0),
            tags: Cell::new(1),
        }
    }

    /// Replaces the split. Old splits live on, as they do in the kernel for programs that still run
    /// (here for ever: tests are short).
    pub fn shift(&self, weights: &[u32]) {
        let split = self.scene.split(weights, self.split.get().generation + 1);
        self.split.set(Box::leak(Box::new(split)));
    }

    /// The scene.
    pub const fn scene(&self) -> &Scene {
        &self.scene
    }

    /// The generation in force.
    pub fn generation(&self) -> u32 {
        self.split.get().generation
    }

    /// Sends a frame through the packet path; returns the frame afterwards.
    pub fn run(&self, frame: &[u8]) -> (Outcome, Vec<u8>) {
        run_on(self, frame)
    }

    /// Counters of an instance.
    pub fn counters(&self, backend: u32) -> Counters {
        self.counters.borrow().get(&backend).copied().unwrap_or_default()
    }

    /// Counters of an instance that user space's programs write.
    pub fn user_counters(&self, backend: u32) -> UserCounters {
        self.user_counters.borrow().get(&backend).copied().unwrap_or_default()
    }

    /// Walks over all entries.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally { evicted: self.embryos.evicted(), ..Tally::default() };
        for (_, flow) in self.flows.all() {
            match FlowWord(flow.state).phase() {
                Phase::Live => tally.live += 1,
                Phase::ClosedFin | Phase::ClosedRst => tally.closed += 1,
                Phase::Dead => {}
            }
        }
        tally.embryos = self.embryos.all().len() as u64;
        tally.gauge = self.gauge.get();
        tally.entries = self.entries.get();
        tally
    }

    /// The reaper's first run over a key: claims a flow silent for `limit` jiffies.
    pub fn claim(&self, key: &FlowKey4, limit: u32) -> bool {
        let Some(flow) = self.flows.get(key) else { return false };
        let word = FlowWord(flow.state().get());
        word.phase() != Phase::Dead
            && (self.clock.get() as u32).wrapping_sub(flow.last_packet().get()) >= limit
            && flow.state().swap_if(word.0, word.with_dying().0)
    }

    /// Its second run: removes a flow still claimed.
    pub fn reap(&self, key: &FlowKey4) -> bool {
        let Some(flow) = self.flows.get(key) else { return false };
        let word = FlowWord(flow.state().get());
        let dead = word.with_phase(Phase::Dead);
        if !word.dying() || word.phase() == Phase::Dead || !flow.state().swap_if(word.0, dead.0) {
            return false;
        }
        let mut counters = self.user_counters.borrow_mut();
        let counters = counters.entry(flow.backend().get()).or_default();
        self.flows.remove(key);
        self.entries.set(self.entries.get() - 1);
        if word.is_live() {
            self.gauge.set(self.gauge.get() - 1);
            counters.expired += 1;
        } else {
            counters.purged += 1;
        }
        true
    }

    /// The reaper's run over an embryo that is too old.
    pub fn reap_embryo(&self, key: &FlowKey4) -> bool {
        let Some(embryo) = self.embryos.get(key) else { return false };
        let word = EmbryoWord(embryo.state().get());
        let ended = word.phase() == EmbryoPhase::Ended;
        if !ended && !embryo.state().swap_if(word.0, word.ended().0) {
            return false;
        }
        self.embryos.remove(key);
        if !ended {
            let mut counters = self.user_counters.borrow_mut();
            counters.entry(embryo.backend().get()).or_default().embryos_expired += 1;
        }
        true
    }
}

/// Sends a frame through the packet path over any tables; returns the frame afterwards.
pub fn run_on<T: Tables>(tables: &T, frame: &[u8]) -> (Outcome, Vec<u8>) {
    let mut memory = vec![0xee; HEADROOM + frame.len()];
    memory[HEADROOM..].copy_from_slice(frame);
    let end = memory.len();
    match SliceFrame::new(&mut memory, HEADROOM, end) {
        Some(mut packet) => {
            let outcome = process(&mut packet, tables);
            (outcome, packet.bytes().to_vec())
        }
        None => (Outcome::drop(Reason::NoRoom), Vec::new()),
    }
}

impl Tables for ModelTables {
    fn now(&self) -> u64 {
        self.clock.get()
    }
    fn tag(&self) -> u32 {
        self.tags.set(self.tags.get() + 1);
        self.tags.get()
    }
    fn is_frontend_port(&self, port: Be16) -> bool {
        self.ports[0].contains(port.get())
    }
    fn is_backend_port(&self, port: Be16) -> bool {
        self.ports[1].contains(port.get())
    }
    fn frontend(&self, at: &Endpoint4) -> Option<FrontendRef> {
        let mut entries = self.scene.frontend_entries().into_iter();
        let found = entries.find(|(frontend, _)| frontend == at)?;
        (!self.gone.borrow().contains(at)).then_some(found.1)
    }
    fn backend_at(&self, at: &Endpoint4) -> Option<BackendRef> {
        let ids = self.scene.backend_ids();
        ids.iter().rev().find(|(endpoint, _)| endpoint == at).map(|(_, value)| *value)
    }
    fn service(&self, id: u32) -> Option<&Service> {
        (id == self.scene.service).then_some(&self.service)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }
    fn split(&self, service: u32) -> Option<&Split> {
        (service == self.scene.service).then(|| self.split.get())
    }
    fn instance(&self, ring: u32, hash: FlowHash) -> Option<u32> {
        let blocks = self.rings.get(&ring)?;
        let slot = hash.slot(blocks.first()?.slots[0]) as usize;
        let id = blocks.get(1 + slot / RING_BLOCK)?.slots[slot % RING_BLOCK];
        (id != 0).then_some(id)
    }
    fn table_full(&self) -> bool {
        self.full.get() || self.entries.get() >= i64::from(self.scene.flow_limit)
    }
    fn flow(&self, key: &FlowKey4) -> Option<Shared<'_, Flow>> {
        self.flows.get(key)
    }
    fn insert_flow(&self, key: &FlowKey4, flow: &Flow, how: Insert) -> Result<(), InsertError> {
        self.flows.insert(key, flow, how)
    }
    fn embryo(&self, key: &FlowKey4) -> Option<Shared<'_, Embryo>> {
        self.embryos.get(key)
    }
    fn insert_embryo(&self, key: &FlowKey4, embryo: &Embryo) -> Result<(), InsertError> {
        self.embryos.insert(key, embryo, Insert::New)
    }
    fn remove_embryo(&self, key: &FlowKey4) {
        self.embryos.remove(key);
    }
    fn count(&self, backend: u32, counter: Counter) {
        let mut counters = self.counters.borrow_mut();
        let fields: &mut [u64; Counters::FIELDS] =
            bytemuck::cast_mut(counters.entry(backend).or_default());
        fields[counter as usize] += 1;
    }
    fn traffic(&self, backend: u32, bytes: u16, now: u64) {
        let mut counters = self.counters.borrow_mut();
        let counters = counters.entry(backend).or_default();
        counters.packets += 1;
        counters.bytes += u64::from(bytes);
        counters.last_packet = now;
    }
    fn live_flows(&self, _service: u32, change: i64) {
        self.gauge.set(self.gauge.get() + change);
    }
    fn entry_added(&self) {
        self.entries.set(self.entries.get() + 1);
    }
    fn event(&self, _kind: u32, _key: &FlowKey4, _backend: u32, _generation: u32) {}
    fn route(&self, _source: Be32, destination: Be32, _tos: u8, _len: u16) -> Route {
        self.way.get().unwrap_or_else(|| {
            let (ifindex, dmac, smac) = way_to(destination.into());
            Route::Via { ifindex: Some(ifindex), dmac, smac }
        })
    }
}

/// Interface and MACs of the way to an address: instances are in 10.0.0.0/8.
pub const fn way_to(destination: Ipv4Addr) -> (u32, [u8; 6], [u8; 6]) {
    if destination.octets()[0] == 10 { TO_BACKEND } else { TO_CLIENT }
}
