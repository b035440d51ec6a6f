//! A release in plain words, and numbers as people read them.

use std::time::{Duration, SystemTime};

use super::Report;
use crate::api::release::ReleaseLine;
use crate::release::plan::Step;

/// `v1 → v2`
pub fn versions(line: &ReleaseLine) -> String {
    if line.from == line.to {
        format!("{} in place", line.from)
    } else {
        format!("{} → {}", line.from, line.to)
    }
}

/// A time of the journal.
pub fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// From one time of the journal to another.
pub fn between(from: &str, to: &str) -> Option<Duration> {
    time(to)?.duration_since(time(from)?).ok()
}

/// `2m 3s`; whole milliseconds below ten seconds, else whole seconds.
pub fn span(time: Duration) -> String {
    let whole = if time < Duration::from_secs(10) {
        Duration::from_millis(time.as_millis() as u64)
    } else {
        Duration::from_secs(time.as_secs_f64().round() as u64)
    };
    humantime::format_duration(whole).to_string()
}

/// `1,234,567`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 connection`, `2 connections`
pub fn counted(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {word}{plural}", count(number))
}

/// A step of a plan.
pub fn step(step: &Step) -> String {
    let span = |time: &Duration| humantime::format_duration(*time).to_string();
    match step {
        Step::Test { sources, duration } => {
            let list: Vec<String> = sources.iter().map(ToString::to_string).collect();
            format!("test by clients from {} for {}", list.join(", "), span(duration))
        }
        Step::Warmup { requests, path, concurrency } => {
            let what = path.as_ref().map_or("connections".to_owned(), |path| format!("GET {path}"));
            format!("warm-up: {requests} × {what} to each instance, {concurrency} at a time")
        }
        Step::Weight { percent, hold } => {
            format!("{percent} % of new connections, held for {}", span(hold))
        }
        Step::Pause => "pause until somebody says how it goes on".to_owned(),
        Step::Approve { webhook, .. } => format!("wait until {} approves", webhook.url),
    }
}

/// How it stands: for the colour of the summary.
pub fn mood(line: &ReleaseLine) -> &'static str {
    match line.state.as_str() {
        "succeeded" if !line.forced => "good",
        "succeeded" | "paused" | "held" | "reversed" => "warn",
        "rolled-back" | "aborting" => "bad",
        _ => "",
    }
}

/// All of it in one sentence.
pub fn summary(report: &Report) -> String {
    let line = &report.release.line;
    let end = line.ended_at.as_deref().or_else(|| Some(&*report.release.history.last()?.at));
    let took = end.and_then(|end| between(&line.started_at, end)).unwrap_or_default();
    let took = span(took);
    let ReleaseLine { service, from, to, .. } = line;
    let why = if line.reasons.is_empty() {
        String::new()
    } else {
        format!(": {}", line.reasons.join("; "))
    };
    let in_place = from == to;
    match line.state.as_str() {
        "succeeded" => {
            let what = if in_place {
                let instances = counted(line.instances.len() as u64, "instance");
                format!("{instances} of {from} of {service} were upgraded in place in {took}")
            } else {
                format!("{to} of {service} replaced {from} in {took}")
            };
            format!("{what}; {}. {}", carried(report), proven(report))
        }
        "rolled-back" => format!(
            "The release of {to} of {service} was given up, and all new connections went back to \
             {from}, {took} after its begin{why}."
        ),
        "aborting" => format!("{to} of {service} is being given up{why}."),
        "reversed" => format!(
            "{to} of {service} had taken over from {from}; {took} after its begin another release \
             went back."
        ),
        state => {
            let waits = if line.waits { " and waits for somebody" } else { "" };
            format!(
                "{} of {service} has been under way for {took}: it is {state}{waits}{why}.",
                versions(line)
            )
        }
    }
}

/// What the version that serves now carried meanwhile.
fn carried(report: &Report) -> String {
    let to = &report.release.line.to;
    let of = |sample: &crate::release::sample::Sample| {
        let found = sample.versions.iter().find(|version| version.name == *to);
        found.map(|version| (sample.epoch, version.opened, version.resets))
    };
    let ends = report.samples.first().and_then(of).zip(report.samples.last().and_then(of));
    match ends {
        Some(((first, opened, resets), (last, all_opened, all_resets))) if first == last => {
            let opened = counted(all_opened.saturating_sub(opened), "new connection");
            let resets = count(all_resets.saturating_sub(resets));
            format!("meanwhile {to} took {opened} and reset {resets} of its connections")
        }
        _ => format!("what {to} carried meanwhile was not measured throughout"),
    }
}

fn proven(report: &Report) -> String {
    let line = &report.release.line;
    let its = report.receipts.iter().filter(|receipt| line.receipts.contains(&receipt.id));
    let ended: u64 = its.map(|receipt| receipt.report.counts.ended()).sum();
    let what = if line.from == line.to { "each instance" } else { &line.from };
    let list: Vec<String> = line.receipts.iter().map(ToString::to_string).collect();
    let word = if list.len() == 1 { "receipt" } else { "receipts" };
    let list = format!("{word} {}", list.join(", "));
    if line.forced {
        let many = counted(ended, "connection");
        format!("At the deadline {many} of {what} were ended by force; then it was idle ({list}).")
    } else {
        format!("Before {what} was stopped, it was proven that nobody used it any more ({list}).")
    }
}
