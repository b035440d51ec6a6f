//! Shapes of the maps, to be compared with what is pinned before it is reused: neither the kernel
//! nor aya does that.

use release_common::abi::{
    Addr6, Backend, BackendRef, Be32, Counters, Embryo, Endpoint, Explained, Flow, FlowKey,
    FragmentKey, FragmentOf, FrontendRef, Gauge, Latency, MAX_BACKENDS, MAX_RINGS, MAX_SERVICES,
    Meta, NextHop, PortBits, QuicKey, RuleKey, Service, ServiceCounters, Session, SessionKey,
    SnatKey, SnatOwner, UserCounters,
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

const fn sized<K, V>(name: &'static str, about: &'static str) -> MapSpec {
    MapSpec { name, key: size_of::<K>(), value: size_of::<V>(), capacity: None, about }
}

/// Bytes before the data in the key of an LPM trie.
const PREFIX: usize = 4;

const fn rules<A>(name: &'static str) -> MapSpec {
    MapSpec {
        name,
        key: PREFIX + size_of::<RuleKey<A>>(),
        value: 4,
        capacity: Some(65536),
        about: "test rules: service and source prefix → ring",
    }
}

/// All pinned maps.
pub const SPECS: &[MapSpec] = &[
    spec::<u32, PortBits>("PORTS", 2, "ports of frontends and of instances"),
    spec::<Endpoint<Be32>, FrontendRef>("FRONTENDS4", 32768, "frontend → service"),
    spec::<Endpoint<Addr6>, FrontendRef>("FRONTENDS6", 32768, "frontend → service"),
    spec::<u32, Service>("SERVICES", MAX_SERVICES, "services"),
    spec::<u32, u32>("SPLITS", MAX_SERVICES, "service → split in force"),
    spec::<u32, u32>("RINGS", MAX_RINGS, "version → ring of its instances"),
    rules::<Be32>("RULES4"),
    rules::<Addr6>("RULES6"),
    spec::<u32, Backend>("BACKENDS", MAX_BACKENDS, "instances"),
    spec::<Endpoint<Be32>, BackendRef>("BACKEND_IDS4", 2 * MAX_BACKENDS, "address → instance"),
    spec::<Endpoint<Addr6>, BackendRef>("BACKEND_IDS6", 2 * MAX_BACKENDS, "address → instance"),
    spec::<QuicKey, u32>("QUIC_IDS", MAX_BACKENDS, "QUIC server id → instance"),
    spec::<u32, NextHop<Be32>>("NEXT_HOPS4", 4096, "cache of the routing table, per CPU"),
    spec::<u32, NextHop<Addr6>>("NEXT_HOPS6", 4096, "cache of the routing table, per CPU"),
    sized::<FlowKey<Be32>, Flow>("FLOWS4", "tracked connections"),
    sized::<FlowKey<Addr6>, Flow>("FLOWS6", "tracked connections"),
    sized::<FlowKey<Be32>, Embryo>("EMBRYOS4", "handshakes and trials in progress"),
    sized::<FlowKey<Addr6>, Embryo>("EMBRYOS6", "handshakes and trials in progress"),
    sized::<SnatKey<Be32>, SnatOwner<Be32>>("SNAT4", "translated source → flow"),
    sized::<SnatKey<Addr6>, SnatOwner<Addr6>>("SNAT6", "translated source → flow"),
    sized::<FragmentKey<Be32>, FragmentOf<Be32>>("FRAGMENTS4", "fragmented packets in transit"),
    sized::<FragmentKey<Addr6>, FragmentOf<Addr6>>("FRAGMENTS6", "fragmented packets in transit"),
    sized::<SessionKey, Session>("SESSIONS", "client sessions"),
    spec::<u32, Counters>("COUNTERS", MAX_BACKENDS, "counters by instance, per CPU"),
    spec::<u32, UserCounters>("USER_COUNTERS", MAX_BACKENDS, "expired and forced by instance"),
    spec::<u32, Latency>("LATENCY", MAX_BACKENDS, "how long instances took, in histograms"),
    spec::<u32, ServiceCounters>("SERVICE_COUNTERS", MAX_SERVICES, "new flows refused, per CPU"),
    spec::<u32, Gauge>("GAUGES", MAX_SERVICES + 2, "live flows by service; last: table entries"),
    spec::<u32, Gauge>("RATES", MAX_SERVICES, "when the next new flow of a service is in time"),
    spec::<u32, u64>("REASONS", Reason::COUNT as u32, "packets by reason, per CPU"),
    MapSpec { name: "EVENTS", key: 0, value: 0, capacity: Some(1 << 20), about: "event stream" },
    spec::<u32, [u64; 2]>("EVENT_LIMIT", 1, "rate limit of the event stream, per CPU"),
    spec::<u32, Meta>("META", 1, "ABI version, boot, capacity, routing epoch"),
    MapSpec { name: "DEVICES", key: 4, value: 8, capacity: Some(64), about: "managed interfaces" },
    spec::<u32, Explained>("EXPLAINED", 1, "answer of the explaining programs"),
];
