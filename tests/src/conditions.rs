//! Odd conditions that a process can be started under: a clock that is off, a kernel that refuses.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Puts a command's process on clocks that are so many seconds ahead of this host's (or behind, if
/// negative): those that count from the boot, which nobody can set. (Linux 6.1.)
pub fn shift_clocks(command: &mut Command, seconds: i64) {
    const OFFSETS: &std::ffi::CStr = c"/proc/self/timens_offsets";
    let offsets = format!("monotonic {seconds} 0\nboottime {seconds} 0\n");
    let shift = move || {
        // SAFETY: takes an integer. What is executed after this is in the new namespace.
        succeeded(unsafe { libc::unshare(libc::CLONE_NEWTIME) })?;
        // SAFETY: a path that ends with a zero.
        let file = unsafe { libc::open(OFFSETS.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
        succeeded(file)?;
        // SAFETY: as many bytes as there are, alive during the call.
        let written = unsafe { libc::write(file, offsets.as_ptr().cast(), offsets.len()) };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes async-signal-safe system calls on what it owns, and neither
    // allocates nor locks.
    unsafe { command.pre_exec(shift) };
}

/// Keeps a command's process from asking the kernel for sockets: opening a netlink socket for
/// `NETLINK_SOCK_DIAG` fails with EPERM.
pub fn refuse_sock_diag(command: &mut Command) {
    /// Places of the system call's number and of its arguments (linux/seccomp.h), of which the low
    /// words are looked at.
    const NUMBER: u32 = 0;
    const FAMILY: u32 = 16;
    const PROTOCOL: u32 = 32;
    let load = |place| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, place);
    let gives = |what| statement(libc::BPF_RET | libc::BPF_K, what);
    // On to the next instruction, or to the last one.
    let only = |value, last| libc::sock_filter {
        jf: last,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    };
    let filter = [
        load(NUMBER),
        only(libc::SYS_socket as u32, 5),
        load(FAMILY),
        only(libc::AF_NETLINK as u32, 3),
        load(PROTOCOL),
        only(libc::NETLINK_SOCK_DIAG as u32, 1),
        gives(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        gives(libc::SECCOMP_RET_ALLOW),
    ];
    let refuse = move || {
        let mut filter = filter;
        let program =
            libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
        // SAFETY: takes integers.
        succeeded(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        // SAFETY: a program of the length given, alive during the call.
        succeeded(unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        })
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(refuse) };
}

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;

    #[test]
    #[ignore = "needs root: cargo xtask test"]
    fn clocks_are_off() {
        let uptime = |command: &mut Command| -> f64 {
            let text = command::run(command.arg("/proc/uptime")).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let mut shifted = Command::new("cat");
        shift_clocks(&mut shifted, 86_400);
        let ahead = uptime(&mut shifted) - uptime(&mut Command::new("cat"));
        assert!((86_399.0..86_401.0).contains(&ahead), "{ahead}");
    }

    #[test]
    #[ignore = "needs root: cargo xtask test"]
    fn only_questions_about_sockets_are_refused() {
        let mut ip = Command::new("ip");
        refuse_sock_diag(&mut ip);
        command::run(ip.args(["link", "show", "lo"])).unwrap();
        let mut ss = Command::new("ss");
        refuse_sock_diag(&mut ss);
        let said = command::output(ss.args(["-tan"])).unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("Operation not permitted"), "{said}");
    }
}
