//! `cargo xtask example`: an example of `examples/`, to be tried by hand.

use anyhow::Result;

use crate::program;

/// Arguments of `cargo xtask example`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Letter of the example, a to e; behind it a command to run in place of the shell
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "LETTER"
    )]
    rest: Vec<String>,
}

/// Sets it up and becomes a shell on its balancer.
///
/// # Errors
/// As [`program::optimised`].
pub fn run(args: &Args) -> Result<()> {
    let mut lab = program::optimised("release-lab", &[])?;
    lab.args(&args.rest);
    program::turn_into(lab)
}
