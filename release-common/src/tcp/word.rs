//! State words: everything about an entry that must change at once, in 64 bits.
//!
//! Each word carries a tag of its incarnation. A preallocated hash element is reused at once after
//! a delete while a program on another CPU may still hold its pointer; that program's
//! compare-and-swap then fails because the tag is another.

pub use super::embryo::{EmbryoPhase, EmbryoWord};
use crate::abi::mode;

/// Phases of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Established or half-closed: somebody loses something if the instance stops now.
    Live,
    /// Both FINs were acknowledged; lingers for retransmits.
    ClosedFin,
    /// An acceptable RST was seen; lingers for retransmits.
    ClosedRst,
    /// Being removed or replaced at this very moment; nothing may be built on it.
    Dead,
}

/// State word of a flow.
///
/// Bits 0–1 phase · 4 client's FIN seen · 5 server's FIN seen · 6 client's FIN acknowledged ·
/// 7 server's FIN acknowledged · 8 dying · 9 restart · 10 replied (UDP) ·
/// 11 counted in its client's session · 12 one-way · 13 routed · 14 QUIC · 15 measured ·
/// 16–19 client's window scale · 20–23 server's window scale · 24–28 user space's [`Marks`] ·
/// 29 client has sent data · 30 server has sent data (both of measured flows only) · 32–63 tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowWord(pub u64);

/// The client's bit of a pair of flags; the server's is the next.
const FIN_SEEN: u32 = 4;
const FIN_ACKED: u32 = 6;
const DYING: u64 = 1 << 8;
const RESTART: u64 = 1 << 9;
const REPLIED: u64 = 1 << 10;
const IN_SESSION: u64 = 1 << 11;
const ONE_WAY: u64 = 1 << 12;
const ROUTED: u64 = 1 << 13;
const QUIC: u64 = 1 << 14;
const MEASURED: u32 = 15;
const BOTH_ACKED: u64 = 3 << FIN_ACKED;
const CLIENT_SCALE: u32 = 16;
const SERVER_SCALE: u32 = 20;
const MARKS: u32 = 24;
/// The client's bit of a pair of flags.
const SPOKEN: u32 = 29;
const TAG: u32 = 32;

/// What user space notes on a flow, and the packet path answers there: probes of silent ends, and
/// the operator's order to end it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks(pub u32);

impl Marks {
    /// A probe was sent to the client: its bare acknowledgement is the answer, and goes no further.
    pub const ASKED_CLIENT: Self = Self(1);
    /// A probe was sent to the server.
    pub const ASKED_SERVER: Self = Self(1 << 1);
    /// The client answered.
    pub const ANSWERED_CLIENT: Self = Self(1 << 2);
    /// The server answered.
    pub const ANSWERED_SERVER: Self = Self(1 << 3);
    /// It is to end: a RST that closes it counts as `forced`.
    pub const FORCED: Self = Self(1 << 4);
    const ALL: u32 = 31;

    /// All of both.
    #[inline(always)]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether all of `these` are set.
    #[inline(always)]
    pub const fn has(self, these: Self) -> bool {
        self.0 & these.0 == these.0
    }
}

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client.
    Client = 0,
    /// The server.
    Server = 1,
}

impl FlowWord {
    /// A live flow.
    #[inline(always)]
    pub const fn live(tag: u32, client_scale: u8, server_scale: u8) -> Self {
        Self(
            (tag as u64) << TAG
                | ((client_scale & 15) as u64) << CLIENT_SCALE
                | ((server_scale & 15) as u64) << SERVER_SCALE,
        )
    }

