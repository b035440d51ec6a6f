//! [`Tables`] and [`FamilyTables`] over ordinary memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use release_common::abi::{
    Addr6, Backend, BackendRef, Be16, Be32, Counters, Embryo, Endpoint, Flow, FlowKey, FragmentKey,
    FragmentOf, FrontendRef, PortBits, QuicKey, RING_BLOCK, RingBlock, Service, ServiceCounters,
    Session, SessionKey, SnatKey, SnatOwner, Split, UserCounters,
};
use release_common::packet::{Ip, SliceFrame, link};
use release_common::pipeline::{
    Counter, FamilyTables, Hop, Insert, InsertError, Outcome, Refusal, Roads, Route, Tables, Timed,
    Traffic, process, process_egress,
};
use release_common::placement::FlowHash;
use release_common::reason::Reason;
use release_common::shared::Shared;
use release_common::tcp::word::{FlowWord, Phase};

use super::family::{Kept, Key, first_octet};
use super::scene::{FIRST_GENERATION, Scene};
use super::slab::{Slab, WhenFull};

/// Interface and MACs of the way to instances.
pub const TO_BACKEND: (u32, [u8; 6], [u8; 6]) = (7, [2, 0, 0, 0, 0xb, 1], [2, 0, 0, 0, 0xb, 2]);
/// Interface and MACs of the way to clients.
pub const TO_CLIENT: (u32, [u8; 6], [u8; 6]) = (8, [2, 0, 0, 0, 0xc, 1], [2, 0, 0, 0, 0xc, 2]);
/// Jiffies a second.
pub const HZ: u32 = 1000;
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
    /// Live flows that their clients' sessions count.
    pub in_sessions: u64,
    /// Sum of what the sessions count.
    pub sessions: u64,
}

/// The tables that exist once per address family.
pub struct FamilyModel<A> {
    /// The flow table.
    pub flows: Slab<FlowKey<A>, Flow>,
    /// The embryo table.
    pub embryos: Slab<FlowKey<A>, Embryo>,
    /// Translated sources in use.
    pub snat: RefCell<HashMap<SnatKey<A>, SnatOwner<A>>>,
    fragments: RefCell<HashMap<FragmentKey<A>, FragmentOf<A>>>,
    pub(super) entries: Cell<i64>,
}

impl<A: Model> FamilyModel<A> {
    fn new(flows: usize, embryos: usize) -> Self {
        Self {
            flows: Slab::new(flows, WhenFull::Refuse),
            embryos: Slab::new(embryos, WhenFull::EvictOldest),
            snat: RefCell::default(),
            fragments: RefCell::default(),
            entries: Cell::new(0),
        }
    }

    fn tally(&self, tally: &mut Tally) {
        for (_, flow) in self.flows.all() {
            let word = FlowWord(flow.state);
            match word.phase() {
                Phase::Live => tally.live += 1,
                Phase::ClosedFin | Phase::ClosedRst => tally.closed += 1,
                Phase::Dead => {}
            }
            tally.in_sessions += u64::from(word.is_live() && word.in_session());
        }
        tally.embryos += self.embryos.all().len() as u64;
        tally.entries += self.entries.get();
        tally.evicted += self.embryos.evicted();
    }
}

/// A family, with its tables in [`ModelTables`].
pub trait Model: Ip + Hash {
    /// Its tables.
    fn of(tables: &ModelTables) -> &FamilyModel<Self>;
}

impl Model for Be32 {
    fn of(tables: &ModelTables) -> &FamilyModel<Self> {
        &tables.four
    }
}

impl Model for Addr6 {
    fn of(tables: &ModelTables) -> &FamilyModel<Self> {
        &tables.six
    }
}

/// The tables of one scene.
pub struct ModelTables {
    scene: Scene,
    service: Service,
    ports: [Box<PortBits>; 2],
    backends: RefCell<HashMap<u32, &'static Backend>>,
    rings: HashMap<u32, Vec<RingBlock>>,
    split: Cell<&'static Split>,
    /// The clock, in jiffies.
    pub clock: Cell<u64>,
    attempts: Cell<u32>,
    kept: Kept,
    /// The way of every packet; `None`: [`TO_BACKEND`] and [`TO_CLIENT`].
    pub way: Cell<Option<Route>>,
    /// Largest packet that a way takes; larger ones are too big.
    pub mtu: Cell<u32>,
    /// Whether the flow table takes no new flows.
    pub full: Cell<bool>,
    /// Frontends that were taken away.
    pub gone: RefCell<Vec<SocketAddr>>,
    /// IPv4's tables.
    pub four: FamilyModel<Be32>,
    /// IPv6's tables.
    pub six: FamilyModel<Addr6>,
    /// Client sessions.
    pub sessions: Slab<SessionKey, Session>,
    pub(super) counters: RefCell<HashMap<u32, Counters>>,
    pub(super) user_counters: RefCell<HashMap<u32, UserCounters>>,
    took: RefCell<HashMap<(u32, usize), Vec<u64>>>,
    refusals: RefCell<ServiceCounters>,
    pub(super) gauge: Cell<i64>,
    rate: Cell<u64>,
    tags: Cell<u32>,
}

