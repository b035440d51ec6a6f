//! Properties of the lifecycle.

extern crate std;

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use std::sync::Barrier;
use std::thread;
use std::vec::Vec;

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::after;
use super::lifecycle::{Facts, Step, judge, observe};
use super::word::{EmbryoPhase, EmbryoWord, End, FlowWord, Phase};
use crate::abi::{Be16, Be32, Flow, IPPROTO_TCP, Side};
use crate::packet::{Fragment, Headers, IpHeader, flag};
use crate::shared::Shared;

fn end() -> impl Strategy<Value = End> {
    any::<bool>().prop_map(|server| if server { End::Server } else { End::Client })
}

/// What `judge` can return: a RST is nothing else, everything else is alive.
fn facts() -> impl Strategy<Value = (End, Facts)> {
    const OTHERS: &[Facts] = &[Facts::FIN, Facts::ACKS_FIN, Facts::BEYOND_FIN, Facts::DATA];
    let others = prop::collection::vec(prop::sample::select(OTHERS), 0..5)
        .prop_map(|others| others.into_iter().fold(Facts::ALIVE, Facts::with));
    (end(), prop_oneof![Just(Facts::RESET), others])
}

/// Distances at which conditions change.
const NEAR: &[u32] = &[0, 1 << 16, 1 << 24, 1 << 30, 1 << 31, u32::MAX];

/// Numbers close to each other, and to where they begin again.
fn number() -> impl Strategy<Value = u32> {
    let near = prop::sample::select(NEAR);
    (near, -3..4_i32).prop_map(|(near, by)| near.wrapping_add_signed(by))
}

fn side() -> impl Strategy<Value = Side> {
    [number(), number(), number(), number()].prop_map(|[next, ack, edge, fin]| Side {
        next,
        ack,
        edge,
        fin,
    })
}

/// [`judge`] as one would write it down.
fn judged(
    word: FlowWord,
    (from, to): (End, End),
    (me, peer): (&Side, &Side),
    segment: &Headers<Be32>,
) -> Facts {
    if segment.has(flag::RST) {
        let own_next = segment.seq == me.next || word.fin_seen(from) && segment.seq == me.fin;
        return if own_next || segment.seq == peer.ack { Facts::RESET } else { Facts::NONE };
    }
    let data = segment.payload() > 0;
    let data_end = segment.seq.wrapping_add(segment.payload());
    let in_window = !after(data_end, peer.edge.wrapping_add(1))
        && !after(peer.ack.wrapping_sub(1 << 24), segment.seq);
    let sent = peer.next.wrapping_add(u32::from(word.fin_seen(to)));
    let acks_sent = !after(segment.ack, sent) && !after(sent.wrapping_sub(1 << 30), segment.ack);
    if !in_window || !acks_sent || !segment.has(flag::ACK) {
        return Facts::NONE;
    }
    let mut facts = Facts::ALIVE;
    for (fact, holds) in [
        (
            Facts::FIN,
            segment.has(flag::FIN)
                && !segment.is_first_fragment()
                && !after(me.next, data_end.wrapping_add(1)),
        ),
        (Facts::ACKS_FIN, word.fin_seen(to) && segment.ack == peer.fin),
        (
            Facts::BEYOND_FIN,
            word.fin_seen(from)
                && (after(segment.seq, me.fin) || data && after(data_end, me.fin.wrapping_sub(1))),
        ),
        (Facts::DATA, data),
    ] {
        if holds {
            facts = facts.with(fact);
        }
    }
    facts
}

