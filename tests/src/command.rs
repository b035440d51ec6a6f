//! Running programs to their end, with errors that show the command and what it said; and finding
//! the binaries that were built next to this one.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The command as a person would type it, for messages.
#[must_use]
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(text, " {}", argument.to_string_lossy());
    }
    text
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// The command cannot be started, or it ends with a status other than 0; the error carries the
/// command line and its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end and returns status and output, whatever the status is.
///
/// # Errors
/// The command cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}` (is it installed?)", shown(command)))
}

/// Runs a program with the words of `line` as its arguments: `words("ip", "link set lo up")`.
///
/// # Errors
/// As [`run`].
pub fn words(program: impl AsRef<OsStr>, line: &str) -> Result<String> {
    run(Command::new(program).args(line.split_whitespace()))
}

/// Path of a binary of this workspace: `$OVERRIDE` if set, else next to the running executable,
/// else one folder up (test executables live in `target/<profile>/deps`).
///
/// # Errors
/// It is in neither place; the error says which places were tried and how to build it.
pub fn sibling_binary(name: &str, override_variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(override_variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{override_variable} names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let executable = env::current_exe().context("cannot find the running executable")?;
    let tried: Vec<PathBuf> =
        executable.ancestors().skip(1).take(2).map(|folder| folder.join(name)).collect();
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!(
            "no `{name}` at {} (build it with `cargo build`, or name it by {override_variable})",
            tried.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" or "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_command_and_stderr() {
        let error = run(Command::new("sh").args(["-c", "echo lost >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("lost"), "{text}");
    }

    #[test]
    fn missing_program_is_named() {
        let error = words("no-such-program-here", "a b").unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program-here a b"));
    }

    #[test]
    fn missing_binary_says_how_to_build_it() {
        let error = sibling_binary("no-such-binary", "NO_SUCH_BINARY_VARIABLE").unwrap_err();
        assert!(error.to_string().contains("NO_SUCH_BINARY_VARIABLE"));
    }
}