impl ModelTables {
    /// Loads a scene, with room for this many flows and embryos.
    pub fn new(scene: &Scene, flows: usize, embryos: usize) -> Self {
        let rings = scene.versions.iter().map(|v| (v.ring, scene.ring(v))).collect();
        let split = scene.split(&scene.weights(), FIRST_GENERATION);
        let backends = scene.backends().into_iter();
        let tables = Self {
            service: scene.service_value(),
            ports: scene.ports(),
            backends: RefCell::new(HashMap::new()),
            rings,
            split: Cell::new(Box::leak(Box::new(split))),
            scene: scene.clone(),
            clock: Cell::new(1 << 33),
            attempts: Cell::new(0),
            kept: Kept::default(),
            way: Cell::new(None),
            mtu: Cell::new(u32::MAX),
            full: Cell::new(false),
            gone: RefCell::default(),
            four: FamilyModel::new(flows, embryos),
            six: FamilyModel::new(flows, embryos),
            sessions: Slab::new(embryos, WhenFull::Refuse),
            counters: RefCell::default(),
            user_counters: RefCell::default(),
            took: RefCell::default(),
            refusals: RefCell::default(),
            gauge: Cell::new(0),
            rate: Cell::new(0),
            tags: Cell::new(1),
        };
        backends.for_each(|(id, backend)| tables.set_backend(id, backend));
        tables
    }

    /// Replaces the split. Old splits live on, as they do in the kernel for programs that still run
    /// (here for ever: tests are short).
    pub fn shift(&self, weights: &[u32]) {
        let split = self.scene.split(weights, self.split.get().generation + 1);
        self.split.set(Box::leak(Box::new(split)));
    }

    /// Changes an element of `BACKENDS`.
    pub fn set_backend(&self, id: u32, backend: Backend) {
        self.backends.borrow_mut().insert(id, Box::leak(Box::new(backend)));
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

    /// A copy of a flow.
    pub fn flow_at(&self, key: &Key) -> Option<Flow> {
        match (key.of(), key.of()) {
            (Some(four), _) => self.four.flows.copy(&four),
            (_, Some(six)) => self.six.flows.copy(&six),
            _ => None,
        }
    }

    /// A copy of an embryo.
    pub fn embryo_at(&self, key: &Key) -> Option<Embryo> {
        match (key.of(), key.of()) {
            (Some(four), _) => self.four.embryos.copy(&four),
            (_, Some(six)) => self.six.embryos.copy(&six),
            _ => None,
        }
    }

    /// A copy of a client's session.
    pub fn session_of(&self, client: IpAddr) -> Option<Session> {
        self.sessions.copy(&self.session_key(client))
    }

    /// The key of a client's session.
    pub fn session_key(&self, client: IpAddr) -> SessionKey {
        match client {
            IpAddr::V4(ip) => SessionKey::new(Be32::from(ip), self.scene.service),
            IpAddr::V6(ip) => SessionKey::new(Addr6::from(ip), self.scene.service),
        }
    }

    /// Counters of an instance.
    pub fn counters(&self, backend: u32) -> Counters {
        self.counters.borrow().get(&backend).copied().unwrap_or_default()
    }

    /// Counters of an instance that user space's programs write.
    pub fn user_counters(&self, backend: u32) -> UserCounters {
        self.user_counters.borrow().get(&backend).copied().unwrap_or_default()
    }

    /// How long an instance took, in nanoseconds, each time that it was measured.
    pub fn times(&self, backend: u32, what: Timed) -> Vec<u64> {
        self.took.borrow().get(&(backend, what as usize)).cloned().unwrap_or_default()
    }

    /// New flows refused.
    pub fn refusals(&self) -> ServiceCounters {
        *self.refusals.borrow()
    }

    /// Walks over all entries.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally { gauge: self.gauge.get(), ..Tally::default() };
        self.four.tally(&mut tally);
        self.six.tally(&mut tally);
        for (_, session) in self.sessions.all() {
            tally.sessions += u64::from(release_common::abi::SessionWord(session.state).live());
        }
        tally
    }
}

