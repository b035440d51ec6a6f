//! `cargo xtask demo`: a release under live traffic.

use anyhow::Result;

use crate::program;

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
/// As [`program::optimised`].
pub fn run(args: &Args) -> Result<()> {
    let mut demo = program::optimised("release-demo", &[])?;
    demo.args(&args.rest);
    program::turn_into(demo)
}
