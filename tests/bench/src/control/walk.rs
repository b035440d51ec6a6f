//! What it costs to look through a flow table, and what the table takes.

use std::path::Path;

use anyhow::{Result, ensure};
use release_tests::topology::Topology;
use release_user::kernel::{Maps, Programs};
use release_user::verdict::walk::Walk;

use super::table::Owner;
use super::usage::{own_cpu, pinned_memlock};

/// CPU seconds of walks over all tables, as a verdict takes them.
///
/// # Errors
/// A walk does not find exactly `flows` live flows of the owner.
pub fn times(topology: &Topology, owner: Owner, flows: u64, rounds: usize) -> Result<Vec<f64>> {
    let bpffs = topology.lb.bpffs();
    let (maps, programs) = (Maps::open(bpffs)?, Programs::open(bpffs)?);
    let mut times = Vec::new();
    for _ in 0..rounds {
        crate::interrupt::check()?;
        let now = programs.jiffies()?;
        let begun = own_cpu()?;
        let walk = Walk::take(&maps, now)?;
        times.push((own_cpu()? - begun).as_secs_f64());
        let found = walk.tally(&[owner.backend]).flows.active;
        ensure!(found == flows, "a walk found {found} of {flows} flows");
    }
    Ok(times)
}

/// Bytes of kernel memory for each entry of a table; what the table has once is less than one.
///
/// # Errors
/// There is no such table.
pub fn bytes_per_entry(bpffs: &Path, name: &str) -> Result<f64> {
    let capacity = Maps::open(bpffs)?.info(name)?.capacity;
    Ok((pinned_memlock(bpffs, name)? as f64 / f64::from(capacity)).floor())
}
