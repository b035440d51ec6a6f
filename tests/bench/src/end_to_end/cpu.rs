//! CPU time, as /proc says.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// CPU time that the whole machine has been busy for, in seconds: everything but idling, waiting
/// and what the hypervisor took.
///
/// # Errors
/// /proc cannot be read.
pub fn of_machine() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    busy(&text).context("no times in /proc/stat").map(seconds)?
}

/// CPU time of all processes of a group, those that ended included where they were waited for.
///
/// # Errors
/// /proc cannot be read.
pub fn of_group(group: i32) -> Result<f64> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        // Not a process, or one that has ended meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path().join("stat")) else { continue };
        if let Some((its, used)) = of_process(&text)
            && its == group
        {
            ticks += used;
        }
    }
    seconds(ticks)
}

/// user, nice, system, irq and softirq of the first line.
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
    let [user, nice, system, _, _, irq, softirq, ..] = times[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

/// Group, and utime + stime, of proc_pid_stat(5).
fn of_process(stat: &str) -> Option<(i32, u64)> {
    // The name before it may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some((fields.get(2)?.parse().ok()?, number(11)? + number(12)?))
}

fn seconds(ticks: u64) -> Result<f64> {
    let frequency = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(ticks as f64 / frequency as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(busy("cpu  1 2 4 100 200 8 16 400 0 0\ncpu0 1\n"), Some(31));
        let stat = "7 (a) b) S 1 5 5 0 -1 4 0 0 0 0 30 12 9 9 20 0";
        assert_eq!(of_process(stat), Some((5, 42)));
        assert!(of_machine().unwrap() > 0.0);
    }
}
