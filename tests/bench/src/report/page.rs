//! `docs/benchmarks.md`, all of it, and its plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Document, SECTIONS, heading, plot, words, write};
use crate::row::{Row, Section};

/// How things are measured: the part of the page that no run changes.
const METHOD: &str = include_str!("method.md");
/// Name of the page, and of the folder of its plots beside it.
const PAGE: &str = "benchmarks.md";
const PLOTS: &str = "benchmarks";

/// Writes the page and its plots into a folder. Plots of an earlier run that this one has no more
/// are removed.
///
/// # Errors
/// If a file can't be written.
pub fn write_page(document: &Document, docs: &Path) -> Result<()> {
    let folder = docs.join(PLOTS);
    let figures = &document.measured.figures;
    for figure in figures {
        let svg = plot::svg(figure, &document.machine);
        write(&folder.join(format!("{}.svg", figure.id)), &svg)?;
    }
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stale = name.strip_suffix(".svg").filter(|id| figures.iter().all(|f| f.id != *id));
        if stale.is_some() {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {name}"))?;
        }
    }
    write(&docs.join(PAGE), &markdown(document))
}

fn markdown(document: &Document) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    header(&mut page, document);
    targets(&mut page, &document.measured.rows);
    let _ = writeln!(page, "{}", METHOD.trim_end());
    for section in SECTIONS {
        self::section(&mut page, document, section);
    }
    page
}

fn header(page: &mut String, document: &Document) {
    let machine = &document.machine;
    let again =
        if machine.quick { "cargo xtask bench --quick --docs" } else { "cargo xtask bench" };
    let _ = writeln!(
        page,
        "Written by `{again}` (root), which measures all of it again; what is changed here by hand \
         is lost. The same figures for programs: [`last.json`](benchmarks/last.json).\n"
    );
    let rows = [
        ("machine", machine.hardware()),
        ("kernel", machine.software()),
        ("commit", machine.commit.clone()),
        ("date", machine.date.clone()),
        ("run", machine.run().to_owned()),
    ];
    page.push_str("| | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(page, "| {name} | {} |", cell(&value));
    }
    page.push('\n');
}

fn targets(page: &mut String, rows: &[Row]) {
    let missed: Vec<&Row> = words::missed(rows).collect();
    let judged = rows.iter().filter(|row| row.is_met().is_some()).count();
    let _ = writeln!(page, "## Targets\n{} of {judged} are met.", judged - missed.len());
    if missed.is_empty() {
        page.push('\n');
        return;
    }
    page.push_str("Missed:\n\n");
    for row in missed {
        let target = row.target.as_ref().map(words::target).unwrap_or_default();
        let _ = writeln!(page, "- {}: {}, target {target}", row.what, words::compared(row));
    }
    page.push('\n');
}

fn section(page: &mut String, document: &Document, section: Section) {
    let rows: Vec<&Row> =
        document.measured.rows.iter().filter(|row| row.section == section).collect();
    let figures = document.measured.figures.iter().filter(|figure| figure.section == section);
    let mut figures = figures.peekable();
    if rows.is_empty() && figures.peek().is_none() {
        return;
    }
    let (title, about) = heading(section);
    let _ = writeln!(page, "\n## {title}\nWhat is measured: {about}.\n");
    if !rows.is_empty() {
        page.push_str("| | min | median | max | unit | rounds | ratio | target | |\n");
        page.push_str("|---|--:|--:|--:|---|--:|---|---|---|\n");
    }
    for row in rows {
        let cells = cells(row).map(|text| cell(&text));
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    for figure in figures {
        let _ = writeln!(page, "\n![{}]({PLOTS}/{}.svg)", figure.title, figure.id);
    }
}

fn cells(row: &Row) -> [String; 9] {
    let ratio = words::ratio(row).map(|(ratio, range)| match range.as_str() {
        "" => ratio,
        range => format!("{ratio} ({range})"),
    });
    let met = match row.is_met() {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    [
        row.what.clone(),
        words::number(row.value.min),
        words::number(row.value.median),
        words::number(row.value.max),
        row.unit.clone(),
        row.value.rounds.to_string(),
        ratio.unwrap_or_default(),
        row.target.as_ref().map(words::target).unwrap_or_default(),
        met.to_owned(),
    ]
}

/// Text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::sample::{machine, measured};
    use super::*;

    fn document() -> Document {
        Document::new(machine(), measured()).unwrap()
    }

    #[test]
    fn a_page_says_all_and_what_is_missed() {
        let page = markdown(&document());
        for part in [
            "| machine | 2 × Some CPU \\| 2 GHz, 8.0 GiB, virtual machine |",
            "| commit | 0123456789ab, changed |",
            "2 of 3 are met.",
            "- requests/s, kept alive: 0.92 × direct, target ≥ 0.95",
            "| client → backend | 70 | 71.5 | 90 | ns | 3 | 1.72 × lookup, net (1.65–1.80) | ≤ 1.8 | met |",
            "| 0.92 × direct (0.90–0.93) | ≥ 0.95 | **missed** |",
            "![Cost against number of flows](benchmarks/packet.flows.svg)",
            "## Packet path",
            "## Scale",
        ] {
            assert!(page.contains(part), "{part} is missing in:\n{page}");
        }
        assert!(!page.contains("## Control path"), "nothing was measured there");
        assert!(!page.contains("\n\n\n"), "{page}");
    }

    #[test]
    fn every_row_of_a_table_has_all_columns() {
        let page = markdown(&document());
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let tables = page.lines().filter(|line| line.starts_with('|'));
        for line in tables {
            assert!([3, 10].contains(&columns(line)), "{line}");
        }
    }

    #[test]
    fn plots_of_earlier_runs_are_removed() {
        let docs = tempfile::tempdir().unwrap();
        let plots = docs.path().join(PLOTS);
        fs::create_dir(&plots).unwrap();
        for name in ["old.svg", "last.json"] {
            fs::write(plots.join(name), "").unwrap();
        }
        write_page(&document(), docs.path()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&plots).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["last.json", "packet.flows.svg"]);
        assert!(fs::read_to_string(docs.path().join(PAGE)).unwrap().starts_with("# Benchmarks\n"));
    }
}
