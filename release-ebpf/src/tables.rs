//! [`Tables`] over the BPF maps.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST, xdp_md};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use release_common::abi::{
    Backend, BackendRef, Be16, Be32, Counters, Embryo, Endpoint4, Event, Flow, FlowKey4,
    FrontendRef, GAUGE_ENTRIES, PortBits, RING_BLOCK, Service, Split,
};
use release_common::pipeline::{Counter, Insert, InsertError, Route, Tables};
use release_common::placement::FlowHash;
use release_common::shared::Shared;

use crate::maps::{self, shared};
use crate::route;

/// Events a CPU may send in one jiffy; more are counted as suppressed.
const EVENTS_PER_JIFFY: u64 = 8;
const EEXIST: i32 = -17;

/// The maps as one program run sees them.
pub struct KernelTables {
    ctx: *mut xdp_md,
}

impl KernelTables {
    /// For the context the program was called with.
    #[inline(always)]
    pub const fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: no arguments; inlined by the verifier.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn tag(&self) -> u32 {
        // Two incarnations of one element are never made in the same nanosecond.
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_ns() as u32 }
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
    fn frontend(&self, at: &Endpoint4) -> Option<FrontendRef> {
        // SAFETY: copied at once; user space replaces values whole.
        unsafe { maps::FRONTENDS.get(at) }.copied()
    }

    #[inline(always)]
    fn backend_at(&self, at: &Endpoint4) -> Option<BackendRef> {
        // SAFETY: as above.
        unsafe { maps::BACKEND_IDS.get(at) }.copied()
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
    fn table_full(&self) -> bool {
        match (maps::GAUGES.get(GAUGE_ENTRIES), maps::meta()) {
            (Some(entries), Some(meta)) => entries.value as i64 >= i64::from(meta.flow_limit),
            _ => true,
        }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey4) -> Option<Shared<'_, Flow>> {
        shared(maps::FLOWS4.get_ptr_mut(key))
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey4, flow: &Flow, how: Insert) -> Result<(), InsertError> {
        let flags = match how {
            Insert::New => BPF_NOEXIST,
            Insert::Replace => BPF_ANY,
        };
        maps::FLOWS4.insert(key, flow, u64::from(flags)).map_err(failed)
    }

    #[inline(always)]
    fn embryo(&self, key: &FlowKey4) -> Option<Shared<'_, Embryo>> {
        shared(maps::EMBRYOS4.get_ptr_mut(key))
    }

    #[inline(always)]
    fn insert_embryo(&self, key: &FlowKey4, embryo: &Embryo) -> Result<(), InsertError> {
        maps::EMBRYOS4.insert(key, embryo, u64::from(BPF_NOEXIST)).map_err(failed)
    }

    #[inline(always)]
    fn remove_embryo(&self, key: &FlowKey4) {
        // The word is swapped already: if the kernel refuses here, the entry is dead and the
        // reaper removes it.
        let _ = maps::EMBRYOS4.remove(key);
    }

    #[inline(always)]
    fn count(&self, backend: u32, counter: Counter) {
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(backend) {
            // SAFETY: `Counter` numbers the 64-bit fields of `Counters`.
            maps::add_per_cpu(unsafe { counters.cast::<u64>().add(counter as usize) }, 1);
        }
    }

    #[inline(always)]
    fn traffic(&self, backend: u32, bytes: u16, now: u64) {
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(backend) {
            // SAFETY: per-CPU element, nobody else writes it while this program runs.
            let counters: &mut Counters = unsafe { &mut *counters };
            counters.packets = counters.packets.wrapping_add(1);
            counters.bytes = counters.bytes.wrapping_add(u64::from(bytes));
            counters.last_packet = now;
        }
    }

    #[inline(always)]
    fn live_flows(&self, service: u32, change: i64) {
        if service < GAUGE_ENTRIES {
            maps::add_gauge(service, change);
        }
    }

    #[inline(always)]
    fn entry_added(&self) {
        maps::add_gauge(GAUGE_ENTRIES, 1);
    }

    #[inline(always)]
    fn event(&self, kind: u32, key: &FlowKey4, backend: u32, generation: u32) {
        let Some(limit) = maps::EVENT_LIMIT.get_ptr_mut(0) else { return };
        // SAFETY: per-CPU element.
        let [tick, suppressed] = unsafe { &mut *limit };
        let now = self.now() << 32;
        if *tick & 0xffff_ffff_0000_0000 != now {
            *tick = now;
        }
        *tick += 1;
        if *tick & 0xffff_ffff > EVENTS_PER_JIFFY {
            *suppressed += 1;
            return;
        }
        let event = Event { kind, backend, generation, suppressed: *suppressed as u32, key: *key };
        match maps::EVENTS.output(event, 0) {
            Ok(()) => *suppressed = 0,
            Err(_) => *suppressed += 1,
        }
    }

    #[inline(always)]
    fn route(&self, source: Be32, destination: Be32, tos: u8, len: u16) -> Route {
        route::route(self.ctx, source, destination, tos, len, self.now() as u32)
    }
}

#[inline(always)]
fn failed(error: i32) -> InsertError {
    if error == EEXIST { InsertError::Exists } else { InsertError::Refused }
}
