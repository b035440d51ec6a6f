//! Guards around child processes: whatever we start dies with its guard, by its own pid.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child that several owners may end: its guard and its namespace.
pub(crate) type SharedChild = Arc<Mutex<Child>>;

/// A running child process. Dropping it kills (SIGKILL) and reaps the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    child: SharedChild,
}

impl Process {
    /// Starts the command in a process group of its own, so that a Ctrl-C at the terminal reaches
    /// only us and the order of the shut-down stays ours.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", crate::command::shown(command)))?;
        let pid = i32::try_from(child.id()).context("pid out of range")?;
        Ok(Self { name, pid, child: Arc::new(Mutex::new(child)) })
    }

    /// Starts the command and waits until it prints its first line, which is returned.
    ///
    /// # Errors
    /// It cannot be started, ends without a line, or takes longer than `deadline`.
    pub fn spawn_ready(
        name: impl Into<String>,
        command: &mut Command,
        deadline: Duration,
    ) -> Result<(Self, String)> {
        let process = Self::spawn(name, command.stdout(Stdio::piped()))?;
        let stdout = process.lock().stdout.take().context("no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(read.map(|_| line));
        });
        let name = &process.name;
        let line = match receiver.recv_timeout(deadline) {
            Ok(line) => line.with_context(|| format!("cannot read the output of {name}"))?,
            Err(RecvTimeoutError::Timeout) => bail!("{name} was not ready within {deadline:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the reader of {name} is gone"),
        };
        if line.is_empty() {
            bail!("{name} ended before it was ready");
        }
        Ok((process, line.trim_end().to_owned()))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The name given at the start, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.lock().try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The lock keeps the pid ours: nobody reaps the child, so nobody else can get its number.
        let mut child = self.lock();
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended already ({status})", self.name);
        }
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// SIGKILL and reap: what `kill -9` does.
    ///
    /// # Errors
    /// The process cannot be reaped.
    pub fn kill(self) -> Result<ExitStatus> {
        let mut child = self.lock();
        let _ = child.kill();
        child.wait().with_context(|| format!("cannot reap {}", self.name))
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// It has ended before, or does not end within `deadline` (then it is killed by the drop).
    pub fn terminate(self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)?
            .ok_or_else(|| anyhow!("{} still runs {deadline:?} after SIGTERM", self.name))
    }

    /// Waits for the end; `None` if it still runs after `deadline`.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait(&self, deadline: Duration) -> Result<Option<ExitStatus>> {
        if let Some(status) = self.lock().try_wait()? {
            return Ok(Some(status));
        }
        let pidfd = pidfd_open(self.pid)?;
        wait_readable(&pidfd, deadline)?;
        Ok(self.lock().try_wait()?)
    }

    /// For the namespace, which ends what is left when it is dropped first.
    pub(crate) fn share(&self) -> SharedChild {
        Arc::clone(&self.child)
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        lock(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&self.child);
    }
}

/// Kills and reaps a child unless that has happened already.
pub(crate) fn end(child: &SharedChild) {
    let mut child = lock(child);
    let _ = child.kill();
    let _ = child.wait();
}

fn lock(child: &SharedChild) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets this process have so many files and sockets open at once.
///
/// # Errors
/// No root, and more than the limit that is set.
pub fn allow_descriptors(count: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure of that type, exclusively ours during the call.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_cur.max(count);
    limit.rlim_max = limit.rlim_max.max(count);
    // SAFETY: a valid structure of that type, alive during the call.
    if got != 0 || unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot have more descriptors");
    }
    Ok(())
}

fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: the system call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("pidfd_open");
    }
    let fd = i32::try_from(fd).context("file descriptor out of range")?;
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until the descriptor is readable or the time is over.
fn wait_readable(fd: &OwnedFd, deadline: Duration) -> Result<()> {
    let until = Instant::now() + deadline;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up: a last wait of 0 ms would spin.
        let timeout = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, alive and exclusively ours during the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
        if ready > 0 || (ready == 0 && Instant::now() >= until) {
            return Ok(());
        }
        if ready < 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(error).context("poll");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(5);

    #[test]
    fn drop_kills_by_pid() {
        let process = Process::spawn("sleep", Command::new("sleep").arg("60")).unwrap();
        let pid = Pid::from_raw(process.pid());
        assert!(process.is_running());
        drop(process);
        assert!(kill(pid, None).is_err());
    }

    #[test]
    fn terminate_reports_the_signal() {
        use std::os::unix::process::ExitStatusExt;
        let process = Process::spawn("sleep", Command::new("sleep").arg("60")).unwrap();
        let status = process.terminate(SHORT).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn wait_gives_up_at_the_deadline() {
        let process = Process::spawn("sleep", Command::new("sleep").arg("60")).unwrap();
        assert!(process.wait(Duration::from_millis(20)).unwrap().is_none());
    }

    #[test]
    fn first_line_means_ready() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready here; sleep 60"]);
        let (process, line) = Process::spawn_ready("sh", &mut command, SHORT).unwrap();
        assert_eq!(line, "ready here");
        assert!(process.is_running());
    }

    #[test]
    fn an_early_end_is_no_readiness() {
        let error = Process::spawn_ready("true", &mut Command::new("true"), SHORT).unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error}");
    }
}
