//! `releasectl daemon` under a guard.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::Balancer;
use crate::process::Process;

/// How long a daemon may take to be ready, and to end after SIGTERM.
const START: Duration = Duration::from_secs(240);
const STOP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A running daemon. Dropping it kills the process; the data plane stays, as after a crash.
#[derive(Debug)]
pub struct Daemon<'a> {
    balancer: &'a Balancer,
    process: Process,
}

impl Balancer {
    /// Starts `releasectl daemon` and waits until it answers `status`. Its output is appended to
    /// [`Balancer::log_path`].
    ///
    /// # Errors
    /// It ends, or does not answer within four minutes; the error carries the end of its log.
    pub fn start_daemon(&self) -> Result<Daemon<'_>> {
        let daemon = self.spawn_daemon(&["daemon"])?;
        daemon.wait_ready(START)?;
        Ok(daemon)
    }

    /// Starts `releasectl ARGUMENTS…` as a daemon without waiting, for tests of starts that fail
    /// or are killed half-way.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_daemon(&self, arguments: &[&str]) -> Result<Daemon<'_>> {
        self.spawn(self.releasectl_command(arguments)?)
    }

    /// As [`Balancer::start_daemon`], under [conditions](crate::conditions).
    ///
    /// # Errors
    /// As there.
    pub fn start_daemon_under(&self, conditions: impl FnOnce(&mut Command)) -> Result<Daemon<'_>> {
        let mut command = self.releasectl_command(&["daemon"])?;
        conditions(&mut command);
        let daemon = self.spawn(command)?;
        daemon.wait_ready(START)?;
        Ok(daemon)
    }

    fn spawn(&self, mut command: Command) -> Result<Daemon<'_>> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = self.namespace.spawn("releasectl daemon", &mut command)?;
        Ok(Daemon { balancer: self, process })
    }

    /// The last lines of the daemon's log, for messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl<'a> Daemon<'a> {
    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn kill(self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It has ended before, or does not end within 10 s.
    pub fn stop(self) -> Result<ExitStatus> {
        let balancer = self.balancer;
        self.process
            .terminate(STOP)
            .with_context(|| format!("daemon's log:\n{}", balancer.log_tail(20)))
    }

    /// `kill -9` and a new start.
    ///
    /// # Errors
    /// As [`Balancer::start_daemon`].
    pub fn crash_and_restart(self) -> Result<Daemon<'a>> {
        let balancer = self.balancer;
        self.kill()?;
        balancer.start_daemon()
    }

    /// SIGTERM, wait, and a new start.
    ///
    /// # Errors
    /// As [`Daemon::stop`] and [`Balancer::start_daemon`].
    pub fn restart(self) -> Result<Daemon<'a>> {
        let balancer = self.balancer;
        self.stop()?;
        balancer.start_daemon()
    }

    /// Waits until the socket accepts and `status` succeeds.
    ///
    /// # Errors
    /// The process ends, or the time is over; the error carries the end of the daemon's log.
    pub fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        loop {
            if self.answers()? {
                return Ok(());
            }
            if let Some(status) = self.process.wait(POLL)? {
                return Err(self.failed(&format!("ended with {status}")));
            }
            if Instant::now() >= until {
                return Err(self.failed(&format!("was not ready within {deadline:?}")));
            }
            thread::yield_now();
        }
    }

    fn answers(&self) -> Result<bool> {
        if UnixStream::connect(self.balancer.socket_path()).is_err() {
            return Ok(false);
        }
        let output = self.balancer.releasectl(&["status", "-o", "json"])?;
        match output.status.code() {
            Some(0) => Ok(true),
            // A usage error will not go away by waiting.
            Some(2) => {
                bail!("releasectl status: {}", String::from_utf8_lossy(&output.stderr).trim())
            }
            _ => Ok(false),
        }
    }

    fn failed(&self, what: &str) -> anyhow::Error {
        anyhow!("releasectl daemon {what}; its log:\n{}", self.balancer.log_tail(20))
    }
}
