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
mod programs;
mod session;

pub use control::{
    Backend, BackendRef, FRONTENDS_PER_FAMILY, FrontendRef, PortBits, RING_BLOCK, RingBlock,
    SNAT_ADDRESSES, Service, Split, SplitEntry, VERSIONS_PER_SERVICE, backend_state, conversation,
    mode, octets, refusal, service_flag,
};
pub use counters::{Counters, Gauge, Latency, ServiceCounters, UserCounters};
pub use event::{Event, event_kind};
pub use flow::{Embryo, Flow, FragmentOf, Reap, Side, SnatSource, opened_at, reap_op, reap_result};
pub use key::{
    Addr6, Address, Be16, Be32, Endpoint, FlowKey, FragmentKey, IPPROTO_ICMP, IPPROTO_ICMPV6,
    IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, QuicKey, RuleKey, SessionKey, SnatKey,
    SnatOwner,
};
pub use programs::{Explained, Meta, NextHop, next_hop, stages};
pub use session::{Session, SessionWord};

/// Version of everything in this module. Stored in [`Meta`].
pub const ABI_VERSION: u32 = 4;
/// Capacity of `SERVICES` and `SPLITS`.
pub const MAX_SERVICES: u32 = 4096;
/// Capacity of `BACKENDS`, `COUNTERS`, `USER_COUNTERS` and `LATENCY`. Id 0 is never given out.
pub const MAX_BACKENDS: u32 = 16384;
/// Ids of versions' rings are below this: one ring per version and address family. Id 0 is never
/// given out.
pub const VERSION_RINGS: u32 = 32768;
/// Capacity of `RINGS`: each version's ring has its former one [`VERSION_RINGS`] further, which
/// still holds the instances that were taken off it.
pub const MAX_RINGS: u32 = 2 * VERSION_RINGS;
/// Elements of `GAUGES` that count all entries of a flow table, closed ones included: this one
/// IPv4's, the next IPv6's.
pub const GAUGE_ENTRIES: u32 = MAX_SERVICES;
