//! Both versions over time.

use super::curves::{Measurements, weights};
use super::markup::Html;
use super::states::Course;
use super::svg::{Chart, Curve, Scale, Series};
use super::{Report, note, part};
use crate::release::sample::{Latency, VersionSample};

/// A curve of a version: what it is, and how it is drawn.
type Drawn = (&'static str, &'static str, Curve);

/// The charts.
pub fn section(report: &Report, course: &Course) -> Html {
    let line = &report.release.line;
    let mut versions = vec![("old", line.from.as_str()), ("new", line.to.as_str())];
    if line.from == line.to {
        versions.truncate(1);
    }
    let measured = Measurements::of(report, course);
    let chart = |title, note, scale, of: &dyn Fn(&str) -> Vec<Drawn>| {
        let series = versions.iter().flat_map(|(class, name)| {
            of(name).into_iter().map(move |(what, style, curve)| Series {
                label: if what.is_empty() { (*name).to_owned() } else { format!("{name}, {what}") },
                class: format!("{class} {style}"),
                curve,
            })
        });
        Chart { title, note, scale, series: series.collect() }.draw(course)
    };
    let latency = |title, note, which: fn(&VersionSample) -> Option<Latency>| {
        chart(title, note, Scale::Latency, &|name| {
            let [middle, slow] = measured.latency(name, which);
            vec![("p50", "", middle), ("p99", "dashed", slow)]
        })
    };
    let samples = report.samples.len();
    part(
        "Both versions over time",
        [
            note(format!(
                "All charts have the time axis of the course above, whose states are their \
                 background. {samples} samples; a curve is interrupted where nothing was measured."
            )),
            chart(
                "Weights",
                "percent of new connections: as set, and as they came (thin)",
                Scale::Linear(100.0),
                &|name| {
                    vec![
                        ("set", "", weights(report, course, name)),
                        ("actual", "thin dashed", measured.share(name)),
                    ]
                },
            ),
            chart("New connections", "a second", Scale::Linear(1.0), &|name| {
                vec![("", "", measured.rate(name, |version| version.opened))]
            }),
            chart("Active connections", "open at the time", Scale::Linear(1.0), &|name| {
                vec![("", "", measured.values(name, |version| Some(version.active as f64)))]
            }),
            latency("Time to connect", "from the client's SYN to the server's answer", |version| {
                version.connect
            }),
            latency(
                "Time to first byte",
                "from the request's first byte to the answer's",
                |version| version.first_byte,
            ),
            chart(
                "Resets and connections that failed",
                "a second; less is better",
                Scale::Linear(1.0),
                &|name| {
                    vec![
                        ("reset by the server", "", measured.rate(name, |v| v.resets)),
                        (
                            "reset by the client",
                            "thin dashed",
                            measured.rate(name, |v| v.client_resets),
                        ),
                        ("SYN failed", "dotted", measured.rate(name, |v| v.syn_failures)),
                    ]
                },
            ),
        ],
    )
}
