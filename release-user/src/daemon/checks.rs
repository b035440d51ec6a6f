//! What must be true before anything is changed: each failure is an error that says what to do.

use std::fs::{File, TryLockError};
use std::path::Path;

use nix::sys::statfs;
use nix::unistd::Uid;
use release_common::abi::Meta;

use crate::api::types::{ApiError, ErrorCode};
use crate::config::Config;
use crate::net::netlink::Interface;
use crate::paths::Paths;
use crate::store::Store;

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

/// One daemon for one pin folder, whatever its other places are: the lock lives as long as the
/// folder is open.
///
/// # Errors
/// Conflict if another daemon holds it.
pub fn lock_pins(bpffs: &Path) -> Result<File, ApiError> {
    let failed = |error: std::io::Error| {
        ApiError::new(ErrorCode::Internal, format!("bpffs {}: {error}", bpffs.display()))
    };
    std::fs::create_dir_all(bpffs).map_err(failed)?;
    let folder = File::open(bpffs).map_err(failed)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(ApiError::new(
            ErrorCode::Conflict,
            format!("bpffs {}: another daemon's data plane is pinned there", bpffs.display()),
        )
        .hint("stop it, or give this one its own --state-dir, --socket and --bpffs")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Note in the store that says which data plane it belongs to.
pub const DATA_PLANE: &str = "data_plane";

/// What tells one data plane from another: ids in its tables mean something only together with the
/// state that gave them.
pub fn data_plane(meta: &Meta) -> String {
    format!("{} {}", super::boot_id_text(&meta.boot_id), meta.tables_made_at)
}

/// The state is that of the data plane pinned.
///
/// # Errors
/// Conflict if it is not: live flows would be led astray.
pub fn belongs(meta: &Meta, store: &dyn Store, paths: &Paths) -> Result<(), ApiError> {
    // Without a version it was made by a start that got no further.
    if meta.abi == 0 || store.note(DATA_PLANE)?.as_deref() == Some(&data_plane(meta)) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::Conflict,
        format!(
            "state {}: is not that of the data plane pinned in {}",
            paths.state_dir.display(),
            paths.bpffs.display()
        ),
    )
    .hint(
        "start with the --state-dir that it was made with; if that is lost, `releasectl detach` \
         takes it down (live connections are then adopted anew)",
    ))
}

/// The configured interfaces exist, and no program of somebody else is attached to them.
/// `ours` are the indices that have a link of ours; an interface that was managed before may be
/// gone for the moment.
///
/// # Errors
/// Usage for an unknown interface, conflict for an occupied one.
pub fn interfaces(
    config: &Config,
    present: &[Interface],
    ours: &[u32],
    managed_before: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    for name in config.daemon().interfaces() {
        let name = name.as_str();
        match present.iter().find(|interface| interface.name == name) {
            None if managed_before(name) => {
                log::warn!("interface {name} is absent, waiting for it")
            }
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
