//! What a run leaves: tables on the terminal, a JSON document, and a page with plots.

mod against;
mod page;
mod plot;
#[cfg(test)]
mod sample;
mod table;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use against::Comparison;
pub use page::write_page;
pub use table::print;
pub use words::summary;

use crate::machine::Machine;
use crate::row::{Measured, Section, Stats};

/// Of the JSON document. Grows when an older reader would misunderstand.
const SCHEMA: u32 = 1;

/// A run, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    schema: u32,
    /// What it ran on.
    pub machine: Machine,
    /// What it found.
    #[serde(flatten)]
    pub measured: Measured,
}

impl Document {
    /// Of what was measured.
    ///
    /// # Errors
    /// If a row or figure can't be found again: two of one name, or a figure that is no number.
    pub fn new(machine: Machine, measured: Measured) -> Result<Self> {
        let mut ids = BTreeSet::new();
        for row in &measured.rows {
            ensure!(ids.insert(&row.id), "two rows are called {}", row.id);
            let finite =
                |stats: Stats| [stats.min, stats.median, stats.max].iter().all(|n| n.is_finite());
            let all = finite(row.value) && row.ratio.is_none_or(finite);
            ensure!(all, "{}: not a number in {:?} or {:?}", row.id, row.value, row.ratio);
        }
        let mut ids = BTreeSet::new();
        for figure in &measured.figures {
            ensure!(ids.insert(&figure.id), "two plots are called {}", figure.id);
        }
        Ok(Self { schema: SCHEMA, machine, measured })
    }

    /// Reads one.
    ///
    /// # Errors
    /// If there is none in the file, or one of another schema.
    pub fn read(path: &Path) -> Result<Self> {
        let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&json).with_context(|| path.display().to_string())
    }

    fn parse(json: &[u8]) -> Result<Self> {
        /// The part that is there in any schema.
        #[derive(Deserialize)]
        struct Any {
            schema: u32,
        }
        let no_result = "not the result of a benchmark";
        let Any { schema } = serde_json::from_slice(json).context(no_result)?;
        if schema != SCHEMA {
            bail!("is of schema {schema}; this program reads {SCHEMA}");
        }
        serde_json::from_slice(json).context(no_result)
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        write(path, &json)
    }
}

/// Writes a file, and makes its folder.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Sections in the order of a report.
const SECTIONS: [Section; 4] =
    [Section::PacketPath, Section::EndToEnd, Section::ControlPath, Section::Scale];

/// Heading of a section, and what it is about.
fn heading(section: Section) -> (&'static str, &'static str) {
    match section {
        Section::PacketPath => ("Packet path", "programs run over packets by BPF_PROG_TEST_RUN"),
        Section::EndToEnd => ("End to end", "real clients, stacks and servers in namespaces"),
        Section::ControlPath => ("Control path", "commands, verdicts and the daemon itself"),
        Section::Scale => ("Scale", "the same with everything large"),
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{machine, measured};
    use super::*;
    use crate::row::Row;

    #[test]
    fn a_document_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/last.json");
        let document = Document::new(machine(), measured()).unwrap();
        document.write(&path).unwrap();
        assert_eq!(Document::read(&path).unwrap(), document);
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        let error = |json: &str| format!("{:#}", Document::parse(json.as_bytes()).unwrap_err());
        assert!(error("{\"schema\": 99}").contains("schema 99"));
        assert!(error("{\"schema\": 1}").contains("not the result"));
        assert!(error("[]").contains("not the result"));
    }

    #[test]
    fn rows_have_names_of_their_own_and_numbers() {
        let row = |value| Row::new(Section::Scale, "a.b", "a", "ns", &[value]);
        let document =
            |rows: Vec<Row>| Document::new(machine(), Measured { rows, figures: vec![] });
        assert!(document(vec![row(1.0)]).is_ok());
        let error = document(vec![row(1.0), row(1.0)]).unwrap_err();
        assert_eq!(error.to_string(), "two rows are called a.b");
        assert!(document(vec![row(f64::NAN)]).is_err());
        assert!(document(vec![row(1.0).ratio("x", &[f64::INFINITY])]).is_err());
    }
}
