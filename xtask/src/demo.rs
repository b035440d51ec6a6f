//! `cargo xtask demo`: a release under live traffic.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{command, setup, workspace};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For the demo program (`-- --help` lists them)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<String>,
}

/// Shows the demo.
///
/// # Errors
/// As [`become_binary`].
pub fn run(args: &Args) -> Result<()> {
    become_binary("release-demo", &args.rest)
}

/// Installs what is missing, builds `releasectl` and a program of `tests/` optimised, and *becomes*
/// that program. Replacing this process, rather than waiting for a child, gives it every signal and
/// hands its exit code on: nobody stands between Ctrl-C and its clean-up.
///
/// # Errors
/// Without root, or if something doesn't build. Else it doesn't return.
pub fn become_binary(name: &str, arguments: &[String]) -> Result<()> {
    if !setup::is_root() {
        bail!("{name} needs root: it makes network namespaces and loads kernel programs");
    }
    setup::ensure(&setup::RUN)?;
    let mut build = command::cargo("build");
    // All of their binaries: these programs run servers, too.
    build.args(["--release", "-p", "release-user", "-p", "release-tests", "--bins"]);
    command::run(&mut build)?;

    let mut program = Command::new(workspace::binary(name, true)?);
    program
        .args(arguments)
        .env("RELEASECTL_BIN", workspace::binary("releasectl", true)?)
        .env("PATH", command::path_with_admin_folders())
        // cargo's message to this program, not to the next.
        .env_remove("CARGO_MANIFEST_DIR");
    Err(program.exec()).with_context(|| format!("cannot run {}", command::show(&program)))
}
