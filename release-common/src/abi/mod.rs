//! Keys and values of the maps: the contract between the kernel programs and user space.
//!
//! Fixed-width integers and byte arrays only, padding spelled out and proven absent by
//! [`bytemuck::Pod`]. Values in network byte order are [`Be16`] and [`Be32`]. Any change of a
//! layout or a meaning raises [`ABI_VERSION`], which is checked before pinned maps are reused.

mod control;
mod counters;
mod event;
mod flow;
mod key;

pub use control::{
    Backend, BackendRef, FRONTENDS_PER_SERVICE, FrontendRef, Meta, NextHop, PortBits, RING_BLOCK,
    RingBlock, Service, Split, SplitEntry, VERSIONS_PER_SERVICE, backend_state, next_hop, refusal,
};
pub use counters::{Counters, Gauge, UserCounters};
pub use event::{Event, event_kind};
pub use flow::{Embryo, Flow, Reap, Side, reap_op, reap_result};
pub use key::{Be16, Be32, Endpoint4, FlowKey4, IPPROTO_TCP};

/// Version of everything in this module. Stored in [`Meta`].
pub const ABI_VERSION: u32 = 1;
/// Capacity of `SERVICES` and `SPLITS`.
pub const MAX_SERVICES: u32 = 4096;
/// Capacity of `BACKENDS`, `COUNTERS` and `USER_COUNTERS`. Id 0 is never given out.
pub const MAX_BACKENDS: u32 = 16384;
/// Capacity of `RINGS`: one ring per version.
pub const MAX_RINGS: u32 = 16384;
/// Element of `GAUGES` that counts all entries of the flow table, closed ones included.
pub const GAUGE_ENTRIES: u32 = MAX_SERVICES;
