//! What a benchmark says: rows, each a figure with what it is compared with, and curves.

use serde::{Deserialize, Serialize};

/// Part of the benchmark.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Programs run over packets by BPF_PROG_TEST_RUN.
    PacketPath,
    /// Real stacks, clients and servers in namespaces.
    EndToEnd,
    /// Commands, verdicts, the daemon itself.
    ControlPath,
    /// The same with everything large.
    Scale,
}

/// What the rounds of one measurement say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Least.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// Most.
    pub max: f64,
    /// How many rounds there were.
    pub rounds: usize,
}

impl Stats {
    /// Of one figure for each round. None at all is all zero.
    pub fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let (last, middle) = (sorted.len().saturating_sub(1), sorted.len() / 2);
        let median = if sorted.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self { min: at(0), median, max: at(last), rounds: sorted.len() }
    }
}

/// What there is to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The bound.
    pub bound: f64,
    /// Whether it is an upper bound.
    pub at_most: bool,
}

impl Target {
    /// No more than that.
    pub fn at_most(bound: f64) -> Self {
        Self { bound, at_most: true }
    }

    /// No less than that.
    pub fn at_least(bound: f64) -> Self {
        Self { bound, at_most: false }
    }

    fn is_met(&self, value: f64) -> bool {
        if self.at_most { value <= self.bound } else { value >= self.bound }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Part of the benchmark.
    pub section: Section,
    /// Names it from run to run: lower case, dots between its parts.
    pub id: String,
    /// What was measured.
    pub what: String,
    /// Unit of `value`: `ns`, `requests/s`, `B`, …
    pub unit: String,
    /// The figure itself.
    pub value: Stats,
    /// The figure in terms of another of the same rounds, which holds where times drift.
    pub ratio: Option<Stats>,
    /// What `ratio` is of: `lookup, net`, `direct`, …
    pub of: Option<String>,
    /// What there is to reach: by the ratio where there is one, else by the value.
    pub target: Option<Target>,
}

impl Row {
    /// A figure by itself.
    pub fn new(section: Section, id: &str, what: &str, unit: &str, rounds: &[f64]) -> Self {
        Self {
            section,
            id: id.to_owned(),
            what: what.to_owned(),
            unit: unit.to_owned(),
            value: Stats::of(rounds),
            ratio: None,
            of: None,
            target: None,
        }
    }

    /// The same with its ratio to something, one for each round.
    #[must_use]
    pub fn ratio(self, of: &str, ratios: &[f64]) -> Self {
        Self { ratio: Some(Stats::of(ratios)), of: Some(of.to_owned()), ..self }
    }

    /// The same with something to reach.
    #[must_use]
    pub fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// What is compared: the median of the ratio where there is one, else of the value.
    pub fn compared(&self) -> Stats {
        self.ratio.unwrap_or(self.value)
    }

    /// Whether it reaches its target, if it has one.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.target.as_ref()?.is_met(self.compared().median))
    }
}

/// Curves of one plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Part of the benchmark.
    pub section: Section,
    /// Names it from run to run, and its file.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// What is on the horizontal axis, with its unit.
    pub x: String,
    /// Whether the horizontal axis is logarithmic.
    pub x_log: bool,
    /// What is on the vertical axis, with its unit.
    pub y: String,
    /// Whether the vertical axis is logarithmic.
    pub y_log: bool,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// One curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Points, in order of `x`.
    pub points: Vec<(f64, f64)>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Figures.
    pub rows: Vec<Row>,
    /// Plots.
    pub figures: Vec<Figure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(
            Stats::of(&[3.0, 1.0, 2.0]),
            Stats { min: 1.0, median: 2.0, max: 3.0, rounds: 3 }
        );
        assert_eq!(Stats::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Stats::of(&[]).median, 0.0);
    }

    #[test]
    fn targets_are_about_the_ratio_where_there_is_one() {
        let row = Row::new(Section::PacketPath, "a", "a", "ns", &[100.0]);
        assert_eq!(row.is_met(), None);
        let row = row.target(Target::at_most(2.0));
        assert_eq!(row.is_met(), Some(false));
        assert_eq!(row.clone().ratio("lookup", &[2.0]).is_met(), Some(true));
        assert_eq!(row.target(Target::at_least(100.0)).is_met(), Some(true));
    }
}
