//! The balancer's namespace with the paths of a daemon instance of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::bpffs::PinDirectory;
use crate::command::{self, sibling_binary};
use crate::netns::Netns;
use crate::process::Process;

/// How long `releasectl detach` may take.
const DETACH: Duration = Duration::from_secs(10);

/// The balancer: its namespace, and where its `releasectl` finds everything. Dropping it detaches
/// the data plane and removes pins, files and namespace.
#[derive(Debug)]
pub struct Balancer {
    /// The balancer's namespace; shared with backends that are on the balancer's host.
    pub namespace: Arc<Netns>,
    interfaces: Vec<String>,
    pins: PinDirectory,
    files: TempDir,
}

impl Balancer {
    pub(super) fn new(namespace: Arc<Netns>, interfaces: Vec<String>) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("release-test-").tempdir()?;
        Ok(Self { namespace, interfaces, pins: PinDirectory::new()?, files })
    }

    /// All its interfaces, towards the client first: what `[daemon] interfaces` takes.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.files.path().join("release.toml")
    }

    /// The state folder (the daemon makes it).
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.files.path().join("state")
    }

    /// The API socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.files.path().join("release.sock")
    }

    /// The pin directory.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.pins.path()
    }

    /// Where the daemon's output goes.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.files.path().join("daemon.log")
    }

    /// Writes the configuration file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let new = self.files.path().join("release.toml.new");
        fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, self.config_path()).context("cannot replace the configuration")
    }

    /// `releasectl` with this instance's paths and the given arguments, to be run inside.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn releasectl_command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let binary = sibling_binary("releasectl", "RELEASECTL_BIN")?;
        let mut command = self.namespace.command(binary);
        for variable in ["CONFIG", "STATE_DIR", "SOCKET", "BPFFS"] {
            command.env_remove(format!("RELEASE_{variable}"));
        }
        command
            .arg("--config")
            .arg(self.config_path())
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket_path())
            .arg("--bpffs")
            .arg(self.bpffs())
            .args(arguments);
        Ok(command)
    }

    /// Runs `releasectl` to its end; status and output are the caller's to judge.
    ///
    /// # Errors
    /// The binary is not built or cannot be started.
    pub fn releasectl(&self, arguments: &[&str]) -> Result<Output> {
        command::output(&mut self.releasectl_command(arguments)?)
    }

    /// Runs `releasectl ARGUMENTS… -o json`, demands exit code 0 and parses the output.
    ///
    /// # Errors
    /// Any other exit code (the error carries what it said), or no JSON.
    pub fn releasectl_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.releasectl_ok(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("no JSON from releasectl {}: {text:?}", arguments.join(" ")))
    }

    /// Runs `releasectl` and demands exit code 0. Returns its standard output.
    ///
    /// # Errors
    /// Any other exit code; the error carries what it said.
    pub fn releasectl_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.releasectl(arguments)?;
        if !output.status.success() {
            bail!(
                "`releasectl {}` ended with {}: {}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                String::from_utf8_lossy(&output.stdout).trim(),
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `releasectl detach`, but a hanging one must not keep the rest from being cleaned up.
    fn detach_in_time(&self) -> Result<()> {
        let mut command = self.releasectl_command(&["detach"])?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::spawn("releasectl detach", &mut command)?;
        match process.wait(DETACH)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("releasectl detach ended with {status}"),
            None => bail!("releasectl detach hangs"),
        }
    }

    fn anything_pinned(&self) -> bool {
        fs::read_dir(self.bpffs()).is_ok_and(|mut entries| entries.next().is_some())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Best effort: without pins there is nothing to detach, and programs that are attached to
        // interfaces of the namespace go with it anyway.
        if self.anything_pinned()
            && let Err(error) = self.detach_in_time()
        {
            eprintln!("warning: {error:#}");
        }
    }
}
