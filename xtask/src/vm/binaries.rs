//! The programs that run in the guest: those of this workspace, and tools of this machine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::plan::GuestTest;
use crate::{
    command::{self, ADMIN_FOLDERS},
    toolchain,
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
    let mut builds: BTreeMap<&[&str], Vec<&str>> = BTreeMap::new();
    for test in tests {
        builds.entry(test.packages).or_default().push(test.program);
    }
    let mut programs = BTreeMap::new();
    for (packages, tests) in builds {
        let mut cargo = command::cargo("test");
        cargo.args(packages).args(["--no-run", "--message-format=json-render-diagnostics"]);
        for test in &tests {
            cargo.args(["--test", test]);
        }
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit());
        let output =
            cargo.output().with_context(|| format!("cannot run {}", command::show(&cargo)))?;
        if !output.status.success() {
            bail!("{}: {}", command::show(&cargo), output.status);
        }
        programs.extend(executables(&String::from_utf8_lossy(&output.stdout)));
    }
    for test in tests {
        if !programs.contains_key(test.program) {
            bail!("cargo built no test program {}", test.program);
        }
    }
    Ok(programs)
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
