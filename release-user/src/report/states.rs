//! The states of a release on the time axis that all charts share.

use std::time::{Duration, SystemTime};

use super::markup::{Html, classed, element, row, table, tag};
use super::svg::{Area, LEFT, WIDTH, text};
use super::{Report, part, words};

/// The course of a release in seconds from its begin.
pub struct Course {
    begin: Option<SystemTime>,
    /// Its states, each with its begin and its end.
    pub states: Vec<Span>,
    /// How long it lasted, or has so far.
    pub length: f64,
}

/// A state over some time.
pub struct Span {
    /// Its word.
    pub state: String,
    /// When it began, RFC 3339.
    pub at: String,
    /// The same in seconds.
    pub from: f64,
    /// Its end.
    pub to: f64,
}

impl Course {
    /// As the timeline has it.
    pub fn of(report: &Report) -> Self {
        let mut course = Self {
            begin: words::time(&report.release.line.started_at),
            states: Vec::new(),
            length: 0.0,
        };
        let entries = &report.release.history;
        let samples = report.samples.iter().map(|sample| &sample.at);
        let all = entries.iter().map(|entry| &entry.at).chain(samples);
        let length = all.map(|at| course.second(at)).fold(0.0, f64::max);
        for entry in entries {
            let from = course.second(&entry.at);
            if course.states.last().is_some_and(|last| last.state == entry.state) {
                continue;
            }
            if let Some(last) = course.states.last_mut() {
                last.to = from.max(last.from);
            }
            let (state, at) = (entry.state.clone(), entry.at.clone());
            course.states.push(Span { state, at, from, to: length.max(from) });
        }
        course.length = length.max(1.0);
        course
    }

    /// A time of the journal; the begin, if it cannot be told.
    pub fn second(&self, at: &str) -> f64 {
        let since = self.begin.zip(words::time(at)).map(|(begin, at)| at.duration_since(begin));
        since.and_then(Result::ok).unwrap_or_default().as_secs_f64()
    }
}

/// The class that colours a state.
fn class(state: &str) -> &'static str {
    match state {
        "pending" | "staging" | "upgrading" | "probing" | "admitting" => "s-up",
        "testing" | "shifting" | "promoting" => "s-shift",
        "promoted" | "draining" | "held" | "forcing" => "s-drain",
        "idle" | "stopping" | "post-release" | "succeeded" => "s-end",
        "aborting" | "rolled-back" | "reversed" => "s-stop",
        _ => "s-wait",
    }
}

/// What a state means.
fn meaning(state: &str) -> &'static str {
    match state {
        "pending" => "accepted, nothing done yet",
        "staging" => "instances of the new version come up and are looked at",
        "testing" => "the new version is tried before it gets clients of everybody",
        "shifting" => "a part of new connections goes to the new version, which is judged",
        "promoting" => "the new version is about to get all new connections",
        "promoted" => "the new version gets all new connections",
        "draining" => "existing connections come to their ends by themselves",
        "held" => "connections are left at the deadline; somebody has to decide",
        "forcing" => "connections that are left are ended",
        "idle" => "nobody uses the old version; it is kept for a way back",
        "stopping" => "the old version is stopped",
        "upgrading" => "instances are upgraded",
        "probing" => "upgraded instances are looked at",
        "admitting" => "upgraded instances get new connections again",
        "post-release" => "what is left to do",
        "succeeded" => "done",
        "paused" => "somebody has to say how it goes on",
        "aborting" => "given up: new connections go back",
        "rolled-back" => "given up, and all is back",
        "reversed" => "another release has gone back",
        _ => "",
    }
}

/// Coloured bands behind a chart.
pub fn bands(course: &Course, area: &Area) -> Html {
    let spans = course.states.iter().filter(|span| span.to > span.from);
    spans
        .map(|span| {
            let title = format!("{} from {:.1} s to {:.1} s", span.state, span.from, span.to);
            let class = format!("band {}", class(&span.state));
            area.stripe(span.from, span.to, &class, &title)
        })
        .collect()
}

/// The bar of states, and their list.
pub fn section(report: &Report, course: &Course) -> Html {
    let area = Area { top: 4.0, height: 28.0, length: course.length };
    let mut content = Html::default();
    let mut labelled_to = LEFT;
    for span in &course.states {
        let title = format!("{}: {:.1} s to {:.1} s", span.state, span.from, span.to);
        let class = format!("state {}", class(&span.state));
        content.push(area.stripe(span.from, span.to, &class, &title));
        let (from, to) = (area.x(span.from).max(labelled_to), area.x(span.to));
        // Where its word has room.
        if to - from > span.state.chars().count() as f64 * 7.0 + 8.0 {
            content.push(text(f64::midpoint(from, to), 22.0, "middle", "on", &span.state));
            labelled_to = to;
        }
    }
    content.push(area.time_axis());
    let height = area.top + area.height + 24.0;
    let view = format!("0 0 {WIDTH} {height}");
    let label = format!("States of release {} over time", report.release.line.id);
    let attributes: [(&str, &dyn std::fmt::Display); 3] =
        [("viewBox", &view), ("role", &"img"), ("aria-label", &label)];
    let bar = tag("figure", element("svg", &attributes, content));
    let last = course.states.len().saturating_sub(1);
    let rows = course.states.iter().enumerate().map(|(index, span)| {
        let time = Duration::from_secs_f64((span.to - span.from).max(0.0));
        let lasts = index < last || !report.release.line.over;
        row(vec![
            classed("span", "mono", &span.at),
            tag("strong", &span.state),
            if lasts { words::span(time) } else { "–".to_owned() }.into(),
            meaning(&span.state).into(),
        ])
    });
    let list = table(&["since", "state", "for", "meaning"], rows.collect());
    part("Course", [bar, list])
}
