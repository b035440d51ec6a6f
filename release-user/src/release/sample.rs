//! What is measured of both versions while a release is under way, now and then: the curves of its
//! report. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::analysis::{Histogram, Measured};

/// Time between two samples of a release that has just begun.
pub const EVERY: Duration = Duration::from_secs(2);
/// Most samples that are kept of a release.
pub const MOST: usize = 1200;

/// Both versions at one moment. Counters count from the begin of the data plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, RFC 3339.
    pub at: String,
    /// Milliseconds since the host's boot.
    pub since_boot_ms: u64,
    /// Evidence epoch: counters begin anew with each.
    pub epoch: u32,
    /// The service's generation in force.
    pub generation: u32,
    /// The old version, then the new one; in place, the one that there is.
    pub versions: Vec<VersionSample>,
}

/// A version at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionSample {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Flows opened; as all that follow but `active` and `closed`, without test traffic.
    pub opened: u64,
    /// Live flows.
    pub active: u64,
    /// Flows that ended, in whatever way.
    pub closed: u64,
    /// SYNs placed on it.
    pub syns: u64,
    /// Of those, that it refused or did not answer.
    pub syn_failures: u64,
    /// Flows that it reset.
    pub resets: u64,
    /// Flows that their clients reset.
    pub client_resets: u64,
    /// Segments with data, both ways.
    pub segments: u64,
    /// Of those, sent again.
    pub retransmits: u64,
    /// From SYN to SYN-ACK, since the sample before; none: nothing came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Latency>,
    /// From the request's first byte to the answer's, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Latency>,
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them no longer than.
    pub p50_us: u64,
    /// 99 of 100 no longer than.
    pub p99_us: u64,
}

impl Latency {
    /// Of a histogram; none of an empty one.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let micros = |percent| Some(histogram.percentile(percent)?.as_micros() as u64);
        Some(Self { p50_us: micros(50)?, p99_us: micros(99)? })
    }
}

impl VersionSample {
    /// With what was measured so far, and what had been at the sample before.
    #[must_use]
    pub fn measured(self, now: &Measured, before: Option<&Measured>) -> Self {
        let since = before.map(|before| now.since(before));
        Self {
            opened: now.opened,
            syns: now.syns,
            syn_failures: now.syn_failures,
            resets: now.resets,
            client_resets: now.client_resets,
            segments: now.segments,
            retransmits: now.retransmits,
            connect: since.as_ref().and_then(|since| Latency::of(&since.connect)),
            first_byte: since.as_ref().and_then(|since| Latency::of(&since.first_byte)),
            ..self
        }
    }
}

/// Time between two samples of a release that has lasted for `age`: no more than [`MOST`] are ever
/// kept, and they are as far apart from each other throughout.
#[must_use]
pub fn interval(age: Duration) -> Duration {
    let mut interval = EVERY;
    while interval * (MOST as u32) < age {
        interval *= 2;
    }
    interval
}

/// Leaves every second one out, never the first nor the last. Of the times that two of them cover,
/// the longer ones are kept: a peak does not get lost.
#[must_use]
pub fn thin(samples: Vec<Sample>) -> Vec<Sample> {
    let last = samples.len().saturating_sub(1);
    let mut kept: Vec<Sample> = Vec::with_capacity(last / 2 + 2);
    let mut left_out: Option<Sample> = None;
    for (index, mut sample) in samples.into_iter().enumerate() {
        if index % 2 == 1 && index != last {
            left_out = Some(sample);
            continue;
        }
        if let Some(before) = left_out.take() {
            for version in &mut sample.versions {
                let same = |other: &&VersionSample| other.name == version.name;
                if let Some(other) = before.versions.iter().find(same) {
                    version.connect = slower(version.connect, other.connect);
                    version.first_byte = slower(version.first_byte, other.first_byte);
                }
            }
        }
        kept.push(sample);
    }
    kept
}

fn slower(one: Option<Latency>, other: Option<Latency>) -> Option<Latency> {
    one.into_iter().chain(other).max_by_key(|latency| latency.p99_us)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sample of v1 and v2, so many seconds after the begin of 2026.
    pub(crate) fn a_sample(second: u64, opened: [u64; 2], active: [u64; 2]) -> Sample {
        let begin = humantime::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let at = begin + Duration::from_secs(second);
        let version = |name: &str, number: usize| VersionSample {
            name: name.to_owned(),
            weight: 50,
            opened: opened[number],
            active: active[number],
            connect: Some(Latency { p50_us: 300, p99_us: 900 }),
            first_byte: Some(Latency { p50_us: 2_000, p99_us: 40_000 }),
            ..VersionSample::default()
        };
        Sample {
            at: humantime::format_rfc3339_millis(at).to_string(),
            since_boot_ms: second * 1000,
            epoch: 1,
            generation: 7,
            versions: vec![version("v1", 0), version("v2", 1)],
        }
    }

    #[test]
    fn the_interval_grows_so_that_no_more_are_kept() {
        let seconds = |age| interval(Duration::from_secs(age)).as_secs();
        assert_eq!([0, 2400, 2401, 4800, 4801].map(seconds), [2, 2, 4, 4, 8]);
        // A week.
        assert_eq!(seconds(7 * 86_400), 512);
    }

    #[test]
    fn every_second_one_is_left_out_and_no_peak() {
        let mut all: Vec<Sample> = (0..6).map(|n| a_sample(n * 2, [n, 0], [0, 0])).collect();
        let peak = Some(Latency { p50_us: 1, p99_us: 1_000_000 });
        all[1].versions[0].connect = peak;
        all[3].versions[1].connect = None;
        let kept = thin(all);
        let opened: Vec<u64> = kept.iter().map(|sample| sample.versions[0].opened).collect();
        assert_eq!(opened, [0, 2, 4, 5]);
        assert_eq!(kept[1].versions[0].connect, peak);
        assert_eq!(kept[2].versions[1].connect, kept[0].versions[1].connect);
        assert_eq!(thin(Vec::new()), []);
        assert_eq!(thin(vec![a_sample(0, [0; 2], [0; 2])]).len(), 1);
    }

    #[test]
    fn times_are_those_since_the_sample_before() {
        let mut before = Measured { opened: 10, resets: 1, ..Measured::default() };
        before.connect.0[40] = 10;
        let mut now = Measured { opened: 12, resets: 3, ..before.clone() };
        now.connect.0[20] = 2;
        let named = VersionSample { name: "v1".to_owned(), ..VersionSample::default() };
        let first = named.clone().measured(&before, None);
        assert_eq!((first.opened, first.connect), (10, None));
        let second = named.clone().measured(&now, Some(&before));
        assert_eq!((second.opened, second.resets, second.first_byte), (12, 3, None));
        assert!(second.connect.unwrap().p99_us < 100, "{second:?}");
        assert_eq!(named.name, second.name);
    }

    #[test]
    fn a_sample_is_small_whatever_it_counts() {
        let much = 10_u64.pow(12);
        let mut sample = a_sample(much / 1000, [much; 2], [much; 2]);
        for version in &mut sample.versions {
            let latency = Some(Latency { p50_us: 16_000_000, p99_us: 32_000_000 });
            *version = VersionSample {
                name: "a-version-of-a-long-name".to_owned(),
                weight: 1000,
                closed: much,
                syns: much,
                syn_failures: much,
                resets: much,
                client_resets: much,
                segments: much,
                retransmits: much,
                connect: latency,
                first_byte: latency,
                ..version.clone()
            };
        }
        let text = serde_json::to_string(&sample).unwrap();
        assert!(text.len() < 1024, "{}: {text}", text.len());
    }
}
