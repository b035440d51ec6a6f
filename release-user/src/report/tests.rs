//! Whole pages.

use std::time::Duration;

use serde_json::json;

use super::Report;
use crate::api::fake;
use crate::api::release::{JudgementLine, ReleaseLine, ReleaseShow};
use crate::api::types::{Receipt, SCHEMA, Verdict};
use crate::release::analysis::{Finding, Measured};
use crate::release::hook::Outcome;
use crate::release::journal::{Entry, HookRun};
use crate::release::machine::{Judgement, tests::a_release};
use crate::release::phase::Point;
use crate::release::plan::Step;
use crate::release::sample::tests::a_sample;

/// Says what is not well-formed: every tag is closed, in turn, and nothing is said that is not
/// XML. Elements that HTML never closes close themselves.
fn well_formed(page: &str) -> Result<usize, String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").ok_or("no DOCTYPE")?;
    let mut open: Vec<&str> = Vec::new();
    let mut elements = 0;
    while let Some(at) = rest.find('<') {
        text_is_escaped(&rest[..at])?;
        let end = rest[at..].find('>').ok_or("a tag without an end")? + at;
        let tag = &rest[at + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            match open.pop() {
                Some(opened) if opened == name => {}
                opened => return Err(format!("{opened:?} closed by {name}")),
            }
        } else {
            elements += 1;
            let content = tag.trim_end_matches('/');
            let (name, attributes) = content.split_once(' ').unwrap_or((content, ""));
            if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(format!("element {name:?}"));
            }
            attributes_are_quoted(attributes)?;
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = &rest[end + 1..];
    }
    if open.is_empty() && rest.trim().is_empty() {
        Ok(elements)
    } else {
        Err(format!("left open: {open:?}, left over: {rest:?}"))
    }
}

fn attributes_are_quoted(mut rest: &str) -> Result<(), String> {
    while !rest.trim().is_empty() {
        let (name, more) = rest.split_once("=\"").ok_or_else(|| format!("attribute {rest:?}"))?;
        let (value, more) = more.split_once('"').ok_or_else(|| format!("attribute {name:?}"))?;
        text_is_escaped(value)?;
        rest = more;
    }
    Ok(())
}

fn text_is_escaped(text: &str) -> Result<(), String> {
    let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
    for (at, _) in text.match_indices('&') {
        if !known.iter().any(|entity| text[at..].starts_with(entity)) {
            return Err(format!("{:?}", &text[at..]));
        }
    }
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains('>') || text.contains(control) { Err(text.to_owned()) } else { Ok(()) }
}

fn at(second: u64) -> String {
    a_sample(second, [0; 2], [0; 2]).at
}

fn entry(second: u64, state: &str, kind: &str, text: &str) -> Entry {
    let (state, kind, text) = (state.to_owned(), kind.to_owned(), text.to_owned());
    Entry { at: at(second), state, kind, text, data: serde_json::Value::Null }
}

fn receipt(id: u64, second: u64) -> Receipt {
    let mut receipt = Receipt {
        schema: SCHEMA,
        id,
        at: at(second),
        boot_id: "b00t".into(),
        evidence_epoch: 1,
        counters: [("v1-1".to_owned(), fake::instance("v1-1", "10.0.0.1:80", 0).counters)].into(),
        forced: Vec::new(),
        forced_not_listed: 0,
        report: fake::report(Verdict::Idle),
        hash: String::new(),
    };
    receipt.hash = crate::verdict::receipt::hash(&receipt).unwrap();
    receipt
}

