//! What a segment means for a tracked connection.
//!
//! embryo → live (established, half-closed) → closed → removed. A FIN counts when the other end
//! acknowledges it. A RST counts when its number is the sender's own next one (what real aborts
//! carry) or the one its peer last acknowledged (RFC 5961 §3.2). Everything else that does not fit
//! the numbers is forwarded and changes nothing, so a blind FIN or RST cannot fake idleness.
//!
//! Segments that fit are those inside the window the receiver offered (RFC 9293 §3.10.7.4), with an
//! acknowledgement of something that was sent.

use super::after;
pub use super::step::{Seen, Step};
use super::word::{End, FlowWord, Phase};
use crate::abi::{Flow, Side};
use crate::packet::{Headers, Ip, flag};
use crate::shared::{Field, Shared};
use crate::verifier::forget;

/// How far behind the receiver's acknowledgement a retransmission may start, in bytes. An old
/// segment changes no number, so a generous value costs nothing.
const MAX_BEHIND: u32 = 1 << 24;
/// How far behind what was sent an acknowledgement may be, in bytes: the largest window there is
/// (RFC 7323 §2.3).
const MAX_UNACKED: u32 = 1 << 30;
/// Most bytes of an IP packet.
const MAX_PACKET: u32 = 65_535;
/// Attempts to change a word that other CPUs change too. Each failure means that another packet of
/// the same flow made progress.
const ATTEMPTS: usize = 4;

/// What a segment says, judged by the numbers of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// A RST that the receiver accepts.
    pub reset: bool,
    /// A FIN at the end of everything the sender sent.
    pub fin: bool,
    /// Acknowledges the other end's FIN.
    pub acks_fin: bool,
    /// Carries data in the place of what was taken for the sender's FIN, or beyond.
    pub beyond_fin: bool,
    /// Valid, and no reset: its sender has a connection.
    pub alive: bool,
    /// Of those, with data.
    pub data: bool,
}

impl Facts {
    const fn bits(self) -> u64 {
        self.reset as u64
            | (self.fin as u64) << 1
            | (self.acks_fin as u64) << 2
            | (self.beyond_fin as u64) << 3
            | (self.alive as u64) << 4
            | (self.data as u64) << 5
    }

    const fn from_bits(bits: u64) -> Self {
        Self {
            reset: bits & 1 != 0,
            fin: bits & 2 != 0,
            acks_fin: bits & 4 != 0,
            beyond_fin: bits & 8 != 0,
            alive: bits & 16 != 0,
            data: bits & 32 != 0,
        }
    }
}

impl FlowWord {
    /// The word after a segment from `from` with these facts. Pure; every packet also takes back a
    /// reaper's claim.
    #[inline(always)]
    pub const fn step(self, from: End, facts: Facts) -> Self {
        let mut word = self.revived();
        if matches!(word.phase(), Phase::Dead) {
            return self;
        }
        if facts.reset {
            return if word.is_live() { word.with_phase(Phase::ClosedRst) } else { word };
        }
        if facts.beyond_fin {
            word = word.without_fin(from);
            if !word.is_live() {
                word = word.with_phase(Phase::Live).with_restart();
            }
        }
        // A RST that the server's stack did not accept: it goes on talking.
        if facts.alive && matches!(from, End::Server) && matches!(word.phase(), Phase::ClosedRst) {
            word = word.with_phase(Phase::Live).with_restart();
        }
        if facts.fin {
            word = word.with_fin_seen(from);
        }
        if facts.acks_fin && word.is_live() {
            word = word.with_fin_acked(match from {
                End::Client => End::Server,
                End::Server => End::Client,
            });
        }
        word.with_spoken(from, facts.data)
    }
}

