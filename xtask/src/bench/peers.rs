//! What the benchmark compares with and measures by: Debian's packages, unpacked and not installed,
//! since installing them would start their services on this machine.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt,
    command::{self, ADMIN_FOLDERS},
    libraries, setup, toolchain, workspace,
};

/// Packages and what they are for. nftables is installed by set-up: the tests use it as well.
const PACKAGES: [(&str, &str); 5] = [
    ("haproxy", "a balancer to compare with"),
    ("nginx", "another"),
    ("libnginx-mod-stream", "its part that balances TCP"),
    ("wrk", "requests and connections, and their latency"),
    ("iperf3", "throughput"),
];
/// The programs, as they lie in the packages.
const PROGRAMS: [&str; 4] = ["usr/sbin/haproxy", "usr/sbin/nginx", "usr/bin/wrk", "usr/bin/iperf3"];

/// The peers.
#[derive(Debug)]
pub struct Peers {
    /// Where they were unpacked; `None` if they are the system's.
    root: Option<PathBuf>,
}

/// Fetches what is missing.
///
/// # Errors
/// If it can't be had.
pub fn ensure() -> Result<Peers> {
    if !setup::has_apt() {
        return installed();
    }
    let cache = workspace::target_dir()?.join("bench-cache");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock().context("cannot wait for another `cargo xtask bench`")?;
    let root = cache.join("peers");
    if !PROGRAMS.iter().all(|program| root.join(program).exists()) {
        fetch(&root)?;
    }
    for program in PROGRAMS {
        libraries::of(&root.join(program), &library_folders(&root)).with_context(|| {
            format!("{} can be deleted, and is then fetched anew", root.display())
        })?;
    }
    Ok(Peers { root: Some(root) })
}

fn fetch(root: &Path) -> Result<()> {
    // Of a list of packages that was shorter.
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    apt::with_lists("what the benchmark compares with", || {
        for (package, why) in PACKAGES {
            setup::say(&format!("unpacking {package}, not installing it: {why}"));
        }
        let packages = apt::closure(&PACKAGES.map(|(package, _)| package))?;
        apt::unpack(&packages, root)
    })
}

/// Without Debian's packages they must be there already.
fn installed() -> Result<Peers> {
    let names = PROGRAMS.map(|program| program.rsplit('/').next().unwrap_or(program));
    let missing = names.map(|name| (name, toolchain::find_in_path(name, &ADMIN_FOLDERS)));
    let missing: Vec<&str> =
        missing.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        bail!("to do: install {} (this system has no apt-get)", missing.join(", "));
    }
    Ok(Peers { root: None })
}

impl Peers {
    /// Has a program find them by `PATH`, and what they need with them: nginx's modules lie where
    /// they do in the system, relative to nginx.
    ///
    /// # Errors
    /// If the folder's name can't be part of a search path.
    pub fn equip(&self, program: &mut Command) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let path = command::path_with_admin_folders();
        let folders = ["usr/sbin", "usr/bin"].map(|folder| root.join(folder));
        let path = env::join_paths(folders.into_iter().chain(env::split_paths(&path)));
        program.env("PATH", path.context("folder of the benchmark's packages")?);
        program.env("LD_LIBRARY_PATH", env::join_paths(library_folders(root))?);
        Ok(())
    }
}

/// Where Debian's packages have their libraries. Only those are there that this machine lacks.
fn library_folders(root: &Path) -> [PathBuf; 2] {
    let triple = format!("{}-linux-gnu", env::consts::ARCH);
    ["usr/lib", "lib"].map(|folder| root.join(folder).join(&triple))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_unpacked_is_found_first() {
        let mut program = Command::new("bench");
        Peers { root: Some("/cache/peers".into()) }.equip(&mut program).unwrap();
        let value = |name: &str| {
            let mut variables = program.get_envs();
            let value = variables.find_map(|(key, value)| value.filter(|_| key == name));
            value.unwrap().to_string_lossy().into_owned()
        };
        assert!(value("PATH").starts_with("/cache/peers/usr/sbin:/cache/peers/usr/bin:"));
        assert!(value("LD_LIBRARY_PATH").starts_with("/cache/peers/usr/lib/"));
    }

    #[test]
    fn what_is_installed_needs_nothing() {
        let mut program = Command::new("bench");
        Peers { root: None }.equip(&mut program).unwrap();
        assert_eq!(program.get_envs().count(), 0);
    }
}