/// A release from v1 to v2 in 60 s, without samples.
fn a_report() -> Report {
    let line = ReleaseLine {
        state: "succeeded".into(),
        step: None,
        doing: None,
        over: true,
        receipts: vec![7],
        exit_code: Some(0),
        started_at: at(0),
        ended_at: Some(at(60)),
        ..fake::release()
    };
    let finding = |name: &str, value, ok| Finding {
        name: name.to_owned(),
        value,
        limit: 0.01,
        old: Some(0.002),
        ok,
    };
    let judgement = JudgementLine {
        at: at(20),
        step: 1,
        judgement: Judgement::Pass,
        findings: vec![
            finding("max_resets", Some(0.0042), true),
            finding("max_latency", Some(0.0123), false),
            finding("max_latency_ratio", None, true),
        ],
        old: Measured { opened: 90, ..Measured::default() },
        new: Measured { opened: 1234, ..Measured::default() },
    };
    let judged = Entry {
        data: serde_json::to_value(&judgement).unwrap(),
        ..entry(20, "shifting", "judgement", "pass: 1234 flows of the new version, 90 of the old")
    };
    let shift = |second, state: &str, old: u32, new: u32| Entry {
        data: json!({ "generation": 8, "weights": { "v1": old, "v2": new } }),
        ..entry(second, state, "shift", "weights")
    };
    let history = vec![
        entry(0, "pending", "state", "began"),
        entry(1, "staging", "state", "pending → staging"),
        entry(9, "shifting", "state", "staging → shifting 1/1"),
        shift(10, "shifting", 90, 10),
        entry(10, "shifting", "baseline", "measured from here"),
        judged.clone(),
        judged,
        entry(30, "promoting", "state", "shifting 1/1 → promoting"),
        shift(30, "promoting", 0, 100),
        entry(40, "draining", "state", "promoting → draining"),
        entry(60, "succeeded", "state", "draining → succeeded"),
    ];
    let hooks = vec![HookRun {
        id: 1,
        release: 3,
        point: Point::Start,
        place: "staging".into(),
        round: 0,
        instance: Some("web-b".into()),
        began_at: at(2),
        process: None,
        ended_at: Some(at(5)),
        outcome: Some(Outcome::Failed("exit status: 1".into())),
        output: "one\nthe last line\n".into(),
    }];
    let mut details = a_release("web").plan;
    details.steps = vec![Step::Weight { percent: 10, hold: Duration::from_secs(20) }];
    let release = ReleaseShow { line, history, hooks, details, data: json!({ "image": "web:2" }) };
    Report::new(release, Vec::new(), vec![receipt(9, 61), receipt(7, 50), receipt(1, 50)])
}

fn with_samples(seconds: impl Iterator<Item = u64>) -> Report {
    let sample = |second| a_sample(second, [100 + second * 3, second], [20, second % 7]);
    Report { samples: seconds.map(sample).collect(), ..a_report() }
}

/// How many pieces of curves of a class are drawn in charts; each has one in its legend besides.
fn curves(page: &str, class: &str) -> usize {
    let all = page.matches(&format!("<polyline class=\"curve {class} ")).count();
    let legends = page.matches("aria-hidden").count() / 2;
    all - legends
}

