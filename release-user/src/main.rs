//! `releasectl`: see [`release_user::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    release_user::cli::main()
}
