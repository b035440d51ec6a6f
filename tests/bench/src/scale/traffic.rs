//! Many instances, connections by the ten thousand a second, a full table.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use release_common::abi::Counters;
use release_tests::conversations::Conversations;
use release_tests::packet_socket::mac;
use release_tests::topology::{CLIENT_SIDE, FRONTEND, Topology};
use release_user::kernel::{Maps, Programs};
use release_user::placement::RingSize;
use release_user::verdict::walk::{Totals, Walk};

use super::{Size, row};
use crate::control::api::timed;
use crate::control::bed::{self, MadeUp};
use crate::control::table::{self, Owner};
use crate::control::usage::Process;
use crate::control::walk;
use crate::row::{Row, Target};
use crate::say;

/// Connections a second.
const RATE: u32 = 50_000;
/// What must be reached of them: a machine that cannot says nothing of the daemon.
const REACHED: f64 = 0.95;
/// Entries that stay free while the table is filled.
const SPARE: u32 = 1 << 14;

/// Measures.
///
/// # Errors
/// What was not what it should have been: counters that do not say what was generated, above all.
pub fn measure(size: Size, rounds: usize) -> Result<Vec<Row>> {
    let topology = bed::topology(&format!("flow_capacity = {}", size.flows))?;
    let service = MadeUp {
        name: "web".to_owned(),
        port: FRONTEND.port(),
        ring: RingSize::DEFAULT.get(),
        instances: (0, [size.instances, 0]),
    };
    let head = topology.config(&[]);
    let head = head.split("\n[[service]]").next().context("no [daemon]")?;
    topology.lb.write_config(&format!("{head}{}", service.config()))?;
    let of = format!("one service with {} instances", size.instances);
    say("scale: a daemon with many instances starts");
    let (daemon, first) = timed(|| topology.lb.start_daemon())?;
    let process = Process(daemon.process().pid());
    let maps = Maps::open(topology.lb.bpffs())?;
    let backends = backends(&maps)?;
    ensure!(backends.len() == size.instances as usize, "{} instances in the ring", backends.len());
    let mut rows =
        vec![row("instances.start", &format!("start of the daemon, {of}"), "ms", &[first])];
    say("scale: connections");
    let (begun, more) = connections(&topology, process, &maps, &backends, size)?;
    rows.extend(more);
    say("scale: a full table");
    rows.extend(full_table(&topology, process, &maps, backends[0], begun, (size, rounds))?);
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(rows)
}

/// Ids of the instances in the only version's ring.
fn backends(maps: &Maps) -> Result<Vec<u32>> {
    let service = bed::service_at(maps, FRONTEND.port())?;
    let mut ring = maps.ring(bed::split(maps, service)?.entries[0].rings[0])?;
    ring.sort_unstable();
    ring.dedup();
    Ok(ring)
}

/// What all instances count.
fn counters(maps: &Maps, backends: &[u32]) -> Result<Counters> {
    let mut sum = Counters::default();
    for backend in backends {
        let one = maps.counters(*backend)?;
        sum.placed += one.placed;
        sum.opened += one.opened;
        sum.closed_fin += one.closed_fin;
        sum.closed_rst += one.closed_rst;
        sum.unverified += one.unverified;
        sum.packets += one.packets;
    }
    Ok(sum)
}

/// Opens and closes connections, and demands that they were counted: each opened once and closed
/// once. Returns how many there were.
fn connections(
    topology: &Topology,
    process: Process,
    maps: &Maps,
    backends: &[u32],
    size: Size,
) -> Result<(u64, Vec<Row>)> {
    let gateway = mac(&topology.lb.namespace, CLIENT_SIDE)?;
    let server = (&*topology.backends[0].namespace, "eth0");
    let ends = ((&topology.client, "eth0"), [server]);
    let mut conversations = Conversations::attach(ends.0, &ends.1, gateway, FRONTEND)?;
    // The first of all finds caches empty.
    conversations.run(1000, Duration::from_millis(200))?;
    let before = counters(maps, backends)?;
    let time = Duration::from_secs(size.seconds);
    let ((begun, took), cpu) = process.cpu_percent(|| conversations.run(RATE, time))?;
    let after = counters(maps, backends)?;
    let counted = [
        after.placed - before.placed,
        after.opened - before.opened,
        after.closed_fin - before.closed_fin,
    ];
    ensure!(counted == [begun; 3], "{begun} connections, counted as {counted:?}");
    // SYN-ACK, ACK, two FINs with their acknowledgements, and the SYN itself.
    let packets = after.packets - before.packets;
    ensure!(packets == 6 * begun, "{packets} packets of {begun} connections");
    ensure!(after.closed_rst == 0 && after.unverified == 0, "resets, or odd numbers: {after:?}");
    ensure!(Totals::read(maps, backends)?.live() == 0, "connections stayed open");
    let (rss, peak) = process.memory()?;
    let rate = begun as f64 / took.as_secs_f64();
    let of = format!("{RATE} connections/s open and close, over {} s", size.seconds);
    let rows = vec![
        row("connections.rate", &format!("reached while {of}"), "connections/s", &[rate])
            .target(Target::at_least(REACHED * f64::from(RATE))),
        row("connections.cpu", &format!("CPU of the daemon while {of}"), "%", &[cpu]),
        row("connections.rss", &format!("its resident memory after {of}"), "MB", &[rss]),
        row("connections.peak", &format!("its most after {of}"), "MB", &[peak]),
    ];
    Ok((counters(maps, backends)?.opened, rows))
}

/// Fills what is left of the table, and walks it.
fn full_table(
    topology: &Topology,
    process: Process,
    maps: &Maps,
    backend: u32,
    closing: u64,
    (size, rounds): (Size, usize),
) -> Result<Vec<Row>> {
    let bpffs = topology.lb.bpffs();
    let service = bed::service_at(maps, FRONTEND.port())?;
    let generation = bed::split(maps, service)?.generation;
    let flows = size.flows - u32::try_from(closing)? - SPARE;
    let jiffies = Programs::open(bpffs)?.jiffies()?;
    table::fill(bpffs, Owner { service, backend, generation }, 0..flows, jiffies)?;
    let entries = Walk::take(maps, jiffies)?.entries;
    let owner = Owner { service, backend, generation };
    let times = walk::times(topology, owner, u64::from(flows), rounds)?;
    let (rss, peak) = process.memory()?;
    let of = format!("{entries} entries");
    Ok(vec![
        row("walk", &format!("CPU time of a walk of {of}"), "s", &times),
        row("full.rss", &format!("resident memory of the daemon, {of}"), "MB", &[rss]),
        row("full.peak", &format!("its most so far, {of}"), "MB", &[peak]),
    ])
}
