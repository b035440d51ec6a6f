//! The demo: a release of v2 over v1 under live traffic, and for contrast the usual way.
//!
//! Everything is owned by the future of [`run`]: dropping it half-way (Ctrl-C) takes everything
//! down in order.

mod contrast;
mod ctl;
mod release;
mod screen;
mod summary;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::{Group, Load, LoadPlan, Report};
use crate::plot::Plot;
use crate::topology::{FRONTEND, SERVICE, Topology, TopologySpec};
use screen::Screen;

/// The version that is released over.
const OLD: &str = "v1";
/// The version that is released.
const NEW: &str = "v2";
/// How long after the last shift the clients' sessions with the old version begin to end, and how
/// long that takes. Nobody tells the balancer: it has to see it.
const SESSIONS_END_AFTER: Duration = Duration::from_millis(3500);
const SESSIONS_END_OVER: Duration = Duration::from_millis(1500);

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for plots, receipt and figures.
    pub out: PathBuf,
    /// Run the release.
    pub release: bool,
    /// Run the contrast.
    pub contrast: bool,
}

/// Runs the demo and prints its summary.
///
/// # Errors
/// A step failed, or the result is not what the demo claims: clients saw errors or moved
/// connections, `idle` was not reached, or the usual way went without errors too.
pub async fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let screen = Screen::new();
    screen.step("namespaces: a client, the balancer, two v1 and two v2 servers");
    let topology = Topology::new(&TopologySpec::default())?;
    // Where servers of the new version run all the time, those of the old one come and go.
    let _new_servers = topology.start_servers_of(NEW)?;

    let mut problems = Vec::new();
    if options.release {
        let result = release::run(&topology, &screen).await?;
        problems.extend(result.problems());
        summary::release(&screen, &result, &options.out)?;
    }
    if options.contrast {
        screen.heading("For contrast, the usual way: weight to zero, sleep, kill");
        let result = contrast::run(&topology, &screen).await?;
        if result.report.totals.errors == 0 {
            problems.push("the usual way showed no errors".to_owned());
        }
        summary::contrast(&screen, &result, &options.out)?;
    }
    if !problems.is_empty() {
        bail!("the demo did not show what it claims: {}", problems.join("; "));
    }
    Ok(())
}

/// The same clients in both runs.
fn load_plan() -> LoadPlan {
    let keep_alive = |connections, pause, life: Option<u64>| Group::KeepAlive {
        connections,
        pause: Duration::from_millis(pause),
        life: life.map(Duration::from_millis),
    };
    LoadPlan {
        target: FRONTEND,
        sources: Vec::new(),
        groups: vec![
            Group::Short { per_second: 150, limit: None, path: "/".into() },
            Group::Short { per_second: 10, limit: None, path: "/slow?ms=500".into() },
            // Users with sessions of two seconds, some for the whole run, and idle ones.
            keep_alive(30, 100, Some(2000)),
            keep_alive(20, 100, None),
            keep_alive(10, 4000, None),
            Group::Stream { connections: 12, length: Duration::from_secs(120) },
        ],
        threads: 1,
    }
}

/// Moments of a run for its plot, in seconds from the load's start.
#[derive(Debug)]
struct Events {
    started: Instant,
    list: Vec<(f64, String)>,
}

impl Events {
    fn of(load: &Load) -> Self {
        Self { started: load.started(), list: Vec::new() }
    }

    fn mark(&mut self, label: &str) {
        self.list.push((self.started.elapsed().as_secs_f64(), label.to_owned()));
    }
}

fn plot(report: &Report, events: &Events, title: &str, subtitle: &str) -> Plot {
    Plot { events: events.list.clone(), ..Plot::of(report, &[OLD, NEW], title, subtitle) }
}

/// Waits until the load has connections of every kind, so that nothing begins half-loaded.
async fn load_is_up(load: &Load) -> Result<()> {
    let up = load.reached(|snapshot| snapshot.active(OLD) + snapshot.active(NEW) >= 72);
    tokio::time::timeout(Duration::from_secs(10), up).await.map_err(|_| {
        let snapshot = load.snapshot();
        anyhow::anyhow!(
            "clients do not get through to service {SERVICE}: {} connections, {} errors",
            snapshot.connections,
            snapshot.errors
        )
    })
}