proptest! {
    /// Whatever the segments say: a word closes and re-opens in turn, each change of liveness is
    /// reported once, and neither tag nor scales change.
    #[test]
    fn closes_and_reopens_in_turn(
        tag: u32, scales in (0..15_u8, 0..15_u8), measured: bool,
        steps in prop::collection::vec((facts(), any::<bool>()), 0..60),
    ) {
        let embryo = EmbryoWord::syn(tag, None).with_measured(measured, false);
        let first = FlowWord::live(tag, scales.0, scales.1).with_measured_as(embryo);
        let (mut word, mut live, mut spoke) = (first, 1, 0);
        for ((from, facts), claimed) in steps {
            if claimed {
                word = word.with_dying();
            }
            let next = word.step(from, facts);
            match Step::between(word, next) {
                Step::ClosedFin | Step::ClosedRst => live -= 1,
                Step::Reopened => live += 1,
                Step::Spoke => spoke += 1,
                Step::None | Step::Unverified | Step::Answer | Step::Forced => {}
            }
            prop_assert_eq!(live, i32::from(next.is_live()));
            prop_assert!(!next.dying());
            prop_assert_eq!(next.measured(), measured);
            prop_assert!(spoke <= next.has_spoken().count_ones());
            prop_assert!(measured || next.has_spoken() == 0);
            prop_assert_eq!(next.tag(), tag);
            prop_assert_eq!(next.scale(End::Client), u32::from(scales.0));
            prop_assert_eq!(next.scale(End::Server), u32::from(scales.1));
            if matches!(next.phase(), Phase::ClosedFin) && word.is_live() {
                prop_assert!(next.fin_acked(End::Client) && next.fin_acked(End::Server));
            }
            // The same segment again changes nothing but a re-opening that it is itself.
            if !facts.has(Facts::BEYOND_FIN.with(Facts::RESET)) {
                prop_assert_eq!(Step::between(next, next.step(from, facts)), Step::None);
            }
            word = next;
        }
    }

    /// What is computed without branches is what the rules say.
    #[test]
    fn judges_by_the_rules(
        from in end(), sides in (side(), side()), fins: [bool; 2], seq in number(), ack in number(),
        flags: u8, payload in 0..3_u32, first_fragment: bool,
    ) {
        let to = if matches!(from, End::Client) { End::Server } else { End::Client };
        let word = fins.into_iter().zip([from, to]).filter(|(seen, _)| *seen);
        let word = word.fold(FlowWord::live(1, 0, 0), |word, (_, end)| word.with_fin_seen(end));
        let mut segment = segment(flags, seq, ack);
        segment.ip.len += payload;
        if first_fragment {
            segment.ip.fragment = Fragment::FIRST;
        }
        let (me, peer) = (&sides.0, &sides.1);
        let want = judged(word, (from, to), (me, peer), &segment);
        prop_assert_eq!(judge(word, from, me, peer, &segment), want);
    }

    /// Nothing brings a dead word back.
    #[test]
    fn dead_stays_dead(tag: u32, (from, facts) in facts(), dying: bool) {
        let word = FlowWord::live(tag, 0, 0).with_phase(Phase::Dead);
        let word = if dying { word.with_dying() } else { word };
        prop_assert_eq!(word.step(from, facts), word);
    }

    /// A client's segments alone close nothing but by a RST.
    #[test]
    fn one_end_alone_does_not_close(steps in prop::collection::vec(facts(), 0..60)) {
        let mut word = FlowWord::live(1, 0, 0);
        for (_, facts) in steps {
            word = word.step(End::Client, facts.without(Facts::RESET));
            prop_assert!(word.is_live());
        }
    }

    /// An embryo's word keeps what was put in.
    #[test]
    fn embryo_words(
        tag: u32, client in prop::option::of(0..15_u8), server in prop::option::of(0..15_u8),
        seq: u32, tried: u16, version: u8,
    ) {
        let syn = EmbryoWord::syn(tag, client);
        prop_assert_eq!(syn.phase(), EmbryoPhase::Syn);
        let answered = syn.with_syn_ack(seq, server);
        prop_assert_eq!(answered.phase(), EmbryoPhase::SynAck);
        prop_assert_eq!((answered.server_seq(), answered.tag()), (seq, tag & 0xf_ffff));
        for (measured, waits) in [(false, false), (true, false), (true, true)] {
            let marked = syn.with_measured(measured, waits);
            prop_assert_eq!((marked.measured(), marked.waits()), (measured, waits));
            let marked = marked.ended().begun();
            prop_assert_eq!((marked.measured(), marked.waits()), (measured, waits));
            let marked = marked.with_syn_ack(seq, server);
            prop_assert_eq!((marked.measured(), marked.waits()), (measured, false));
            prop_assert_eq!(marked.with_measured(false, false), answered);
        }
        let both = client.zip(server).unwrap_or((0, 0));
        prop_assert_eq!(answered.scales(), both);
        prop_assert_eq!(answered.with_syn_ack(seq, server), answered);
        prop_assert_eq!(answered.ended().phase(), EmbryoPhase::Ended);
        let trial = EmbryoWord::trial(tag, tried, version);
        prop_assert_eq!(trial.phase(), EmbryoPhase::Trial);
        prop_assert_eq!((trial.tried(), trial.version(), trial.tag()), (tried, version, tag & 0xf_ffff));
    }
}

