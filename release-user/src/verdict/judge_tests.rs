//! Each way to `busy` and to `unknown`, one fact changed at a time.

use std::time::Duration;

use super::*;
use crate::api::types::{FlowCounts, InstanceCounters};
use crate::sockets::State;
use crate::verdict::sockets::{Answer, Proof};

/// Truly idle: 100 flows opened and closed, long quiet.
fn idle() -> Facts {
    let counters = InstanceCounters {
        placed: 101,
        opened: 99,
        adopted: 1,
        closed_fin: 90,
        closed_rst: 9,
        superseded: 1,
        refused: 2,
        ..InstanceCounters::default()
    };
    let totals =
        Totals { counters, trials: 1, embryos_ended: 2, last_packet: 5, ..Totals::default() };
    Facts {
        closed: true,
        closed_at: 7,
        generation: 9,
        samples: vec![totals; 3],
        after: totals,
        tally: Tally {
            flows: FlowCounts { closing: 3, ..FlowCounts::default() },
            newest_generation: 6,
            oldest_opened_at: None,
            sessions: 0,
        },
        entries: 40,
        quiet: Some(Duration::from_secs(2)),
        settle: Duration::from_secs(1),
        oldest: None,
        lost_past: Vec::new(),
        drift: 0,
        detached: Vec::new(),
        one_way: false,
        tcp_only: true,
        datagrams: None,
        sockets: None,
    }
}

/// Less than `settle`.
const A_MOMENT: Duration = Duration::from_millis(999);

fn with(change: impl FnOnce(&mut Facts)) -> Judgement {
    let mut facts = idle();
    change(&mut facts);
    judge(&facts)
}

#[test]
fn idle_needs_every_item() {
    let judgement = judge(&idle());
    assert_eq!(judgement.verdict, Verdict::Idle, "{:?}", judgement.reasons);
    assert!(judgement.reasons.is_empty());
    assert!(judgement.evidence.iter().all(|item| item.ok), "{:?}", judgement.evidence);
    assert_eq!(judgement.counts.closing, 3, "lingering entries never block it");
}

#[test]
fn never_used_is_idle() {
    let judgement = with(|facts| {
        facts.samples = vec![Totals::default(); 3];
        facts.after = Totals::default();
        facts.tally = Tally::default();
        facts.quiet = None;
    });
    assert_eq!(judgement.verdict, Verdict::Idle, "{:?}", judgement.reasons);
}

/// What is seen: the item that it speaks by → verdict, and a part of the reason.
#[test]
fn one_fact_at_a_time() {
    type Change = fn(&mut Facts);
    let cases: &[(&str, Change, Verdict, &str)] = &[
        ("flow-table", |f| live(f, 1), Verdict::Busy, "1 active flow"),
        ("flow-table", |f| live(f, 2), Verdict::Busy, "2 active flows"),
        ("embryos", embryo, Verdict::Busy, "1 handshake in progress"),
        ("sessions", |f| f.tally.sessions = 1, Verdict::Busy, "1 held session still"),
        ("closed-to-new-flows", |f| f.closed = false, Verdict::Busy, "takes new flows"),
        ("opened-frozen", |f| f.samples[0].counters.opened -= 1, Verdict::Busy, "while it was"),
        ("opened-frozen", |f| f.samples[0].counters.adopted -= 1, Verdict::Busy, "while it was"),
        ("sockets", |f| f.sockets = sockets(1), Verdict::Busy, "1 socket remains"),
        ("sockets", |f| f.sockets = unknown_sockets(), Verdict::Unknown, "agent: gone"),
        ("no-new-flows", |f| f.tally.newest_generation = 7, Verdict::Unknown, "generation 7"),
        ("gauge", |f| f.drift = -2, Verdict::Unknown, "gauge is off by -2"),
        ("conservation", drift, Verdict::Unknown, "differ by 1"),
        ("expired-unproven", expired, Verdict::Unknown, "1 flow ended by a timer"),
        ("untracked", |f| f.after.counters.untracked = 4, Verdict::Unknown, "4 flows forwarded"),
        ("embryos-evicted", |f| f.after.trials += 1, Verdict::Unknown, "1 of its handshakes"),
        ("both-directions", |f| f.one_way = true, Verdict::Unknown, "clients' half"),
        ("quiet", |f| f.quiet = Some(A_MOMENT), Verdict::Unknown, "not settled"),
        ("known-since-start", |f| f.lost_past = vec!["a".into()], Verdict::Unknown, "made anew"),
        ("attached", |f| f.detached = vec!["eth0".into()], Verdict::Unknown, "eth0"),
    ];
    for (name, change, verdict, reason) in cases {
        let judgement = with(change);
        assert_eq!(judgement.verdict, *verdict, "{name}: {:?}", judgement.reasons);
        assert!(judgement.reasons[0].contains(reason), "{name}: {:?}", judgement.reasons);
        assert!(!item(&judgement, name).ok, "{name}: {:?}", judgement.evidence);
    }
    // No item that cannot speak against it.
    for Evidence { name, .. } in judge(&idle()).evidence {
        assert!(cases.iter().any(|case| case.0 == name), "nothing is lost by {name}");
    }
}

