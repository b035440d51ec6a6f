//! A flow table filled from user space, as connections would have filled it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use release_common::abi::{
    Be16, Be32, Counters, Endpoint, Flow, FlowKey, GAUGE_ENTRIES, IPPROTO_TCP, opened_at,
};
use release_common::tcp::word::FlowWord;
use release_tests::raw_map::Raw;
use release_tests::topology::FRONTEND;

/// Entries written at once.
const BATCH: u32 = 16384;
/// First of the clients' addresses (RFC 6598): nobody has it.
const FIRST_CLIENT: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// Clients' ports are these and above.
const FIRST_PORT: u32 = 1 << 15;

/// Whose connections are made up.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The service's number.
    pub service: u32,
    /// The instance's number.
    pub backend: u32,
    /// The generation that placed them.
    pub generation: u32,
}

/// The client of connection `number`.
fn client(number: u32) -> SocketAddrV4 {
    let port = FIRST_PORT + number % FIRST_PORT;
    SocketAddrV4::new(Ipv4Addr::from(FIRST_CLIENT + number / FIRST_PORT), port as u16)
}

fn key(number: u32) -> FlowKey<Be32> {
    let end =
        |at: SocketAddrV4| Endpoint::new(Be32::from(*at.ip()), Be16::new(at.port()), IPPROTO_TCP);
    FlowKey::between(end(client(number)), end(FRONTEND))
}

/// Adds live connections with these numbers, and to all that counts them: gauges and counters say
/// what they would after so many handshakes. Nothing else may happen in the tables meanwhile.
///
/// # Errors
/// The kernel's; a table that is too small.
pub fn fill(bpffs: &Path, owner: Owner, numbers: Range<u32>, jiffies: u64) -> Result<()> {
    let flows = Raw::open(bpffs, "FLOWS4")?;
    let count = u64::from(numbers.end - numbers.start);
    for start in numbers.clone().step_by(BATCH as usize) {
        crate::interrupt::check()?;
        let end = (start + BATCH).min(numbers.end);
        let keys: Vec<FlowKey<Be32>> = (start..end).map(key).collect();
        let flow = |number: u32| Flow {
            state: FlowWord::live(number + 1, 0, 0).0,
            backend: owner.backend,
            generation: owner.generation,
            opened_at: opened_at(jiffies),
            last_packet: jiffies as u32,
            last_data: jiffies as u32,
            ..Flow::default()
        };
        let values: Vec<Flow> = (start..end).map(flow).collect();
        flows.fill(bytemuck::cast_slice(&keys), bytemuck::cast_slice(&values))?;
    }
    add_to_gauges(bpffs, owner, count)?;
    count_flows(bpffs, owner, |counters| {
        counters.placed += count;
        counters.opened += count;
        counters.last_packet = jiffies;
    })
}

/// Takes connections out again that [`fill`] made, as if they had closed and lingered.
///
/// # Errors
/// The kernel's; not all of them are there.
pub fn clear(bpffs: &Path, owner: Owner, numbers: Range<u32>) -> Result<()> {
    let flows = Raw::open(bpffs, "FLOWS4")?;
    let count = u64::from(numbers.end - numbers.start);
    for start in numbers.clone().step_by(BATCH as usize) {
        crate::interrupt::check()?;
        let keys: Vec<FlowKey<Be32>> = (start..(start + BATCH).min(numbers.end)).map(key).collect();
        flows.remove(bytemuck::cast_slice(&keys))?;
    }
    add_to_gauges(bpffs, owner, count.wrapping_neg())?;
    count_flows(bpffs, owner, |counters| counters.closed_fin += count)
}

fn pin(bpffs: &Path, name: &str) -> Result<MapData> {
    MapData::from_pin(bpffs.join(name)).with_context(|| name.to_owned())
}

/// Live flows of the service, and entries of the table.
fn add_to_gauges(bpffs: &Path, owner: Owner, change: u64) -> Result<()> {
    let mut gauges: Array<MapData, u64> = Map::Array(pin(bpffs, "GAUGES")?).try_into()?;
    for index in [owner.service, GAUGE_ENTRIES] {
        gauges.set(index, gauges.get(&index, 0)?.wrapping_add(change), 0)?;
    }
    Ok(())
}

fn count_flows(bpffs: &Path, owner: Owner, count: impl FnOnce(&mut Counters)) -> Result<()> {
    type Words = [u64; Counters::FIELDS];
    let mut counters: PerCpuArray<MapData, Words> =
        Map::PerCpuArray(pin(bpffs, "COUNTERS")?).try_into()?;
    let mut cpus: Vec<Words> = counters.get(&owner.backend, 0)?.to_vec();
    count(bytemuck::cast_mut(cpus.first_mut().context("no CPU")?));
    counters.set(owner.backend, PerCpuValues::try_from(cpus)?, 0)?;
    Ok(())
}
