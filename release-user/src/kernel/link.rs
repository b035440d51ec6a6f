//! Taking pinned links off at once. Without their pin the kernel takes them off too, but some time
//! later: whoever starts again at once would find a program on the interface.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::KernelError;
use super::load::pin_error;

/// Commands of bpf(2).
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` of `BPF_LINK_DETACH`.
#[repr(C)]
struct DetachAttr {
    link_fd: u32,
}

/// Detaches a pinned link and removes its pin. Where there is none, all is well.
///
/// # Errors
/// If the pin cannot be removed.
pub(super) fn take_off(path: &Path) -> Result<(), KernelError> {
    // Its interface may be gone; then there is nothing to take off.
    if let Err(error) = open(path).and_then(|link| detach(&link)) {
        log::debug!("{}: {error}", path.display());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(path, &error)),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjectAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attribute is of the command's shape, and its pointer leads to a string that ends
    // with zero and lives until the call has returned.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<ObjectAttr>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn detach(link: &OwnedFd) -> io::Result<()> {
    let attr = DetachAttr { link_fd: link.as_raw_fd() as u32 };
    // SAFETY: the attribute is of the command's shape and has no pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const attr, size_of::<DetachAttr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
