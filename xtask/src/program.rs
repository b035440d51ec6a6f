//! Programs of this workspace that a command becomes.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{command, setup, workspace};

/// Refuses to go on without root.
///
/// # Errors
/// Without it.
pub fn check_root(name: &str) -> Result<()> {
    if !setup::is_root() {
        bail!("{name} needs root: it makes network namespaces and loads kernel programs");
    }
    Ok(())
}

/// Installs what is missing, builds all binaries of `releasectl`, `tests/` and the `more` packages
/// optimised, and returns one of them, to be given its arguments.
///
/// # Errors
/// Without root, or if something doesn't build.
pub fn optimised(name: &str, more: &[&str]) -> Result<Command> {
    check_root(name)?;
    setup::ensure(&setup::RUN)?;
    let mut build = command::cargo("build");
    // All of their binaries: these programs run servers, too.
    build.args(["--release", "-p", "release-user", "-p", "release-tests", "--bins"]);
    more.iter().for_each(|package| _ = build.args(["-p", package]));
    command::run(&mut build)?;

    let mut program = Command::new(workspace::binary(name, true)?);
    program
        .env("RELEASECTL_BIN", workspace::binary("releasectl", true)?)
        .env("PATH", command::path_with_admin_folders())
        // cargo's message to this program, not to the next.
        .env_remove("CARGO_MANIFEST_DIR");
    Ok(program)
}

/// *Becomes* a program. Replacing this process, rather than waiting for a child, gives it every
/// signal and hands its exit code on: nobody stands between Ctrl-C and its clean-up.
///
/// # Errors
/// If it can't be run. Else this doesn't return.
pub fn turn_into(mut program: Command) -> Result<()> {
    Err(program.exec()).with_context(|| format!("cannot run {}", command::show(&program)))
}
