//! The language that cases are written in.

use release_common::abi::Flow;
use release_common::pipeline::{Counter, Refusal};
use release_common::reason::Reason;

use crate::frames::flags;
use crate::model::Scene;
use crate::model::tables::HZ;

mod icmp;
mod packet;

pub use icmp::{Icmp, about};
pub use packet::{Packet, Sender, client, datagram, response, server};

/// A case.
#[derive(Clone)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Which part of the packet path.
    pub category: &'static str,
    /// How its frames look, see `variants`.
    pub variant: &'static str,
    /// What is configured.
    pub scene: Scene,
    /// What happens, and what must come of it.
    pub steps: Vec<Step>,
}

impl Case {
    /// A case of these steps.
    pub fn new(
        category: &'static str,
        name: &str,
        scene: Scene,
        steps: impl IntoIterator<Item = Vec<Step>>,
    ) -> Self {
        let steps = steps.into_iter().flatten().collect();
        Self { name: name.to_owned(), category, variant: "IPv4", scene, steps }
    }
}

/// A verdict as the kernel gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the host.
    Pass,
    /// Gone.
    Drop,
    /// Out of the interface it came in by.
    Bounce,
    /// Out of another interface; the index, where the runner can see it.
    Send(Option<u32>),
}

/// One step of a case.
#[derive(Clone)]
pub enum Step {
    /// A packet of a connection, and what must become of it.
    Packet(Packet),
    /// A packet of a connection in fragments, cut at these places behind the IP header; those that
    /// arrive, in the order in which they do, and what must become of each.
    Fragments(Packet, Vec<usize>, Vec<(usize, Want)>),
    /// An ICMP error about a packet of a connection.
    Icmp(Icmp),
    /// Any frame, and what must become of it: [`Want::Untouched`] or [`Want::Dropped`].
    Frame(Vec<u8>, Want),
    /// Time passes, in jiffies.
    Advance(u64),
    /// New weights.
    Shift(Vec<u32>),
    /// Other surroundings.
    Set(Setting),
    /// The state of connection `.0`'s flow.
    Flow(usize, FlowIs),
    /// The state of connection `.0`'s embryo.
    Embryo(usize, EmbryoIs),
    /// Something about connection `.0`'s flow, with what it is.
    Check(usize, &'static str, fn(&Flow) -> bool),
    /// All steps counted so far over all instances; those not named are 0.
    Counts(Vec<(Counter, u64)>),
    /// All new flows refused so far; those not named are 0.
    Refusals(Vec<(Refusal, u64)>),
    /// All that was measured so far over all instances; what is not named is 0.
    Measures(Vec<(Measure, u64)>),
    /// Live flows that the session of connection `.0`'s client counts, if there is one.
    Session(usize, Option<u32>),
    /// Connections whose packets go to one instance.
    Same(usize, usize),
    /// Connections whose packets do not.
    Apart(usize, usize),
}

/// What is measured of instances, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// From SYN to SYN-ACK.
    Connects,
    /// From a request's first byte to the answer's.
    FirstBytes,
    /// Flows that are not.
    Unmeasured,
    /// SYNs answered by RST.
    SynsRefused,
    /// Flows reset by their client.
    ClientResets,
    /// Flows reset by their instance.
    ServerResets,
    /// Segments with data.
    Segments,
    /// Of those, sent again.
    Retransmits,
}

/// Surroundings that a case changes. A runner that cannot says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// The flow table takes no new flows.
    TableFull,
    /// The way of every packet.
    Way(Way),
    /// Frontend number `.0` is taken away.
    FrontendGone(usize),
    /// The instance that connection `.0` is pinned to takes no new flows.
    Closed(usize),
}

/// Ways of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Known; the one at first.
    Known,
    /// Known, through the interface it came in by.
    Same,
    /// The kernel must find it.
    Kernel,
    /// Takes packets of this many bytes only.
    Mtu(u16),
}

