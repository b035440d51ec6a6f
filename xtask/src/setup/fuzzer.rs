//! What fuzzing needs.

use anyhow::{Context as _, Result};

use super::install::{Installer, say};
use crate::{command, toolchain};

/// Version of cargo-fuzz whose arguments are used.
const CARGO_FUZZ: &str = "^0.13";

/// Makes sure of cargo-fuzz, and of the C++ compiler that builds libFuzzer.
pub fn ensure(installer: &mut Installer) -> Result<()> {
    if toolchain::find_in_path("c++", &[]).is_none() {
        installer.packages(&["g++"], "libFuzzer is C++")?;
    }
    if toolchain::find_in_path("cargo-fuzz", &[]).is_none() {
        say("building cargo-fuzz: runs the fuzz targets (about a minute)");
        let mut install = command::cargo("install");
        install.args(["cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]);
        command::quietly(&mut install).context("cannot build cargo-fuzz")?;
    }
    Ok(())
}
