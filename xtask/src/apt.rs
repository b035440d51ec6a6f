//! Debian packages that are unpacked into a folder, never installed: installing QEMU can remove
//! packages that the machine came with, a machine has one kernel, and installing a server starts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, setup};

/// Packages by name, each with what it needs: groups of alternatives.
type Needs = BTreeMap<String, Vec<Vec<String>>>;

/// Runs `work`, which needs packages. If it fails, fetches the package lists (old ones name
/// packages that are gone) and runs it again. `what` is made of the packages.
///
/// # Errors
/// What failed, and what to do.
pub fn with_lists<T>(what: &str, work: impl Fn() -> Result<T>) -> Result<T> {
    if !setup::has_apt() {
        bail!("{what} comes from Debian's packages, and this system has no apt-get");
    }
    let first = match work() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    let advice = || {
        format!(
            "{what} comes from this machine's package sources; is the network there, are the \
             lists current (as root: apt-get update)?"
        )
    };
    if !setup::is_root() {
        return Err(first.context(advice()));
    }
    setup::say("fetching the package lists");
    setup::update_lists().with_context(advice)?;
    work().with_context(advice)
}

/// The output of `apt-cache search` for package names.
///
/// # Errors
/// If it fails; finding nothing is no failure.
pub fn search(pattern: &str) -> Result<String> {
    command::quietly(setup::apt("apt-cache").args(["search", "--names-only", pattern]))
}

/// Unpacks packages into `folder`, unless that was done before: the folder is there whole or not
/// at all.
///
/// # Errors
/// If one can't be fetched or unpacked.
pub fn unpack(packages: &[String], folder: &Path) -> Result<()> {
    let mut part = folder.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let debs = part.join("debs");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    fs::create_dir_all(&debs).with_context(|| format!("cannot make {}", debs.display()))?;
    let mut download = setup::apt("apt-get");
    // apt's own user, whom it would download as, may not write here.
    download.args(["--quiet", "-o", "APT::Sandbox::User=root", "download"]).args(packages);
    command::quietly(download.current_dir(&debs))?;
    for entry in fs::read_dir(&debs)? {
        let mut dpkg = Command::new("dpkg");
        command::quietly(dpkg.arg("--extract").arg(entry?.path()).arg(&part))?;
    }
    fs::remove_dir_all(&debs)?;
    fs::rename(&part, folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The packages themselves, and those that they need and this machine lacks.
///
/// # Errors
/// If apt knows one of them not.
pub fn closure(packages: &[&str]) -> Result<Vec<String>> {
    let format = "--showformat=${db:Status-Abbrev}${Package}\\n";
    let installed = command::quietly(Command::new("dpkg-query").args(["--show", format]))?;
    let installed: BTreeSet<String> =
        installed.lines().filter_map(|line| line.strip_prefix("ii ")).map(str::to_owned).collect();
    let packages = packages.iter().copied().map(str::to_owned).collect();
    grow(packages, &installed, |packages| {
        let mut apt = setup::apt("apt-cache");
        apt.args(["depends", "--important", "--no-conflicts", "--no-breaks", "--no-replaces"]);
        command::quietly(apt.args(packages)).map(|output| needs(&output))
    })
}

/// Adds what is missing to a list of packages until nothing is.
fn grow(
    packages: Vec<String>,
    installed: &BTreeSet<String>,
    needs_of: impl Fn(&[String]) -> Result<Needs>,
) -> Result<Vec<String>> {
    let mut all: BTreeSet<String> = packages.iter().cloned().collect();
    let mut new = packages;
    while !new.is_empty() {
        let needs = needs_of(&new)?;
        new.clear();
        for alternatives in needs.into_values().flatten() {
            if alternatives.iter().any(|name| installed.contains(name) || all.contains(name)) {
                continue;
            }
            let Some(first) = alternatives.into_iter().next() else { continue };
            all.insert(first.clone());
            new.push(first);
        }
    }
    Ok(all.into_iter().collect())
}

/// Reads the output of `apt-cache depends`:
///
/// ```text
/// package
///   Depends: this
///  |Depends: that
///   Depends: or-this
///   Depends: <virtual>
///     provider
/// ```
fn needs(output: &str) -> Needs {
    let mut all = Needs::new();
    let mut groups = &mut Vec::new();
    let mut goes_on = false;
    for line in output.lines() {
        let text = line.trim();
        if !line.starts_with(' ') {
            groups = all.entry(text.to_owned()).or_default();
            goes_on = false;
        } else if let Some((kind, name)) = text.split_once(": ") {
            if !goes_on {
                groups.push(Vec::new());
            }
            goes_on = kind.starts_with('|');
            let last = groups.last_mut();
            last.into_iter().for_each(|group| add(group, name));
        } else {
            groups.last_mut().into_iter().for_each(|group| add(group, text));
        }
    }
    all
}

/// Adds an alternative; a virtual package is none, but those that provide it are.
fn add(group: &mut Vec<String>, name: &str) {
    if !name.starts_with('<') {
        group.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dependencies() {
        let output = "one\n  PreDepends: a\n |Depends: b\n  Depends: c\n  Depends: <v>\n    p\n    q\n\
                      two\n  Depends: d\n";
        let needs = needs(output);
        assert_eq!(needs["one"], [vec!["a"], vec!["b", "c"], vec!["p", "q"]]);
        assert_eq!(needs["two"], [vec!["d"]]);
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let output = "qemu\n  Depends: libc6\n  Depends: libslirp0\n |Depends: seabios\n  Depends: bios\n\
                      libslirp0\n  Depends: libglib\n  Depends: qemu\nbios\nseabios\nlibglib\n";
        let all = needs(output);
        let installed = BTreeSet::from(["libc6", "bios", "qemu"].map(str::to_owned));
        let closure = grow(vec!["qemu".to_owned()], &installed, |packages| {
            Ok(packages.iter().map(|name| (name.clone(), all[name].clone())).collect())
        });
        // qemu itself is wanted in the folder, installed or not.
        assert_eq!(closure.unwrap(), ["libglib", "libslirp0", "qemu"]);
    }
}
