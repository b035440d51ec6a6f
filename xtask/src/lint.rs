//! `cargo xtask lint`: formatting, dependencies, clippy and documentation, warnings denied.

use std::{env, process::Command};

use anyhow::Result;

use crate::{
    audit, command, setup,
    toolchain::{self, Kind, Toolchain},
    workspace::{self, BPF, HOST},
};

/// Runs all checks, the fast ones first, and stops at the first that fails.
///
/// # Errors
/// What the failed check says.
pub fn run() -> Result<()> {
    command::run(command::cargo("fmt").args(["--all", "--check"]))?;
    // Beside the workspace; what it contains is three lines each.
    let fuzz = ["--manifest-path", "fuzz/Cargo.toml", "--check"];
    command::run(command::cargo("fmt").args(fuzz))?;
    audit::run()?;

    // release-user's build script compiles the kernel programs, so even clippy needs the compiler.
    let toolchain = setup::ensure(&setup::LINT)?;
    let mut clippy = command::cargo("clippy");
    command::run(clippy.args(HOST).args(["--all-targets", "--", "-D", "warnings"]))?;
    // `--all-targets` leaves out what `cargo test` doesn't run by itself.
    let mut clippy = command::cargo("clippy");
    let by_name = ["-p", "release-tests", "--test", "kernel_modes", "--", "-D", "warnings"];
    command::run(clippy.args(by_name))?;
    let mut clippy = bpf_cargo(&toolchain, "clippy")?;
    command::run(clippy.args(["--", "-D", "warnings"]))?;

    let mut doc = command::cargo("doc");
    command::run(doc.args(HOST).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
    let mut doc = bpf_cargo(&toolchain, "doc")?;
    command::run(doc.arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))
}

/// Cargo of the toolchain that compiles the kernel programs, for their target. That toolchain's
/// own clippy and rustdoc are used (Debian packages clippy as `rust-web-clippy`), so lints see the
/// very code that is shipped. A folder of its own keeps the two compilers from rebuilding each
/// other's work.
fn bpf_cargo(toolchain: &Toolchain, subcommand: &str) -> Result<Command> {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", toolchain.name(), "cargo", subcommand]).args(BPF);
    cargo.args(["--target", toolchain::TARGET]).current_dir(workspace::root());
    cargo.env("CARGO_TARGET_DIR", workspace::target_dir()?.join("bpf"));
    // As aya-build sets it for the build.
    let architecture = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", architecture);
    match toolchain.kind {
        Kind::Nightly => cargo.args(["-Z", "build-std=core"]),
        Kind::Linked => cargo.env("RUSTC_BOOTSTRAP", toolchain::BOOTSTRAP),
    };
    Ok(cargo)
}
