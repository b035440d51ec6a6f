//! [`Tables`] and [`FamilyTables`] over the BPF maps.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST, xdp_md};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use release_common::abi::{
    Backend, BackendRef, Be16, Counters, Embryo, Endpoint, Flow, FlowKey, FragmentKey, FragmentOf,
    FrontendRef, PortBits, QuicKey, RING_BLOCK, Service, Session, SessionKey, SnatKey, SnatOwner,
    Split,
};
use release_common::measure::bucket_of;
use release_common::pipeline::{
    Counter, FamilyTables, Hop, Insert, InsertError, Refusal, Route, Tables, Timed, Traffic,
};
use release_common::placement::FlowHash;
use release_common::shared::Shared;

use crate::copies;
use crate::events;
use crate::maps::{self, FamilyMaps, add_per_cpu, shared};
use crate::route;
use crate::work::Work;

/// Attempts to take the next place in a service's rate. Each failure means that another CPU took
/// one.
const RATE_ATTEMPTS: usize = 8;
const EEXIST: i32 = -17;

/// What a program run may do.
pub trait Run {
    /// Whether it leaves every map as it is.
    const LOOKS_ONLY: bool;
    /// Element of the scratch memory, one of its own for each kind that another may interrupt; and
    /// the kind's number in [`release_common::abi::stages::place`].
    const KIND: u32;
}

/// A packet came in.
pub enum Ingress {}
/// The host sends a packet. Never in the middle of the journey of one that came in: both run with
/// softirqs off.
pub enum Egress {}
/// Nothing came in: what if?
pub enum Explaining {}

impl Run for Ingress {
    const LOOKS_ONLY: bool = false;
    const KIND: u32 = 0;
}
impl Run for Egress {
    const LOOKS_ONLY: bool = false;
    const KIND: u32 = 0;
}
impl Run for Explaining {
    const LOOKS_ONLY: bool = true;
    const KIND: u32 = 1;
}

/// The maps as one program run sees them.
pub struct KernelTables<R> {
    ctx: *mut xdp_md,
    run: core::marker::PhantomData<R>,
}

impl<R: Run> KernelTables<R> {
    /// For the context the program was called with; null where packets are not sent on.
    #[inline(always)]
    pub const fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx, run: core::marker::PhantomData }
    }
}

impl<R: Run> Tables for KernelTables<R> {
    const MEASURES: bool = !R::LOOKS_ONLY;

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: no arguments; inlined by the verifier.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn hz(&self) -> u32 {
        match maps::meta() {
            Some(meta) => meta.hz,
            None => 0,
        }
    }

    #[inline(always)]
    fn tag(&self) -> u32 {
        self.moment().1
    }

    #[inline(always)]
    fn moment(&self) -> (u64, u32) {
        let nanoseconds = self.nanoseconds();
        // Two incarnations of one element are never made in the same nanosecond.
        (nanoseconds, nanoseconds as u32)
    }

    #[inline(always)]
    fn is_frontend_port(&self, port: Be16) -> bool {
        maps::PORTS.get(PortBits::FRONTENDS).is_some_and(|bits| bits.contains(port.get()))
    }

    #[inline(always)]
    fn is_backend_port(&self, port: Be16) -> bool {
        maps::PORTS.get(PortBits::BACKENDS).is_some_and(|bits| bits.contains(port.get()))
    }

    #[inline(always)]
    fn attempts(&self) -> u32 {
        maps::ATTEMPTS.get(R::KIND).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn set_attempts(&self, attempts: u32) {
        if let Some(number) = maps::ATTEMPTS.get_ptr_mut(R::KIND) {
            // SAFETY: per-CPU element of this kind of run.
            unsafe { *number = attempts };
        }
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        maps::SERVICES.get(id)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        maps::BACKENDS.get(id)
    }

    #[inline(always)]
    fn split(&self, service: u32) -> Option<&Split> {
        maps::SPLITS.get_value(service, &0).map(bytemuck::cast_ref)
    }

    #[inline(always)]
    fn instance(&self, ring: u32, hash: FlowHash) -> Option<u32> {
        let ring = maps::RINGS.get(ring)?;
        let slot = hash.slot(ring.get(0)?[0]);
        let block = ring.get(1 + slot / RING_BLOCK as u32)?;
        match block[slot as usize % RING_BLOCK] {
            0 => None,
            backend => Some(backend),
        }
    }

    #[inline(always)]
    fn quic_server(&self, key: &QuicKey) -> Option<u32> {
        // SAFETY: copied at once; user space replaces values whole.
        unsafe { maps::QUIC_IDS.get(key) }.copied()
    }

    #[inline(always)]
    fn session(&self, key: &SessionKey) -> Option<Shared<'_, Session>> {
        let session = maps::SESSIONS.get_ptr_mut(key);
        if R::LOOKS_ONLY { copies::session(session) } else { shared(session) }
    }