fn segment(flags: u8, seq: u32, ack: u32) -> Headers<Be32> {
    Headers {
        ip: IpHeader {
            source: Be32(0),
            destination: Be32(0),
            protocol: IPPROTO_TCP,
            ttl: 64,
            tos: 0,
            dont_fragment: true,
            fragment: Fragment::WHOLE,
            ident: 0,
            fragment_offset: 0,
            len: 40,
            header: 20,
        },
        at: 14,
        source_port: Be16(0),
        destination_port: Be16(0),
        seq,
        ack,
        window: 0xffff,
        transport_header: 20,
        flags,
        code: 0,
    }
}

/// A flow that several threads use.
struct Racing(UnsafeCell<Flow>);

// SAFETY: used through `Shared` alone, whose accesses are volatile or atomic, as on several CPUs.
unsafe impl Sync for Racing {}

impl Racing {
    fn shared(&self) -> Shared<'_, Flow> {
        // SAFETY: the cell lives as long as the reference and is aligned.
        unsafe { Shared::new(NonNull::new_unchecked(self.0.get())) }
    }
}

/// Both FINs were sent; their acknowledgements, repetitions and a RST come on four threads at once.
#[test]
fn closes_once_on_several_threads() {
    let word = FlowWord::live(9, 0, 0).with_fin_seen(End::Client).with_fin_seen(End::Server);
    let side = |next: u32, ack| Side { next, ack, edge: ack + 65_535, fin: next + 1 };
    let packets = [
        (End::Client, segment(flag::ACK, 101, 901)),
        (End::Server, segment(flag::ACK, 901, 101)),
        (End::Client, segment(flag::ACK | flag::FIN, 100, 901)),
        (End::Client, segment(flag::RST, 101, 0)),
    ];
    for round in 0..2000 {
        let flow = Racing(UnsafeCell::new(Flow {
            state: word.0,
            client: side(100, 900),
            server: side(900, 100),
            ..Flow::zeroed()
        }));
        // Without the RST in every other round, so that both ways to close are run.
        let packets = &packets[..3 + round % 2];
        let barrier = Barrier::new(packets.len());
        let steps: Vec<Step> = thread::scope(|scope| {
            let run = |(from, segment)| {
                let (flow, barrier) = (&flow, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    observe(flow.shared(), from, &segment, 1, true).step
                })
            };
            let threads: Vec<_> = packets.iter().copied().map(run).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let count = |step| steps.iter().filter(|&&is| is == step).count();
        let closed = count(Step::ClosedFin) + count(Step::ClosedRst);
        let live = usize::from(FlowWord(flow.shared().state().get()).is_live());
        assert_eq!(1 + count(Step::Reopened), closed + live, "{steps:?}");
        if round % 2 == 0 {
            assert_eq!((closed, live), (1, 0), "{steps:?}");
        }
    }
}