/// Sends a frame that came in through the packet path over any tables; returns the frame afterwards.
pub fn run_on<T: Roads>(tables: &T, frame: &[u8]) -> (Outcome, Vec<u8>) {
    through(frame, |packet| match link(packet) {
        Ok(link) if link.ethertype == Be32::ETHERTYPE => {
            process::<Be32, _, _>(packet, tables, link)
        }
        Ok(link) if link.ethertype == Addr6::ETHERTYPE => {
            process::<Addr6, _, _>(packet, tables, link)
        }
        Ok(_) => Outcome::pass(Reason::NotIp),
        Err(reason) => Outcome::pass(reason),
    })
}

/// Sends a frame that the host is about to send through the packet path.
pub fn egress_on<T: Roads>(tables: &T, frame: &[u8]) -> (Outcome, Vec<u8>) {
    through(frame, |packet| match link(packet) {
        Ok(link) if link.ethertype == Be32::ETHERTYPE => {
            process_egress::<Be32, _, _>(packet, tables, link)
        }
        Ok(link) if link.ethertype == Addr6::ETHERTYPE => {
            process_egress::<Addr6, _, _>(packet, tables, link)
        }
        Ok(_) => Outcome::pass(Reason::NotIp),
        Err(reason) => Outcome::pass(reason),
    })
}