/// Judges `segment` by what is known of its sender and its receiver.
#[inline(always)]
pub const fn judge<A: Ip>(
    word: FlowWord,
    from: End,
    me: &Side,
    peer: &Side,
    segment: &Headers<A>,
) -> Option<Facts> {
    let to = match from {
        End::Client => End::Server,
        End::Server => End::Client,
    };
    if segment.has(flag::RST) {
        let own_next = segment.seq == me.next || word.fin_seen(from) && segment.seq == me.fin;
        return if own_next || segment.seq == peer.ack {
            Some(Facts { reset: true, ..NOTHING })
        } else {
            None
        };
    }
    let data_end = segment.seq.wrapping_add(segment.payload());
    // One byte beyond the window: a probe of a closed window (RFC 9293 §3.8.6.1).
    let in_window = !after(data_end, peer.edge.wrapping_add(1))
        && !after(peer.ack.wrapping_sub(MAX_BEHIND), segment.seq);
    let sent = peer.next.wrapping_add(word.fin_seen(to) as u32);
    let acks_sent =
        !after(segment.ack, sent) && !after(sent.wrapping_sub(MAX_UNACKED), segment.ack);
    if !in_window || !acks_sent || !segment.has(flag::ACK) {
        return None;
    }
    Some(Facts {
        reset: false,
        // An ACK that overtook the FIN has counted it already. That of a fragmented segment stands
        // in its last fragment, see [`extend`].
        fin: segment.has(flag::FIN)
            && !segment.is_first_fragment()
            && !after(me.next, data_end.wrapping_add(1)),
        acks_fin: word.fin_seen(to) && segment.ack == peer.fin,
        beyond_fin: word.fin_seen(from)
            && (after(segment.seq, me.fin)
                || segment.payload() > 0 && after(data_end, me.fin.wrapping_sub(1))),
        alive: true,
        data: above_zero(segment.payload()),
    })
}

const NOTHING: Facts = Facts {
    reset: false,
    fin: false,
    acks_fin: false,
    beyond_fin: false,
    alive: false,
    data: false,
};

/// Whether a length is more than 0, without a branch for the verifier to follow.
#[inline(always)]
const fn above_zero(length: u32) -> bool {
    (length as u64).wrapping_neg() >> 63 == 1
}

/// What a server may have said whose packets do not pass here: everything that fits. The client's
/// own next number then is all that a RST is judged by.
#[inline(always)]
const fn unseen_peer<A: Ip>(me: &Side, segment: &Headers<A>) -> Side {
    Side { next: segment.ack, ack: me.next, edge: me.next.wrapping_add(MAX_UNACKED), fin: 0 }
}

/// Takes a segment of a tracked flow into account: time stamps, numbers, state. One that fits the
/// numbers of neither end changes nothing. SYNs are not for this function. `measures`: whether what is
/// measured is of interest.
#[inline(always)]
pub fn observe<A: Ip>(
    flow: Shared<'_, Flow>,
    from: End,
    segment: &Headers<A>,
    now: u32,
    measures: bool,
) -> Seen {
    let word = FlowWord(flow.state().get());
    let (mine, theirs) = match from {
        End::Client => (flow.client(), flow.server()),
        End::Server => (flow.server(), flow.client()),
    };
    let me = mine.get();
    let peer = if word.one_way() { unseen_peer(&me, segment) } else { theirs.get() };
    let facts = judge(word, from, &me, &peer, segment).unwrap_or(NOTHING);
    let facts = Facts { data: facts.data & measures, ..facts };
    let facts = Facts::from_bits(forget(facts.bits(), word.0));
    if word.asked(from) {
        let answers = answers(word, from, &me, &peer, segment, facts);
        // Where another CPU was faster, this was not needed: something else came from this end.
        if forget(u64::from(answers), word.0) != 0
            && flow.state().swap_if(word.0, word.with_answer(from).0)
        {
            return Seen::nothing(Step::Answer);
        }
    }
    // Packets that fit nothing keep no entry alive, and a client's none that is closed.
    let counts = (facts.alive || facts.reset) && (word.is_live() || matches!(from, End::Server));
    if counts {
        flow.last_packet().set(now);
    } else if facts == NOTHING {
        return Seen::nothing(Step::Unverified);
    }
    if facts.alive && remember(&mine, me, word, from, segment, facts) {
        flow.last_data().set(now);
    }
    let data = facts.data & word.measured();
    let again = after(me.next, segment.seq);
    match change(flow, word, from, facts) {
        Step::Spoke if !measures => Seen::nothing(Step::None),
        Step::None if !facts.alive && !facts.reset => Seen::nothing(Step::Unverified),
        step if !measures => Seen::nothing(step),
        step => Seen { step, data, again, asked_at: asked_at(word, from, &me) },
    }
}

/// When the client's first data passed, as it stood at the server's end before this segment.
#[inline(always)]
fn asked_at(word: FlowWord, from: End, me: &Side) -> u32 {
    if matches!(from, End::Client) {
        return 0;
    }
    let known = !word.fin_seen(from) & (me.fin != me.unasked());
    // Without a branch for the verifier to follow.
    let mask = forget(u64::from(known), word.0).wrapping_neg();
    (u64::from(me.fin) & mask) as u32
}

