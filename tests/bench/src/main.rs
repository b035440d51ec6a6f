//! What `releasectl` costs, measured side by side with what it is compared with.
//!
//! Each module of a section measures, checks that what it measures is what it says (return values,
//! bytes, counters), and returns [`row::Row`]s and [`row::Figure`]s. `cargo xtask bench` runs it.

mod control;
mod end_to_end;
mod interrupt;
mod machine;
mod packet;
mod report;
mod row;
mod scale;

use std::io::{IsTerminal as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use machine::Machine;
use report::{Comparison, Document};
use row::{Measured, Section};

/// Arguments that `cargo xtask bench` gives; it explains them, too.
#[derive(Debug, Parser)]
#[command(name = "release-bench", max_term_width = 100)]
struct Args {
    /// Fewer rounds and smaller tables: three minutes at most
    #[arg(long)]
    quick: bool,
    /// These parts only
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
    /// Exit code 1 if something is worse than in this JSON document
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Write the result there
    #[arg(long, value_name = "FILE")]
    json: Vec<PathBuf>,
    /// Write `benchmarks.md` and its plots into this folder
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// In three minutes at most.
    pub quick: bool,
}

impl Scope {
    /// Rounds of each measurement.
    pub fn rounds(self) -> usize {
        9
    }

    /// Turns of each program of the packet path in a round.
    pub fn turns(self) -> u32 {
        if self.quick { 50 } else { 200 }
    }
}

/// Measures a section.
type Measure = fn(Scope) -> Result<Measured>;

/// Says what goes on.
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // What fails once it was asked to stop fails because of that: its processes were asked, too.
        Err(_) if interrupt::asked() => {
            say("stopped, everything is taken down");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and reports. Returns whether nothing became worse.
fn run(args: &Args) -> Result<bool> {
    // First: the file may be the one that this run writes, and a wrong name is told at once.
    let before = args.against.as_deref().map(Document::read).transpose()?;
    let machine = Machine::here(args.quick)?;
    say(&format!("{}, {}, commit {}", machine.hardware(), machine.software(), machine.commit));

    interrupt::expect()?;
    let scope = Scope { quick: args.quick };
    let mut all = Measured::default();
    let sections: [(Section, Measure); 4] = [
        (Section::PacketPath, packet::measure),
        (Section::EndToEnd, end_to_end::measure),
        (Section::ControlPath, control::measure),
        (Section::Scale, scale::measure),
    ];
    let wanted = |section: &Section| args.only.is_empty() || args.only.contains(section);
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = stdout().is_terminal() && !plain;
    let mut measured_sections = Vec::new();
    for (section, measure) in sections.into_iter().filter(|(section, _)| wanted(section)) {
        let Measured { rows, figures } = measure(scope)?;
        report::print(section, &rows, colours);
        all.rows.extend(rows);
        all.figures.extend(figures);
        measured_sections.push(section);
    }

    let document = Document::new(machine, all)?;
    for path in &args.json {
        document.write(path)?;
    }
    if let Some(folder) = &args.docs {
        report::write_page(&document, folder)?;
    }
    let comparison = before.map(|before| Comparison::new(&document, &before, &measured_sections));
    if let Some(comparison) = &comparison {
        println!("\n{comparison}");
    }
    println!("\n{}", report::summary(&document.measured.rows));
    Ok(comparison.is_none_or(|comparison| comparison.is_good()))
}