fn through(frame: &[u8], work: impl FnOnce(&mut SliceFrame<'_>) -> Outcome) -> (Outcome, Vec<u8>) {
    let mut memory = vec![0xee; HEADROOM + frame.len()];
    memory[HEADROOM..].copy_from_slice(frame);
    let end = memory.len();
    match SliceFrame::new(&mut memory, HEADROOM, end) {
        Some(mut packet) => {
            let outcome = work(&mut packet);
            (outcome, packet.bytes().to_vec())
        }
        None => (Outcome::drop(Reason::NoRoom), Vec::new()),
    }
}

impl Tables for ModelTables {
    fn now(&self) -> u64 {
        self.clock.get()
    }
    fn nanoseconds(&self) -> u64 {
        self.clock.get() * (1_000_000_000 / u64::from(HZ))
    }
    fn hz(&self) -> u32 {
        HZ
    }
    fn tag(&self) -> u32 {
        self.tags.set(self.tags.get() + 1);
        self.tags.get()
    }
    fn moment(&self) -> (u64, u32) {
        (self.nanoseconds(), self.tag())
    }
    fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    fn set_attempts(&self, attempts: u32) {
        self.attempts.set(attempts);
    }

    fn is_frontend_port(&self, port: Be16) -> bool {
        self.ports[0].contains(port.get())
    }
    fn is_backend_port(&self, port: Be16) -> bool {
        self.ports[1].contains(port.get())
    }
    fn service(&self, id: u32) -> Option<&Service> {
        (id == self.scene.service).then_some(&self.service)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.borrow().get(&id).copied()
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
    fn quic_server(&self, key: &QuicKey) -> Option<u32> {
        self.scene.quic_ids().into_iter().find(|(at, _)| at == key).map(|(_, id)| id)
    }
    fn session(&self, key: &SessionKey) -> Option<Shared<'_, Session>> {
        self.sessions.get(key)
    }
    fn insert_session(&self, key: &SessionKey, session: &Session) -> Result<(), InsertError> {
        self.sessions.insert(key, session, Insert::New)
    }
    fn count(&self, backend: u32, counter: Counter) {
        self.count_both(backend, counter, counter, false);
    }
    fn count_both(&self, backend: u32, counter: Counter, beside: Counter, counts: bool) {
        let mut counters = self.counters.borrow_mut();
        let fields: &mut [u64; Counters::FIELDS] =
            bytemuck::cast_mut(counters.entry(backend).or_default());
        fields[counter as usize] += 1;
        fields[beside as usize] += u64::from(counts);
    }
    fn took(&self, backend: u32, what: Timed, nanoseconds: u64) {
        self.took.borrow_mut().entry((backend, what as usize)).or_default().push(nanoseconds);
    }
    fn count_refusal(&self, _service: u32, refusal: Refusal) {
        let mut refusals = self.refusals.borrow_mut();
        let fields: &mut [u64; ServiceCounters::FIELDS] = bytemuck::cast_mut(&mut *refusals);
        fields[refusal as usize] += 1;
    }
    fn traffic(&self, backend: u32, packet: Traffic, now: u64) {
        let mut counters = self.counters.borrow_mut();
        let counters = counters.entry(backend).or_default();
        counters.packets += 1;
        counters.bytes += u64::from(packet.bytes);
        counters.segments += packet.segments;
        counters.retransmits += packet.again;
        counters.last_packet = now;
    }
    fn live_flows(&self, _service: u32) -> u64 {
        self.gauge.get() as u64
    }
    fn add_live_flows(&self, _service: u32, change: i64) -> u64 {
        self.gauge.replace(self.gauge.get() + change) as u64
    }
    fn within_rate(&self, _service: u32, interval: u32, burst: u32) -> bool {
        let now = self.nanoseconds();
        let due = self.rate.get().max(now);
        if due - now > u64::from(burst) {
            return false;
        }
        self.rate.set(due + u64::from(interval));
        true
    }
}

impl<A: Model> FamilyTables<A> for ModelTables {
    fn keep_key<'a>(&'a self, key: &'a FlowKey<A>) -> &'a FlowKey<A> {
        self.kept.keep(key)
    }
    fn kept_key(&self) -> Option<FlowKey<A>> {
        self.kept.key()
    }
    fn frontend(&self, at: &Endpoint<A>) -> Option<FrontendRef> {
        let entries = self.scene.frontend_entries::<A>();
        let found = entries.into_iter().find(|(frontend, _)| frontend == at)?;
        (!self.gone.borrow().contains(&at.socket())).then_some(found.1)
    }
    fn backend_at(&self, at: &Endpoint<A>) -> Option<BackendRef> {
        let ids = self.scene.backend_ids::<A>();
        ids.iter().rev().find(|(endpoint, _)| endpoint == at).map(|(_, value)| *value)
    }
    fn rule(&self, service: u32, client: A) -> Option<u32> {
        if service != self.scene.service {
            return None;
        }
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let client = client.ip();
        let rules = self.scene.rules.iter().filter(|rule| {
            let mask = u128::MAX.checked_shl(128 - rule.bits).unwrap_or(0);
            rule.source.is_ipv4() == client.is_ipv4()
                && (bits(rule.source) ^ bits(client)) & mask == 0
        });
        rules.max_by_key(|rule| rule.bits).map(|rule| rule.ring)
    }
    fn table_full(&self) -> bool {
        self.full.get() || A::of(self).entries.get() >= i64::from(self.scene.flow_limit)
    }
    fn flow(&self, key: &FlowKey<A>) -> Option<Shared<'_, Flow>> {
        A::of(self).flows.get(key)
    }
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow, how: Insert) -> Result<(), InsertError> {
        A::of(self).flows.insert(key, flow, how)
    }
    fn entry_added(&self) {
        let entries = &A::of(self).entries;
        entries.set(entries.get() + 1);
    }
    fn embryo(&self, key: &FlowKey<A>) -> Option<Shared<'_, Embryo>> {
        A::of(self).embryos.get(key)
    }
    fn insert_embryo(&self, key: &FlowKey<A>, embryo: &Embryo) -> Result<(), InsertError> {
        A::of(self).embryos.insert(key, embryo, Insert::New)
    }
    fn remove_embryo(&self, key: &FlowKey<A>) {
        A::of(self).embryos.remove(key);
    }
    fn snat_owner(&self, key: &SnatKey<A>) -> Option<SnatOwner<A>> {
        A::of(self).snat.borrow().get(key).copied()
    }
    fn claim_snat(&self, key: &SnatKey<A>, owner: &SnatOwner<A>) -> Result<(), InsertError> {
        let mut snat = A::of(self).snat.borrow_mut();
        if snat.contains_key(key) {
            return Err(InsertError::Exists);
        }
        snat.insert(*key, *owner);
        Ok(())
    }
    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentOf<A>> {
        A::of(self).fragments.borrow().get(key).copied()
    }
    fn note_fragment(&self, key: &FragmentKey<A>, of: &FragmentOf<A>) {
        A::of(self).fragments.borrow_mut().insert(*key, *of);
    }
    fn event(&self, _kind: u32, _key: &FlowKey<A>, _backend: u32, _generation: u32) {}
    fn route(&self, _source: A, destination: A, _tos: u8, len: u32) -> Route {
        if len > self.mtu.get() {
            return Route::TooBig(self.mtu.get() as u16);
        }
        self.way.get().unwrap_or_else(|| {
            let (ifindex, dmac, smac) = way_to(destination.ip());
            Route::Via(Hop { ifindex: Some(ifindex), dmac, smac })
        })
    }

    fn known_hop(&self, destination: A, len: u32) -> Option<Hop> {
        match self.route(destination, destination, 0, len) {
            Route::Via(hop) => Some(hop),
            Route::Kernel | Route::TooBig(_) => None,
        }
    }
}

/// Interface and MACs of the way to an address: instances are in 10.0.0.0/8.
pub const fn way_to(destination: IpAddr) -> (u32, [u8; 6], [u8; 6]) {
    if first_octet(destination) == 10 { TO_BACKEND } else { TO_CLIENT }
}
