//! Packets of connections.

use release_common::reason::Reason;

use super::{Step, Want};
use crate::model::scene::{TCP, UDP};

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

/// A packet of a connection, see [`Scene::client`](crate::model::Scene::client). Replies of instances
/// of mode `local` are what the host sends; all other packets come in.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The connection.
    pub connection: usize,
    /// The sender.
    pub sender: Sender,
    /// TCP or UDP.
    pub protocol: u8,
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
    /// The data, if it is of importance.
    pub bytes: Option<Vec<u8>>,
    /// UDP: no checksum.
    pub unchecked: bool,
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
        protocol: TCP,
        flags,
        seq,
        ack,
        window: 0xfff0,
        data: 0,
        bytes: None,
        unchecked: false,
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

/// A client's datagram with `data` bytes on connection 0, by default forwarded to its instance.
pub const fn datagram(data: usize) -> Packet {
    let mut packet = client(0, 0, 0).data(data);
    packet.protocol = UDP;
    packet
}

/// A datagram of the pinned instance on connection 0, by default sent to the client.
pub const fn response(data: usize) -> Packet {
    let mut packet = datagram(data).want(Want::Replied);
    packet.sender = Sender::Server;
    packet
}

impl Packet {
    /// With these bytes as data.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes = Some(bytes.to_vec());
        self
    }
    /// UDP: without a checksum.
    #[must_use]
    pub const fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }
    /// IPv4: any router may fragment it.
    #[must_use]
    pub const fn fragmentable(mut self) -> Self {
        self.dont_fragment = false;
        self
    }
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
