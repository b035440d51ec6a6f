//! Many services with large rings: what they take, and how long a daemon takes to begin.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use release_common::abi::RING_BLOCK;
use release_tests::topology::{Balancer, Topology};
use release_user::kernel::Maps;
use release_user::placement::RingSize;

use super::memory::{self, Bytes};
use super::{Size, row};
use crate::control::api::{Api, timed};
use crate::control::bed::{self, MadeUp};
use crate::control::usage::Process;
use crate::row::Row;
use crate::say;

/// Port of the first service.
const PORT: u16 = 2000;

/// Measures.
///
/// # Errors
/// What was not what it should have been.
pub fn measure(size: Size, rounds: usize) -> Result<Vec<Row>> {
    let topology = bed::topology(&format!("flow_capacity = {}", size.flows))?;
    let slots = RingSize::DEFAULT.get();
    let service = |number: u32| MadeUp {
        name: format!("s{number:04}"),
        port: PORT + number as u16,
        ring: slots,
        instances: (number, [1, 0]),
    };
    let services: String = (0..size.services).map(|number| service(number).config()).collect();
    let head = topology.config(&[]);
    let head = head.split("\n[[service]]").next().context("no [daemon]")?;
    topology.lb.write_config(&format!("{head}{services}"))?;
    let of = format!("{} services with rings of {slots} slots", size.services);

    say("scale: check");
    let mut rows = check(&topology.lb, size, rounds, &of)?;
    say("scale: a daemon starts");
    let (daemon, first) = timed(|| topology.lb.start_daemon())?;
    let process = Process(daemon.process().pid());
    let cpu = process.cpu()?.as_secs_f64() * 1000.0;
    let (rss, peak) = process.memory()?;
    rows.push(row("start.cpu", &format!("CPU time of the start, {of}"), "ms", &[cpu]));
    rows.push(row("start", &format!("start of the daemon, {of}"), "ms", &[first]));
    rows.push(row("rss", &format!("resident memory of the daemon, {of}"), "MB", &[rss]));
    rows.push(row("rss.peak", &format!("its most so far, {of}"), "MB", &[peak]));
    rows.extend(memory_rows(&topology, size, slots)?);
    let maps = Maps::open(topology.lb.bpffs())?;
    let before = (maps.ids()?, heads(&maps, size, slots)?);
    say("scale: the daemon starts again");
    let (daemon, again) = timed(|| daemon.restart())?;
    ensure!((maps.ids()?, heads(&maps, size, slots)?) == before, "a restart changed the rings");
    rows.push(row("restart", &format!("stop and start with adoption, {of}"), "ms", &[again]));
    let api = Api::new(&topology.lb)?;
    let mut reloads = Vec::new();
    for _ in 0..rounds {
        crate::interrupt::check()?;
        let (reloaded, took) = timed(|| api.ask(|client| client.reload()))?;
        ensure!(reloaded.changes.is_empty(), "{:?}", reloaded.changes);
        reloads.push(took);
    }
    let what = format!("reload without a change, {of}");
    rows.push(row("reconcile", &what, "ms", &reloads));
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(rows)
}

/// `releasectl check`.
fn check(lb: &Balancer, size: Size, rounds: usize, of: &str) -> Result<Vec<Row>> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        crate::interrupt::check()?;
        let (report, took) = timed(|| lb.releasectl_json(&["check"]))?;
        let (valid, services) = (&report["valid"], &report["services"]);
        ensure!(*valid == true && *services == size.services, "check: {valid}, {services}");
        times.push(took);
    }
    Ok(vec![row("check", &format!("`releasectl check`, {of}"), "ms", &times)])
}

/// Heads of the rings that services lead to, each of the right size.
fn heads(maps: &Maps, size: Size, slots: u32) -> Result<BTreeMap<u32, u64>> {
    let mut heads = BTreeMap::new();
    for number in 0..size.services {
        let service = bed::split(maps, number)?;
        let ring = service.entries[0].rings[0];
        let head = maps.ring_head(ring)?.with_context(|| format!("no ring {ring}"))?;
        ensure!(head.size == slots, "ring {ring} has {} slots", head.size);
        heads.insert(ring, head.fingerprint);
    }
    ensure!(heads.len() == size.services as usize, "{} rings", heads.len());
    Ok(heads)
}

fn memory_rows(topology: &Topology, size: Size, slots: u32) -> Result<Vec<Row>> {
    let bpffs = topology.lb.bpffs();
    let maps = Maps::open(bpffs)?;
    let tables = memory::pinned(bpffs)?;
    let first = bed::split(&maps, 0)?.entries[0].rings[0];
    let one = memory::ring(bpffs, first, slots)?;
    let count = u64::from(size.services);
    let rings = Bytes { computed: one.computed * count, measured: one.measured * count };
    let row = |id: &str, what: &str, bytes: Bytes| {
        let (measured, computed) = (bytes.measured as f64 / 1e6, bytes.computed as f64 / 1e6);
        row(&format!("memory.{id}"), what, "MB", &[measured])
            .ratio("as computed", &[measured / computed])
    };
    let tables_of = format!("kernel memory of all tables, {} flows a family", size.flows);
    let rings_of =
        format!("kernel memory of {count} rings of {slots} slots, {RING_BLOCK} slots an element");
    Ok(vec![row("tables", &tables_of, tables), row("rings", &rings_of, rings)])
}
