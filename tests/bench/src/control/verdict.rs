//! From the last FIN to the verdict `idle`.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_tests::process::Process;
use release_tests::topology::{SERVICE, Topology};
use release_user::api::types::TargetQuery;

use super::api::{self, Api};
use crate::row::{Row, Section, Target};

/// How long nothing may have come, in the topology's configuration.
const SETTLE: Duration = Duration::from_millis(500);
/// What may come on top, in seconds.
const BOUND: f64 = 0.5;
/// Looks at what is busy are this far apart: connections end at all places in between.
const LOOKS: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);

/// Holds a connection to the first version, moves the weight away, and closes it while
/// `releasectl idle wait` waits; a receipt must be had then.
///
/// # Errors
/// The verdict comes too early, or never.
pub fn measure(topology: &Topology, api: &Api, rounds: usize) -> Result<Vec<Row>> {
    let lb = &topology.lb;
    let query = TargetQuery { service: SERVICE.to_owned(), target: "v1".to_owned() };
    let mut beyond = Vec::new();
    for round in 0..rounds as u32 {
        crate::interrupt::check()?;
        let held = topology.hold()?;
        ensure!(held.first.version == "v1", "a connection to {}", held.first.version);
        api::shift(api, SERVICE, [0, 100])?;
        let mut command =
            lb.releasectl_command(&["idle", "wait", SERVICE, "v1", "--timeout", "20s"])?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let wait = Process::spawn("releasectl idle wait", &mut command)?;
        // Not to wait for anything: the connection is to end at another place between two looks
        // each time.
        thread::sleep(LOOKS * round / rounds as u32);
        ensure!(wait.is_running(), "idle with a connection open");
        let closed = Instant::now();
        drop(held);
        let status = wait.wait(PATIENCE)?.context("never idle")?;
        let took = closed.elapsed();
        ensure!(status.success(), "releasectl idle wait: {status}");
        ensure!(took >= SETTLE, "idle after {took:?}, before it could settle");
        let receipt = api.ask(|client| client.receipt(&query))?;
        ensure!(receipt.report.target == "v1", "a receipt for {}", receipt.report.target);
        beyond.push((took - SETTLE).as_secs_f64());
        api::shift(api, SERVICE, [100, 0])?;
    }
    let row = Row::new(
        Section::ControlPath,
        "control.idle",
        "last FIN to the end of `idle wait`, beyond `settle`",
        "s",
        &beyond,
    );
    Ok(vec![row.target(Target::at_most(BOUND))])
}
