//! A packet's journey: parse → port filter → flow, embryo or new placement → lifecycle → rewrite →
//! way out.
//!
//! Everything is generic over [`Packet`] (memory) and [`Tables`] (maps, clock, routes), and inlined
//! into one program per context.

mod deliver;
mod inbound;
mod place;
mod promote;
mod reply;
mod trial;

use crate::abi::{
    Backend, BackendRef, Be16, Be32, Embryo, Endpoint4, Flow, FlowKey4, FrontendRef, Service, Split,
};
use crate::packet::{self, Packet, Segment};
use crate::reason::Reason;
use crate::shared::Shared;

/// What becomes of the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// On to the host's own stack.
    Pass,
    /// Gone.
    Drop,
    /// Out of the interface it came in by.
    Bounce,
    /// Out of interface [`Outcome::ifindex`].
    Send,
}

/// What becomes of the packet, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The verdict.
    pub action: Action,
    /// Interface to send out of, 0 unless the verdict is [`Action::Send`].
    pub ifindex: u32,
    /// The reason, counted by the caller.
    pub reason: Reason,
}

impl Outcome {
    /// Leaves the packet to the host.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self { action: Action::Pass, ifindex: 0, reason }
    }

    /// Drops the packet.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self { action: Action::Drop, ifindex: 0, reason }
    }

    /// Sends the packet out of the interface it came in by.
    #[inline(always)]
    pub const fn bounce(reason: Reason) -> Self {
        Self { action: Action::Bounce, ifindex: 0, reason }
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    /// Leave it to the host, untouched.
    Pass,
    /// Drop it.
    Drop,
    /// Send it to the instance.
    ToBackend,
    /// Send it back to the client, as if from the frontend.
    ToClient,
    /// Refuse a new flow.
    Refuse,
}

/// What the tables say about a packet, before anything is done to it. Deciding and acting are
/// apart so that acting exists once in the program, not once for each way to a decision.
///
/// A plain struct, every field always set: in an enum the compiler leaves fields of other variants
/// undefined, and the verifier then finds pointers where numbers are expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Decision {
    deed: Deed,
    reason: Reason,
    /// The instance it goes to or came from.
    backend: u32,
    /// One of [`crate::abi::refusal`].
    refusal: u8,
    /// The frontend it must seem to come from.
    frontend: Endpoint4,
}

impl Decision {
    const NONE: Self = Self {
        deed: Deed::Drop,
        reason: Reason::BrokenReference,
        backend: 0,
        refusal: 0,
        frontend: Endpoint4::tcp(Be32(0), Be16(0)),
    };

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self { deed: Deed::Pass, reason, ..Self::NONE }
    }

    #[inline(always)]
    const fn drop(reason: Reason) -> Self {
        Self { deed: Deed::Drop, reason, ..Self::NONE }
    }

    #[inline(always)]
    const fn to_backend(backend: u32, reason: Reason) -> Self {
        Self { deed: Deed::ToBackend, reason, backend, ..Self::NONE }
    }

    #[inline(always)]
    const fn to_client(backend: u32, frontend: Endpoint4) -> Self {
        Self { deed: Deed::ToClient, reason: Reason::Replied, backend, frontend, ..Self::NONE }
    }

    #[inline(always)]
    const fn refuse(refusal: u8, reason: Reason) -> Self {
        Self { deed: Deed::Refuse, reason, refusal, ..Self::NONE }
    }
}

/// The way to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Send it ourselves.
    Via {
        /// Interface, or `None` for the one the packet came in by.
        ifindex: Option<u32>,
        /// Next hop's MAC.
        dmac: [u8; 6],
        /// Interface's MAC.
        smac: [u8; 6],
    },
    /// The kernel must find the way: no neighbour yet, a local address, an interface that is not
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

/// Counted steps, as indices of 64-bit fields in [`crate::abi::Counters`].
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
}

