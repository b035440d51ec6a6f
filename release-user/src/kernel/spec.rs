//! Shapes of the maps, to be compared with what is pinned before it is reused: neither the kernel
//! nor aya does that.

use release_common::abi::{
    Backend, BackendRef, Counters, Embryo, Endpoint4, Flow, FlowKey4, FrontendRef, Gauge,
    MAX_BACKENDS, MAX_RINGS, MAX_SERVICES, Meta, NextHop, PortBits, Service, UserCounters,
};
use release_common::reason::Reason;

/// Shape of one map.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// Its name, and the name of its pin.
    pub name: &'static str,
    /// Key size in bytes.
    pub key: usize,
    /// Value size in bytes.
    pub value: usize,
    /// Capacity; `None` where the configuration says.
    pub capacity: Option<u32>,
    /// What it holds, for people.
    pub about: &'static str,
}

const fn spec<K, V>(name: &'static str, capacity: u32, about: &'static str) -> MapSpec {
    MapSpec { name, key: size_of::<K>(), value: size_of::<V>(), capacity: Some(capacity), about }
}

/// All pinned maps.
pub const SPECS: &[MapSpec] = &[
    spec::<u32, PortBits>("PORTS", 2, "ports of frontends and of instances"),
    spec::<Endpoint4, FrontendRef>("FRONTENDS", 32768, "frontend → service"),
    spec::<u32, Service>("SERVICES", MAX_SERVICES, "services"),
    spec::<u32, u32>("SPLITS", MAX_SERVICES, "service → split in force"),
    spec::<u32, u32>("RINGS", MAX_RINGS, "version → ring of its instances"),
    spec::<u32, Backend>("BACKENDS", MAX_BACKENDS, "instances"),
    spec::<Endpoint4, BackendRef>("BACKEND_IDS", MAX_BACKENDS, "instance address → instance"),
    spec::<u32, NextHop>("NEXT_HOPS", 4096, "cache of the routing table's answers, per CPU"),
    MapSpec {
        name: "FLOWS4",
        key: size_of::<FlowKey4>(),
        value: size_of::<Flow>(),
        capacity: None,
        about: "tracked connections",
    },
    MapSpec {
        name: "EMBRYOS4",
        key: size_of::<FlowKey4>(),
        value: size_of::<Embryo>(),
        capacity: None,
        about: "handshakes and trials in progress",
    },
    spec::<u32, Counters>("COUNTERS", MAX_BACKENDS, "counters by instance, per CPU"),
    spec::<u32, UserCounters>("USER_COUNTERS", MAX_BACKENDS, "expired and forced by instance"),
    spec::<u32, Gauge>("GAUGES", MAX_SERVICES + 1, "live flows by service; last: table entries"),
    spec::<u32, u64>("REASONS", Reason::COUNT as u32, "packets by reason, per CPU"),
    MapSpec { name: "EVENTS", key: 0, value: 0, capacity: Some(1 << 20), about: "event stream" },
    spec::<u32, [u64; 2]>("EVENT_LIMIT", 1, "rate limit of the event stream, per CPU"),
    spec::<u32, Meta>("META", 1, "ABI version, boot, capacity, routing epoch"),
    MapSpec { name: "DEVICES", key: 4, value: 8, capacity: Some(64), about: "managed interfaces" },
];
