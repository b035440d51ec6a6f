//! The shared libraries that a program needs, as this machine's dynamic linker finds them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The libraries of a program, its dynamic linker among them. `more` are folders to search first.
///
/// # Errors
/// If one is missing.
pub fn of(program: &Path, more: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    // Cargo sets this variable for what it runs; it would show among the libraries' folders.
    ldd.arg(program).env("LC_ALL", "C").env_remove("LD_LIBRARY_PATH").stdin(Stdio::null());
    if !more.is_empty() {
        ldd.env("LD_LIBRARY_PATH", std::env::join_paths(more)?);
    }
    let output = ldd.output().with_context(|| format!("cannot run {}", command::show(&ldd)))?;
    let (found, missing) = parse(&String::from_utf8_lossy(&output.stdout));
    if !missing.is_empty() {
        bail!("{} needs {}, not found on this machine", program.display(), missing.join(", "));
    }
    Ok(found)
}

/// Reads the output of `ldd`: libraries found and names not found. A static program has neither.
fn parse(output: &str) -> (BTreeSet<PathBuf>, Vec<String>) {
    let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
    for line in output.lines() {
        let line = line.trim();
        if let Some((name, _)) = line.split_once(" => not found") {
            missing.push(name.to_owned());
            continue;
        }
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        // The kernel's own library has no file, hence no path.
        if let Some((path, _)) = place.split_once(" (0x").filter(|_| place.starts_with('/')) {
            found.insert(PathBuf::from(path));
        }
    }
    (found, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ldd_says() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibmnl.so.0 => /lib/libmnl.so.0 (0x00007f01)\n\
                      \tlibgone.so.1 => not found\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f02)\n";
        let (found, missing) = parse(output);
        let expected = ["/lib/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(found, BTreeSet::from(expected));
        assert_eq!(missing, ["libgone.so.1"]);
        assert_eq!(parse("\tstatically linked\n"), (BTreeSet::new(), vec![]));
    }
}
