//! Waiting for programs that run while something is replaced.
//!
//! What a program has read stays with it until it ends, so whoever replaces it has to know when all
//! that began before have ended.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h, Linux 4.3).
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
/// Far longer than any program runs: what is waited where the kernel offers nothing better.
const LONG: Duration = Duration::from_millis(100);
/// A visit of all CPUs takes a tenth of this, if it is let on them.
const PATIENCE: Duration = Duration::from_millis(10);
/// How the kernel was built (scripts/mkcompile_h).
const BUILT: &str = "/proc/sys/kernel/version";
/// In that: softirqs can be preempted.
const REALTIME: &str = "PREEMPT_RT";
/// CPUs that programs can run on, as a list of ranges.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Waits for an RCU grace period, after which every program of any kind has ended that ran when this
/// was called: the membarrier command "global" is `synchronize_rcu` (kernel/sched/membarrier.c), and
/// programs run inside read-side sections. Takes the kernel some 5 to 20 ms.
pub fn grace_period() {
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Not available (nohz_full).
        thread::sleep(LONG);
    }
}

/// Waits until every program has ended that a packet had started, on any CPU, when this was called.
///
/// Those run with softirqs off, which without PREEMPT_RT means that no thread runs on their CPU
/// before they end. So a thread that has been on every CPU has seen them all end: what a grace
/// period is too, but without the kernel's leisure, in a fraction of a millisecond. If it is not let
/// on one of them (a thread of real-time priority keeps it busy, a cpuset leaves it out), the
/// kernel's grace period is waited for.
///
/// Programs run by BPF_PROG_TEST_RUN are not meant: those are the daemon's own.
pub fn packets_done() {
    let (done, visited) = mpsc::channel();
    // A thread of its own, since it stays on the CPU where it was last.
    let visit = thread::Builder::new().name("visit-cpus".to_owned()).spawn(move || {
        if visit_cpus().is_ok() {
            // Nobody listens any more if it took too long.
            let _ = done.send(());
        }
    });
    if visit.is_err() || visited.recv_timeout(PATIENCE).is_err() {
        grace_period();
    }
}

/// Puts the calling thread on every CPU that is online, one after the other, where it stays last.
///
/// # Errors
/// It was not let on all of them, or being there would prove nothing.
pub fn visit_cpus() -> io::Result<()> {
    if std::fs::read_to_string(BUILT)?.contains(REALTIME) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "softirqs can be preempted"));
    }
    let cpus = cpus(&std::fs::read_to_string(ONLINE)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, ONLINE))?;
    for cpu in cpus {
        let mut only = CpuSet::new();
        only.set(cpu)?;
        // Returns on that CPU: the kernel moves a thread before it goes on.
        sched_setaffinity(Pid::from_raw(0), &only)?;
    }
    Ok(())
}

/// CPUs of a list such as `0-3,8`; `None` if it is none, or empty.
fn cpus(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last);
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpus("0\n"), Some(vec![0]));
        assert_eq!(cpus("0,2-3"), Some(vec![0, 2, 3]));
        for wrong in ["", "3-1", "a", "0-", "1,,2", "-1"] {
            assert_eq!(cpus(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn both_ways_of_waiting_end() {
        grace_period();
        packets_done();
    }
}
