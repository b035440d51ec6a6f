//! The programs that run in the guest: those of this workspace, and tools of this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::plan::GuestTest;
use crate::{
    command::{self, ADMIN_FOLDERS},
    test, toolchain,
};

/// A line of cargo's output, as far as it matters.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the test programs, and with them the programs that they run. Returns all by name.
///
/// # Errors
/// If something doesn't build, or a row of the table names no test program.
pub fn build(tests: &[GuestTest]) -> Result<BTreeMap<String, PathBuf>> {
    let mut programs = run(command::cargo("build").args(["-p", "release-user"]))?;
    // As `cargo xtask test` builds them: no second build.
    let mut cargo = command::cargo("test");
    cargo.args(test::NAMESPACES).arg("--no-run");
    let names: BTreeSet<&str> = tests.iter().map(|test| test.program).collect();
    for name in &names {
        cargo.args(["--test", name]);
    }
    programs.extend(run(&mut cargo)?);
    for name in names {
        if !programs.contains_key(name) {
            bail!("cargo built no test program {name}");
        }
    }
    Ok(programs)
}

/// Builds, and returns the executables by name.
fn run(cargo: &mut Command) -> Result<BTreeMap<String, PathBuf>> {
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("cannot run {}", command::show(cargo)))?;
    if !output.status.success() {
        bail!("{}: {}", command::show(cargo), output.status);
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Executables in cargo's messages, one JSON object a line.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let executable = |Message { target, executable }| Some((target?.name, executable?));
    messages.filter_map(executable).collect()
}

/// A tool of this machine.
///
/// # Errors
/// If it is not there.
pub fn tool(name: &str) -> Result<PathBuf> {
    toolchain::find_in_path(name, &ADMIN_FOLDERS)
        .with_context(|| format!("{name} is not there (as root: cargo xtask setup)"))
}

/// A program's file without debug information, which is most of it. The names of functions stay.
///
/// # Errors
/// If it can't be read.
pub fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    // From binutils, which the Rust compiler's linker comes with.
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(scratch).arg(program);
    command::quietly(&mut strip)?;
    fs::read(scratch).with_context(|| format!("cannot read {}", scratch.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_built() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"clap"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1"}
{"reason":"build-finished","success":true}
not json"#;
        let expected = BTreeMap::from([("kernel".to_owned(), PathBuf::from("/t/kernel-1"))]);
        assert_eq!(executables(messages), expected);
    }
}
