//! What `releasectl` costs, measured side by side with what it is compared with.
//!
//! Each module of a section measures, checks that what it measures is what it says (return values,
//! bytes, counters), and returns [`row::Row`]s and [`row::Figure`]s. `cargo xtask bench` runs it.

mod control;
mod end_to_end;
mod packet;
mod row;
mod scale;

use anyhow::Result;
use clap::Parser;
use row::{Measured, Section};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", max_term_width = 100)]
struct Args {
    /// Fewer rounds and smaller tables: three minutes at most
    #[arg(long)]
    quick: bool,
    /// These parts only
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
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
}

/// Says what goes on.
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}

fn main() -> Result<()> {
    let args = Args::parse();
    let scope = Scope { quick: args.quick };
    let mut all = Measured::default();
    let sections: [(Section, fn(Scope) -> Result<Measured>); 4] = [
        (Section::PacketPath, packet::measure),
        (Section::EndToEnd, end_to_end::measure),
        (Section::ControlPath, control::measure),
        (Section::Scale, scale::measure),
    ];
    for (section, measure) in sections {
        if args.only.is_empty() || args.only.contains(&section) {
            let Measured { rows, figures } = measure(scope)?;
            all.rows.extend(rows);
            all.figures.extend(figures);
        }
    }
    for row in &all.rows {
        println!("{row:?}");
    }
    Ok(())
}