    #[inline(always)]
    fn insert_session(&self, key: &SessionKey, session: &Session) -> Result<(), InsertError> {
        if R::LOOKS_ONLY {
            return Ok(());
        }
        maps::SESSIONS.insert(key, session, u64::from(BPF_NOEXIST)).map_err(failed)
    }

    #[inline(always)]
    fn count(&self, backend: u32, counter: Counter) {
        self.count_both(backend, counter, counter, false);
    }

    #[inline(always)]
    fn count_both(&self, backend: u32, counter: Counter, beside: Counter, counts: bool) {
        if R::LOOKS_ONLY {
            return;
        }
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(backend) {
            let fields = counters.cast::<u64>();
            // SAFETY: `Counter` numbers the 64-bit fields of `Counters`.
            let (one, other) =
                unsafe { (fields.add(counter as usize), fields.add(beside as usize)) };
            add_per_cpu(one, 1);
            // A branch less for the verifier to follow.
            add_per_cpu(other, u64::from(counts));
        }
    }

    #[inline(always)]
    fn took(&self, backend: u32, what: Timed, nanoseconds: u64) {
        if R::LOOKS_ONLY {
            return;
        }
        if let Some(latency) = shared(maps::LATENCY.get_ptr_mut(backend)) {
            latency.bucket(what as usize, bucket_of(nanoseconds)).add(1);
        }
    }

    #[inline(always)]
    fn count_refusal(&self, service: u32, refusal: Refusal) {
        if R::LOOKS_ONLY {
            return;
        }
        if let Some(counters) = maps::SERVICE_COUNTERS.get_ptr_mut(service) {
            // SAFETY: `Refusal` numbers the 64-bit fields of `ServiceCounters`.
            add_per_cpu(unsafe { counters.cast::<u64>().add(refusal as usize) }, 1);
        }
    }

    #[inline(always)]
    fn traffic(&self, backend: u32, packet: Traffic, now: u64) {
        if R::LOOKS_ONLY {
            return;
        }
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(backend) {
            // SAFETY: per-CPU element, nobody else writes it while this program runs.
            let counters: &mut Counters = unsafe { &mut *counters };
            counters.packets = counters.packets.wrapping_add(1);
            counters.bytes = counters.bytes.wrapping_add(u64::from(packet.bytes));
            counters.segments = counters.segments.wrapping_add(packet.segments);
            counters.retransmits = counters.retransmits.wrapping_add(packet.again);
            counters.last_packet = now;
        }
    }

    #[inline(always)]
    fn live_flows(&self, service: u32) -> u64 {
        maps::GAUGES.get(service).map_or(0, |gauge| gauge.value)
    }

    #[inline(always)]
    fn add_live_flows(&self, service: u32, change: i64) -> u64 {
        if R::LOOKS_ONLY { self.live_flows(service) } else { maps::add_gauge(service, change) }
    }

    #[inline(always)]
    fn within_rate(&self, service: u32, interval: u32, burst: u32) -> bool {
        let Some(next) = shared(maps::RATES.get_ptr_mut(service)) else { return true };
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        for _ in 0..RATE_ATTEMPTS {
            let seen = next.value().get();
            let due = if seen > now { seen } else { now };
            if due - now > u64::from(burst) {
                return false;
            }
            if R::LOOKS_ONLY || next.value().swap_if(seen, due + u64::from(interval)) {
                return true;
            }
        }
        false
    }
}

impl<A: FamilyMaps, R: Run> FamilyTables<A> for KernelTables<R> {
    #[inline(always)]
    fn keep_key<'a>(&'a self, key: &'a FlowKey<A>) -> &'a FlowKey<A> {
        match Work::<A>::of::<R>() {
            Some(work) => work.keep_key(key),
            None => key,
        }
    }

    #[inline(always)]
    fn kept_key(&self) -> Option<FlowKey<A>> {
        Some(*Work::<A>::of::<R>()?.key())
    }

