//! What the packet path tells user space as it happens. Rate-limited, never needed for
//! correctness.

use core::net::SocketAddr;

use bytemuck::{Pod, Zeroable};

use super::{Addr6, Address, Be32, FlowKey};

/// Kinds of [`Event`].
pub mod event_kind {
    /// A handshake completed.
    pub const OPENED: u32 = 1;
    /// A flow closed.
    pub const CLOSED: u32 = 2;
    /// A mid-flow connection was taken over.
    pub const ADOPTED: u32 = 3;
    /// Backend traffic proved a closed flow alive.
    pub const REOPENED: u32 = 4;
    /// The flow table refused an entry.
    pub const TABLE_FULL: u32 = 5;
}

/// Record of the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Event {
    /// One of [`event_kind`].
    pub kind: u32,
    /// Instance id, 0 if none.
    pub backend: u32,
    /// Generation of the flow.
    pub generation: u32,
    /// Events suppressed on this CPU since the last one that got through.
    pub suppressed: u32,
    /// 4 or 6.
    pub version: u32,
    /// Zero.
    pub pad: u32,
    /// The flow; IPv4 addresses in the first word.
    pub key: FlowKey<Addr6>,
}

impl Event {
    /// The flow's client and frontend.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let ip = |addr: Addr6| {
            if self.version == 4 { Be32(addr.0[0]).ip() } else { addr.ip() }
        };
        (
            SocketAddr::new(ip(self.key.client), self.key.client_port.get()),
            SocketAddr::new(ip(self.key.frontend), self.key.frontend_port.get()),
        )
    }

    /// The key in the form that fits both families.
    #[inline(always)]
    pub fn wide<A: Address>(key: &FlowKey<A>) -> FlowKey<Addr6> {
        FlowKey {
            client: Addr6(key.client.words()),
            frontend: Addr6(key.frontend.words()),
            client_port: key.client_port,
            frontend_port: key.frontend_port,
            proto: key.proto,
            pad: 0,
            pad_end: 0,
        }
    }
}
