//! Curves from samples: differences of counters over time, interrupted where nothing was measured.

use super::Report;
use super::states::Course;
use super::svg::Curve;
use crate::release::sample::{Latency, Sample, VersionSample, interval};

/// Seconds below which a difference says nothing of a rate: the last sample comes when the release
/// ends, whenever the one before was.
const LEAST: f64 = 0.5;

/// What was measured, in pieces without a gap.
pub struct Measurements<'a> {
    pieces: Vec<Vec<(f64, &'a Sample)>>,
}

impl<'a> Measurements<'a> {
    /// Between two samples is a gap if the counters began anew, or if the daemon was not there for
    /// some time.
    pub fn of(report: &'a Report, course: &Course) -> Self {
        let age = std::time::Duration::from_secs_f64(course.length);
        let most = interval(age).as_secs_f64() * 3.0;
        let mut pieces: Vec<Vec<(f64, &Sample)>> = Vec::new();
        for sample in &report.samples {
            let second = course.second(&sample.at);
            let last = pieces.last_mut().filter(|piece| {
                piece.last().is_some_and(|(before, other)| {
                    other.epoch == sample.epoch && (*before..=before + most).contains(&second)
                })
            });
            match last {
                Some(piece) => piece.push((second, sample)),
                None => pieces.push(vec![(second, sample)]),
            }
        }
        Self { pieces }
    }

    /// A value of a version as it is at each sample.
    pub fn values(&self, name: &str, value: impl Fn(&VersionSample) -> Option<f64>) -> Curve {
        let of = |sample: &Sample| version(sample, name).and_then(&value);
        let pieces = self.pieces.iter();
        pieces.flat_map(|piece| unbroken(piece.iter().map(|(at, s)| (*at, of(s))))).collect()
    }

    /// How fast a counter of a version rises, a second: over each interval.
    pub fn rate(&self, name: &str, counter: impl Fn(&VersionSample) -> u64) -> Curve {
        self.over_intervals(|seconds, before, after| {
            let risen = counter(version(after, name)?).checked_sub(counter(version(before, name)?));
            Some(risen? as f64 / seconds)
        })
    }

    /// Which part of the new flows of both versions a version got, in percent.
    pub fn share(&self, name: &str) -> Curve {
        self.over_intervals(|_, before, after| {
            let opened = |of: &VersionSample| {
                let earlier = version(before, &of.name).map_or(0, |version| version.opened);
                of.opened.saturating_sub(earlier)
            };
            let all: u64 = after.versions.iter().map(opened).sum();
            let its = opened(version(after, name)?);
            (all > 0).then(|| its as f64 * 100.0 / all as f64)
        })
    }

    fn over_intervals(&self, value: impl Fn(f64, &Sample, &Sample) -> Option<f64>) -> Curve {
        let mut curve = Curve::new();
        for piece in &self.pieces {
            let mut points = Vec::new();
            let mut base = piece.first();
            for next in piece.iter().skip(1) {
                let Some(before) = base else { break };
                let seconds = next.0 - before.0;
                if seconds >= LEAST {
                    let value = value(seconds, before.1, next.1);
                    // Of the whole interval: a step says no more than is known.
                    points.extend([(before.0, value), (next.0, value)]);
                    base = Some(next);
                }
            }
            curve.extend(unbroken(points.into_iter()));
        }
        curve
    }

    /// Half of the times no longer than; 99 of 100 no longer than.
    pub fn latency(
        &self,
        name: &str,
        which: impl Fn(&VersionSample) -> Option<Latency>,
    ) -> [Curve; 2] {
        [
            self.values(name, |version| Some(which(version)?.p50_us as f64)),
            self.values(name, |version| Some(which(version)?.p99_us as f64)),
        ]
    }
}

/// Weights in force as parts of those of both versions, in percent, with the moments of their
/// changes as the journal has them.
pub fn weights(report: &Report, course: &Course, name: &str) -> Curve {
    let line = &report.release.line;
    let names = [&line.from, &line.to];
    let names = if line.from == line.to { &names[..1] } else { &names[..] };
    let part = |of: &dyn Fn(&str) -> Option<f64>| {
        let all: f64 = names.iter().filter_map(|name| of(name)).sum();
        of(name).filter(|_| all > 0.0).map(|its| its * 100.0 / all)
    };
    let mut points: Vec<(f64, f64)> = Vec::new();
    let first = report.samples.first().and_then(|sample| {
        let at = course.second(&sample.at);
        Some((at, part(&|name| version(sample, name).map(|version| f64::from(version.weight)))?))
    });
    points.extend(first);
    for entry in &report.release.history {
        let Some(weights) = entry.data.get("weights") else { continue };
        let Some(now) = part(&|name| weights.get(name)?.as_f64()) else { continue };
        let at = course.second(&entry.at);
        // It has held until now.
        points.extend(points.last().map(|(_, before)| (at, *before)));
        points.push((at, now));
    }
    points.extend(points.last().map(|(_, weight)| (course.length, *weight)));
    if points.is_empty() { Curve::new() } else { vec![points] }
}

fn version<'a>(sample: &'a Sample, name: &str) -> Option<&'a VersionSample> {
    sample.versions.iter().find(|version| version.name == name)
}

/// Pieces in which every point has a value.
fn unbroken(points: impl Iterator<Item = (f64, Option<f64>)>) -> Curve {
    let mut pieces = vec![Vec::new()];
    for (at, value) in points {
        match (value, pieces.last_mut()) {
            (Some(value), Some(piece)) => piece.push((at, value)),
            _ => pieces.push(Vec::new()),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
