//! What the pipeline asks of its surroundings.

use crate::abi::{
    Address, Backend, BackendRef, Be16, Embryo, Endpoint, Flow, FlowKey, FragmentKey, FragmentOf,
    FrontendRef, QuicKey, Service, Session, SessionKey, SnatKey, SnatOwner, Split,
};
use crate::placement::FlowHash;
use crate::shared::Shared;

/// Where a packet goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Interface to send out of; `None`: the one it came in by.
    pub ifindex: Option<u32>,
    /// Next hop's MAC.
    pub dmac: [u8; 6],
    /// That interface's own MAC.
    pub smac: [u8; 6],
}

/// The way to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Known.
    Via(Hop),
    /// The kernel must deal with it: neighbour unknown, local address, interface that is not
    /// managed, forwarding off.
    Kernel,
    /// Larger than the way takes (MTU in bytes).
    TooBig(u16),
}

/// Whether an insert may replace an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// Only if there is none.
    New,
    /// Whatever there is.
    Replace,
}

/// Why an insert failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// Another CPU was first.
    Exists,
    /// No room, or the kernel would not take its lock here.
    Refused,
}

/// Counted steps of an instance, as indices of 64-bit fields in [`crate::abi::Counters`].
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// `placed`
    Placed = 0,
    /// `trials`
    Trials,
    /// `embryos_ended`
    EmbryosEnded,
    /// `opened`
    Opened,
    /// `adopted`
    Adopted,
    /// `closed_fin`
    ClosedFin,
    /// `closed_rst`
    ClosedRst,
    /// `superseded`
    Superseded,
    /// `reopened`
    Reopened,
    /// `refused`
    Refused,
    /// `untracked`
    Untracked,
    /// `unverified`
    Unverified,
    /// `ruled`
    Ruled,
    /// `sticky`
    Sticky,
    /// `datagrams`
    Datagrams,
    /// `migrated`
    Migrated,
    /// `forced`
    Forced,
    /// `unmeasured`
    Unmeasured,
    /// `syns_refused`
    SynsRefused,
    /// `client_resets`
    ClientResets,
    /// `server_resets`
    ServerResets,
}

/// A packet, as its instance's counters take it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Its length (IP).
    pub bytes: u32,
    /// 1 if it is a segment with data of a measured flow, otherwise 0.
    pub segments: u64,
    /// Of those: 1 if it was sent before.
    pub again: u64,
}

/// Histograms of an instance, as indices in [`crate::abi::Latency`].
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timed {
    /// `connect`
    Connect = 0,
    /// `first_byte`
    FirstByte,
}

/// New flows that a service refuses, as indices of 64-bit fields in
/// [`crate::abi::ServiceCounters`].
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `empty`
    Empty = 0,
    /// `full`
    Full,
    /// `max_flows`
    MaxFlows,
    /// `rate`
    Rate,
    /// `ports`
    Ports,
}

