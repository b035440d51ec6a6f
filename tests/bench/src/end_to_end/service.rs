//! Programs that serve: nginx and HAProxy as servers and proxies, iperf3's server.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use release_tests::netns::Netns;
use release_tests::process::Process;

/// How long a program may take to serve, and to end.
const SOON: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// A program with its worker processes; all of them end when it is dropped.
#[derive(Debug)]
pub struct Service {
    process: Process,
    /// Its socket that says what it has done.
    status: Option<PathBuf>,
    /// How often it was asked.
    asked: Cell<u64>,
}

impl Service {
    /// Starts a program in a namespace, and waits until it answers at its status socket, or says
    /// that it listens if it has none.
    ///
    /// # Errors
    /// It cannot be started, or ends, or does not answer soon.
    pub fn start(
        namespace: &Netns,
        program: &str,
        arguments: &[&str],
        log: &Path,
        status: Option<PathBuf>,
    ) -> Result<Self> {
        let output = fs::File::create(log)?;
        let mut command = namespace.command(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        // SAFETY: the closure makes one async-signal-safe system call, which takes integers.
        unsafe { command.pre_exec(end_with_parent) };
        let process = namespace.spawn(program, &mut command)?;
        let service = Self { process, status, asked: Cell::new(0) };
        let until = Instant::now() + SOON;
        while !service.serves(log) {
            if !service.process.is_running() || Instant::now() >= until {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("{program} does not serve: {}", said.trim());
            }
            thread::sleep(POLL);
        }
        Ok(service)
    }

    /// Connections and requests that an nginx has taken, without those of these questions.
    ///
    /// # Errors
    /// It does not answer, or as no nginx does.
    pub fn nginx_counts(&self) -> Result<(u64, u64)> {
        let answer = self.ask("GET /status HTTP/1.0\r\n\r\n")?;
        let counts = parse_stub_status(&answer);
        let (accepted, requests) =
            counts.with_context(|| format!("no status of nginx: {answer:?}"))?;
        self.asked.set(self.asked.get() + 1);
        Ok((accepted - self.asked.get(), requests - self.asked.get()))
    }

    /// Connections that a HAProxy has taken for one of its proxies.
    ///
    /// # Errors
    /// It does not answer, or as no HAProxy does.
    pub fn haproxy_count(&self, proxy: &str) -> Result<u64> {
        let answer = self.ask("show stat\n")?;
        parse_show_stat(&answer, proxy).with_context(|| format!("no {proxy} in {answer:?}"))
    }

    /// The group of its processes.
    pub fn group(&self) -> i32 {
        self.process.pid()
    }

    fn serves(&self, log: &Path) -> bool {
        match &self.status {
            Some(path) => UnixStream::connect(path).is_ok(),
            None => fs::read_to_string(log).is_ok_and(|said| said.contains("listening")),
        }
    }

    fn ask(&self, question: &str) -> Result<String> {
        let path = self.status.as_ref().context("has no status")?;
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A master process takes its workers with it; whatever is left goes by its group, which is
        // our own: `Process` makes one for each of its children.
        if self.process.signal(Signal::SIGTERM).is_ok() {
            let _ = self.process.wait(SOON);
        }
        let _ = killpg(Pid::from_raw(self.process.pid()), Signal::SIGKILL);
    }
}

/// A master process that ends takes its workers with it, also when nobody is left to tell it.
fn end_with_parent() -> io::Result<()> {
    // SAFETY: takes integers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Third line of ngx_http_stub_status_module: accepted, handled, requests.
fn parse_stub_status(answer: &str) -> Option<(u64, u64)> {
    let (_, after) = answer.split_once("server accepts handled requests")?;
    let numbers: Vec<u64> =
        after.trim_start().lines().next()?.split(' ').flat_map(str::parse).collect();
    let [accepted, _, requests] = numbers[..] else { return None };
    Some((accepted, requests))
}

/// Field `stot` of a proxy's frontend.
fn parse_show_stat(answer: &str, proxy: &str) -> Option<u64> {
    let mut lines = answer.lines();
    let place = lines.next()?.trim_start_matches("# ").split(',').position(|n| n == "stot")?;
    let line = lines.find(|line| line.starts_with(&format!("{proxy},FRONTEND,")))?;
    line.split(',').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let nginx = "HTTP/1.1 200 OK\r\n\r\nActive connections: 2 \n\
                     server accepts handled requests\n 16 15 31 \nReading: 0 Writing: 1\n";
        assert_eq!(parse_stub_status(nginx), Some((16, 31)));
        assert_eq!(parse_stub_status("HTTP/1.1 404"), None);
        let haproxy = "# pxname,svname,scur,stot,\nbulk,FRONTEND,0,3,\nweb,FRONTEND,1,44,\n";
        assert_eq!(parse_show_stat(haproxy, "web"), Some(44));
        assert_eq!(parse_show_stat(haproxy, "no"), None);
    }
}
