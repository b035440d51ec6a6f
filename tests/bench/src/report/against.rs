//! This run against an earlier one: what became worse, beyond noise.

use std::fmt;

use super::{Document, words};
use crate::row::{Row, Section, Stats};

/// Medians that are less than this share of the earlier one apart are the same.
const FLOOR: f64 = 0.1;

/// What a comparison says.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    heading: String,
    worse: Vec<String>,
    improved: Vec<String>,
    /// Rows that are about something else now: another unit, or a ratio to another thing.
    changed: Vec<String>,
    gone: Vec<String>,
    new: Vec<String>,
    /// Rows that are the same, as far as noise allows to say.
    same: usize,
    /// Rows of which nobody says which way is better, and times by themselves, which drift.
    unjudged: usize,
    /// Rows of the earlier run that this kind of run, quick or full, does not have.
    left_out: usize,
}

impl Comparison {
    /// Compares, row by row, what has the same id. Of the `sections` that were measured, rows that
    /// are missing are named; quick and full runs have different rows, which is no loss.
    pub fn new(now: &Document, before: &Document, sections: &[Section]) -> Self {
        let mut comparison = Self { heading: heading(now, before), ..Self::default() };
        let (rows, earlier) = (&now.measured.rows, &before.measured.rows);
        let named = |row: &Row| format!("{} ({})", row.what, row.id);
        for row in rows {
            match earlier.iter().find(|earlier| earlier.id == row.id) {
                Some(before) => comparison.row(row, before),
                None => comparison.new.push(named(row)),
            }
        }
        let missing = earlier
            .iter()
            .filter(|row| sections.contains(&row.section))
            .filter(|row| rows.iter().all(|now| now.id != row.id));
        if now.machine.quick == before.machine.quick {
            comparison.gone = missing.map(named).collect();
        } else {
            comparison.left_out = missing.count();
        }
        comparison
    }

    /// Whether nothing became worse.
    pub fn is_good(&self) -> bool {
        self.worse.is_empty()
    }

    fn row(&mut self, now: &Row, before: &Row) {
        let name = format!("{} ({})", now.what, now.id);
        if now.of != before.of || now.unit != before.unit {
            let about =
                |row: &Row| format!("{} {}", row.unit, row.of.as_deref().unwrap_or_default());
            let (now, before) = (about(now), about(before));
            self.changed.push(format!("{name}: {} before, {} now", before.trim(), now.trim()));
            return;
        }
        let comparable = now.ratio.is_some() || now.target.is_some();
        let (Some(better), true) = (Better::of(now), comparable) else {
            self.unjudged += 1;
            return;
        };
        let list = match (Change::between(before.compared(), now.compared()), better) {
            (Change::None, _) => {
                self.same += 1;
                return;
            }
            (Change::Up, Better::Larger) | (Change::Down, Better::Smaller) => &mut self.improved,
            (Change::Up, Better::Smaller) | (Change::Down, Better::Larger) => &mut self.worse,
        };
        list.push(format!("{name}: {}", course(before, now)));
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Smaller,
    Larger,
}

impl Better {
    /// The target says so; without one the unit does: less time is better, and more per second.
    fn of(row: &Row) -> Option<Self> {
        if let Some(target) = &row.target {
            return Some(if target.at_most { Self::Smaller } else { Self::Larger });
        }
        let (of, per) = row.unit.split_once('/').unwrap_or((&row.unit, ""));
        if of.split(' ').any(|word| ["ns", "µs", "us", "ms", "s"].contains(&word)) {
            Some(Self::Smaller)
        } else if per == "s" {
            Some(Self::Larger)
        } else {
            None
        }
    }
}

/// Whether a figure is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Up,
    Down,
}

impl Change {
    /// A change is what noise can't be: the medians are further apart than [`FLOOR`], and so far
    /// that the rounds of the two runs don't overlap.
    fn between(before: Stats, now: Stats) -> Self {
        let far = (now.median - before.median).abs() > FLOOR * before.median.abs();
        if far && now.min > before.max {
            Self::Up
        } else if far && now.max < before.min {
            Self::Down
        } else {
            Self::None
        }
    }
}

