//! Tracked connections: flows, embryos, and the reaper's work list.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::{Address, Be16};
use crate::shared::{Field, Shared, shared_fields};

/// What is known of one end of a connection. All numbers are TCP sequence numbers (RFC 9293).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Side {
    /// The sequence number this side will send next.
    pub next: u32,
    /// The last acknowledgement number this side sent.
    pub ack: u32,
    /// Right edge of the window this side offered: acknowledgement plus scaled window.
    pub edge: u32,
    /// The number after this side's FIN, once the state word says that one was seen. Before that, the
    /// client's is its initial sequence number, and the server's says when the client's first data
    /// passed ([`crate::measure::stamp_of`]), or [`Side::unasked`].
    pub fin: u32,
}

impl Side {
    /// What the server's `fin` is before the client's first data: no FIN's number while nothing else
    /// was sent.
    #[inline(always)]
    pub const fn unasked(&self) -> u32 {
        self.next.wrapping_sub(1)
    }

    /// Its last two fields as one word, see [`Shared::server_tail`].
    #[inline(always)]
    pub fn tail(&self) -> u64 {
        bytemuck::cast([self.edge, self.fin])
    }
}

/// The end that stands for the client towards the instance (mode `snat`). Port 0: the client itself.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct SnatSource {
    /// The port.
    pub port: Be16,
    /// Index in the service's list of source addresses.
    pub index: u8,
    /// Zero.
    pub pad: u8,
}

/// Jiffies in the unit of [`Flow::opened_at`].
#[inline(always)]
pub const fn opened_at(jiffies: u64) -> u32 {
    (jiffies >> Flow::OPENED_SHIFT) as u32
}

/// One tracked connection: value of `FLOWS4/6`, 64 bytes. With the key and what the kernel needs an
/// element takes 128 bytes, of which the value is a cache line of its own.
///
/// `state` is a [`crate::tcp::word::FlowWord`]; it alone decides what the entry is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Flow {
    /// State word.
    pub state: u64,
    /// Instance the flow is pinned to (id in `BACKENDS`).
    pub backend: u32,
    /// Generation of the split that placed it; 0 for an adopted flow, which none placed.
    pub generation: u32,
    /// When it was opened or adopted, in units of 16 jiffies (32 bits then last for two years).
    pub opened_at: u32,
    /// Mode `snat`: what stands for the client.
    pub snat: SnatSource,
    /// Low 32 bits of jiffies at the last packet, either direction.
    pub last_packet: u32,
    /// Low 32 bits of jiffies at the last packet that carried new data.
    pub last_data: u32,
    /// The client's end.
    pub client: Side,
    /// The server's end.
    pub server: Side,
}

const _: () = assert!(size_of::<Flow>() == 64);
const _: () = assert!(offset_of!(Flow, server.edge) % 8 == 0);

impl Flow {
    /// log2 of the jiffies in a unit of [`Self::opened_at`].
    pub const OPENED_SHIFT: u32 = 4;
}

shared_fields!(Flow {
    /// The state word.
    state => state: u64,
    /// Instance the flow is pinned to.
    backend => backend: u32,
    /// Generation that placed it.
    generation => generation: u32,
    /// What stands for the client.
    snat => snat: SnatSource,
    /// Jiffies at the last packet.
    last_packet => last_packet: u32,
    /// Jiffies at the last new data.
    last_data => last_data: u32,
    /// The client's end.
    client => client: Side,
    /// The server's end.
    server => server: Side,
});

shared_fields!(Field: Side {
    /// See [`Side::next`].
    next => next: u32,
    /// See [`Side::ack`].
    ack => ack: u32,
    /// See [`Side::edge`].
    edge => edge: u32,
    /// See [`Side::fin`].
    fin => fin: u32,
});

impl<'a> Shared<'a, Flow> {
    /// The last two fields of the server's end, to be replaced together.
    #[inline(always)]
    pub fn server_tail(&self) -> Field<'a, u64> {
        // SAFETY: projects inside the value that `Shared::new`'s contract covers; by the assertion
        // above it is aligned.
        unsafe { Field::new((&raw mut (*self.as_ptr()).server.edge).cast()) }
    }
}

