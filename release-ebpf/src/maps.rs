//! The maps, pinned by user space under their own names, with safe accessors.
//!
//! Capacities of `FLOWS4/6` and `EMBRYOS4/6` are set by the loader from the configuration.

use core::ptr::NonNull;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray,
    RingBuf,
};
use aya_ebpf::macros::btf_map;
use bytemuck::Pod;
use release_common::abi::{
    Addr6, Backend, BackendRef, Be32, Counters, Embryo, Endpoint, Event, Explained, Flow, FlowKey,
    FragmentKey, FragmentOf, FrontendRef, GAUGE_ENTRIES, Gauge, Latency, MAX_BACKENDS, MAX_RINGS,
    MAX_SERVICES, Meta, NextHop, PortBits, QuicKey, RingBlock, RuleKey, Service, ServiceCounters,
    Session, SessionKey, SnatKey, SnatOwner, Split, UserCounters, stages,
};
use release_common::packet::Ip;
use release_common::reason::Reason;
use release_common::shared::Shared;

use crate::work::Packet;

/// BPF_F_INNER_MAP: inner maps may differ from the template in size (Linux 5.10).
const INNER_MAP: usize = 1 << 12;
/// Slots of the next hop cache on each CPU.
pub const NEXT_HOP_SLOTS: u32 = 4096;
/// Entries that an explaining program can look at in one run.
pub const COPIES: u32 = 64;
// Values of inner maps are plain arrays on purpose. Up to Linux 6.1 a map whose value BTF calls a
// struct is another kind of map than one without BTF, such as user space makes to replace it
// (`timer_off` in `bpf_map_meta_equal`, gone in 6.2): the replacement fails with EINVAL.
/// A [`Split`].
type SplitWords = [u64; size_of::<Split>() / 8];
/// A [`RingBlock`].
type RingWords = [u32; size_of::<RingBlock>() / 4];

const SERVICES_N: usize = MAX_SERVICES as usize;
const BACKENDS_N: usize = MAX_BACKENDS as usize;

/// Ports of frontends (0) and of instances (1).
#[btf_map]
pub static PORTS: Array<PortBits, 2> = Array::new();
/// Services.
#[btf_map]
pub static SERVICES: Array<Service, SERVICES_N> = Array::new();
/// Service → the split in force.
#[btf_map]
pub static SPLITS: ArrayOfMaps<Array<SplitWords, 1>, SERVICES_N> = ArrayOfMaps::new();
/// Version's ring.
#[btf_map]
pub static RINGS: ArrayOfMaps<Array<RingWords, 1, INNER_MAP>, { MAX_RINGS as usize }> =
    ArrayOfMaps::new();
/// Instances.
#[btf_map]
pub static BACKENDS: Array<Backend, BACKENDS_N> = Array::new();
/// Counters by instance, written by the packet path.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, BACKENDS_N> = PerCpuArray::new();
/// Counters by instance, written by programs run from user space.
#[btf_map]
pub static USER_COUNTERS: Array<UserCounters, BACKENDS_N> = Array::new();
/// How long instances took, by instance.
#[btf_map]
pub static LATENCY: Array<Latency, BACKENDS_N> = Array::new();
/// New flows refused, by service.
#[btf_map]
pub static SERVICE_COUNTERS: PerCpuArray<ServiceCounters, SERVICES_N> = PerCpuArray::new();
/// Live flows by service; the last two elements count the entries of the flow tables.
#[btf_map]
pub static GAUGES: Array<Gauge, { SERVICES_N + 2 }> = Array::new();
/// When the next new flow of a service would be in time, in nanoseconds of the monotonic clock.
#[btf_map]
pub static RATES: Array<Gauge, SERVICES_N> = Array::new();
/// Client sessions.
#[btf_map]
pub static SESSIONS: HashMap<SessionKey, Session, 65536> = HashMap::new();
/// QUIC server id → instance.
#[btf_map]
pub static QUIC_IDS: HashMap<QuicKey, u32, BACKENDS_N> = HashMap::new();
/// The other programs that the entry points continue in.
#[btf_map]
pub static PROGRAMS: ProgramArray<{ stages::PLACES as usize }> = ProgramArray::new();
/// As above, for TC programs.
#[btf_map]
pub static TC_PROGRAMS: ProgramArray<{ stages::PLACES as usize }> = ProgramArray::new();
/// The answer of the explaining programs.
#[btf_map]
pub static EXPLAINED: Array<Explained, 1> = Array::new();
/// Instances tried for the new flow at hand, by kind of run.
#[btf_map]
pub static ATTEMPTS: PerCpuArray<u32, 2> = PerCpuArray::new();
/// Number of copies that the running explaining program has made, and what it would have made of the
/// embryo of the packet's own key.
#[btf_map]
pub static COPIES_USED: PerCpuArray<[u32; 2], 1> = PerCpuArray::new();
/// Copies of entries, for the explaining programs to change.
#[btf_map]
pub static COPIED_FLOWS: PerCpuArray<Flow, { COPIES as usize }> = PerCpuArray::new();
/// As above.
#[btf_map]
pub static COPIED_EMBRYOS: PerCpuArray<Embryo, { COPIES as usize }> = PerCpuArray::new();
/// As above.
#[btf_map]
pub static COPIED_SESSIONS: PerCpuArray<Session, { COPIES as usize }> = PerCpuArray::new();
/// Packets by reason.
#[btf_map]
pub static REASONS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();
/// What happens, as it happens.
#[btf_map]
pub static EVENTS: RingBuf<Event, 1048576> = RingBuf::new();
/// Events sent on this CPU: jiffies of the running tick in the upper half, count in the lower; then
/// the number suppressed.
#[btf_map]
pub static EVENT_LIMIT: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();
/// The whole in one element.
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();
/// Managed interfaces.
#[btf_map]
pub static DEVICES: DevMapHash<64> = DevMapHash::new();

