//! What the benchmark ran on.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What figures depend on besides the code, as far as the system tells. Figures of two runs are
/// compared by ratio all the same: the same machine is not equally fast from hour to hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// How many of it this process may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Kernel's release and architecture.
    pub kernel: String,
    /// Whether programs are compiled to machine code.
    pub jit: Option<bool>,
    /// Who sets the processor's clock.
    pub governor: Option<String>,
    /// Whether it is a virtual machine. Processors other than x86 don't say.
    pub virtual_machine: bool,
    /// Commit; with `, changed` behind it if files differ from it.
    pub commit: String,
    /// When it began, UTC.
    pub date: String,
    /// Whether it was the quick run.
    pub quick: bool,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// If `/proc` can't be read.
    pub fn here(quick: bool) -> Result<Self> {
        let cpu = read("/proc/cpuinfo")?;
        let release = read("/proc/sys/kernel/osrelease")?;
        let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
        let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        Ok(Self {
            cpu: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().context("number of processors")?.get(),
            memory: memory(&read("/proc/meminfo")?).context("MemTotal in /proc/meminfo")?,
            kernel: format!("{} {}", release.trim(), std::env::consts::ARCH),
            jit: jit.map(|value| value.trim() != "0"),
            governor: fs::read_to_string(governor).ok().map(|name| name.trim().to_owned()),
            virtual_machine: field(&cpu, "flags")
                .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            quick,
        })
    }

    /// What it is, in a few words.
    pub fn hardware(&self) -> String {
        let mut words = format!("{} × {}, {}", self.cpus, self.cpu, gigabytes(self.memory));
        if self.virtual_machine {
            words += ", virtual machine";
        }
        if let Some(governor) = &self.governor {
            words += &format!(", clock: {governor}");
        }
        words
    }

    /// The kernel, in a few words.
    pub fn software(&self) -> String {
        let jit = match self.jit {
            Some(true) => ", JIT on",
            Some(false) => ", JIT off",
            None => "",
        };
        format!("Linux {}{jit}", self.kernel)
    }

    /// Which run it was.
    pub fn run(&self) -> &'static str {
        if self.quick { "quick" } else { "full" }
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// A field of `/proc/cpuinfo`, of the first processor.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key.trim(), value.trim()))
        .find_map(|(k, v)| (k == name).then_some(v))
}

/// All memory, in bytes.
fn memory(meminfo: &str) -> Option<u64> {
    let kilobytes = field(meminfo, "MemTotal")?.strip_suffix(" kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}

fn gigabytes(bytes: u64) -> String {
    let tenths = (bytes * 10 + (1 << 29)) >> 30;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// The commit that is checked out in this folder.
fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // Documents change with each run, and nothing that is measured with them.
    let changed =
        ["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs"];
    match git(&changed) {
        Some(none) if none.is_empty() => commit,
        _ => format!("{commit}, changed"),
    }
}

/// What git says, if it can. Whose the folder is does not matter for reading; root often asks in
/// somebody else's.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let output = git.args(["-c", "safe.directory=*"]).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        let cpu = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: fpu hypervisor\n\
                   processor\t: 1\nmodel name\t: B\n";
        assert_eq!(field(cpu, "model name"), Some("A CPU @ 2 GHz"));
        assert_eq!(field(cpu, "cpu MHz"), None);
        assert_eq!(memory("MemTotal:        8143280 kB\nMemFree: 1 kB\n"), Some(8_143_280 * 1024));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
        assert_eq!(gigabytes(8_143_280 * 1024), "7.8 GiB");
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::here(true).unwrap();
        assert!(machine.cpus > 0 && machine.memory > 1 << 20);
        assert!(machine.software().starts_with("Linux ") && machine.run() == "quick");
    }
}