/// Whether a segment is what a probe is answered with (RFC 9293 §3.10.7.4): an acknowledgement of
/// all that was sent, and said before, without data or a larger window.
#[inline(always)]
const fn answers<A: Ip>(
    word: FlowWord,
    from: End,
    me: &Side,
    peer: &Side,
    segment: &Headers<A>,
    facts: Facts,
) -> bool {
    let to = match from {
        End::Client => End::Server,
        End::Server => End::Client,
    };
    let next = me.next.wrapping_add(word.fin_seen(from) as u32);
    let edge = segment.ack.wrapping_add((segment.window as u32) << word.scale(from));
    facts.alive
        && word.step(from, facts).0 == word.revived().0
        && segment.payload() == 0
        && !segment.has(flag::FIN)
        && segment.seq == next
        && segment.ack == me.ack
        && segment.ack == peer.next.wrapping_add(word.fin_seen(to) as u32)
        && !after(edge, me.edge)
}

/// Stores what a valid segment says of its sender. Returns whether it carried new data.
#[inline(always)]
fn remember<A: Ip>(
    mine: &Field<'_, Side>,
    me: Side,
    word: FlowWord,
    from: End,
    segment: &Headers<A>,
    facts: Facts,
) -> bool {
    let mut new = me;
    let data_end = segment.seq.wrapping_add(segment.payload());
    let new_data = after(data_end, me.next);
    if new_data {
        new.next = data_end;
    }
    if after(segment.ack, me.ack) {
        new.ack = segment.ack;
    }
    let edge = segment.ack.wrapping_add(u32::from(segment.window) << word.scale(from));
    if after(edge, me.edge) {
        new.edge = edge;
    }
    // A FIN in sequence replaces an earlier one that was not: that one may have been forged.
    if facts.fin && (!word.fin_seen(from) || segment.seq == me.next) {
        new.fin = data_end.wrapping_add(1);
    }
    if new != me {
        mine.set(new);
    }
    new_data && segment.payload() > 0
}

/// Takes into account where a fragmented segment ends, which its last fragment alone tells, and the
/// FIN that stands there. An end beyond the receiver's window changes nothing.
#[inline(always)]
pub fn extend(flow: Shared<'_, Flow>, from: End, end: u32, fin: bool) {
    let word = FlowWord(flow.state().get());
    let (mine, theirs) = match from {
        End::Client => (flow.client(), flow.server()),
        End::Server => (flow.server(), flow.client()),
    };
    let mut side = mine.get();
    let beyond = after(end, theirs.get().edge.wrapping_add(1)) && !word.one_way();
    if beyond || after(end, side.next.wrapping_add(MAX_PACKET)) || after(side.next, end) {
        return;
    }
    side.next = end;
    // An ACK that overtook the last fragment was not for a FIN that was known.
    let new_fin = fin && !word.fin_seen(from);
    if new_fin {
        side.fin = end.wrapping_add(1);
    }
    mine.set(side);
    if new_fin {
        update(flow, word, |word| word.step(from, Facts { fin: true, ..NOTHING }));
    }
}

/// Marks a flow whose instance answered a new SYN, see [`FlowWord::restart`]. `first` is the word
/// that was judged.
#[inline(always)]
pub fn mark_restart(flow: Shared<'_, Flow>, first: FlowWord) {
    update(flow, first, FlowWord::with_restart);
}

/// Changes the state word, if the facts change it.
#[inline(always)]
fn change(flow: Shared<'_, Flow>, first: FlowWord, from: End, facts: Facts) -> Step {
    match update(flow, first, |word| word.step(from, facts)) {
        Some((before, now)) => Step::between(before, now),
        None => Step::None,
    }
}

/// Changes the state word of the incarnation that `first` was read from, with one compare-and-swap,
/// tried again where another CPU changed it meanwhile. Returns the words before and after.
#[inline(always)]
pub fn update(
    flow: Shared<'_, Flow>,
    first: FlowWord,
    next: impl Fn(FlowWord) -> FlowWord,
) -> Option<(FlowWord, FlowWord)> {
    let mut word = first;
    for _ in 0..ATTEMPTS {
        let next = FlowWord(forget(next(word).0, first.0));
        if next == word {
            return None;
        }
        if flow.state().swap_if(word.0, next.0) {
            return Some((word, next));
        }
        word = FlowWord(flow.state().get());
        if word.tag() != first.tag() {
            return None;
        }
    }
    None
}