/// BPF maps and helpers in the kernel, hash tables in tests. What differs between the address
/// families is in [`FamilyTables`].
pub trait Tables {
    /// Whether what is measured is of interest. Where it is not, the program is spared it.
    const MEASURES: bool = true;
    /// Jiffies.
    fn now(&self) -> u64;
    /// Nanoseconds of the monotonic clock. Takes ten times as long as [`Self::now`].
    fn nanoseconds(&self) -> u64;
    /// Jiffies a second.
    fn hz(&self) -> u32;
    /// A tag for a new entry's state word, different for each incarnation of an element.
    fn tag(&self) -> u32;
    /// [`Self::nanoseconds`] and [`Self::tag`] by one reading of the clock.
    fn moment(&self) -> (u64, u32);
    /// Whether some frontend uses this port.
    fn is_frontend_port(&self, port: Be16) -> bool;
    /// Whether some instance uses this port.
    fn is_backend_port(&self, port: Be16) -> bool;
    /// How many instances were tried for the new flow that the packet at hand begins.
    fn attempts(&self) -> u32;
    /// Notes it. 0 when a packet comes in.
    fn set_attempts(&self, attempts: u32);
    /// A service.
    fn service(&self, id: u32) -> Option<&Service>;
    /// An instance.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// The split in force. Read once per placement: replacing it is the barrier.
    fn split(&self, service: u32) -> Option<&Split>;
    /// The instance in the slot of a ring that `hash` falls on; `None` if the ring is empty.
    fn instance(&self, ring: u32, hash: FlowHash) -> Option<u32>;
    /// The instance that a QUIC connection id names.
    fn quic_server(&self, key: &QuicKey) -> Option<u32>;
    /// A client's session.
    fn session(&self, key: &SessionKey) -> Option<Shared<'_, Session>>;
    /// Adds a session if there is none.
    ///
    /// # Errors
    /// See [`InsertError`].
    fn insert_session(&self, key: &SessionKey, session: &Session) -> Result<(), InsertError>;
    /// Counts a step of an instance.
    fn count(&self, backend: u32, counter: Counter);
    /// Counts a step of an instance, and beside it another, or not.
    fn count_both(&self, backend: u32, counter: Counter, beside: Counter, counts: bool);
    /// Counts how many nanoseconds an instance took.
    fn took(&self, backend: u32, what: Timed, nanoseconds: u64);
    /// Counts a new flow refused by a service.
    fn count_refusal(&self, service: u32, refusal: Refusal);
    /// Counts a packet of an instance.
    fn traffic(&self, backend: u32, packet: Traffic, now: u64);
    /// Number of live flows of a service.
    fn live_flows(&self, service: u32) -> u64;
    /// Changes the number of live flows of a service and returns what it was before.
    fn add_live_flows(&self, service: u32, change: i64) -> u64;
    /// Whether a new flow keeps within the rate allowed: `interval` nanoseconds apart, ahead of
    /// that by `burst` at most.
    fn within_rate(&self, service: u32, interval: u32, burst: u32) -> bool;
}

/// The part of [`Tables`] that exists once per address family.
pub trait FamilyTables<A: Address>: Tables {
    /// Keeps the key of the packet's flow, where it does not take the stack's place.
    fn keep_key<'a>(&'a self, key: &'a FlowKey<A>) -> &'a FlowKey<A>;
    /// The key that was kept last for the packet at hand.
    fn kept_key(&self) -> Option<FlowKey<A>>;
    /// The service of a frontend.
    fn frontend(&self, at: &Endpoint<A>) -> Option<FrontendRef>;
    /// The instance at an address.
    fn backend_at(&self, at: &Endpoint<A>) -> Option<BackendRef>;
    /// The ring of the version that a test rule sends this client to; the longest prefix wins.
    fn rule(&self, service: u32, client: A) -> Option<u32>;
    /// Whether the flow table takes no new flows.
    fn table_full(&self) -> bool;
    /// A flow.
    fn flow(&self, key: &FlowKey<A>) -> Option<Shared<'_, Flow>>;
    /// Adds a flow.
    ///
    /// # Errors
    /// See [`InsertError`].
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow, how: Insert) -> Result<(), InsertError>;
    /// Counts a new entry of the flow table.
    fn entry_added(&self);
    /// An embryo.
    fn embryo(&self, key: &FlowKey<A>) -> Option<Shared<'_, Embryo>>;
    /// Adds an embryo if there is none.
    ///
    /// # Errors
    /// See [`InsertError`].
    fn insert_embryo(&self, key: &FlowKey<A>, embryo: &Embryo) -> Result<(), InsertError>;
    /// Removes an embryo.
    fn remove_embryo(&self, key: &FlowKey<A>);
    /// Whose a translated source is.
    fn snat_owner(&self, key: &SnatKey<A>) -> Option<SnatOwner<A>>;
    /// Claims a translated source if nobody has it.
    ///
    /// # Errors
    /// See [`InsertError`].
    fn claim_snat(&self, key: &SnatKey<A>, owner: &SnatOwner<A>) -> Result<(), InsertError>;
    /// Where the fragments of a datagram go.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentOf<A>>;
    /// Notes where the fragments of a datagram go.
    fn note_fragment(&self, key: &FragmentKey<A>, of: &FragmentOf<A>);
    /// Tells user space ([`crate::abi::event_kind`]).
    fn event(&self, kind: u32, key: &FlowKey<A>, backend: u32, generation: u32);
    /// The next hop to a destination, if it is known, the tables are sure of it, and a packet of `len`
    /// bytes fits.
    fn known_hop(&self, destination: A, len: u32) -> Option<Hop>;
    /// The way of a packet of `len` bytes.
    fn route(&self, source: A, destination: A, tos: u8, len: u32) -> Route;
}