/// What the pipeline asks of its surroundings: BPF maps and helpers in the kernel, hash tables in
/// tests.
pub trait Tables {
    /// Jiffies.
    fn now(&self) -> u64;
    /// A tag for a new entry's state word, different for each incarnation of an element.
    fn tag(&self) -> u32;
    /// Whether some frontend uses this port.
    fn is_frontend_port(&self, port: Be16) -> bool;
    /// Whether some instance uses this port.
    fn is_backend_port(&self, port: Be16) -> bool;
    /// The service of a frontend.
    fn frontend(&self, at: &Endpoint4) -> Option<FrontendRef>;
    /// The instance at an address.
    fn backend_at(&self, at: &Endpoint4) -> Option<BackendRef>;
    /// A service.
    fn service(&self, id: u32) -> Option<&Service>;
    /// An instance.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// The split in force. Read once per placement: replacing it is the barrier.
    fn split(&self, service: u32) -> Option<&Split>;
    /// The instance in the slot of a ring that `hash` falls on; `None` if the ring is empty.
    fn instance(&self, ring: u32, hash: crate::placement::FlowHash) -> Option<u32>;
    /// Whether the flow table takes no new flows.
    fn table_full(&self) -> bool;
    /// A flow.
    fn flow(&self, key: &FlowKey4) -> Option<Shared<'_, Flow>>;
    /// Adds a flow.
    ///
    /// # Errors
    /// See [`InsertError`].
    fn insert_flow(&self, key: &FlowKey4, flow: &Flow, how: Insert) -> Result<(), InsertError>;
    /// An embryo.
    fn embryo(&self, key: &FlowKey4) -> Option<Shared<'_, Embryo>>;
    /// Adds an embryo if there is none.
    ///
    /// # Errors
    /// See [`InsertError`].
    fn insert_embryo(&self, key: &FlowKey4, embryo: &Embryo) -> Result<(), InsertError>;
    /// Removes an embryo.
    fn remove_embryo(&self, key: &FlowKey4);
    /// Counts a step of an instance.
    fn count(&self, backend: u32, counter: Counter);
    /// Counts a packet of an instance.
    fn traffic(&self, backend: u32, bytes: u16, now: u64);
    /// Changes the number of live flows of a service.
    fn live_flows(&self, service: u32, change: i64);
    /// Counts a new entry of the flow table.
    fn entry_added(&self);
    /// Tells user space ([`crate::abi::event_kind`]).
    fn event(&self, kind: u32, key: &FlowKey4, backend: u32, generation: u32);
    /// The way of an IPv4 packet of `len` bytes.
    fn route(&self, source: Be32, destination: Be32, tos: u8, len: u16) -> Route;
}

/// Handles one frame.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    match packet::parse(packet) {
        Err(reason) => Outcome::pass(reason),
        Ok(segment) => {
            let decision = decide(packet, tables, &segment);
            deliver::act(packet, tables, &segment, decision)
        }
    }
}

#[inline(always)]
fn decide<P: Packet, T: Tables>(packet: &P, tables: &T, segment: Seg<'_>) -> Decision {
    let mut reason = Reason::NotOurPort;
    if tables.is_frontend_port(segment.destination_port) {
        if let Some(decision) = inbound::inbound(packet, tables, segment) {
            return decision;
        }
        reason = Reason::NotOurAddress;
    }
    if tables.is_backend_port(segment.source_port) {
        return reply::reply(packet, tables, segment);
    }
    Decision::pass(reason)
}

/// Counts what [`crate::tcp::lifecycle::observe`] reports.
#[inline(always)]
fn count_step<T: Tables>(
    tables: &T,
    key: &FlowKey4,
    flow: Shared<'_, Flow>,
    step: crate::tcp::lifecycle::Step,
) {
    use crate::abi::event_kind;
    use crate::tcp::lifecycle::Step;
    let (counter, change, kind) = match step {
        Step::None => return,
        Step::Unverified => {
            tables.count(flow.backend().get(), Counter::Unverified);
            return;
        }
        Step::ClosedFin => (Counter::ClosedFin, -1, event_kind::CLOSED),
        Step::ClosedRst => (Counter::ClosedRst, -1, event_kind::CLOSED),
        Step::Reopened => (Counter::Reopened, 1, event_kind::REOPENED),
    };
    let backend = flow.backend().get();
    tables.count(backend, counter);
    if let Some(entry) = tables.backend(backend) {
        tables.live_flows(entry.service, change);
    }
    tables.event(kind, key, backend, flow.generation().get());
}

/// The segment as the functions of this module pass it around.
type Seg<'a> = &'a Segment;
