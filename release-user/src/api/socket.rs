//! The place where the API is: one Unix socket, one daemon.

use super::types::{ApiError, ErrorCode};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use tokio::net::UnixListener;

/// Makes the socket at `path` and listens. Its folder is created (0755) if need be; the socket is
/// for its owner alone (0600).
///
/// A socket that nobody listens on any more is replaced.
///
/// # Errors
/// [`ErrorCode::Conflict`] if another process listens there, or if something else than a socket
/// stands there; [`ErrorCode::Internal`] if the system refuses.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::Internal, format!("socket {}: {what}: {error}", path.display()))
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(|error| failed("cannot create its folder", &error))?;
    refuse_occupied(path)?;
    // Under another name first: nobody ever meets the socket with a wider mode, and taking the
    // place of a stale one is a single step.
    let new = folder.join(format!(".{}.sock", std::process::id()));
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(|error| failed("cannot listen", &error))?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| {
            let _ = fs::remove_file(&new);
            failed("cannot put it in place", &error)
        })?;
    Ok(listener)
}

/// Fails unless `path` is free, or a socket that nobody listens on.
fn refuse_occupied(path: &Path) -> Result<(), ApiError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let conflict = |what: &str| {
        ApiError::new(ErrorCode::Conflict, format!("socket {}: {what}", path.display()))
    };
    if !metadata.file_type().is_socket() {
        return Err(conflict("something else than a socket is there")
            .hint("remove it, or choose another place with --socket"));
    }
    if is_alive(path) {
        return Err(conflict("another daemon is running")
            .hint("a second one needs its own --socket, --state-dir and --bpffs"));
    }
    Ok(())
}

/// Whether somebody listens. Does not block, as `connect` would while a backlog is full.
fn is_alive(path: &Path) -> bool {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let Ok(probe) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return true };
    let Ok(address) = UnixAddr::new(path) else { return true };
    // In doubt (no permission, backlog full) somebody does.
    !matches!(connect(probe.as_raw_fd(), &address), Err(Errno::ECONNREFUSED | Errno::ENOENT))
}
