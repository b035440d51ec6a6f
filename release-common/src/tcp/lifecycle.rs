//! What a segment means for a tracked connection.
//!
//! embryo → live (established, half-closed) → closed → removed. A FIN counts when the other end
//! acknowledges it. A RST counts when its number is the sender's own next one (what real aborts
//! carry) or the one its peer last acknowledged (RFC 5961 §3.2). Everything else that does not fit
//! the numbers is forwarded and changes nothing, so a blind FIN or RST cannot fake idleness.
//!
//! Segments that fit are those inside the window the receiver offered (RFC 9293 §3.10.7.4), with an
//! acknowledgement of something that was sent.

pub use super::step::{Seen, Step};
use super::word::{End, FlowWord, Phase};
use super::{after, later, same};
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

/// What a segment says, judged by the numbers of both ends: any of the constants. They are computed
/// without branches, of which the verifier would follow each with all that comes later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts(u64);

impl Facts {
    /// It fits the numbers of neither end.
    pub const NONE: Self = Self(0);
    /// A RST that the receiver accepts. Nothing else is said of one.
    pub const RESET: Self = Self(1);
    /// A FIN at the end of everything the sender sent.
    pub const FIN: Self = Self(1 << 1);
    /// Acknowledges the other end's FIN.
    pub const ACKS_FIN: Self = Self(1 << 2);
    /// Carries data in the place of what was taken for the sender's FIN, or beyond.
    pub const BEYOND_FIN: Self = Self(1 << 3);
    /// Valid, and no reset: its sender has a connection.
    pub const ALIVE: Self = Self(1 << 4);
    /// Of those, with data.
    pub const DATA: Self = Self(1 << 5);

    /// Whether one of `these` is among them.
    #[inline(always)]
    pub const fn has(self, these: Self) -> bool {
        self.0 & these.0 != 0
    }

    /// These and others.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// These but for some.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, some: Self) -> Self {
        Self(self.0 & !some.0)
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
        if facts.has(Facts::RESET) {
            return if word.is_live() { word.with_phase(Phase::ClosedRst) } else { word };
        }
        if facts.has(Facts::BEYOND_FIN) {
            word = word.without_fin(from);
            if !word.is_live() {
                word = word.with_phase(Phase::Live).with_restart();
            }
        }
        // A RST that the server's stack did not accept: it goes on talking.
        if facts.has(Facts::ALIVE)
            && matches!(from, End::Server)
            && matches!(word.phase(), Phase::ClosedRst)
        {
            word = word.with_phase(Phase::Live).with_restart();
        }
        if facts.has(Facts::FIN) {
            word = word.with_fin_seen(from);
        }
        if facts.has(Facts::ACKS_FIN) && word.is_live() {
            word = word.with_fin_acked(match from {
                End::Client => End::Server,
                End::Server => End::Client,
            });
        }
        word.with_spoken(from, facts.has(Facts::DATA))
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
) -> Facts {
    let to = match from {
        End::Client => End::Server,
        End::Server => End::Client,
    };
    if segment.has(flag::RST) {
        let own_next = segment.seq == me.next || word.fin_seen(from) && segment.seq == me.fin;
        return if own_next || segment.seq == peer.ack { Facts::RESET } else { Facts::NONE };
    }
    let payload = segment.payload();
    let with_data = (payload as u64).wrapping_neg() >> 63;
    let data_end = segment.seq.wrapping_add(payload);
    // One byte beyond the window: a probe of a closed window (RFC 9293 §3.8.6.1).
    let outside = later(data_end, peer.edge.wrapping_add(1))
        | later(peer.ack.wrapping_sub(MAX_BEHIND), segment.seq);
    let sent = peer.next.wrapping_add(word.fin_seen(to) as u32);
    let unsent = later(segment.ack, sent) | later(sent.wrapping_sub(MAX_UNACKED), segment.ack);
    let alive = segment.has(flag::ACK) as u64 & !(outside | unsent);
    // An ACK that overtook the FIN has counted it already. That of a fragmented segment stands in
    // its last fragment, see [`extend`].
    let fin = segment.has(flag::FIN) as u64
        & !segment.is_first_fragment() as u64
        & !later(me.next, data_end.wrapping_add(1));
    let acks_fin = word.fin_seen(to) as u64 & same(segment.ack, peer.fin);
    let beyond_fin = word.fin_seen(from) as u64
        & (later(segment.seq, me.fin) | with_data & later(data_end, me.fin.wrapping_sub(1)));
    let facts = Facts::ALIVE.0
        | fin << Facts::FIN.0.trailing_zeros()
        | acks_fin << Facts::ACKS_FIN.0.trailing_zeros()
        | beyond_fin << Facts::BEYOND_FIN.0.trailing_zeros()
        | with_data << Facts::DATA.0.trailing_zeros();
    Facts(facts & alive.wrapping_neg())
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
    let facts = Facts(forget(judge(word, from, &me, &peer, segment).0, word.0));
    let facts = if measures { facts } else { facts.without(Facts::DATA) };
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
    let fits = facts.has(Facts::ALIVE.with(Facts::RESET));
    if !fits {
        return Seen::nothing(Step::Unverified);
    }
    if word.is_live() || matches!(from, End::Server) {
        flow.last_packet().set(now);
    }
    if facts.has(Facts::ALIVE) && remember(&mine, me, word, from, segment, facts) {
        flow.last_data().set(now);
    }
    let data = facts.has(Facts::DATA) & word.measured();
    let again = after(me.next, segment.seq);
    match change(flow, word, from, facts) {
        Step::Spoke if !measures => Seen::nothing(Step::None),
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
    facts.has(Facts::ALIVE)
        && word.step(from, facts).0 == word.revived().0
        && segment.payload() == 0
        && !segment.has(flag::FIN)
        && segment.seq == next
        && segment.ack == me.ack
        && segment.ack == peer.next.wrapping_add(word.fin_seen(to) as u32)
        && !after(edge, me.edge)
}

/// Stores what a valid segment says of its sender: what changes alone, since another CPU may have
/// changed the rest. Returns whether it carried new data.
#[inline(always)]
fn remember<A: Ip>(
    mine: &Field<'_, Side>,
    me: Side,
    word: FlowWord,
    from: End,
    segment: &Headers<A>,
    facts: Facts,
) -> bool {
    let data_end = segment.seq.wrapping_add(segment.payload());
    let new_data = after(data_end, me.next);
    if new_data {
        mine.next().set(data_end);
    }
    if after(segment.ack, me.ack) {
        mine.ack().set(segment.ack);
    }
    let edge = segment.ack.wrapping_add(u32::from(segment.window) << word.scale(from));
    if after(edge, me.edge) {
        mine.edge().set(edge);
    }
    // A FIN in sequence replaces an earlier one that was not: that one may have been forged.
    if facts.has(Facts::FIN) && (!word.fin_seen(from) || segment.seq == me.next) {
        mine.fin().set(data_end.wrapping_add(1));
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
        update(flow, word, |word| word.step(from, Facts::FIN));
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
