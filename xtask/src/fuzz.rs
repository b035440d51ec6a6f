//! `cargo xtask fuzz`: looks for packets that the packet logic gets wrong, and keeps the corpus.
//!
//! ```text
//! seeds, corpus, findings → libFuzzer → what it found → minimised → corpus
//!                              └─ an input that fails → fuzz/artifacts
//! ```
//!
//! The corpus is replayed by ordinary tests (`tests/harness`): fuzzing is for finding more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, setup, workspace};

/// The fuzz targets, as in `fuzz/fuzz_targets`.
const TARGETS: [&str; 2] = ["decode", "rewrite"];

/// Longest input in bytes: two IP headers with all that is looked through, one in the other.
const LONGEST: u32 = 700;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The only one to run [default: all]
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Installs what is missing, runs the targets and minimises their corpus.
///
/// # Errors
/// If an input fails: libFuzzer has told which, and where it is.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_fuzzer()?;
    let work = workspace::target_dir()?.join("fuzz");
    let seeds = work.join("seeds");
    let mut example = command::cargo("run");
    example.args(["--quiet", "--package", "release-harness", "--example", "seeds"]).arg(&seeds);
    command::run(&mut example)?;
    for name in TARGETS {
        if args.target.as_ref().is_none_or(|target| target == name) {
            Target::new(name, &work).run(args.seconds)?;
        }
    }
    Ok(())
}

/// A fuzz target and its folders.
struct Target {
    name: &'static str,
    /// What cargo-fuzz builds into.
    build: PathBuf,
    /// Inputs checked in.
    corpus: PathBuf,
    /// Inputs checked in that once failed.
    findings: PathBuf,
    /// Inputs made by hand.
    seeds: PathBuf,
    /// Inputs found, kept from run to run.
    found: PathBuf,
    /// What is to become the corpus.
    minimised: PathBuf,
}

impl Target {
    fn new(name: &'static str, work: &Path) -> Self {
        let fuzz = workspace::root().join("fuzz");
        Self {
            name,
            build: work.join("build"),
            corpus: fuzz.join("corpus").join(name),
            findings: fuzz.join("findings").join(name),
            seeds: work.join("seeds").join(name),
            found: work.join("found").join(name),
            minimised: work.join("minimised").join(name),
        }
    }

    /// Runs libFuzzer, then replaces the corpus by a small one that covers the same.
    fn run(&self, seconds: u32) -> Result<()> {
        empty(&self.minimised)?;
        create(&self.found)?;
        let inputs = [&self.corpus, &self.findings, &self.seeds];
        let mut fuzz = self.libfuzzer(&self.found, &inputs);
        fuzz.args([&format!("-max_total_time={seconds}"), "-use_value_profile=1"]);
        command::run(fuzz.arg("-print_final_stats=1")).with_context(|| {
            format!("{} (mend it, and keep the input in fuzz/findings/{0})", self.name)
        })?;

        let inputs = [&self.found, &self.corpus, &self.seeds];
        command::run(self.libfuzzer(&self.minimised, &inputs).arg("-set_cover_merge=1"))?;
        empty(&self.corpus)?;
        let files = files(&self.minimised)?;
        for file in &files {
            let to = self.corpus.join(file.file_name().unwrap_or_default());
            fs::copy(file, &to).with_context(|| format!("cannot write {}", to.display()))?;
        }
        println!("{}: the corpus has {} inputs", self.name, files.len());
        Ok(())
    }

    /// libFuzzer with a folder that it writes to and others that it reads.
    fn libfuzzer(&self, output: &Path, inputs: &[&PathBuf]) -> Command {
        let mut cargo = command::cargo("fuzz");
        // Sanitizers are unstable in rustc; with this the workspace's own compiler has them, too.
        cargo.env("RUSTC_BOOTSTRAP", "1");
        cargo.args(["run", "--target-dir"]).arg(&self.build).arg(self.name);
        cargo.arg(output).args(inputs).args(["--", &format!("-max_len={LONGEST}")]);
        cargo
    }
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Makes a folder that has no files in it.
fn empty(folder: &Path) -> Result<()> {
    create(folder)?;
    for file in files(folder)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