#[test]
fn a_page_says_what_happened() {
    let report = with_samples((0..=60).step_by(2));
    let page = report.to_html();
    well_formed(&page).unwrap();
    for words in [
        "v2 of web replaced v1 in 1m; meanwhile v2 took 60 new connections and reset 0 of its \
         connections. Before v1 was stopped, it was proven that nobody used it any more (receipt 7).",
        "Step 1 of 1: 10 % of new connections, held for 20s – 2 judgements",
        "<td>0.42 %</td><td>≤ 1.00 %</td><td>0.20 %</td>",
        "<td>12.3 ms</td><td>≤ 10.0 ms</td><td>2.0 ms</td><td><span class=\"mark bad\">not ok",
        "<td>–</td><td>≤ 0.01 ×</td>",
        "1 more until 2026-01-01T00:00:20.000Z",
        "failed</span>: exit status: 1<details><summary>output: the last line</summary>",
        "<td>3s</td>",
        "&quot;image&quot;: &quot;web:2&quot;",
        "intact",
        &report.receipts[1].hash,
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    for state in ["pending", "staging", "shifting", "promoting", "draining", "succeeded"] {
        assert!(page.contains(&format!("<strong>{state}</strong>")), "{state}");
    }
    // Written on the way, and of another release.
    let ids: Vec<u64> = report.receipts.iter().map(|receipt| receipt.id).collect();
    assert_eq!(ids, [1, 7]);
    assert_eq!((curves(&page, "old"), curves(&page, "new")), (11, 11));
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    let fetched = ["http", "src=", "href=", "url(", "<script", "@import"];
    assert!(fetched.iter().all(|what| !page.contains(what)), "{page}");
}

#[test]
fn what_others_wrote_stays_text() {
    let mut report = with_samples((0..=60).step_by(2));
    let hostile = "</title></style><script>alert('x')</script>\"&amp;\u{1b}[31m";
    let line = &mut report.release.line;
    for text in [&mut line.service, &mut line.to, &mut line.plan, &mut line.strategy] {
        *text = hostile.to_owned();
    }
    line.reasons = vec![hostile.to_owned()];
    line.instances = vec![hostile.to_owned()];
    for entry in &mut report.release.history {
        entry.text = hostile.to_owned();
        entry.state = hostile.to_owned();
        entry.kind = if entry.kind == "judgement" { "judgement" } else { hostile }.to_owned();
        if entry.kind == "judgement" {
            entry.data["judgement"] =
                serde_json::to_value(Judgement::Fail(hostile.into())).unwrap();
            entry.data["findings"][0]["name"] = hostile.into();
        }
    }
    let run = &mut report.release.hooks[0];
    run.outcome = Some(Outcome::Failed(hostile.into()));
    (run.output, run.place, run.instance) = (hostile.into(), hostile.into(), Some(hostile.into()));
    report.release.data = json!({ hostile: hostile });
    for receipt in &mut report.receipts {
        receipt.report.target = hostile.into();
        receipt.hash = hostile.into();
        receipt.report.evidence[0].detail = hostile.into();
        receipt.report.evidence[0].name = hostile.into();
        let counters = receipt.counters.remove("v1-1").unwrap();
        receipt.counters.insert(hostile.into(), counters);
        receipt.forced = vec![fake::forced(hostile)];
    }
    for sample in &mut report.samples {
        sample.versions[1].name = hostile.to_owned();
    }
    let page = report.to_html();
    well_formed(&page).unwrap();
    let harmless = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;amp;\u{fffd}[31m";
    assert!(!page.contains("<script") && page.matches(harmless).count() > 40, "{page}");
    assert!(page.contains("not that of its content"));
}

#[test]
fn without_samples_it_says_so() {
    let page = a_report().to_html();
    well_formed(&page).unwrap();
    // Weights are known from the journal.
    assert_eq!((curves(&page, "old"), curves(&page, "new")), (1, 1));
    assert_eq!(page.matches("nothing was measured</text>").count(), 5);
    assert!(page.contains("what v2 carried meanwhile was not measured throughout"));
}

#[test]
fn one_sample_is_a_dot() {
    let page = with_samples(std::iter::once(5)).to_html();
    well_formed(&page).unwrap();
    // Weights, active connections, and twice two times; no rate.
    assert_eq!((curves(&page, "old"), curves(&page, "new")), (6, 6));
    assert!(!page.contains("NaN"));
}

#[test]
fn curves_are_interrupted_where_nothing_was_measured() {
    // The daemon was away from 20 to 40, and the data plane began anew at 52.
    let mut report = with_samples((0..=20).chain(40..=60).step_by(2));
    for sample in report.samples.iter_mut().filter(|sample| sample.since_boot_ms >= 52_000) {
        sample.epoch = 2;
        sample.versions.iter_mut().for_each(|version| version.opened -= 52);
    }
    let page = report.to_html();
    well_formed(&page).unwrap();
    // All but the weights as they were set are in three pieces.
    assert_eq!((curves(&page, "old"), curves(&page, "new")), (31, 31));
    assert!(page.contains("was not measured throughout"));
}

#[test]
fn a_release_under_way_has_a_page() {
    let mut report = with_samples((0..=20).step_by(2));
    let line = &mut report.release.line;
    (line.state, line.over, line.ended_at) = ("paused".into(), false, None);
    (line.waits, line.receipts, line.reasons) = (true, Vec::new(), vec!["it is <late>".into()]);
    report.receipts.clear();
    report.release.history.truncate(7);
    let page = report.to_html();
    well_formed(&page).unwrap();
    let words = "v1 → v2 of web has been under way for 20s: it is paused and waits for somebody: it \
                 is &lt;late&gt;.";
    assert!(page.contains(words) && page.contains("There is no receipt yet."), "{page}");
}

#[test]
fn in_place_there_is_one_version() {
    let mut report = with_samples((0..=60).step_by(2));
    report.release.line.to = "v1".into();
    report.samples.iter_mut().for_each(|sample| sample.versions.truncate(1));
    let page = report.to_html();
    well_formed(&page).unwrap();
    assert!(page.contains("1 instance of v1 of web were upgraded in place in 1m"), "{page}");
    assert_eq!(page.matches("curve new").count(), 0);
}

/// A week, with the most samples, judgements and connections ended by force that there can be.
#[test]
fn a_long_release_has_a_page_of_reasonable_size() {
    let step = 7 * 86_400 / 1200;
    let mut report = with_samples((0..1200).map(|number| number * step));
    for (number, sample) in (0_u64..).zip(&mut report.samples) {
        for version in &mut sample.versions {
            version.opened = number * 1000 + number * number * 7919 % 997;
            version.active = number * number * 104_729 % 5003;
        }
    }
    let judged: Vec<Entry> = report.release.history.drain(5..6).collect();
    for _ in 0..20_000 {
        report.release.history.insert(5, judged[0].clone());
    }
    report.receipts[0].forced = vec![fake::forced("192.0.2.1:1"); 10_000];
    report.receipts[0].forced_not_listed = 5;
    report.release.hooks[0].output = "x".repeat(16 * 1024);
    let page = report.to_html();
    well_formed(&page).unwrap();
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert!(page.contains("and 9,805 more: <code>releasectl idle receipts web --id 1</code>"));
    assert!(page.contains("20,001 judgements"));
    assert!(page.contains(">7 d<") || page.contains(">6 d<"), "{page}");
}
