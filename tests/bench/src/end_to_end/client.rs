//! The client: wrk for requests and connections, iperf3 for bulk.
//!
//! wrk it is, for connections too, because it is the lightest (what the client uses of two CPUs is
//! missing elsewhere), counts every kind of error apart, and keeps each latency to the microsecond,
//! so that its percentiles are exact. Side by side, hey made a fifth of its requests and two thirds
//! of its connections; the load of `release_tests` checks each answer, which costs more than a
//! balancer.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use release_tests::netns::Netns;
use serde::Deserialize;

use super::cpu;

static SCRIPT: &str = include_str!("../../../peers/wrk.lua");

/// Connections of each run, half of them to each server.
pub const CONNECTIONS: u64 = 64;
/// How long each of them rests between two requests, in ms, when it does: they then make about a
/// quarter of the requests that they could.
const PACE: u32 = 4;
/// Points of the distribution of latency, in percent.
pub const PERCENTILES: [f64; 13] =
    [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.99];
const SOON: Duration = Duration::from_secs(20);

/// What a request is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection that stays, one after the other.
    KeepAlive,
    /// A connection that stays and rests in between, so that the CPUs are not busy all the time: then
    /// latency is what the way takes, not how long requests wait for each other.
    Paced,
    /// A connection of its own.
    Connection,
}

/// What came of a run, or of several.
#[derive(Clone, Debug)]
pub struct Run {
    /// Requests that were answered.
    pub requests: u64,
    /// Their number in a second, in the best of the runs.
    pub rate: f64,
    /// Requests and connections that failed, answered late (2 s) or badly.
    pub lost: u64,
    /// Latencies in ms, at [`PERCENTILES`], in the best of the runs.
    pub latency: Vec<f64>,
    /// CPU seconds of client, servers, balancer, and of the kernel's network threads.
    pub cpu: f64,
    /// Those of the balancer's own processes, if it has any.
    pub own: Option<f64>,
}

/// Groups of processes that take part, besides the client.
#[derive(Debug)]
pub struct Groups {
    /// Those of the servers.
    pub servers: Vec<i32>,
    /// That of the balancer.
    pub balancer: Option<i32>,
}

impl Run {
    /// Together with another of the same kind: what they count is added, and the better one's pace
    /// stands for both. Better is what answers more; paced ones all answer as many, sooner or later.
    pub fn and(self, other: Self, kind: Kind) -> Self {
        let is_better = match kind {
            Kind::KeepAlive | Kind::Connection => self.rate >= other.rate,
            Kind::Paced => self.at(99.0) <= other.at(99.0),
        };
        Self {
            requests: self.requests + other.requests,
            lost: self.lost + other.lost,
            cpu: self.cpu + other.cpu,
            own: self.own.zip(other.own).map(|(one, other)| one + other),
            ..if is_better { self } else { other }
        }
    }

    /// Latency at a percentile of [`PERCENTILES`], in ms.
    pub fn at(&self, percent: f64) -> f64 {
        let places = PERCENTILES.iter().zip(&self.latency);
        places.rev().find(|(point, _)| **point <= percent).map_or(0.0, |(_, ms)| *ms)
    }

    /// So much for each million of its requests.
    pub fn per_million(&self, seconds: f64) -> f64 {
        seconds / self.requests as f64 * 1e6
    }
}

#[derive(Deserialize)]
struct Said {
    requests: u64,
    microseconds: u64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
    latency: Vec<f64>,
}

/// Makes requests for some time, of servers that run in these groups of processes.
///
/// # Errors
/// wrk cannot be started, or does not say what it did.
pub fn wrk(
    client: &Netns,
    targets: &[SocketAddr],
    kind: Kind,
    time: Duration,
    folder: &Path,
    groups: &Groups,
) -> Result<Run> {
    let (script, output) = (folder.join("wrk.lua"), folder.join("wrk.out"));
    fs::write(&script, SCRIPT)?;
    let threads = 2;
    let mut command = client.command("wrk");
    // It takes whole seconds; ours are ended earlier, by the signal that it is made for.
    command.args([&format!("-t{threads}"), &format!("-c{CONNECTIONS}"), "-d600"]);
    command.arg("-s").arg(&script);
    match kind {
        Kind::KeepAlive => {}
        Kind::Paced => {
            command.env("PACE", PACE.to_string());
        }
        Kind::Connection => {
            command.args(["-H", "Connection: close"]);
        }
    }
    let first = targets.first().context("nobody to ask")?;
    let [targets, points] = [words(targets), words(&PERCENTILES)];
    command.arg(format!("http://{first}/")).env("TARGETS", targets).env("PERCENTILES", points);
    command.stdin(Stdio::null()).stdout(File::create(&output)?);
    let own = || groups.balancer.map(|group| cpu::of_groups(&[group])).transpose();
    let others =
        || anyhow::Ok(cpu::of_groups(&groups.servers)? + cpu::of_kernel()? + cpu::of_ended()?);
    let (own_before, others_before) = (own()?, others()?);
    let process = client.spawn("wrk", &mut command)?;
    ensure!(process.wait(time)?.is_none(), "wrk ended by itself: {}", read(&output));
    process.signal(Signal::SIGINT)?;
    let status = process.wait(SOON)?.context("wrk does not end")?;
    let own = own()?.zip(own_before).map(|(after, before)| after - before);
    let cpu = others()? - others_before + own.unwrap_or_default();
    let text = read(&output);
    ensure!(status.success(), "wrk ended with {status}: {text}");
    let line = text.lines().find(|line| line.starts_with('{'));
    let said: Said = serde_json::from_str(line.with_context(|| format!("wrk said {text:?}"))?)?;
    ensure!(said.requests > 0, "wrk got no answer: {text}");
    Ok(Run {
        requests: said.requests,
        rate: said.requests as f64 / said.microseconds as f64 * 1e6,
        lost: said.connect + said.read + said.write + said.status + said.timeout,
        latency: said.latency.iter().map(|microseconds| microseconds / 1000.0).collect(),
        cpu,
        own,
    })
}

/// Sends so many bytes over some TCP connections; returns Gbit/s as the receiver counted.
///
/// # Errors
/// iperf3 fails.
pub fn iperf(client: &Netns, to: SocketAddr, streams: u8, bytes: u64) -> Result<f64> {
    #[derive(Deserialize)]
    struct Report {
        error: Option<String>,
        #[serde(default)]
        end: serde_json::Value,
    }
    let line = format!(
        "-J -c {} -p {} -P {streams} -n {}",
        to.ip(),
        to.port(),
        bytes / u64::from(streams)
    );
    let mut command = client.command("iperf3");
    let output = release_tests::command::output(command.args(line.split(' ')))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(&text).with_context(|| {
        format!("iperf3 said {text:?} {}", String::from_utf8_lossy(&output.stderr))
    })?;
    if let Some(error) = report.error {
        bail!("iperf3: {error}");
    }
    let rate = &report.end["sum_received"]["bits_per_second"];
    Ok(rate.as_f64().context("no rate in iperf3's report")? / 1e9)
}

fn words(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
