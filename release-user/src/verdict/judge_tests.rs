//! Each way to `busy` and to `unknown`, one fact changed at a time.

use std::time::Duration;

use super::*;
use crate::api::types::{FlowCounts, InstanceCounters};

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
        detached: Vec::new(),
        one_way: false,
    }
}

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

/// What is seen → verdict, and a part of the reason.
#[test]
fn one_fact_at_a_time() {
    type Change = fn(&mut Facts);
    let cases: &[(&str, Change, Verdict, &str)] = &[
        ("one live flow", |f| live(f, 1), Verdict::Busy, "1 active flow"),
        ("two live flows", |f| live(f, 2), Verdict::Busy, "2 active flows"),
        ("a handshake", |f| embryo(f), Verdict::Busy, "1 handshake in progress"),
        ("open to new flows", |f| f.closed = false, Verdict::Busy, "takes new flows"),
        (
            "opened while watched",
            |f| f.samples[0].counters.opened -= 1,
            Verdict::Busy,
            "opened while it was watched",
        ),
        (
            "an entry placed after it was closed",
            |f| f.tally.newest_generation = 7,
            Verdict::Unknown,
            "generation 7",
        ),
        ("drift", |f| drift(f), Verdict::Unknown, "differ by 1"),
        ("expired", |f| expired(f), Verdict::Unknown, "1 flow ended by a timer"),
        ("untracked", |f| f.after.counters.untracked = 4, Verdict::Unknown, "4 flows forwarded"),
        ("evicted", |f| f.after.trials += 1, Verdict::Unknown, "1 of its handshakes"),
        (
            "not quiet",
            |f| f.quiet = Some(Duration::from_millis(999)),
            Verdict::Unknown,
            "not settled",
        ),
        ("tables made anew", |f| f.lost_past = vec!["a".into()], Verdict::Unknown, "made anew"),
        ("detached", |f| f.detached = vec!["eth0".into()], Verdict::Unknown, "eth0"),
    ];
    for (name, change, verdict, reason) in cases {
        let judgement = with(change);
        assert_eq!(judgement.verdict, *verdict, "{name}: {:?}", judgement.reasons);
        assert!(judgement.reasons[0].contains(reason), "{name}: {:?}", judgement.reasons);
    }
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
