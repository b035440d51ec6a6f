//! The release itself, by the commands that a person would type.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{sleep, timeout};

use super::ctl::{Ctl, Verdict};
use super::screen::Screen;
use super::{Events, NEW, OLD, SESSIONS_END_AFTER, SESSIONS_END_OVER, load_is_up, load_plan};
use crate::load::{Load, Report};
use crate::process::Process;
use crate::topology::{Daemon, SERVICE, Topology};

/// How long each weight is watched.
const WATCH: Duration = Duration::from_secs(3);
/// How long there is no daemon.
const WITHOUT_DAEMON: Duration = Duration::from_millis(1200);
/// How long the load goes on without the old version's servers.
const AFTERWARDS: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);

/// What the release showed.
#[derive(Debug)]
pub struct Released {
    pub report: Report,
    pub events: Events,
    pub facts: Facts,
}

/// What the commands said on the way.
#[derive(Debug)]
pub struct Facts {
    pub verdict: Verdict,
    /// From the last close of a client's connection to the old version to `idle`.
    pub close_to_idle: Option<Duration>,
    /// As printed for people.
    pub receipt: String,
    /// The same for programs.
    pub receipt_json: serde_json::Value,
}

impl Released {
    /// Where the result is not what the demo claims.
    pub fn problems(&self) -> Vec<String> {
        let Self { report: Report { totals, .. }, facts, .. } = self;
        let mut problems = Vec::new();
        let mut unless = |ok: bool, problem: String| {
            if !ok {
                problems.push(problem);
            }
        };
        unless(totals.errors == 0, format!("clients saw {} errors", totals.errors));
        unless(totals.moved == 0, format!("{} connections moved", totals.moved));
        unless(totals.connections_to(OLD) > 0, format!("no connection reached {OLD}"));
        unless(totals.connections_to(NEW) > 0, format!("no connection reached {NEW}"));
        unless(facts.verdict.verdict == "idle", format!("verdict {}", facts.verdict.verdict));
        unless(!facts.receipt.trim().is_empty(), "no receipt".to_owned());
        problems
    }
}

/// Releases, detaches, and leaves the topology as it was.
///
/// # Errors
/// A command fails.
pub async fn run(topology: &Topology, screen: &Screen) -> Result<Released> {
    let ctl = Ctl(&topology.lb);
    let old_servers = topology.start_servers_of(OLD)?;
    topology.lb.write_config(&topology.config(&[(OLD, 100), (NEW, 0)]))?;
    screen.heading("A release with releasectl");
    screen.step("releasectl check");
    ctl.ok(&["check"]).await?;
    screen.step("releasectl daemon");
    let daemon = topology.lb.start_daemon()?;

    let load = Load::start(&topology.client, load_plan())?;
    let mut events = Events::of(&load);
    load_is_up(&load).await?;
    screen.step("load: short, kept-alive, idle and streaming connections");
    let run = Run { ctl, screen, load: &load };
    let (facts, daemon) = tokio::select! {
        done = run.steps(&mut events, daemon, old_servers) => done?,
        never = screen.watch(Some(ctl), &load) => match never {},
    };
    let report = load.finish()?;

    daemon.stop()?;
    ctl.ok(&["detach"]).await?;
    screen.step("releasectl detach");
    Ok(Released { report, events, facts })
}

/// What all steps need.
struct Run<'r, 't> {
    ctl: Ctl<'t>,
    screen: &'r Screen,
    load: &'r Load,
}

impl<'t> Run<'_, 't> {
    async fn steps(
        &self,
        events: &mut Events,
        daemon: Daemon<'t>,
        old_servers: Vec<Process>,
    ) -> Result<(Facts, Daemon<'t>)> {
        sleep(WATCH).await;
        self.shift(events, 90, 10).await?;
        sleep(WATCH).await;
        self.shift(events, 50, 50).await?;
        sleep(WATCH / 3).await;
        let daemon = self.crash(events, daemon).await?;
        sleep(WATCH / 3).await;
        self.shift(events, 0, 100).await?;
        let facts = self.drain(events).await?;

        self.screen.step(&format!("stop the processes of {OLD}"));
        events.mark(&format!("stop {OLD}"));
        for server in old_servers {
            server.terminate(DEADLINE)?;
        }
        sleep(AFTERWARDS).await;
        Ok((facts, daemon))
    }

    async fn shift(&self, events: &mut Events, old: u32, new: u32) -> Result<()> {
        let (old, new) = (format!("{OLD}={old}"), format!("{NEW}={new}"));
        self.screen.step(&format!("releasectl shift {SERVICE} {old} {new}"));
        self.ctl.ok(&["shift", SERVICE, &old, &new]).await?;
        events.mark(&format!("shift {new}%").replace(&format!("{NEW}="), ""));
        Ok(())
    }

    async fn crash(&self, events: &mut Events, daemon: Daemon<'t>) -> Result<Daemon<'t>> {
        let before = self.load.snapshot();
        self.screen.step("kill -9 the daemon; the data plane carries on");
        daemon.kill()?;
        events.mark("kill -9 daemon");
        sleep(WITHOUT_DAEMON).await;
        let after = self.load.snapshot();
        let daemon = self.ctl.0.start_daemon()?;
        events.mark("daemon back");
        self.screen.step(&format!(
            "releasectl daemon: back, adopted what is pinned; meanwhile {} new connections, {} \
             errors",
            after.connections - before.connections,
            after.errors - before.errors,
        ));
        Ok(daemon)
    }

    /// From the drain's begin to the receipt. The old version's sessions end while we wait.
    async fn drain(&self, events: &mut Events) -> Result<Facts> {
        self.screen.step(&format!("releasectl drain {SERVICE} {OLD} --no-wait"));
        self.ctl.ok(&["drain", SERVICE, OLD, "--no-wait"]).await?;
        events.mark("drain");
        self.screen.step(&format!(
            "releasectl idle wait {SERVICE} {OLD} --timeout 30s ({} connections still open)",
            self.load.snapshot().active(OLD)
        ));
        let sessions_end = async {
            sleep(SESSIONS_END_AFTER).await;
            self.load.retire(OLD, SESSIONS_END_OVER);
            std::future::pending().await
        };
        let wait = ["idle", "wait", SERVICE, OLD, "--timeout", "30s"];
        let verdict: Verdict = tokio::select! {
            verdict = self.ctl.json(&wait) => verdict?,
            never = sessions_end => never,
        };
        events.mark("idle");
        let idle_at = self.load.started().elapsed();
        let snapshot = self.load.snapshot();
        let active = snapshot.active(OLD);
        if active > 0 {
            bail!("verdict {} while clients have {active} open connections", verdict.verdict);
        }
        let last_close = snapshot.versions.get(OLD).and_then(|version| version.last_close);
        let close_to_idle = last_close.map(|close| idle_at.saturating_sub(close));
        self.screen.step(
            format!("verdict: {} {}", verdict.verdict, verdict.reasons.join(", ")).trim_end(),
        );

        let receipt = ["idle", "receipt", SERVICE, OLD];
        let text = timeout(DEADLINE, self.ctl.ok(&receipt)).await??;
        let receipt_json = self.ctl.json(&receipt).await?;
        Ok(Facts { verdict, close_to_idle, receipt: text, receipt_json })
    }
}
