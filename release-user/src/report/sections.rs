//! Head, hooks, timeline and glossary.

use super::markup::{Html, classed, details, element, row, table, tag};
use super::receipts::facts;
use super::{Report, note, part, words};
use crate::release::hook::Outcome;
use crate::release::journal::{Entry, HookRun};
use crate::release::words::one_line;

/// Of a hook's output, the end that the page has.
const OUTPUT: usize = 4096;

/// What it is about, and what came of it.
pub fn head(report: &Report, title: &str) -> Html {
    let line = &report.release.line;
    let class = format!("summary {}", words::mood(line));
    let summary = classed("p", &class, words::summary(report));
    let result = if line.forced { format!("{}, by force", line.state) } else { line.state.clone() };
    let mark = format!("mark {}", words::mood(line));
    let end = line.ended_at.as_deref();
    let mut list = vec![
        ("service", Html::from(&line.service)),
        ("versions", words::versions(line).into()),
        ("plan", format!("{} ({})", line.plan, line.strategy).into()),
        ("result", classed("span", &mark, result)),
        ("began", Html::from(&line.started_at)),
        ("ended", end.unwrap_or("it is under way").into()),
    ];
    if let Some(took) = end.and_then(|end| words::between(&line.started_at, end)) {
        list.push(("took", words::span(took).into()));
    }
    list.push(("instances", line.instances.join(", ").into()));
    if !line.reasons.is_empty() {
        list.push(("why", line.reasons.join("; ").into()));
    }
    if !report.release.data.is_null() {
        let data = serde_json::to_string_pretty(&report.release.data).unwrap_or_default();
        list.push(("handed to hooks", tag("pre", data)));
    }
    tag("header", [tag("h1", title), summary, facts(list)])
}

/// Programs that were run on the way.
pub fn hooks(report: &Report) -> Html {
    if report.release.hooks.is_empty() {
        return part("Hooks", note("No program was run on the way."));
    }
    let rows = report.release.hooks.iter().map(hook);
    let columns = ["began", "hook", "for", "in", "took", "outcome"];
    part("Hooks", table(&columns, rows.collect()))
}

fn hook(run: &HookRun) -> Html {
    let (class, word, why) = match &run.outcome {
        Some(Outcome::Done) => ("mark good", "done", ""),
        Some(Outcome::NotYet) => ("mark warn", "not yet: asked again", ""),
        Some(Outcome::Failed(why)) => ("mark bad", "failed", why.as_str()),
        None => ("mark warn", "nobody knows", ""),
    };
    let took = run.ended_at.as_ref().and_then(|end| words::between(&run.began_at, end));
    let mut outcome = classed("span", class, word);
    if !why.is_empty() {
        outcome.push(format!(": {why}"));
    }
    if !run.output.trim().is_empty() {
        let kept = end_of(&run.output);
        let cut = if kept.len() < run.output.len() { "output (its end): " } else { "output: " };
        let summary = format!("{cut}{}", short(one_line(kept)));
        outcome.push(details(summary, tag("pre", kept)));
    }
    row(vec![
        classed("span", "mono", &run.began_at),
        run.point.name().into(),
        run.instance.as_deref().unwrap_or("–").into(),
        Html::from(&run.place),
        took.map_or("–".to_owned(), words::span).into(),
        outcome,
    ])
}

/// The last [`OUTPUT`] bytes, from a character's begin.
fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(OUTPUT);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[from..]
}

fn short(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// All that happened. Judgements that pass one after the other share a line.
pub fn timeline(report: &Report) -> Html {
    let mut rows: Vec<Html> = Vec::new();
    // What a step is measured from are numbers alone.
    let mut entries = report.release.history.iter().filter(|e| e.kind != "baseline").peekable();
    while let Some(entry) = entries.next() {
        let mut more = 0;
        let mut last = entry;
        while passes(entry)
            && let Some(next) = entries.next_if(|next| passes(next))
        {
            (more, last) = (more + 1, next);
        }
        let text = match more {
            0 => entry.text.clone(),
            more => {
                let last = format!("; {more} more until {}: {}", last.at, last.text);
                entry.text.clone() + &last
            }
        };
        let class = match entry.kind.as_str() {
            "alarm" => "mark bad",
            "state" => "mark",
            _ => "",
        };
        rows.push(row(vec![
            classed("span", "mono", &entry.at),
            classed("span", class, &entry.kind),
            Html::from(&entry.state),
            text.into(),
        ]));
    }
    let list = table(&["when", "what", "state", ""], rows);
    let attributes: [(&str, &dyn std::fmt::Display); 1] = [("open", &"open")];
    let summary = tag("summary", "All that was written down");
    part("Timeline", element("details", &attributes, [summary, list]))
}

fn passes(entry: &Entry) -> bool {
    entry.kind == "judgement" && entry.text.starts_with("pass")
}

/// Five words.
pub fn glossary() -> Html {
    let terms = [
        (
            "Connection, flow",
            "A client's TCP or QUIC connection, or its UDP exchange. It stays with the instance it \
             began on, whatever happens to weights; a release moves new ones only.",
        ),
        (
            "Weight",
            "The part of new connections that a version is to get. What came differs from it by \
             chance, and by clients that are led to the instance they had before.",
        ),
        (
            "Drain",
            "A version or instance gets no new connections, and those it has come to their ends by \
             themselves.",
        ),
        (
            "Idle, receipt",
            "Idle is a verdict: no connection exists any more, and none can still come. It is given \
             only if everything that can be known says so; written down with its evidence it is a \
             receipt.",
        ),
        (
            "p50, p99",
            "Half of all times were no longer than p50, 99 of 100 no longer than p99. Times are \
             measured in the packets that pass, and are at most a quarter too long.",
        ),
    ];
    part("Glossary", facts(terms.into_iter().map(|(term, text)| (term, text.into())).collect()))
}
