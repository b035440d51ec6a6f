//! What tests and demo need of the machine: kernel, BPF file system, network tools.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::install::{Installer, is_root, say};
use crate::{
    command::{self, ADMIN_FOLDERS},
    toolchain,
};

/// Programs that tests and demo run: name, Debian package, what for.
const TOOLS: [(&str, &str, &str); 7] = [
    ("ip", "iproute2", "network namespaces, links, routes"),
    ("tc", "iproute2", "what is attached to an interface"),
    ("nft", "nftables", "the usual way to balance, for comparison"),
    ("ethtool", "ethtool", "checksum offload of virtual links"),
    ("bpftool", "bpftool", "programs and maps as the kernel sees them"),
    ("tcpdump", "tcpdump", "packets as they are on the wire"),
    ("sysctl", "procps", "kernel settings of a namespace"),
];

/// Oldest kernel that runs the programs.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// The kernel's own types, without which programs don't load.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where the BPF file system belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// Refuses a kernel that can't run the programs.
pub fn check_kernel() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel version")?;
    let release = release.trim();
    let version = version(release).with_context(|| format!("kernel version {release:?}"))?;
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        bail!("Linux {release} is too old: the kernel programs need {major}.{minor} or later");
    }
    if !Path::new(BTF).exists() {
        bail!("{BTF} is missing: the kernel must be built with CONFIG_DEBUG_INFO_BTF");
    }
    Ok(())
}

/// Installs the programs that are missing.
pub fn ensure_tools(installer: &mut Installer) -> Result<()> {
    let mut missing: Vec<(&str, &str)> = Vec::new();
    for (name, package, why) in TOOLS {
        let there = toolchain::find_in_path(name, &ADMIN_FOLDERS).is_some();
        if !there && !missing.iter().any(|(known, _)| *known == package) {
            missing.push((package, why));
        }
    }
    for (package, why) in missing {
        installer.packages(&[package], &format!("tests and demo use it: {why}"))?;
    }
    Ok(())
}

/// Mounts the BPF file system if it isn't.
pub fn ensure_bpffs(installer: &mut Installer) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("table of mounts")?;
    if is_bpffs(&mounts) {
        return Ok(());
    }
    if !is_root() {
        installer.todo(format!("sudo mount -t bpf bpf {BPFFS}   # maps are pinned there"));
        return Ok(());
    }
    say(&format!("mounting the BPF file system at {BPFFS}: maps are pinned there"));
    let mut mount = Command::new("mount");
    mount.args(["-t", "bpf", "bpf", BPFFS]).env("PATH", command::path_with_admin_folders());
    command::quietly(&mut mount).map(drop)
}

/// Whether the file system on top at [`BPFFS`] is the BPF one.
fn is_bpffs(mounts: &str) -> bool {
    let mut kinds = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next() == Some(BPFFS)).then(|| fields.next()).flatten()
    });
    kinds.next_back() == Some("bpf")
}

/// "6.1.0-42-amd64" → (6, 1)
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_compare_as_numbers() {
        assert_eq!(version("6.1.0-42-amd64"), Some((6, 1)));
        assert_eq!(version("6.18-rc1"), Some((6, 18)));
        assert!(version("5.10.0") < Some(OLDEST_KERNEL));
        assert!(version("10.0") > Some(OLDEST_KERNEL));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn only_the_bpf_file_system_on_top_counts() {
        let sys = "sysfs /sys sysfs rw 0 0\n";
        let bpf = "bpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        let tmp = "tmpfs /sys/fs/bpf tmpfs rw 0 0\n";
        assert!(is_bpffs(&[sys, bpf].concat()));
        assert!(!is_bpffs(sys));
        assert!(!is_bpffs(&[sys, bpf, tmp].concat()));
        assert!(is_bpffs(&[sys, tmp, bpf].concat()));
    }
}
