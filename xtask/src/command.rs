//! Running other programs: a failing one is always shown with its arguments.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Folders of administration tools, which an ordinary user's `PATH` may lack.
pub const ADMIN_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The cargo that runs this program, in the workspace's root.
pub fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(subcommand).current_dir(workspace::root());
    cargo
}

/// Runs a command with this program's own output.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", show(command)))?;
    if !status.success() {
        bail!("{}: {status}", show(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output; what it said is shown only if it fails.
///
/// # Errors
/// If it cannot be started or fails.
pub fn quietly(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", show(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}{}", show(command), output.status, stdout, stderr.trim_end());
    }
    Ok(stdout)
}

/// `PATH` with the folders of administration tools at its end.
pub fn path_with_admin_folders() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    for folder in ADMIN_FOLDERS.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    env::join_paths(folders).unwrap_or(path)
}

/// A command as one would type it, with the variables that were set for it.
pub fn show(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value.filter(|_| name != "PATH")?;
        Some(format!("{}={}", name.to_string_lossy(), quote(value)))
    });
    let program = command.get_program();
    // Cargo tells its own full path; people type "cargo".
    let program = if env::var_os("CARGO").is_some_and(|cargo| cargo == program) {
        "cargo".to_owned()
    } else {
        quote(program)
    };
    let words = std::iter::once(program).chain(command.get_args().map(quote));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for the shell where it needs it.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_command_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["test", "it's", ""]).env("RUSTDOCFLAGS", "-D warnings").env("PATH", "/bin");
        assert_eq!(show(&command), r"RUSTDOCFLAGS='-D warnings' cargo test 'it'\''s' ''");
    }

    #[test]
    fn failure_names_the_command_and_what_it_said() {
        let mut command = Command::new("sh");
        let error = quietly(command.args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sh -c") && text.contains("exit status: 3"), "{text}");
        assert!(text.contains("out\nerr"), "{text}");
        let error = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot run /no/such/program"));
    }
}
