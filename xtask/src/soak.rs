//! `cargo xtask soak`: releases in a row under a load that never ends.

use std::num::NonZeroU32;

use anyhow::{Result, bail};

use crate::{command, setup, test, workspace};

/// The test that does it, and what says how many releases it makes.
const TEST: &str = "soak::releases_in_a_row_cost_no_connection";
const COUNT: &str = "RELEASE_SOAK";

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Releases in a row
    #[arg(long, value_name = "N", default_value = "100")]
    releases: NonZeroU32,
}

/// Runs it: 0 client errors, 0 moved connections, 0 verdicts before their time, counts conserved,
/// or else it fails. A hundred take about six minutes.
///
/// # Errors
/// Without root, or if it fails.
pub fn run(args: &Args) -> Result<()> {
    if !setup::is_root() {
        bail!("namespaces and kernel programs need root");
    }
    setup::ensure(&setup::RUN)?;
    let mut build = command::cargo("build");
    command::run(build.args(["-p", "release-user", "-p", "release-tests"]))?;
    let mut soak = command::cargo("test");
    soak.args(test::NAMESPACES).args(["--test", "releases", "--"]);
    soak.args(["--include-ignored", "--nocapture", "--exact", TEST]);
    soak.env("RELEASECTL_BIN", workspace::binary("releasectl", false)?);
    soak.env("PATH", command::path_with_admin_folders());
    command::run(soak.env(COUNT, args.releases.to_string()))
}
