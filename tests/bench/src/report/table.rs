//! Tables on the terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::{heading, words};
use crate::row::{Row, Section};

/// Columns, and whether theirs are numbers.
const COLUMNS: [(&str, bool); 9] = [
    ("", false),
    ("min", true),
    ("median", true),
    ("max", true),
    ("", false),
    ("ratio", false),
    ("", false),
    ("target", false),
    ("", false),
];

/// Prints the rows of a section, if there are any. `colours`: whether what is missed stands out in red.
pub fn print(section: Section, rows: &[Row], colours: bool) {
    if rows.is_empty() {
        return;
    }
    let (title, about) = heading(section);
    println!("\n{}: {about}", paint(title, "1", colours));
    for line in lines(rows) {
        let line = match line.strip_suffix(MISSED) {
            Some(before) => format!("{before}{}", paint(MISSED, "31", colours)),
            None => line,
        };
        println!("{line}");
    }
}

/// The last word of a row that doesn't reach its target.
const MISSED: &str = "missed";

fn lines(rows: &[Row]) -> Vec<String> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(COLUMNS.map(|(name, _)| name));
    for row in rows {
        table.add_row(cells(row));
    }
    for (column, (_, is_number)) in table.column_iter_mut().zip(COLUMNS) {
        column.set_padding((0, 2));
        if is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn cells(row: &Row) -> [String; 9] {
    let number = |value| words::number(value);
    let [min, max] = if row.value.rounds < 2 {
        [String::new(), String::new()]
    } else {
        [number(row.value.min), number(row.value.max)]
    };
    let (ratio, range) = words::ratio(row).unwrap_or_default();
    let target = row.target.as_ref().map(words::target).unwrap_or_default();
    let met = match row.is_met() {
        Some(true) => "met",
        Some(false) => MISSED,
        None => "",
    };
    let (what, unit) = (row.what.clone(), row.unit.clone());
    [what, min, number(row.value.median), max, unit, ratio, range, target, met.to_owned()]
}

fn paint(text: &str, code: &str, colours: bool) -> String {
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::sample::measured;
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let lines = lines(&measured().rows);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        let place = |line: &str, text: &str| {
            line.find(text)
                .map(|at| line[..at].chars().count())
                .unwrap_or_else(|| panic!("{text} in {line}"))
        };
        assert_eq!(place(&lines[1], "ns"), place(&lines[3], "requests/s  "));
        assert_eq!(place(&lines[1], "1.72 × lookup, net"), place(&lines[0], "ratio"));
        assert_eq!(place(&lines[1], "≤ 1.8"), place(&lines[0], "target"));
        assert!(lines[1].ends_with("met") && lines[3].ends_with("missed"));
        assert!(lines[2].ends_with("ns"), "no target, no ratio: {}", lines[2]);
        assert!(lines[4].contains("140"));
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert_eq!(paint("a", "31", false), "a");
        assert_eq!(paint("a", "31", true), "\x1b[31ma\x1b[0m");
    }
}
