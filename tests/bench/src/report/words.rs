//! Figures in words, the same on the terminal and on the page.

use crate::row::{Row, Stats, Target};

/// A number with three digits that say something, at least: `0.0123`, `4.56`, `78.9`, `1,234`.
/// What is whole stays whole.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 || size >= 999.5 {
        return grouped(value);
    }
    // One more digit than three below ten, where ratios and their bounds are.
    let decimals = match size {
        99.95.. => 0,
        9.995.. => 1,
        0.1.. => 2,
        0.01.. => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Whole, with a comma between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// `1.72 × lookup, net`, and from where to where its rounds lie.
pub fn ratio(row: &Row) -> Option<(String, String)> {
    let ratio = row.ratio?;
    let of = row.of.as_deref().unwrap_or("?");
    Some((format!("{} × {of}", number(ratio.median)), range(ratio)))
}

/// `1.65–1.80`; nothing for a single round.
pub fn range(stats: Stats) -> String {
    if stats.rounds < 2 {
        return String::new();
    }
    format!("{}–{}", number(stats.min), number(stats.max))
}

/// `≤ 1.8`.
pub fn target(target: &Target) -> String {
    let sign = if target.at_most { '≤' } else { '≥' };
    // As it was set; bounds that were computed have digits that say nothing.
    let rounded = (target.bound * 1000.0).round() / 1000.0;
    let bound = if rounded.abs() < 1000.0 { rounded.to_string() } else { grouped(target.bound) };
    format!("{sign} {bound}")
}

/// The figure that is compared, in its unit or as the ratio it is.
pub fn compared(row: &Row) -> String {
    ratio(row)
        .map_or_else(|| format!("{} {}", number(row.value.median), row.unit), |(ratio, _)| ratio)
}

/// `43 of 46 targets met; missed: …`.
pub fn summary(rows: &[Row]) -> String {
    let judged = rows.iter().filter(|row| row.is_met().is_some()).count();
    let missed: Vec<&str> = missed(rows).map(|row| row.what.as_str()).collect();
    let met = format!("{} of {judged} targets met", judged - missed.len());
    if missed.is_empty() { met } else { format!("{met}; missed: {}", missed.join("; ")) }
}

/// Rows that don't reach their target.
pub fn missed(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.is_met() == Some(false))
}

#[cfg(test)]
mod tests {
    use super::super::sample::measured;
    use super::*;
    use crate::row::Section;

    #[test]
    fn numbers_keep_what_they_say() {
        let cases = [
            (0.0, "0"),
            (0.001_23, "0.0012"),
            (0.0456, "0.046"),
            (0.951, "0.95"),
            (4.567, "4.57"),
            (9.996, "10.0"),
            (57.26, "57.3"),
            (153.4, "153"),
            (4096.0, "4,096"),
            (999.7, "1,000"),
            (1_234_567.8, "1,234,568"),
            (-1500.0, "-1,500"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_target_is_written_as_it_was_set() {
        assert_eq!(target(&Target::at_most(1.8)), "≤ 1.8");
        assert_eq!(target(&Target::at_least(0.005)), "≥ 0.005");
        assert_eq!(target(&Target::at_most(0.6 * 6.8)), "≤ 4.08");
        assert_eq!(target(&Target::at_least(50_000.0)), "≥ 50,000");
    }

    #[test]
    fn the_summary_names_what_is_missed() {
        let rows = measured().rows;
        assert_eq!(summary(&rows), "2 of 3 targets met; missed: requests/s, kept alive");
        assert_eq!(summary(&rows[..1]), "1 of 1 targets met");
        assert_eq!(summary(&[]), "0 of 0 targets met");
    }

    #[test]
    fn a_single_round_has_no_range() {
        let row = Row::new(Section::Scale, "a", "a", "B", &[144.0]);
        assert_eq!((range(row.value), ratio(&row)), (String::new(), None));
        assert_eq!(compared(&row), "144 B");
        let row = row.ratio("v4", &[1.0, 1.5, 2.0]);
        assert_eq!(ratio(&row), Some(("1.50 × v4".to_owned(), "1–2".to_owned())));
    }
}
