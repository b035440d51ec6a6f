//! `cargo xtask build`: everything, the kernel programs included.

use anyhow::Result;

use crate::{command, setup, workspace};

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Optimised
    #[arg(long)]
    release: bool,
}

/// Installs what is missing, then builds all host crates. Build scripts compile the kernel
/// programs, for another target.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&setup::BUILD)?;
    let mut cargo = command::cargo("build");
    cargo.args(workspace::HOST);
    if args.release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}