/// A handshake in progress, or a mid-flow packet waiting to be adopted: value of `EMBRYOS4/6`.
/// UDP: a conversation of one datagram so far.
///
/// `state` is a [`crate::tcp::word::EmbryoWord`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Embryo {
    /// State word.
    pub state: u64,
    /// Instance that was asked (id in `BACKENDS`).
    pub backend: u32,
    /// Generation of the split that chose it; 0 for a trial.
    pub generation: u32,
    /// Low 32 bits of jiffies at creation.
    pub created: u32,
    /// Handshake: the client's initial sequence number. Trial: the number after its last packet.
    pub client_seq: u32,
    /// Mode `snat`: what stands for the client.
    pub snat: SnatSource,
    /// Who chose the instance: number of the counter that counts it.
    pub chosen_by: u32,
    /// Nanoseconds of the monotonic clock when the first SYN was placed, if the state word says that it
    /// waits for its answer.
    pub syn_at: u64,
}

shared_fields!(Embryo {
    /// The state word.
    state => state: u64,
    /// Instance that was asked.
    backend => backend: u32,
    /// Generation that chose it.
    generation => generation: u32,
    /// Jiffies at creation.
    created => created: u32,
    /// The client's sequence number.
    client_seq => client_seq: u32,
    /// What stands for the client.
    snat => snat: SnatSource,
    /// Who chose the instance.
    chosen_by => chosen_by: u32,
    /// When the first SYN was placed.
    syn_at => syn_at: u64,
});

/// Where the fragments of a datagram go: value of `FRAGMENTS4/6`. Written by the first fragment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentOf<A> {
    /// The flow's client.
    pub client: A,
    /// The flow's frontend.
    pub frontend: A,
    /// The flow's ports: client's, frontend's.
    pub ports: [Be16; 2],
    /// Mode `snat`: what stands for the client.
    pub snat: SnatSource,
    /// The instance.
    pub backend: u32,
    /// TCP: sequence number of the byte at offset 0 of the IP payload, counted as if the TCP header
    /// took no numbers.
    pub base: u32,
    /// Low 32 bits of jiffies at the first fragment.
    pub created: u32,
    /// 1: from the instance to the client.
    pub reply: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP: flags.
    pub flags: u8,
    /// Zero.
    pub pad: u8,
}

const _: () = assert!(size_of::<FragmentOf<super::Be32>>() == 8 + 24);
const _: () = assert!(size_of::<FragmentOf<super::Addr6>>() == 32 + 24);
// SAFETY: `repr(C)`, every field is Zeroable.
unsafe impl<A: Address> Zeroable for FragmentOf<A> {}
// SAFETY: `repr(C)`, every field is Pod, and by the assertions above there is no padding.
unsafe impl Pod for FragmentOf<super::Be32> {}
// SAFETY: as above.
unsafe impl Pod for FragmentOf<super::Addr6> {}

/// Head of the packet handed to a reaper program; keys follow. For `release_mark` nothing but `count`
/// counts, and in place of `limit` the new [`crate::tcp::word::Marks`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Reap {
    /// One of [`reap_op`].
    pub op: u32,
    /// Number of keys that follow, at most as many as [`Reap::BYTES`] hold.
    pub count: u32,
    /// Silence in jiffies after which a live flow, or an embryo, may go.
    pub limit: u32,
    /// Silence in jiffies after which a closed flow may go.
    pub linger: u32,
}

impl Reap {
    /// Bytes of keys in one run (a test-run packet holds at most 3.5 kB).
    pub const BYTES: usize = 3200;
}

/// What the reaper is to do with the keys it is handed.
pub mod reap_op {
    /// Mark silent flows as dying.
    pub const CLAIM: u32 = 1;
    /// Remove flows that are still dying (one grace period after the claim).
    pub const REAP: u32 = 2;
    /// Remove old embryos.
    pub const EMBRYOS: u32 = 3;
    /// Report the clock: jiffies are written over the first 8 bytes that follow.
    pub const CLOCK: u32 = 4;
    /// Remove client sessions without live flows whose time is over. Keys are [`super::super::SessionKey`].
    pub const SESSIONS: u32 = 5;
    /// Give back claimed source ports whose flow is gone. Keys are [`super::super::SnatKey`].
    pub const SNAT: u32 = 6;
}

/// What became of a key, written over its last byte.
pub mod reap_result {
    /// Untouched: gone, young, or not as expected.
    pub const KEPT: u8 = 0;
    /// Claimed or removed as asked.
    pub const DONE: u8 = 1;
}