    #[inline(always)]
    fn frontend(&self, at: &Endpoint<A>) -> Option<FrontendRef> {
        // SAFETY: copied at once; user space replaces values whole.
        unsafe { A::frontends().get(at) }.copied()
    }

    #[inline(always)]
    fn backend_at(&self, at: &Endpoint<A>) -> Option<BackendRef> {
        // SAFETY: as above.
        unsafe { A::backend_ids().get(at) }.copied()
    }

    #[inline(always)]
    fn rule(&self, service: u32, client: A) -> Option<u32> {
        maps::rule(service, client)
    }

    #[inline(always)]
    fn table_full(&self) -> bool {
        match (maps::GAUGES.get(maps::entries_gauge::<A>()), maps::meta()) {
            (Some(entries), Some(meta)) => entries.value as i64 >= i64::from(meta.flow_limit),
            _ => true,
        }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<A>) -> Option<Shared<'_, Flow>> {
        let flow = A::flows().get_ptr_mut(key);
        if R::LOOKS_ONLY { copies::flow(flow) } else { shared(flow) }
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow, how: Insert) -> Result<(), InsertError> {
        if R::LOOKS_ONLY {
            return Ok(());
        }
        let flags = match how {
            Insert::New => BPF_NOEXIST,
            Insert::Replace => BPF_ANY,
        };
        A::flows().insert(key, flow, u64::from(flags)).map_err(failed)
    }

    #[inline(always)]
    fn entry_added(&self) {
        if !R::LOOKS_ONLY {
            maps::add_gauge(maps::entries_gauge::<A>(), 1);
        }
    }

    #[inline(always)]
    fn embryo(&self, key: &FlowKey<A>) -> Option<Shared<'_, Embryo>> {
        let embryo = A::embryos().get_ptr_mut(key);
        if R::LOOKS_ONLY { copies::embryo::<A, R>(key, embryo) } else { shared(embryo) }
    }

    #[inline(always)]
    fn insert_embryo(&self, key: &FlowKey<A>, embryo: &Embryo) -> Result<(), InsertError> {
        if R::LOOKS_ONLY {
            copies::make(Some(embryo));
            return Ok(());
        }
        A::embryos().insert(key, embryo, u64::from(BPF_NOEXIST)).map_err(failed)
    }

    #[inline(always)]
    fn remove_embryo(&self, key: &FlowKey<A>) {
        if R::LOOKS_ONLY {
            copies::make(None);
            return;
        }
        // The word is swapped already: if the kernel refuses here, the entry is dead and the
        // reaper removes it.
        let _ = A::embryos().remove(key);
    }

    #[inline(always)]
    fn snat_owner(&self, key: &SnatKey<A>) -> Option<SnatOwner<A>> {
        // SAFETY: copied at once; a value is written by whoever inserts it, and never after.
        unsafe { A::snat().get(key) }.copied()
    }

    #[inline(always)]
    fn claim_snat(&self, key: &SnatKey<A>, owner: &SnatOwner<A>) -> Result<(), InsertError> {
        if R::LOOKS_ONLY {
            return match A::snat().get_ptr(key) {
                Some(_) => Err(InsertError::Exists),
                None => Ok(()),
            };
        }
        A::snat().insert(key, owner, u64::from(BPF_NOEXIST)).map_err(failed)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentOf<A>> {
        // SAFETY: copied at once; a torn copy is of two first fragments with one identification.
        unsafe { A::fragments().get(key) }.copied()
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey<A>, of: &FragmentOf<A>) {
        if !R::LOOKS_ONLY {
            // Later fragments then find nothing, and say so.
            let _ = A::fragments().insert(key, of, u64::from(BPF_ANY));
        }
    }

    #[inline(always)]
    fn event(&self, kind: u32, key: &FlowKey<A>, backend: u32, generation: u32) {
        if R::LOOKS_ONLY {
            return;
        }
        events::send(kind, key, backend, generation, self.now());
    }

    #[inline(always)]
    fn known_hop(&self, destination: A, len: u32) -> Option<Hop> {
        route::known(self.ctx, destination, len, self.now() as u32)
    }

    #[inline(always)]
    fn route(&self, source: A, destination: A, tos: u8, len: u32) -> Route {
        route::route::<A, R>(self.ctx, source, destination, tos, len, self.now() as u32)
    }
}

#[inline(always)]
fn failed(error: i32) -> InsertError {
    if error == EEXIST { InsertError::Exists } else { InsertError::Refused }
}
