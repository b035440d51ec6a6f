//! The maps, pinned by user space under their own names, with safe accessors.
//!
//! Capacities of `FLOWS4` and `EMBRYOS4` are set by the loader from the configuration.

use core::ptr::NonNull;

use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf,
};
use aya_ebpf::macros::btf_map;
use bytemuck::Pod;
use release_common::abi::{
    Backend, BackendRef, Counters, Embryo, Endpoint4, Event, Flow, FlowKey4, FrontendRef, Gauge,
    MAX_BACKENDS, MAX_RINGS, MAX_SERVICES, Meta, NextHop, PortBits, RingBlock, Service, Split,
    UserCounters,
};
use release_common::reason::Reason;
use release_common::shared::Shared;

/// BPF_F_INNER_MAP: inner maps may differ from the template in size (Linux 5.10).
const INNER_MAP: usize = 1 << 12;
/// Slots of the next hop cache on each CPU.
pub const NEXT_HOP_SLOTS: u32 = 4096;
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
/// Frontend address → service.
#[btf_map]
pub static FRONTENDS: HashMap<Endpoint4, FrontendRef, 32768> = HashMap::new();
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
/// Instance address → instance.
#[btf_map]
pub static BACKEND_IDS: HashMap<Endpoint4, BackendRef, BACKENDS_N> = HashMap::new();
/// Cache of the FIB's answers.
#[btf_map]
pub static NEXT_HOPS: PerCpuArray<NextHop, { NEXT_HOP_SLOTS as usize }> = PerCpuArray::new();
/// Tracked connections.
#[btf_map]
pub static FLOWS4: HashMap<FlowKey4, Flow, 1048576> = HashMap::new();
/// Handshakes and trials in progress.
#[btf_map]
pub static EMBRYOS4: LruHashMap<FlowKey4, Embryo, 65536> = LruHashMap::new();
/// Counters by instance, written by the packet path.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, BACKENDS_N> = PerCpuArray::new();
/// Counters by instance, written by programs run from user space.
#[btf_map]
pub static USER_COUNTERS: Array<UserCounters, BACKENDS_N> = Array::new();
/// Live flows by service; the last element counts the entries of the flow table.
#[btf_map]
pub static GAUGES: Array<Gauge, { SERVICES_N + 1 }> = Array::new();
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

/// Changes a gauge.
#[inline(always)]
pub fn add_gauge(index: u32, change: i64) {
    if let Some(gauge) = shared(GAUGES.get_ptr_mut(index)) {
        gauge.value().add(change as u64);
    }
}