/// `1.72 × lookup, net (1.65–1.80) → 2.10 × lookup, net (2.05–2.20), +22 %`.
fn course(before: &Row, now: &Row) -> String {
    let side = |row: &Row| {
        let range = words::range(row.compared());
        let range = if range.is_empty() { range } else { format!(" ({range})") };
        words::compared(row) + &range
    };
    let (from, to) = (before.compared().median, now.compared().median);
    // Of nothing there are no percents.
    let share =
        if from == 0.0 { String::new() } else { format!(", {:+.0} %", (to / from - 1.0) * 100.0) };
    format!("{} → {}{share}", side(before), side(now))
}

/// What the earlier run was, and whether it was on the same machine.
fn heading(now: &Document, before: &Document) -> String {
    let (now, before) = (&now.machine, &before.machine);
    let mut heading =
        format!("Against the {} run of {} at commit {}", before.run(), before.date, before.commit);
    if now.hardware() != before.hardware() {
        heading += &format!(", on another machine ({})", before.hardware());
    }
    if now.software() != before.software() {
        heading += &format!(", on another kernel ({})", before.software());
    }
    heading
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.heading)?;
        let lists = [
            ("improved", &self.improved),
            ("new", &self.new),
            ("gone", &self.gone),
            ("not the same thing any more", &self.changed),
            ("WORSE", &self.worse),
        ];
        for (title, lines) in lists {
            for line in lines {
                writeln!(f, "  {title}: {line}")?;
            }
        }
        let Self { same, unjudged, left_out, .. } = self;
        write!(
            f,
            "{} worse, {} improved, {same} the same within noise, {unjudged} not judged",
            self.worse.len(),
            self.improved.len()
        )?;
        if *left_out > 0 {
            write!(f, ", {left_out} of the earlier run not measured by this kind of run")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{machine, measured};
    use super::*;
    use crate::row::{Measured, Target};

    const PACKET: [Section; 1] = [Section::PacketPath];

    fn document(rows: Vec<Row>) -> Document {
        Document::new(machine(), Measured { rows, figures: Vec::new() }).unwrap()
    }

    fn row(unit: &str, rounds: &[f64]) -> Row {
        Row::new(Section::PacketPath, "a", "a case", unit, rounds)
    }

    /// Compares two runs of one row.
    fn compare(before: Row, now: Row) -> Comparison {
        Comparison::new(&document(vec![now]), &document(vec![before]), &PACKET)
    }

    fn counts(comparison: &Comparison) -> (usize, usize, usize, usize) {
        let Comparison { worse, improved, same, unjudged, .. } = comparison;
        (worse.len(), improved.len(), *same, *unjudged)
    }

    const WORSE: (usize, usize, usize, usize) = (1, 0, 0, 0);
    const IMPROVED: (usize, usize, usize, usize) = (0, 1, 0, 0);
    const SAME: (usize, usize, usize, usize) = (0, 0, 1, 0);
    const UNJUDGED: (usize, usize, usize, usize) = (0, 0, 0, 1);

    #[test]
    fn only_what_noise_cannot_be_is_a_change() {
        let ratio = |ratios: &[f64]| row("ns", &[1.0]).ratio("lookup", ratios);
        let before = || ratio(&[1.0, 1.1, 1.2]);
        for (now, expected, why) in [
            (&[1.0, 1.1, 1.2][..], SAME, "nothing happened"),
            (
                &[1.21, 1.22, 1.25],
                WORSE,
                "beyond the floor, and all rounds beyond all earlier ones",
            ),
            (&[1.19, 1.3, 1.5], SAME, "beyond the floor, but a round is among the earlier ones"),
            (&[1.201, 1.205, 1.206], SAME, "beyond all earlier rounds, but not beyond the floor"),
            (&[0.8, 0.9, 0.99], IMPROVED, "the other way"),
            (&[0.8, 0.9, 1.01], SAME, "the other way, but overlapping"),
        ] {
            assert_eq!(counts(&compare(before(), ratio(now))), expected, "{why}");
        }
    }

    #[test]
    fn which_way_is_worse_is_up_to_target_and_unit() {
        let doubled = |row: &dyn Fn(&[f64]) -> Row| counts(&compare(row(&[1.0]), row(&[2.0])));
        let ratio =
            |unit: &'static str| move |ratios: &[f64]| row(unit, &[5.0]).ratio("direct", ratios);
        let at_least = |ratios: &[f64]| ratio("ns")(ratios).target(Target::at_least(1.0));
        assert_eq!(doubled(&at_least), IMPROVED, "the target decides, not the unit");
        let at_most = |ratios: &[f64]| ratio("requests/s")(ratios).target(Target::at_most(1.0));
        assert_eq!(doubled(&at_most), WORSE);
        for unit in ["ns", "µs", "ms", "s", "ns/packet", "CPU s/million requests", "s per walk"] {
            assert_eq!(doubled(&ratio(unit)), WORSE, "{unit}");
        }
        for unit in ["requests/s", "Gbit/s", "new connections/s"] {
            assert_eq!(doubled(&ratio(unit)), IMPROVED, "{unit}");
        }
        for unit in ["instructions", "%", "", "B/flow"] {
            assert_eq!(doubled(&ratio(unit)), UNJUDGED, "{unit}");
        }
    }

    #[test]
    fn a_value_is_compared_only_for_its_target() {
        assert_eq!(counts(&compare(row("ns", &[1.0]), row("ns", &[9.0]))), UNJUDGED, "times drift");
        let memory = |bytes| row("B", &[bytes]).target(Target::at_most(144.0));
        assert_eq!(counts(&compare(memory(100.0), memory(120.0))), WORSE, "though it is met");
        let slow = |time: f64, ratio| row("ns", &[time]).ratio("lookup", &[ratio]);
        assert_eq!(counts(&compare(slow(1.0, 2.0), slow(9.0, 2.0))), SAME, "the machine was slow");
        let lost = |count| row("requests", &[count]).target(Target::at_most(0.0));
        assert_eq!(counts(&compare(lost(0.0), lost(0.0))), SAME);
        let worse = compare(lost(0.0), lost(2.0));
        assert_eq!(counts(&worse), WORSE);
        assert_eq!(worse.worse, ["a case (a): 0 requests → 2 requests"]);
    }

    #[test]
    fn another_thing_is_not_compared() {
        let before = row("ns", &[1.0]).ratio("lookup", &[1.0]);
        for now in [
            row("ns", &[1.0]).ratio("floor", &[9.0]),
            row("ns", &[1.0]),
            row("µs", &[1.0]).ratio("lookup", &[9.0]),
        ] {
            let comparison = compare(before.clone(), now);
            assert_eq!((counts(&comparison), comparison.changed.len()), ((0, 0, 0, 0), 1));
            assert!(comparison.is_good());
        }
    }

    #[test]
    fn rows_come_and_go() {
        let (mut now, before) = (measured(), measured());
        now.rows.remove(0);
        now.rows.push(row("ns", &[1.0]));
        let now = Document::new(machine(), now).unwrap();
        let before = Document::new(machine(), before).unwrap();
        let comparison = Comparison::new(&now, &before, &PACKET);
        assert_eq!(comparison.gone, ["client → backend (packet.client)"]);
        assert_eq!(comparison.new, ["a case (a)"]);
        let others = Comparison::new(&now, &before, &[Section::EndToEnd]);
        assert_eq!(others.gone.len(), 0, "a section that was not measured is not gone");
    }

    #[test]
    fn a_quick_run_is_judged_by_the_rows_it_has() {
        let before = Document::new(machine(), measured()).unwrap();
        let mut now = before.clone();
        now.machine.quick = true;
        now.measured.rows.truncate(1);
        now.measured.rows[0] = now.measured.rows[0].clone().ratio("lookup, net", &[2.5, 2.6]);
        let comparison = Comparison::new(&now, &before, &super::super::SECTIONS);
        assert_eq!(counts(&comparison), WORSE);
        assert_eq!((comparison.gone.len(), comparison.left_out), (0, 3));
        let text = comparison.to_string();
        let course = "1.72 × lookup, net (1.65–1.80) → 2.55 × lookup, net (2.50–2.60), +48 %";
        assert!(text.contains(course), "{text}");
        assert!(text.starts_with("Against the full run of 2026-01-02T03:04:05Z at commit 01234"));
        assert!(!text.contains("another machine"), "{text}");
    }

    #[test]
    fn another_machine_is_named() {
        let now = document(Vec::new());
        let mut before = now.clone();
        before.machine.cpus = 64;
        before.machine.jit = Some(false);
        let text = Comparison::new(&now, &before, &PACKET).to_string();
        assert!(text.contains("on another machine (64 ×") && text.contains("JIT off"), "{text}");
    }
}
