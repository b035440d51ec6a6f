//! What must be true before anything is changed: each failure is an error that says what to do.

use std::fs::{File, TryLockError};
use std::path::Path;

use nix::sys::statfs;
use nix::unistd::Uid;

use crate::api::types::{ApiError, ErrorCode};
use crate::config::Config;
use crate::net::netlink::Interface;

/// Oldest kernel: atomics, ring buffer, XDP fragments, BPF links.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Root, kernel, bpffs.
///
/// # Errors
/// Usage, with a hint.
pub fn host(bpffs: &Path) -> Result<(), ApiError> {
    if !Uid::effective().is_root() {
        return Err(ApiError::new(ErrorCode::Usage, "daemon: needs root (CAP_BPF, CAP_NET_ADMIN)")
            .hint("run it as root, e.g. as a systemd service"));
    }
    kernel_release()?;
    let mut existing = bpffs;
    while !existing.exists() {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    let kind = statfs::statfs(existing).map(|stat| stat.filesystem_type());
    if !kind.is_ok_and(|kind| kind == statfs::BPF_FS_MAGIC) {
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("bpffs {}: no BPF file system is mounted there", bpffs.display()),
        )
        .hint("mount -t bpf bpf /sys/fs/bpf"));
    }
    Ok(())
}

fn kernel_release() -> Result<(), ApiError> {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("kernel {release}: older than {major}.{minor}"),
        )
        .hint(format!("boot Linux {major}.{minor} or newer")));
    }
    Ok(())
}

/// One daemon for one state folder: the lock lives as long as the file is open.
///
/// # Errors
/// Conflict if another daemon holds it.
pub fn lock(state_dir: &Path) -> Result<File, ApiError> {
    let failed = |error: std::io::Error| {
        ApiError::new(ErrorCode::Internal, format!("state {}: {error}", state_dir.display()))
    };
    std::fs::create_dir_all(state_dir).map_err(failed)?;
    let path = state_dir.join("lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ApiError::new(
            ErrorCode::Conflict,
            format!("state {}: another daemon is running on it", state_dir.display()),
        )
        .hint("stop it, or give this one its own --state-dir, --socket and --bpffs")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The configured interfaces exist, and no program of somebody else is attached to them.
/// `ours` are the indices that have a link of ours; on an adopted data plane an interface may be
/// gone for the moment.
///
/// # Errors
/// Usage for an unknown interface, conflict for an occupied one.
pub fn interfaces(
    config: &Config,
    present: &[Interface],
    ours: &[u32],
    adopting: bool,
) -> Result<(), ApiError> {
    for name in config.daemon().interfaces() {
        let name = name.as_str();
        match present.iter().find(|interface| interface.name == name) {
            None if adopting => log::warn!("interface {name} is absent, waiting for it"),
            None => {
                let known: Vec<&str> = present.iter().map(|i| i.name.as_str()).collect();
                return Err(ApiError::new(
                    ErrorCode::Usage,
                    format!("interface {name}: no such interface"),
                )
                .hint(format!("daemon.interfaces may name {}", known.join(", "))));
            }
            Some(interface) => {
                if let Some((_, program)) = interface.xdp
                    && !ours.contains(&interface.index)
                {
                    return Err(occupied(name, program));
                }
            }
        }
    }
    Ok(())
}

/// Somebody else's program is attached.
pub fn occupied(interface: &str, program: u32) -> ApiError {
    let name = crate::kernel::program_name(program).unwrap_or_else(|| "?".to_owned());
    ApiError::new(
        ErrorCode::Conflict,
        format!("interface {interface}: the XDP program {name:?} (id {program}) is attached to it"),
    )
    .hint(format!("if it is not needed: ip link set dev {interface} xdp off"))
}
