//! Judging a version by what the packet path measured of it, against limits and against the version
//! that serves beside it. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use release_common::measure::{BUCKETS, begin_of};
use serde::{Deserialize, Serialize};

use super::machine::Judgement;
use super::plan::Analysis;

/// How often something took how long, in buckets of [`release_common::measure`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(pub Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Histogram {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What `percent` of them did not take longer than: the upper end of a bucket, so at most a
    /// quarter too long. `None` if there were none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted && seen > 0
        })?;
        Some(Duration::from_nanos(begin_of(bucket + 1)))
    }

    /// What came in since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.0.iter().zip(&before.0);
        Self(counts.map(|(count, before)| count.saturating_sub(*before)).collect())
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one + other).collect())
    }
}

/// What was measured of a version over some time; clients of test rules and warm-up are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// SYNs placed on it.
    pub syns: u64,
    /// Of those, that it refused by RST, or did not answer.
    pub syn_failures: u64,
    /// Flows opened.
    pub opened: u64,
    /// Flows that it reset.
    pub resets: u64,
    /// Flows that their clients reset.
    pub client_resets: u64,
    /// Segments with data, both ways.
    pub segments: u64,
    /// Of those, sent again.
    pub retransmits: u64,
    /// From SYN to SYN-ACK.
    pub connect: Histogram,
    /// From the request's first byte to the answer's.
    pub first_byte: Histogram,
}

impl Measured {
    /// What was measured since `before`. A count that is smaller now began anew, and says nothing.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub, Histogram::since)
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add, Histogram::plus)
    }

    fn with(
        &self,
        other: &Self,
        counts: fn(u64, u64) -> u64,
        histograms: fn(&Histogram, &Histogram) -> Histogram,
    ) -> Self {
        Self {
            syns: counts(self.syns, other.syns),
            syn_failures: counts(self.syn_failures, other.syn_failures),
            opened: counts(self.opened, other.opened),
            resets: counts(self.resets, other.resets),
            client_resets: counts(self.client_resets, other.client_resets),
            segments: counts(self.segments, other.segments),
            retransmits: counts(self.retransmits, other.retransmits),
            connect: histograms(&self.connect, &other.connect),
            first_byte: histograms(&self.first_byte, &other.first_byte),
        }
    }
}

/// Something compared with its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What, as the key of the plan has it.
    pub name: String,
    /// Its value; none: nothing was seen that has one.
    pub value: Option<f64>,
    /// The most that is allowed.
    pub limit: f64,
    /// The old version's value over the same time.
    pub old: Option<f64>,
    /// Whether it is within.
    pub ok: bool,
}

/// Compares the new version with the plan's limits and with the old one. All that was compared is
/// told, whatever comes of it.
#[must_use]
pub fn judge(plan: &Analysis, old: &Measured, new: &Measured) -> (Judgement, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut compare = |name: &str, limit: Option<f64>, of: &dyn Fn(&Measured) -> Option<f64>| {
        let Some(limit) = limit else { return };
        let value = of(new);
        let ok = value.is_none_or(|value| value <= limit);
        findings.push(Finding { name: name.to_owned(), value, limit, old: of(old), ok });
    };
    compare("max_syn_failures", plan.max_syn_failures, &|m| share(m.syn_failures, m.syns));
    compare("max_resets", plan.max_resets, &|m| share(m.resets, m.opened));
    compare("max_retransmits", plan.max_retransmits, &|m| share(m.retransmits, m.segments));
    let slowest = plan.max_latency.map(|limit| limit.as_secs_f64());
    compare("max_latency", slowest, &|m| {
        slow(&m.connect).max(slow(&m.first_byte)).map(|time| time.as_secs_f64())
    });
    // A median is steadier than the slowest, and a version that is slower is slower in the middle.
    let ratio = |histogram: fn(&Measured) -> &Histogram| {
        let middle = |m: &Measured| histogram(m).percentile(50);
        Some(middle(new)?.as_secs_f64() / middle(old)?.as_secs_f64())
    };
    let worst = [ratio(|m| &m.connect), ratio(|m| &m.first_byte)];
    let worst = worst.into_iter().flatten().max_by(f64::total_cmp);
    if let Some(limit) = plan.max_latency_ratio {
        let ok = worst.is_none_or(|ratio| ratio <= limit);
        let name = "max_latency_ratio".to_owned();
        findings.push(Finding { name, value: worst, limit, old: None, ok });
    }
    (conclude(plan, new, &findings), findings)
}