/// The maps that exist once per address family.
pub trait FamilyMaps: Ip {
    /// Frontend address → service.
    fn frontends() -> &'static Frontends<Self>;
    /// Instance address → instance.
    fn backend_ids() -> &'static BackendIds<Self>;
    /// Test rules: service and source prefix → ring.
    fn rules() -> &'static Rules<Self>;
    /// Tracked connections.
    fn flows() -> &'static Flows<Self>;
    /// Handshakes and trials in progress.
    fn embryos() -> &'static Embryos<Self>;
    /// Translated source → flow.
    fn snat() -> &'static Snat<Self>;
    /// Fragmented datagrams in transit.
    fn fragments() -> &'static Fragments<Self>;
    /// Cache of the FIB's answers.
    fn next_hops() -> &'static NextHops<Self>;
    /// Packets under way.
    fn work() -> &'static Works<Self>;
}

type Frontends<A> = HashMap<Endpoint<A>, FrontendRef, 32768>;
type BackendIds<A> = HashMap<Endpoint<A>, BackendRef, { 2 * BACKENDS_N }>;
type Rules<A> = LpmTrie<RuleKey<A>, u32, 65536>;
type Flows<A> = HashMap<FlowKey<A>, Flow, 1048576>;
type Embryos<A> = LruHashMap<FlowKey<A>, Embryo, 65536>;
type Snat<A> = HashMap<SnatKey<A>, SnatOwner<A>, 65536>;
type Fragments<A> = LruHashMap<FragmentKey<A>, FragmentOf<A>, 8192>;
type NextHops<A> = PerCpuArray<NextHop<A>, { NEXT_HOP_SLOTS as usize }>;
type Works<A> = PerCpuArray<Packet<A>, 2>;

/// Declares the maps of one family.
macro_rules! family_maps {
    ($address:ty: $($method:ident = $name:ident: $type:ident),+) => {
        $(
            #[doc = concat!("See [`FamilyMaps::", stringify!($method), "`].")]
            #[btf_map]
            pub static $name: $type<$address> = <$type<$address>>::new();
        )+
        impl FamilyMaps for $address {
            $(
                #[inline(always)]
                fn $method() -> &'static $type<Self> {
                    &$name
                }
            )+
        }
    };
}

family_maps!(Be32:
    frontends = FRONTENDS4: Frontends, backend_ids = BACKEND_IDS4: BackendIds,
    rules = RULES4: Rules, flows = FLOWS4: Flows, embryos = EMBRYOS4: Embryos,
    snat = SNAT4: Snat, fragments = FRAGMENTS4: Fragments, next_hops = NEXT_HOPS4: NextHops, work = WORK4: Works);
family_maps!(Addr6:
    frontends = FRONTENDS6: Frontends, backend_ids = BACKEND_IDS6: BackendIds,
    rules = RULES6: Rules, flows = FLOWS6: Flows, embryos = EMBRYOS6: Embryos,
    snat = SNAT6: Snat, fragments = FRAGMENTS6: Fragments, next_hops = NEXT_HOPS6: NextHops, work = WORK6: Works);

/// The ring of the version that a test rule sends a client to.
#[inline(always)]
pub fn rule<A: FamilyMaps>(service: u32, client: A) -> Option<u32> {
    let bits = 32 + 8 * size_of::<A>() as u32;
    let key = RuleKey { service: Be32::new(service), source: client };
    A::rules().get(&Key::new(bits, key)).copied()
}

/// Element of [`GAUGES`] that counts the entries of a family's flow table.
#[inline(always)]
pub const fn entries_gauge<A: FamilyMaps>() -> u32 {
    GAUGE_ENTRIES + A::INDEX as u32
}

/// A value that several CPUs use at once.
#[inline(always)]
pub fn shared<'a, T: Pod>(value: Option<*mut T>) -> Option<Shared<'a, T>> {
    // SAFETY: map memory outlives the program run and is aligned to 8 bytes; reuse of hash elements
    // is what `Shared`'s state words guard against.
    value.and_then(NonNull::new).map(|value| unsafe { Shared::new(value) })
}

/// The routing and capacity settings.
#[inline(always)]
pub fn meta() -> Option<&'static Meta> {
    // Single words of it are used, each consistent in itself.
    META.get(0)
}

/// Adds to a field of a per-CPU value: no other program runs on this CPU meanwhile.
#[inline(always)]
pub fn add_per_cpu(field: *mut u64, value: u64) {
    // SAFETY: callers pass a field of a value that a per-CPU map look-up returned.
    unsafe { *field = (*field).wrapping_add(value) };
}

/// Counts the end of a packet's journey.
#[inline(always)]
pub fn count_reason(reason: Reason) {
    if let Some(count) = REASONS.get_ptr_mut(reason as u32) {
        add_per_cpu(count, 1);
    }
}

/// Changes a gauge and returns what it was before.
#[inline(always)]
pub fn add_gauge(index: u32, change: i64) -> u64 {
    match shared(GAUGES.get_ptr_mut(index)) {
        Some(gauge) => gauge.value().fetch_add(change as u64),
        None => 0,
    }
}
