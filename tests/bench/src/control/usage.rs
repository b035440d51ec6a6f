//! What a process uses, and a map.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::MapData;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub i32);

impl Process {
    /// CPU time so far, of threads that have ended too.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(self) -> Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.0))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Share of one CPU in percent that it uses while something else is done.
    ///
    /// # Errors
    /// It has ended, or what is done fails.
    pub fn cpu_percent<T>(self, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
        let (cpu, begun) = (self.cpu()?, Instant::now());
        let result = work()?;
        let used = self.cpu()?.saturating_sub(cpu);
        Ok((result, 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64()))
    }

    /// Memory in MB (10⁶ bytes): resident now, and at most so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let of = |key: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.with_context(|| format!("no {key}"))?.parse::<f64>()? * 1024.0 / 1e6)
        };
        Ok((of("VmRSS:")?, of("VmHWM:")?))
    }
}

/// CPU time of the calling thread.
///
/// # Errors
/// None that is known.
pub fn own_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Bytes of kernel memory that a map takes, as its descriptor says.
///
/// # Errors
/// There is no such map.
pub fn memlock(map: &MapData) -> Result<u64> {
    let fd = std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.context("no memlock")?.trim().parse().context("memlock")
}

/// The same of a pinned map.
///
/// # Errors
/// As there.
pub fn pinned_memlock(bpffs: &Path, name: &str) -> Result<u64> {
    memlock(&MapData::from_pin(bpffs.join(name)).with_context(|| name.to_owned())?)
}
