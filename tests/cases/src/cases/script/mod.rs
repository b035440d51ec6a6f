//! The language that cases are written in.

use release_common::abi::Flow;
use release_common::pipeline::Counter;
use release_common::reason::Reason;

use crate::frames::flags;
use crate::model::Scene;

/// A case.
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Which part of the packet path.
    pub category: &'static str,
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
        Self { name: name.to_owned(), category, scene, steps }
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
    /// A TCP packet of a connection, and what must become of it.
    Packet(Packet),
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
    /// As before, but left to the kernel to send.
    RepliedByKernel,
    /// Answered with the RST that refuses a SYN.
    Reset(Reason),
    /// Answered with ICMP time exceeded.
    TimeExceeded,
    /// Answered with ICMP fragmentation needed.
    TooBig(u16),
}

/// Who sends a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// The connection's client.
    Client,
    /// The instance the connection is pinned to.
    Server,
    /// The instance with this id.
    Instance(u32),
}

/// The client's initial sequence number.
pub const C: u32 = 1_000_000;
/// The server's initial sequence number.
pub const S: u32 = 5_000_000;

/// A TCP packet of a connection. Connections: 0 and 1 have the same client address and port and go
/// to frontends 0 and 1; all others have client ports of their own and go to frontend 0.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The connection.
    pub connection: usize,
    /// The sender.
    pub sender: Sender,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Unscaled window.
    pub window: u16,
    /// Bytes of data.
    pub data: usize,
    /// TCP options.
    pub options: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// "Don't fragment".
    pub dont_fragment: bool,
    /// Padded to 60 bytes.
    pub padded: bool,
    /// What must become of it.
    pub want: Want,
}

/// A client's packet on connection 0, by default forwarded to its instance.
pub const fn client(flags: u8, seq: u32, ack: u32) -> Packet {
    Packet {
        connection: 0,
        sender: Sender::Client,
        flags,
        seq,
        ack,
        window: 0xfff0,
        data: 0,
        options: Vec::new(),
        ttl: 64,
        tos: 0,
        dont_fragment: true,
        padded: false,
        want: Want::Pinned(Reason::Forwarded),
    }
}

/// A packet of the pinned instance on connection 0, by default sent to the client.
pub fn server(flags: u8, seq: u32, ack: u32) -> Packet {
    Packet { sender: Sender::Server, want: Want::Replied, ..client(flags, seq, ack) }
}

impl Packet {
    /// On this connection.
    #[must_use]
    pub const fn on(mut self, connection: usize) -> Self {
        self.connection = connection;
        self
    }
    /// With this many bytes of data.
    #[must_use]
    pub const fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }
    /// From the instance with this id.
    #[must_use]
    pub const fn from(mut self, id: u32) -> Self {
        self.sender = Sender::Instance(id);
        self
    }
    /// With this TTL.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    /// With this unscaled window.
    #[must_use]
    pub const fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }
    /// With these TCP options.
    #[must_use]
    pub fn options(mut self, options: Vec<u8>) -> Self {
        self.options = options;
        self
    }
    /// This must become of it.
    #[must_use]
    pub const fn want(mut self, want: Want) -> Self {
        self.want = want;
        self
    }
    /// To an instance of this version.
    #[must_use]
    pub const fn to(self, version: usize, reason: Reason) -> Self {
        self.want(Want::To(version, reason))
    }
    /// To the pinned instance.
    #[must_use]
    pub const fn pinned(self, reason: Reason) -> Self {
        self.want(Want::Pinned(reason))
    }
}

impl From<Packet> for Step {
    fn from(packet: Packet) -> Self {
        Self::Packet(packet)
    }
}

/// Several packets as steps.
pub fn packets<const N: usize>(packets: [Packet; N]) -> Vec<Step> {
    packets.into_iter().map(Step::Packet).collect()
}

/// What was counted.
pub fn counts<const N: usize>(counts: [(Counter, u64); N]) -> Vec<Step> {
    vec![Step::Counts(counts.to_vec())]
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
