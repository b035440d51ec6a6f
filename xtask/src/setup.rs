//! `cargo xtask setup`, and the first step of every other command: detect what is missing, install
//! it, say what and why in one line each. Nothing missing, nothing said.

mod compiler;
mod fuzzer;
mod host;
mod install;

use anyhow::{Result, bail};

pub use host::OLDEST_KERNEL;
use install::Installer;
pub use install::{apt, has_apt, is_root, say, update_lists};

use crate::toolchain::Toolchain;

/// What a command needs of the machine.
#[derive(Debug)]
pub struct Needs {
    /// clippy of the compiler for the BPF target.
    clippy: bool,
    /// A kernel that runs the programs, the BPF file system, network tools, root.
    host: bool,
}

/// To compile.
pub const BUILD: Needs = Needs { clippy: false, host: false };
/// To check sources.
pub const LINT: Needs = Needs { clippy: true, host: false };
/// To run tests and demo.
pub const RUN: Needs = Needs { clippy: false, host: true };

/// Installs what is missing and returns the compiler for the BPF target.
///
/// # Errors
/// If something cannot be installed: one error that lists everything that is left to do.
pub fn ensure(needs: &Needs) -> Result<Toolchain> {
    let mut installer = Installer::default();
    if needs.host {
        // First: on a kernel that can't run the programs there is no point in installing.
        host::check_kernel()?;
    }
    let toolchain = compiler::ensure(&mut installer)?;
    if let Some(toolchain) = toolchain.as_ref().filter(|_| needs.clippy) {
        compiler::ensure_clippy(&mut installer, toolchain)?;
    }
    if needs.host {
        host::ensure_tools(&mut installer)?;
        host::ensure_bpffs(&mut installer)?;
    }
    match toolchain {
        Some(toolchain) if installer.left_to_do().is_empty() => Ok(toolchain),
        _ => bail!(incomplete(&installer)),
    }
}

/// Installs what fuzzing needs and is missing. The compiler for the BPF target is not needed.
///
/// # Errors
/// If something cannot be installed, as in [`ensure`].
pub fn ensure_fuzzer() -> Result<()> {
    let mut installer = Installer::default();
    fuzzer::ensure(&mut installer)?;
    if !installer.left_to_do().is_empty() {
        bail!(incomplete(&installer));
    }
    Ok(())
}

/// What is left to the user.
fn incomplete(installer: &Installer) -> String {
    format!(
        "set-up is incomplete: {}. To do:\n  {}\nThen run this command again.",
        installer.reason(),
        installer.left_to_do().join("\n  ")
    )
}
