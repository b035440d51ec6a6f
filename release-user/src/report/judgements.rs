//! The steps of the plan, and how the new version was judged in each.

use super::markup::{Html, classed, details, element, row, table, tag};
use super::{Report, note, part, words};
use crate::api::release::JudgementLine;
use crate::release::analysis::Finding;
use crate::release::machine::Judgement;

/// Judgements of a step that are shown at most, besides its last one: of those that did not pass.
const MOST: usize = 50;

/// Steps with their judgements.
pub fn section(report: &Report) -> Html {
    let plan = &report.release.details;
    let all: Vec<JudgementLine> = report
        .release
        .history
        .iter()
        .filter(|entry| entry.kind == "judgement")
        .filter_map(|entry| serde_json::from_value(entry.data.clone()).ok())
        .collect();
    if plan.steps.is_empty() {
        return part("Steps and judgements", note("The plan has no steps."));
    }
    let mut rows = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let number = index + 1;
        let its: Vec<&JudgementLine> = all.iter().filter(|line| line.step == number).collect();
        let of = plan.steps.len();
        let mut heading = format!("Step {number} of {of}: {}", words::step(step));
        if !its.is_empty() {
            heading += &format!(" – {}", words::counted(its.len() as u64, "judgement"));
        }
        let cell = element("td", &[("colspan", &COLUMNS.len())], heading);
        rows.push(classed("tr", "step", cell));
        rows.extend(shown(&its).into_iter().flat_map(of_judgement));
    }
    let table = table(&COLUMNS, rows);
    part("Steps and judgements", [note(EXPLANATION), table, limits(report)])
}

const COLUMNS: [&str; 7] = ["when", "judgement", "what", "new version", "limit", "old version", ""];

const EXPLANATION: &str = "In each step with a hold the new version is judged by what was measured \
    since the step began: against the plan's limits, and beside the old version over the same time. \
    Of each step the last judgement is shown, and those that did not pass.";

/// The last one, and those that did not pass.
fn shown<'a>(its: &[&'a JudgementLine]) -> Vec<&'a JudgementLine> {
    let Some((last, earlier)) = its.split_last() else { return Vec::new() };
    let failed = earlier.iter().filter(|line| line.judgement != Judgement::Pass);
    let mut shown: Vec<&JudgementLine> = failed.copied().take(MOST).collect();
    shown.push(*last);
    shown
}

fn of_judgement(line: &JudgementLine) -> Vec<Html> {
    let (word, class, why) = match &line.judgement {
        Judgement::Pass => ("pass", "good", ""),
        Judgement::Fail(why) => ("fail", "bad", why.as_str()),
        Judgement::Inconclusive(why) => ("inconclusive", "warn", why.as_str()),
    };
    let mut judgement = classed("span", &format!("mark {class}"), word);
    if !why.is_empty() {
        judgement.push(tag("br", ()));
        judgement.push(why);
    }
    let when = classed("span", "mono", &line.at);
    let seen = vec![
        when,
        judgement,
        "connections seen".into(),
        words::count(line.new.opened).into(),
        Html::default(),
        words::count(line.old.opened).into(),
        Html::default(),
    ];
    let mut rows = vec![row(seen)];
    rows.extend(line.findings.iter().map(of_finding));
    rows
}

fn of_finding(finding: &Finding) -> Html {
    let Finding { name, value, limit, old, ok } = finding;
    let in_words = |value: &Option<f64>| match value {
        Some(value) => value_in_words(name, *value),
        None => "–".to_owned(),
    };
    let (class, word) = if *ok { ("mark good", "ok") } else { ("mark bad", "not ok") };
    row(vec![
        Html::default(),
        Html::default(),
        name_in_words(name).into(),
        in_words(value).into(),
        format!("≤ {}", value_in_words(name, *limit)).into(),
        in_words(old).into(),
        classed("span", class, word),
    ])
}

fn name_in_words(name: &str) -> &str {
    match name {
        "max_syn_failures" => "connections refused or not answered",
        "max_resets" => "connections reset by the server",
        "max_retransmits" => "segments sent again",
        "max_latency" => "latency, p99",
        "max_latency_ratio" => "latency in times of the old version's",
        other => other,
    }
}

fn value_in_words(name: &str, value: f64) -> String {
    match name {
        "max_latency" => format!("{:.1} ms", value * 1e3),
        "max_latency_ratio" => format!("{value:.2} ×"),
        "max_syn_failures" | "max_resets" | "max_retransmits" => format!("{:.2} %", value * 100.0),
        _ => format!("{value}"),
    }
}

/// The plan, for those who want to know.
fn limits(report: &Report) -> Html {
    let plan = serde_json::to_string_pretty(&report.release.details).unwrap_or_default();
    details("The plan as it was when the release began", tag("pre", plan))
}
