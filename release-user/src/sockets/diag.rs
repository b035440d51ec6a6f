//! `NETLINK_SOCK_DIAG` as bytes (linux/inet_diag.h).
//!
//! Own types rather than a crate's: a question must carry a filter (`INET_DIAG_REQ_BYTECODE`), see
//! [`mod@super::ask`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytemuck::{Pod, Zeroable};
use rtnetlink::packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// `INET_DIAG_REQ_BYTECODE`, an attribute of questions.
const BYTECODE: u16 = 1;
/// `INET_DIAG_SKV6ONLY`, an attribute of answers.
const V6ONLY: u16 = 11;

/// `AF_INET` or `AF_INET6`.
pub type Af = u8;
/// `AF_INET`.
pub const INET: Af = libc::AF_INET as Af;
/// `AF_INET6`.
pub const INET6: Af = libc::AF_INET6 as Af;

/// `struct inet_diag_sockid`. Ports and addresses are in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SocketId {
    /// Local port.
    pub local_port: [u8; 2],
    /// The other end's.
    pub remote_port: [u8; 2],
    /// Local address; IPv4: the first 4 bytes.
    pub local: [u8; 16],
    /// The other end's.
    pub remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Header {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Reply {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    user: u32,
    inode: u32,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    message_type: u16,
    header: Header,
    filter: Vec<u8>,
}

/// A socket, as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What tells it from all others.
    pub id: SocketId,
    /// Number of the state, `TCP_ESTABLISHED` (1) and so on; UDP has some of them.
    pub state: u8,
    /// Its own end. An IPv6 socket that serves IPv4 has a mapped address.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// TCP: bytes that nobody has read, of a listener: connections that nobody has accepted. UDP:
    /// memory of datagrams that nobody has read.
    pub receive_queue: u32,
    /// TCP: bytes not acknowledged; of a listener: most connections in its queue. UDP: memory of
    /// datagrams that are still to be sent.
    pub send_queue: u32,
    /// Inode of the socket's file; 0 if no process has it.
    pub inode: u32,
    /// An IPv6 socket that takes no IPv4.
    pub v6only: bool,
}

/// A message of either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the kernel.
    Request(Request),
    /// From the kernel.
    Found(Found),
}

impl Request {
    /// All sockets of a family and a protocol in these states (a bit each) of which one of `ends`
    /// is the local end. All of `ends` have the same port.
    pub fn all(family: Af, protocol: u8, states: u32, ends: &[IpAddr], port: u16) -> Self {
        let id = SocketId { local_port: port.to_be_bytes(), ..SocketId::default() };
        let header = Header { family, protocol, extensions: 0, pad: 0, states, id };
        Self { message_type: BY_FAMILY, header, filter: filter(ends, port) }
    }

    /// Of those, only the ones whose other end has this port.
    pub fn towards(mut self, port: u16) -> Self {
        self.header.id.remote_port = port.to_be_bytes();
        self
    }

    /// The end of that very socket. Its cookie goes with it: without one the kernel would take the
    /// listener instead, if the connection is gone meanwhile.
    pub fn destroy(protocol: u8, found: &Found) -> Self {
        let family = if found.local.is_ipv4() { INET } else { INET6 };
        Self::end(family, protocol, found.id)
    }

    /// The end of a socket that cannot be there: tells whether the kernel knows the request.
    pub fn destroy_nothing(protocol: u8) -> Self {
        Self::end(INET, protocol, SocketId::default())
    }

    fn end(family: Af, protocol: u8, id: SocketId) -> Self {
        let header = Header { family, protocol, extensions: 0, pad: 0, states: u32::MAX, id };
        Self { message_type: DESTROY, header, filter: Vec::new() }
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes
}

/// A program for the kernel's filter: accept a socket whose local end is one of these.
///
/// `struct inet_diag_bc_op` is a code and two distances to the next operation, one if the condition
/// holds, one if not. A program that is left exactly at its end accepts, 4 bytes beyond it refuses.
fn filter(ends: &[IpAddr], port: u16) -> Vec<u8> {
    const OPERATION: usize = 4;
    const JUMP: u8 = 1;
    const LOCAL_END: u8 = 7;
    /// `struct inet_diag_hostcond` without the address.
    const CONDITION: usize = 8;
    let width = |end: &IpAddr| if end.is_ipv4() { 4 } else { 16 };
    let length = |end: &IpAddr| OPERATION + CONDITION + width(end);
    let mut left: usize = ends.iter().map(|end| length(end) + OPERATION).sum();
    left = left.saturating_sub(OPERATION);
    let mut program = Vec::with_capacity(left);
    for (index, end) in ends.iter().enumerate() {
        let last = index + 1 == ends.len();
        let own = length(end);
        // The next condition stands behind the jump; behind the last one nothing is accepted.
        let otherwise = (own + OPERATION) as u16;
        program.extend([LOCAL_END, own as u8]);
        program.extend(otherwise.to_ne_bytes());
        let (family, bits) = if end.is_ipv4() { (INET, 32) } else { (INET6, 128) };
        program.extend([family, bits, 0, 0]);
        program.extend(i32::from(port).to_ne_bytes());
        program.extend(&octets(*end)[..width(end)]);
        left -= own;
        if !last {
            program.extend([JUMP, OPERATION as u8]);
            program.extend((left as u16).to_ne_bytes());
            left -= OPERATION;
        }
    }
    program
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type,
            Self::Found(_) => BY_FAMILY,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(Request { filter, .. }) if filter.is_empty() => size_of::<Header>(),
            Self::Request(Request { filter, .. }) => size_of::<Header>() + 4 + filter.len(),
            Self::Found(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let Self::Request(Request { header, filter, .. }) = self else { return };
        let (head, attribute) = buffer.split_at_mut(size_of::<Header>());
        head.copy_from_slice(bytemuck::bytes_of(header));
        if !filter.is_empty() {
            attribute[..2].copy_from_slice(&(4 + filter.len() as u16).to_ne_bytes());
            attribute[2..4].copy_from_slice(&BYTECODE.to_ne_bytes());
            attribute[4..].copy_from_slice(filter);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != BY_FAMILY || payload.len() < size_of::<Reply>() {
            return Err(DecodeError::from("no inet_diag_msg"));
        }
        let (reply, attributes) = payload.split_at(size_of::<Reply>());
        let reply: Reply = bytemuck::pod_read_unaligned(reply);
        let end = |bytes: [u8; 16], port: [u8; 2]| {
            let address = match reply.family {
                INET => IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
                INET6 => IpAddr::from(Ipv6Addr::from(bytes)),
                _ => return Err(DecodeError::from("neither IPv4 nor IPv6")),
            };
            Ok(SocketAddr::new(address, u16::from_be_bytes(port)))
        };
        Ok(Self::Found(Found {
            id: reply.id,
            state: reply.state,
            local: end(reply.id.local, reply.id.local_port)?,
            remote: end(reply.id.remote, reply.id.remote_port)?,
            receive_queue: reply.receive_queue,
            send_queue: reply.send_queue,
            inode: reply.inode,
            v6only: v6only(attributes),
        }))
    }
}

/// Looks for the attribute; what is cut off is not looked at.
fn v6only(mut attributes: &[u8]) -> bool {
    while let [a, b, c, d, rest @ ..] = attributes {
        let (length, kind) = (u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d]));
        let Some(value) = usize::from(length).checked_sub(4).and_then(|n| rest.get(..n)) else {
            return false;
        };
        if kind == V6ONLY {
            return value.first() == Some(&1);
        }
        attributes = rest.get(value.len().next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
#[path = "diag_tests.rs"]
mod tests;