fn conclude(plan: &Analysis, new: &Measured, findings: &[Finding]) -> Judgement {
    let bad: Vec<&Finding> = findings.iter().filter(|finding| !finding.ok).collect();
    let seen = new.opened.max(new.syns);
    if seen < plan.min_flows {
        return Judgement::Inconclusive(format!("{seen} flows of {} needed", plan.min_flows));
    }
    if bad.is_empty() {
        return Judgement::Pass;
    }
    let mut text = String::new();
    for Finding { name, value, limit, old, .. } in bad {
        let value = value.unwrap_or_default();
        let _ = write!(
            text,
            "{}{name}: {value:.4} of {limit}",
            if text.is_empty() { "" } else { "; " }
        );
        if let Some(old) = old {
            let _ = write!(text, " (the old version {old:.4})");
        }
    }
    Judgement::Fail(text)
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

fn slow(histogram: &Histogram) -> Option<Duration> {
    histogram.percentile(99)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket of what takes just more than 1.024 ms.
    const MILLISECOND: usize = 40;

    /// So many flows, each answered in bucket `bucket`.
    fn measured(opened: u64, bucket: usize) -> Measured {
        let mut histogram = Histogram::default();
        histogram.0[bucket] = opened;
        Measured {
            syns: opened,
            opened,
            segments: opened * 10,
            connect: histogram.clone(),
            first_byte: histogram,
            ..Measured::default()
        }
    }

    fn plan() -> Analysis {
        Analysis {
            min_flows: 100,
            max_syn_failures: Some(0.01),
            max_resets: Some(0.01),
            max_latency: Some(Duration::from_millis(100)),
            max_latency_ratio: Some(2.0),
            max_retransmits: Some(0.05),
            ..Analysis::default()
        }
    }

    fn said(new: &Measured) -> Judgement {
        judge(&plan(), &measured(1000, MILLISECOND), new).0
    }

    #[test]
    fn a_good_version_passes() {
        let (judgement, findings) =
            judge(&plan(), &measured(1000, MILLISECOND), &measured(100, MILLISECOND));
        assert_eq!(judgement, Judgement::Pass);
        assert_eq!(findings.len(), 5);
        assert!(findings.iter().all(|finding| finding.ok && finding.value.is_some()));
        // A little slower.
        assert_eq!(said(&measured(100, MILLISECOND + 3)), Judgement::Pass);
    }

    #[test]
    fn too_little_says_nothing() {
        let few = said(&Measured { resets: 50, ..measured(99, MILLISECOND) });
        assert_eq!(few, Judgement::Inconclusive("99 flows of 100 needed".to_owned()));
        assert_eq!(
            judge(&Analysis::default(), &Measured::default(), &Measured::default()).0,
            Judgement::Pass
        );
    }

    #[test]
    fn each_limit_is_named_with_its_numbers() {
        let fails = |new: Measured, words: &str| match said(&new) {
            Judgement::Fail(why) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}: {words}"),
        };
        fails(
            Measured { resets: 5, ..measured(100, MILLISECOND) },
            "max_resets: 0.0500 of 0.01 (the old version 0.0000)",
        );
        fails(
            Measured { syn_failures: 2, ..measured(100, MILLISECOND) },
            "max_syn_failures: 0.0200",
        );
        fails(
            Measured { retransmits: 100, ..measured(100, MILLISECOND) },
            "max_retransmits: 0.1000",
        );
        // Three times as long.
        fails(measured(100, MILLISECOND + 6), "max_latency_ratio: 2.8000 of 2");
        fails(measured(100, 68), "max_latency: 0.1638 of 0.1");
    }

    #[test]
    fn percentiles_are_upper_ends() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        (histogram.0[3], histogram.0[7]) = (99, 1);
        assert_eq!(histogram.percentile(50), Some(Duration::from_micros(2)));
        assert_eq!(histogram.percentile(99), Some(Duration::from_micros(2)));
        assert_eq!(histogram.percentile(100), Some(Duration::from_micros(4)));
        let more = Histogram(histogram.0.iter().map(|count| count * 2).collect());
        assert_eq!(more.since(&histogram), histogram);
        assert_eq!(histogram.plus(&histogram), more);
    }

    #[test]
    fn windows_add_up() {
        let first = Measured { resets: 3, client_resets: 4, ..measured(100, 7) };
        let second = Measured { syn_failures: 5, retransmits: 6, ..measured(20, 9) };
        let both = first.plus(&second);
        assert_eq!((both.since(&first), both.since(&second)), (second.clone(), first));
        // An instance's id went to another.
        assert_eq!(second.since(&both), Measured::default());
    }
}