/// Sockets, asked twice, of which `remaining` are left open by their client.
fn sockets(remaining: u64) -> Option<Sockets> {
    let mut found = Sockets::new(Vec::new());
    for _ in 0..2 {
        let mut summary = Summary::default();
        summary.states.insert(State::CloseWait, remaining);
        let age = Duration::from_millis(1);
        found.look(vec![(
            "here".to_owned(),
            Answer::Known { summary, proof: Proof::Listener, age },
        )]);
    }
    Some(found)
}

/// As `found`, but that in the end somebody did not answer.
fn and_unknown(found: Option<Sockets>) -> Option<Sockets> {
    let mut found = found?;
    found.look(vec![("there".to_owned(), Answer::Unknown("agent: gone".to_owned()))]);
    Some(found)
}

/// None seen, but somebody did not answer.
fn unknown_sockets() -> Option<Sockets> {
    and_unknown(sockets(0))
}

fn item<'a>(judgement: &'a Judgement, name: &str) -> &'a Evidence {
    judgement.evidence.iter().find(|item| item.name == name).unwrap()
}

/// What each doubt about connections that the tables do not know comes to with and without sockets.
#[test]
fn sockets_answer_doubts_about_unknown_connections() {
    type Change = fn(&mut Facts);
    let cases: &[(&str, Change)] = &[
        ("both-directions", |f| f.one_way = true),
        ("expired-unproven", expired),
        ("untracked", |f| f.after.counters.untracked = 4),
        ("embryos-evicted", |f| f.after.trials += 1),
        ("known-since-start", |f| f.lost_past = vec!["a".into()]),
    ];
    for (name, change) in cases {
        let judge = |sockets: Option<Sockets>, tcp_only| {
            with(|facts| {
                change(facts);
                facts.sockets = sockets;
                facts.tcp_only = tcp_only;
            })
        };
        assert_eq!(judge(None, true).verdict, Verdict::Unknown, "{name}");
        let answered = judge(sockets(0), true);
        assert_eq!(answered.verdict, Verdict::Idle, "{name}: {:?}", answered.reasons);
        let detail = &item(&answered, name).detail;
        assert!(detail.ends_with("answered by the sockets"), "{name}: {detail}");
        // Where UDP is among it, sockets prove nothing; but no UDP flow expires.
        let udp = judge(sockets(0), false);
        if *name == "expired-unproven" {
            assert_eq!(udp.verdict, Verdict::Idle, "{name}: {:?}", udp.reasons);
        } else {
            assert_eq!(udp.verdict, Verdict::Unknown, "{name}");
            let reason = &udp.reasons[0];
            assert!(reason.contains("do not answer it: UDP"), "{name}: {reason}");
        }
        assert_eq!(judge(sockets(1), true).verdict, Verdict::Busy, "{name}");
    }
}

/// A timeout is how datagrams end, where both directions are seen; TCP's proves nothing beside it.
#[test]
fn datagrams_end_by_their_timeout() {
    let udp = |change: fn(&mut Facts)| {
        with(|facts| {
            let answered = Duration::from_secs(180);
            let unanswered = Duration::from_millis(1500);
            facts.datagrams = Some(Datagrams { answered, unanswered });
            facts.tcp_only = false;
            for totals in facts.samples.iter_mut().chain([&mut facts.after]) {
                totals.counters.closed_fin -= 3;
                totals.counters.timed_out += 3;
            }
            change(facts);
        })
    };
    let judgement = udp(|_| ());
    assert_eq!(judgement.verdict, Verdict::Idle, "{:?}", judgement.reasons);
    assert_eq!(judgement.counts.timed_out, 3);
    let said = "3 flows ended by the timeout of 180 s (1.5 s unanswered), which is the definition \
                for datagrams";
    assert_eq!(item(&judgement, "datagrams").detail, said);
    let mixed = udp(expired);
    assert_eq!(mixed.verdict, Verdict::Unknown);
    assert_eq!(mixed.reasons, ["1 flow ended by a timer, which proves no close"]);
    assert_eq!((mixed.counts.expired_unproven, mixed.counts.timed_out), (1, 3));
    let one_way = udp(|facts| facts.one_way = true);
    assert_eq!(one_way.verdict, Verdict::Unknown);
    let said = "3 flows ended by the timeout of 180 s; the instance may still send";
    assert_eq!(item(&one_way, "datagrams").detail, said);
    assert!(judge(&idle()).evidence.iter().all(|item| item.name != "datagrams"));
}

