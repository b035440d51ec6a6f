//! CPU time, by process: what else runs on the machine is nobody's.
//!
//! The kernel works for the network inside of whoever sends or waits (a veth delivers in the
//! sender's time), or in threads of its own; both are counted, so that nothing of a packet's way is
//! lost and no other load is mixed in.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

/// Names of the kernel's threads that work for the network.
const KERNEL: [&str; 2] = ["ksoftirqd/", "napi/"];

/// CPU time of all processes of these groups, in seconds.
///
/// # Errors
/// /proc cannot be read.
pub fn of_groups(groups: &[i32]) -> Result<f64> {
    used(|process| groups.contains(&process.group))
}

/// CPU time of the kernel's threads that work for the network, in seconds.
///
/// # Errors
/// /proc cannot be read.
pub fn of_kernel() -> Result<f64> {
    used(|process| KERNEL.iter().any(|name| process.name.starts_with(name)))
}

/// CPU time of children that have ended, in seconds.
///
/// # Errors
/// The kernel does not say.
pub fn of_ended() -> Result<f64> {
    // SAFETY: all zero is a value of that structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a structure of that type, exclusively ours during the call.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error()).context("getrusage");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

#[derive(Debug, PartialEq, Eq)]
struct Process<'a> {
    name: &'a str,
    group: i32,
}

fn used(wanted: impl Fn(&Process<'_>) -> bool) -> Result<f64> {
    let mut nanoseconds = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Not a process, or one that has ended meanwhile.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        if parse_stat(&stat).is_some_and(|process| wanted(&process)) {
            nanoseconds += of_threads(&path).unwrap_or_default();
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Sum over its threads of the first number of their schedstat, which is exact; the times of
/// proc_pid_stat(5) are whole hundredths of a second.
fn of_threads(process: &Path) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(process.join("task")).ok()? {
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

/// Name and group of proc_pid_stat(5).
fn parse_stat(stat: &str) -> Option<Process<'_>> {
    // A name may contain anything.
    let (before, fields) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    Some(Process { name, group: fields.split(' ').nth(2)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read() {
        let stat = "7 (a) b) S 1 5 5 0 -1 4 0 0 0 0 30 12 9 9 20 0";
        assert_eq!(parse_stat(stat), Some(Process { name: "a) b", group: 5 }));
        assert!(used(|_| true).unwrap() > 0.0);
        assert_eq!(used(|_| false).unwrap(), 0.0);
    }
}
