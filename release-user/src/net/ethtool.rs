//! Offloads (include/uapi/linux/ethtool.h), by ioctl.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// Bit of the flags: large receive offload.
const FLAG_LRO: u32 = 1 << 15;

#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// What an interface merges on reception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merging {
    /// Generic receive offload, in the kernel.
    pub gro: bool,
    /// Large receive offload, in the device.
    pub lro: bool,
}

/// What an interface merges on reception; what it cannot say counts as off.
pub fn merging(interface: &str) -> Merging {
    let get = |command| ioctl(interface, Value { command, data: 0 }).unwrap_or(0);
    Merging { gro: get(ETHTOOL_GGRO) != 0, lro: get(ETHTOOL_GFLAGS) & FLAG_LRO != 0 }
}

/// Turns generic receive offload off: generic XDP runs after it, and what it has merged is larger
/// than the way out takes.
///
/// # Errors
/// The system call's; drivers may not support it.
pub fn disable_gro(interface: &str) -> io::Result<()> {
    ioctl(interface, Value { command: ETHTOOL_SGRO, data: 0 }).map(drop)
}

/// Carries out a command, and returns its value.
fn ioctl(interface: &str, mut value: Value) -> io::Result<u32> {
    // SAFETY: plain integers and a byte array, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: no pointers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `request` and the value it points to outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    // The kernel wrote the value behind the compiler's back.
    // SAFETY: it lives here.
    let data = unsafe { (&raw const value.data).read_volatile() };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(data) }
}
