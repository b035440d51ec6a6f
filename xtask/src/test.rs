//! `cargo xtask test`: every test, those that need root included.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, setup, workspace};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Test optimised programs
    #[arg(long)]
    release: bool,
    /// Go on after a failure
    #[arg(long)]
    no_fail_fast: bool,
    /// For the test programs: a FILTER, --nocapture, …
    #[arg(last = true, value_name = "ARGS")]
    rest: Vec<String>,
}

/// The crates whose tests need nothing but themselves, as cargo's arguments.
const UNIT: &[&str] = &[
    "-p",
    "release-common",
    "-p",
    "release-cases",
    "-p",
    "release-harness",
    "-p",
    "release-user",
    "-p",
    "release-bench",
    "-p",
    "xtask",
];
/// The crate of the end-to-end tests, which run `releasectl`.
pub const NAMESPACES: &[&str] = &["-p", "release-tests"];

/// How many namespace tests run at a time. Each brings servers, clients and a daemon of its own;
/// more of them would measure the machine's load instead of what they are about.
const NAMESPACE_TESTS: &str = "--test-threads=2";

/// Installs what is missing, builds `releasectl`, and runs the tests: first those of all other
/// crates, then the end-to-end tests, which run that binary. Prints nothing after the test runner.
///
/// # Errors
/// Without root, and if a test fails.
pub fn run(args: &Args) -> Result<()> {
    if !setup::is_root() {
        bail!("the whole test suite needs root (plain `cargo test` runs what needs none)");
    }
    setup::ensure(&setup::RUN)?;
    let mut build = command::cargo("build");
    command::run(prepare(&mut build, args, &["-p", "release-user"]))?;

    let mut unit = command::cargo("test");
    prepare(&mut unit, args, UNIT);
    let mut namespaces = command::cargo("test");
    prepare(&mut namespaces, args, NAMESPACES);
    namespaces.env("RELEASECTL_BIN", workspace::binary("releasectl", args.release)?);

    let first = command::run(test_arguments(&mut unit, args, &[]));
    if first.is_err() && !args.no_fail_fast {
        return first;
    }
    let second = command::run(test_arguments(&mut namespaces, args, &[NAMESPACE_TESTS]));
    first.and(second)
}

/// What build and test have in common.
fn prepare<'a>(cargo: &'a mut Command, args: &Args, packages: &[&str]) -> &'a mut Command {
    cargo.args(packages).env("PATH", command::path_with_admin_folders());
    if args.release {
        cargo.arg("--release");
    }
    cargo
}

/// Arguments for cargo test itself and, behind `--`, for the test programs.
fn test_arguments<'a>(cargo: &'a mut Command, args: &Args, more: &[&str]) -> &'a mut Command {
    if args.no_fail_fast {
        cargo.arg("--no-fail-fast");
    }
    // A number of threads among the caller's own arguments wins.
    let more =
        more.iter().filter(|_| !args.rest.iter().any(|arg| arg.starts_with("--test-threads")));
    cargo.args(["--", "--include-ignored"]).args(more).args(&args.rest)
}
