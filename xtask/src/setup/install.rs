//! The means of installing: Debian packages where this process may, a list of what to type where
//! it may not.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{command, toolchain};

/// Installs, or notes what somebody else has to.
#[derive(Debug, Default)]
pub struct Installer {
    /// Package lists are fetched once, and only if something is to be installed.
    updated: bool,
    /// What is left to the user, as lines to type.
    todo: Vec<String>,
}

impl Installer {
    /// Installs Debian packages, or notes the command if this process can't. `why` ends the line
    /// that is printed. Returns whether the packages are there now.
    ///
    /// # Errors
    /// If apt-get fails, with all it said.
    pub fn packages(&mut self, packages: &[&str], why: &str) -> Result<bool> {
        let list = packages.join(" ");
        if !has_apt() {
            self.todo(format!("install what Debian calls {list}   # {why}"));
            return Ok(false);
        }
        if !is_root() {
            self.todo(format!("sudo apt-get install -y {list}   # {why}"));
            return Ok(false);
        }
        say(&format!("installing {list}: {why}"));
        let lists = self.update();
        // --no-remove: a package that is in the way is the user's to judge.
        let options = ["--yes", "--quiet", "--no-install-recommends", "--no-remove"];
        let mut apt = apt("apt-get");
        apt.args(["-o", "DPkg::Lock::Timeout=300", "install"]).args(options).args(packages);
        let installed = command::quietly(&mut apt);
        match (installed, lists) {
            (Ok(_), _) => Ok(true),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(lists)) => Err(error).context(format!("{lists:#}\nand then")),
        }
        .with_context(|| format!("cannot install {list}"))
    }

    /// Whether a package of this name can be installed. Without apt the answer is yes: the user
    /// will be asked to get it elsewhere.
    pub fn knows(&mut self, package: &str) -> bool {
        if !has_apt() {
            return true;
        }
        let known = || {
            let policy = command::quietly(apt("apt-cache").args(["policy", package]));
            policy.is_ok_and(|policy| has_candidate(&policy))
        };
        // Lists that were never fetched know nothing.
        known() || if is_root() { self.update().is_ok() && known() } else { !has_lists() }
    }

    /// Fetches the package lists, once. A failure is told only if the installation fails too:
    /// lists that were fetched before may do.
    fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        self.updated = true;
        update_lists()
    }

    /// Notes something that the user has to do.
    pub fn todo(&mut self, line: String) {
        self.todo.push(line);
    }

    /// What the user has to do.
    pub fn left_to_do(&self) -> &[String] {
        &self.todo
    }

    /// Why this process doesn't do it itself.
    pub fn reason(&self) -> &'static str {
        if !has_apt() {
            "packages can be installed by apt-get only, and this system has none"
        } else if !is_root() {
            "packages and mounts need root"
        } else {
            "something could not be installed"
        }
    }
}

/// Tells the user what is being done, on standard error.
pub fn say(line: &str) {
    eprintln!("setup: {line}");
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // /proc/self belongs to the effective user.
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Whether this is a Debian-like system.
pub fn has_apt() -> bool {
    toolchain::find_in_path("apt-get", &[]).is_some()
}

/// Fetches the package lists.
///
/// # Errors
/// If apt-get fails, with all it said.
pub fn update_lists() -> Result<()> {
    let mut apt = apt("apt-get");
    apt.args(["-o", "DPkg::Lock::Timeout=300", "--quiet", "update"]);
    command::quietly(&mut apt).map(drop)
}

/// Whether package lists were ever fetched.
fn has_lists() -> bool {
    let files = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().contains("_Packages"))
}

/// An apt tool that asks nothing and speaks English.
pub fn apt(tool: &str) -> Command {
    let mut apt = Command::new(tool);
    apt.envs([("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C")]);
    apt.env("PATH", command::path_with_admin_folders());
    apt
}

/// Whether `apt-cache policy` names a version that could be installed.
fn has_candidate(policy: &str) -> bool {
    let mut lines = policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: "));
    lines.any(|version| version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_a_version() {
        assert!(has_candidate("llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1\n"));
        assert!(!has_candidate("llvm-22-dev:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""), "apt-cache says nothing of unknown packages");
    }
}