/// State of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowIs {
    /// No entry.
    None,
    /// Live, no FIN acknowledged.
    Live,
    /// Live, one FIN acknowledged.
    HalfClosed,
    /// Closed by FINs.
    ClosedFin,
    /// Closed by RST.
    ClosedRst,
}

/// State of an embryo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmbryoIs {
    /// No entry.
    None,
    /// SYN sent on.
    Syn,
    /// SYN-ACK came.
    SynAck,
    /// Mid-flow trial.
    Trial,
}

/// What must become of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Passed, every byte as it was.
    Untouched(Reason),
    /// Dropped.
    Dropped(Reason),
    /// Sent to an instance of this version (index), which the connection is pinned to from now on.
    To(usize, Reason),
    /// Sent to the instance the connection is pinned to.
    Pinned(Reason),
    /// As before, but left to the kernel to send: translated, TTL as it was.
    PinnedByKernel,
    /// Sent to the client as the connection's frontend.
    Replied,
    /// As before, for this reason.
    RepliedAs(Reason),
    /// As before, but left to the kernel to send.
    RepliedByKernel,
    /// Answered with the RST that refuses a SYN, or with ICMP port unreachable.
    Reset(Reason),
    /// Sent on to the pinned instance as a RST in its place.
    ResetInstance(Reason),
    /// Answered with ICMP time exceeded.
    TimeExceeded,
    /// Answered with ICMP fragmentation needed, or packet too big.
    TooBig(u16),
}

/// The client's initial sequence number.
pub const C: u32 = 1_000_000;
/// The server's initial sequence number.
pub const S: u32 = 5_000_000;

/// Several packets as steps.
pub fn packets<const N: usize>(packets: [Packet; N]) -> Vec<Step> {
    packets.into_iter().map(Step::Packet).collect()
}

/// What was counted.
pub fn counts<const N: usize>(counts: [(Counter, u64); N]) -> Vec<Step> {
    vec![Step::Counts(counts.to_vec())]
}

/// What was measured.
pub fn measures<const N: usize>(measures: [(Measure, u64); N]) -> Vec<Step> {
    vec![Step::Measures(measures.to_vec())]
}

/// A whole handshake of connection `connection` with version `version`, counted as placed and
/// opened.
pub fn open_on(connection: usize, version: usize) -> Vec<Step> {
    packets([
        client(flags::SYN, C, 0).on(connection).to(version, Reason::Placed),
        server(flags::SYN | flags::ACK, S, C + 1).on(connection),
        client(flags::ACK, C + 1, S + 1).on(connection),
    ])
}

/// A whole handshake of connection 0 with version 0.
pub fn open() -> Vec<Step> {
    open_on(0, 0)
}

/// Both ends close connection 0, the client first; neither sent data.
pub fn close() -> Vec<Step> {
    packets([
        client(flags::FIN | flags::ACK, C + 1, S + 1),
        server(flags::FIN | flags::ACK, S + 1, C + 2),
        client(flags::ACK, C + 2, S + 2),
    ])
}

/// New flows refused.
pub fn refusals<const N: usize>(counts: [(Refusal, u64); N]) -> Vec<Step> {
    vec![Step::Refusals(counts.to_vec())]
}

/// Enough time for another datagram of the client to make a flow.
pub fn a_second() -> Vec<Step> {
    vec![Step::Advance(HZ.into())]
}

/// New weights.
pub fn shift<const N: usize>(weights: [u32; N]) -> Vec<Step> {
    vec![Step::Shift(weights.to_vec())]
}

/// What becomes of the fragments of a packet, cut at `cuts`.
pub fn fragments<const N: usize>(
    packet: Packet,
    cuts: &[usize],
    wants: [(usize, Want); N],
) -> Vec<Step> {
    vec![Step::Fragments(packet, cuts.to_vec(), wants.to_vec())]
}

/// An ICMP error.
pub fn icmp(error: Icmp) -> Vec<Step> {
    vec![Step::Icmp(error)]
}
