//! The daemon's API and its command, timed.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_tests::command;
use release_tests::topology::Balancer;
use release_user::api::client::{Client, Result as Answer};
use release_user::api::types::{InForce, ShiftRequest};
use tokio::runtime::{self, Runtime};

/// Longer than anything that is asked for takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks a daemon, and waits for the answer.
pub struct Api {
    client: Client,
    runtime: Runtime,
}

impl Api {
    /// Of the daemon on a balancer.
    ///
    /// # Errors
    /// No runtime.
    pub fn new(lb: &Balancer) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client: Client::new(lb.socket_path(), PATIENCE), runtime })
    }

    /// What the daemon answers.
    ///
    /// # Errors
    /// Its error, or none came.
    pub fn ask<'a, T, F>(&'a self, question: impl FnOnce(&'a Client) -> F) -> Result<T>
    where
        F: Future<Output = Answer<T>> + 'a,
    {
        Ok(self.runtime.block_on(question(&self.client))?)
    }
}

/// What something returned, and how long it took in milliseconds.
///
/// # Errors
/// Its own.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begun = Instant::now();
    let result = work()?;
    Ok((result, begun.elapsed().as_secs_f64() * 1000.0))
}

/// All weight to one of two versions: by the API.
///
/// # Errors
/// The daemon's.
pub fn shift(api: &Api, service: &str, weights: [u32; 2]) -> Result<(InForce, f64)> {
    let weights = BTreeMap::from([("v1".to_owned(), weights[0]), ("v2".to_owned(), weights[1])]);
    let request = ShiftRequest { service: service.to_owned(), weights, allow_empty: false };
    timed(|| api.ask(|client| client.shift(&request)))
}

/// A command of `releasectl` that asks the daemon, to be timed. It needs no network, so it is not moved
/// into the balancer's namespace: that takes a fork of this process, and to copy the page tables of all
/// that this process has measured with takes several times as long as the command.
///
/// # Errors
/// The binary is not built.
pub fn command(lb: &Balancer, arguments: &[&str]) -> Result<Command> {
    let inside = lb.releasectl_command(arguments)?;
    let mut command = Command::new(inside.get_program());
    command.args(inside.get_args());
    for (variable, value) in inside.get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    Ok(command)
}

/// The same by the command, from the start of its process to its end.
///
/// # Errors
/// The command's.
pub fn shift_by_command(lb: &Balancer, service: &str, weights: [u32; 2]) -> Result<(InForce, f64)> {
    let [v1, v2] = [format!("v1={}", weights[0]), format!("v2={}", weights[1])];
    let mut command = command(lb, &["shift", service, &v1, &v2, "-o", "json"])?;
    let (output, took) = timed(|| command::output(&mut command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "releasectl shift: {}: {said}", output.status);
    Ok((serde_json::from_slice(&output.stdout).context("the answer of `shift`")?, took))
}
