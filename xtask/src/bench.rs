//! `cargo xtask bench`: what releasectl costs, side by side with what it is compared with.

mod peers;

use std::path::PathBuf;

use anyhow::Result;

use crate::{program, workspace};

/// Parts of the benchmark, as `release-bench` calls them.
const SECTIONS: [&str; 4] = ["packet-path", "end-to-end", "control-path", "scale"];

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 1 if something is worse than in --against FILE, or if what is \
measured is not what it should be (a verdict, a packet, a counter). A missed target is said, and \
no failure.

Worse is what noise can't be: the median of a row's ratio is more than 10 % from the earlier one, \
to the worse side, and all its rounds lie beyond all rounds of the earlier run. Rows without a \
ratio are compared by their value if it has a target.

Examples:
  cargo xtask bench --quick
  cargo xtask bench --quick --only packet-path --only scale
  cargo xtask bench --against docs/benchmarks/last.json    before it is written anew
  cargo xtask bench --only packet-path --json before.json
  cargo xtask bench --only packet-path --against before.json")]
pub struct Args {
    /// Fewer rounds and smaller tables: three minutes at most, and no documents
    #[arg(long)]
    quick: bool,
    /// This part only, and no documents; may be given again
    #[arg(long, value_name = "SECTION", value_parser = SECTIONS)]
    only: Vec<String>,
    /// Compare with the JSON of an earlier run, and say what became worse
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write documents after a quick run, too
    #[arg(long, conflicts_with = "only")]
    docs: bool,
}

/// Sets up what is missing, builds, and becomes the benchmark.
///
/// # Errors
/// Without root, or if something can't be fetched or built.
pub fn run(args: &Args) -> Result<()> {
    const NAME: &str = "release-bench";
    program::check_root(NAME)?;
    let peers = peers::ensure()?;
    let mut bench = program::optimised(NAME, &[NAME])?;
    peers.equip(&mut bench)?;
    if args.quick {
        bench.arg("--quick");
    }
    args.only.iter().for_each(|section| _ = bench.args(["--only", section]));
    for (option, file) in [("--against", &args.against), ("--json", &args.json)] {
        file.iter().for_each(|file| _ = bench.arg(option).arg(file));
    }
    if args.docs || !args.quick && args.only.is_empty() {
        let docs = workspace::root().join("docs");
        bench.arg("--json").arg(docs.join("benchmarks/last.json"));
        bench.arg("--docs").arg(docs);
    }
    program::turn_into(bench)
}