    /// The phase.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match self.0 & 3 {
            0 => Phase::Live,
            1 => Phase::ClosedFin,
            2 => Phase::ClosedRst,
            _ => Phase::Dead,
        }
    }

    /// The word with another phase.
    #[inline(always)]
    pub const fn with_phase(self, phase: Phase) -> Self {
        let bits = match phase {
            Phase::Live => 0,
            Phase::ClosedFin => 1,
            Phase::ClosedRst => 2,
            Phase::Dead => 3,
        };
        Self(self.0 & !3 | bits)
    }

    /// Whether it counts as active.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & 3 == 0
    }

    /// Whether `end` sent its FIN.
    #[inline(always)]
    pub const fn fin_seen(self, end: End) -> bool {
        self.0 & 1 << (FIN_SEEN + end as u32) != 0
    }

    /// The word after `end`'s FIN was seen.
    #[inline(always)]
    pub const fn with_fin_seen(self, end: End) -> Self {
        Self(self.0 | 1 << (FIN_SEEN + end as u32))
    }

    /// Whether `end`'s FIN was acknowledged by the other end.
    #[inline(always)]
    pub const fn fin_acked(self, end: End) -> bool {
        self.0 & 1 << (FIN_ACKED + end as u32) != 0
    }

    /// The word after `end`'s FIN was acknowledged; closes when both are.
    #[inline(always)]
    pub const fn with_fin_acked(self, end: End) -> Self {
        let word = Self(self.0 | 1 << (FIN_ACKED + end as u32));
        if word.0 & BOTH_ACKED == BOTH_ACKED { word.with_phase(Phase::ClosedFin) } else { word }
    }

    /// The word after traffic showed that `end` has not finished after all.
    #[inline(always)]
    pub const fn without_fin(self, end: End) -> Self {
        Self(self.0 & !(1 << (FIN_SEEN + end as u32) | 1 << (FIN_ACKED + end as u32)))
    }

    /// Whether one FIN was acknowledged: the flow is half-closed, and active.
    #[inline(always)]
    pub const fn half_closed(self) -> bool {
        self.is_live() && self.0 & BOTH_ACKED != 0
    }

    /// Whether the reaper has claimed it; any packet takes that back.
    #[inline(always)]
    pub const fn dying(self) -> bool {
        self.0 & DYING != 0
    }

    /// The word once claimed by the reaper.
    #[inline(always)]
    pub const fn with_dying(self) -> Self {
        Self(self.0 | DYING)
    }

    /// The word after a packet came.
    #[inline(always)]
    pub const fn revived(self) -> Self {
        Self(self.0 & !DYING)
    }

    /// Whether the instance answered a new SYN on this tuple: its old connection is gone, and the
    /// client's next acknowledgement begins the new one.
    #[inline(always)]
    pub const fn restart(self) -> bool {
        self.0 & RESTART != 0
    }

    /// The word after such an answer.
    #[inline(always)]
    pub const fn with_restart(self) -> Self {
        Self(self.0 | RESTART)
    }

    /// UDP: whether the instance has answered.
    #[inline(always)]
    pub const fn replied(self) -> bool {
        self.0 & REPLIED != 0
    }

    /// The word after the instance answered.
    #[inline(always)]
    pub const fn with_replied(self) -> Self {
        Self(self.0 | REPLIED)
    }

    /// Whether the flow is counted in its client's session.
    #[inline(always)]
    pub const fn in_session(self) -> bool {
        self.0 & IN_SESSION != 0
    }

    /// The word of a flow that is counted in its client's session, or is not.
    #[inline(always)]
    pub const fn with_session(self, joined: bool) -> Self {
        Self(self.0 & !IN_SESSION | if joined { IN_SESSION } else { 0 })
    }

    /// Whether only the client's packets pass here.
    #[inline(always)]
    pub const fn one_way(self) -> bool {
        self.0 & ONE_WAY != 0
    }

    /// Whether its packets are routed, so that one with a TTL of 1 does not arrive.
    #[inline(always)]
    pub const fn routed(self) -> bool {
        self.0 & ROUTED != 0
    }

    /// The word of a flow of a service with this mode, see [`crate::abi::mode`].
    #[inline(always)]
    pub const fn with_mode(self, mode: u8) -> Self {
        let one_way = if mode::one_way(mode) { ONE_WAY } else { 0 };
        let routed = if mode::routed(mode) { ROUTED } else { 0 };
        Self(self.0 & !(ONE_WAY | ROUTED) | one_way | routed)
    }

    /// Whether its packets carry QUIC connection ids, which come before the tuple.
    #[inline(always)]
    pub const fn quic(self) -> bool {
        self.0 & QUIC != 0
    }

    /// The word of a QUIC flow, or of another.
    #[inline(always)]
    pub const fn with_quic(self, quic: bool) -> Self {
        Self(self.0 & !QUIC | if quic { QUIC } else { 0 })
    }

    /// Whether what it does is measured: no test rule or test frontend placed it, and its beginning
    /// was seen.
    #[inline(always)]
    pub const fn measured(self) -> bool {
        self.0 >> MEASURED & 1 != 0
    }

    /// The word of a flow that is measured as its embryo was.
    #[inline(always)]
    pub const fn with_measured_as(self, embryo: EmbryoWord) -> Self {
        let measured = embryo.measured() as u64;
        Self(self.0 & !(1 << MEASURED) | measured << MEASURED)
    }

    /// Which ends have sent data, of a measured flow: bit 0 the client, bit 1 the server.
    #[inline(always)]
    pub const fn has_spoken(self) -> u64 {
        self.0 >> SPOKEN & 3
    }

    /// The word after `end` sent data, if it did; measured flows only.
    #[inline(always)]
    pub const fn with_spoken(self, end: End, data: bool) -> Self {
        Self(self.0 | (self.0 >> MEASURED & data as u64) << (SPOKEN + end as u32))
    }

    /// Shift of `end`'s window.
    #[inline(always)]
    pub const fn scale(self, end: End) -> u32 {
        let at = match end {
            End::Client => CLIENT_SCALE,
            End::Server => SERVER_SCALE,
        };
        (self.0 >> at & 15) as u32
    }

    /// User space's marks.
    #[inline(always)]
    pub const fn marks(self) -> Marks {
        Marks((self.0 >> MARKS) as u32 & Marks::ALL)
    }

    /// The word with these marks, and no others.
    #[inline(always)]
    pub const fn with_marks(self, marks: Marks) -> Self {
        let marks = (marks.0 & Marks::ALL) as u64;
        Self(self.0 & !((Marks::ALL as u64) << MARKS) | marks << MARKS)
    }

    /// Whether a probe of `end` is unanswered.
    #[inline(always)]
    pub const fn asked(self, end: End) -> bool {
        self.0 & 1 << (MARKS + end as u32) != 0
    }

    /// The word after `end` answered its probe.
    #[inline(always)]
    pub const fn with_answer(self, end: End) -> Self {
        let asked = 1 << (MARKS + end as u32);
        Self(self.revived().0 & !asked | asked << 2)
    }

    /// Incarnation tag.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> TAG) as u32
    }
}