/// Other doubts are none of the sockets' business.
#[test]
fn sockets_answer_no_other_doubt() {
    let cases: [fn(&mut Facts); 4] = [
        drift,
        |f| f.quiet = Some(A_MOMENT),
        |f| f.tally.newest_generation = 7,
        |f| f.detached = vec!["eth0".into()],
    ];
    for change in cases {
        let judgement = with(|facts| {
            change(facts);
            facts.sockets = sockets(0);
        });
        assert_eq!(judgement.verdict, Verdict::Unknown, "{:?}", judgement.evidence);
    }
}

#[test]
fn sockets_that_remain_contradict_the_table() {
    let judgement = with(|facts| facts.sockets = sockets(2));
    assert_eq!(judgement.verdict, Verdict::Busy);
    let reason = "2 sockets remain: 2 CLOSE_WAIT (the flow table shows none)";
    assert_eq!(judgement.reasons, [reason]);
    // The other way round the table is believed, and the sockets are shown.
    let judgement = with(|facts| {
        live(facts, 1);
        facts.sockets = sockets(0);
    });
    assert_eq!(judgement.verdict, Verdict::Busy);
    assert_eq!(judgement.reasons, ["1 active flow"]);
    let detail = &item(&judgement, "sockets").detail;
    assert!(detail.ends_with("; the flow table shows 1 flow"), "{detail}");
    assert_eq!(item(&with(|_| ()), "sockets").detail, "not asked");
}

/// In one-way modes the table sees no server's FIN or RST: its live flows are over when no socket
/// remains where connections were seen. Nowhere else.
#[test]
fn flows_that_end_unseen_are_over_by_the_sockets() {
    let judge = |one_way, proof, quiet| {
        with(|facts| {
            live(facts, 1);
            facts.one_way = one_way;
            facts.quiet = Some(Duration::from_millis(quiet));
            let mut found = Sockets::new(Vec::new());
            let summary = Summary::default();
            let answer = Answer::Known { summary, proof, age: Duration::ZERO };
            found.look(vec![("there".to_owned(), answer)]);
            facts.sockets = Some(found);
        })
    };
    let judgement = judge(true, Proof::Connections, 2000);
    assert_eq!(judgement.verdict, Verdict::Idle, "{:?}", judgement.reasons);
    let detail = &item(&judgement, "flow-table").detail;
    assert_eq!(detail, "1 of 40 table entries; over, by the sockets");
    assert_eq!(judgement.counts.active, 1, "the table's own word stays");
    assert_eq!(judge(true, Proof::Connections, 999).verdict, Verdict::Unknown, "not quiet");
    assert_eq!(judge(true, Proof::Listener, 2000).verdict, Verdict::Busy);
    assert_eq!(judge(false, Proof::Connections, 2000).verdict, Verdict::Busy);
}

#[test]
fn sockets_that_are_not_known_are_a_doubt_of_their_own() {
    let judgement = with(|facts| facts.sockets = unknown_sockets());
    assert_eq!(judgement.verdict, Verdict::Unknown);
    assert_eq!(judgement.reasons, ["sockets: agent: gone"]);
    let judgement = with(|facts| facts.sockets = and_unknown(sockets(1)));
    assert_eq!(judgement.verdict, Verdict::Busy);
    assert!(judgement.reasons.contains(&"sockets: agent: gone".to_owned()));
}

/// `busy` comes first: whatever else is in doubt, somebody is there.
#[test]
fn busy_outweighs_unknown() {
    let judgement = with(|facts| {
        expired(facts);
        facts.lost_past = vec!["a".into()];
        live(facts, 1);
    });
    assert_eq!(judgement.verdict, Verdict::Busy);
    assert_eq!(judgement.reasons[0], "1 active flow");
    assert_eq!(judgement.reasons.len(), 3);
}

fn live(facts: &mut Facts, flows: u64) {
    facts.tally.flows.active = flows;
    facts.after.counters.closed_fin -= flows;
    for sample in &mut facts.samples {
        sample.counters.closed_fin -= flows;
    }
}

fn embryo(facts: &mut Facts) {
    facts.tally.flows.embryonic = 1;
    facts.after.embryos_ended -= 1;
}

/// The counters claim a live flow that no table holds.
fn drift(facts: &mut Facts) {
    facts.after.counters.closed_rst -= 1;
    for sample in &mut facts.samples {
        sample.counters.closed_rst -= 1;
    }
}

fn expired(facts: &mut Facts) {
    for totals in facts.samples.iter_mut().chain([&mut facts.after]) {
        totals.counters.closed_fin -= 1;
        totals.counters.expired += 1;
    }
}
