//! What the packet path tells user space as it happens. Rate-limited, never needed for
//! correctness.

use bytemuck::{Pod, Zeroable};

use super::FlowKey4;

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
    /// The flow.
    pub key: FlowKey4,
}
