//! Kernel memory of the maps: what their specs say, and what the kernel says.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{ArrayOfMaps, Map, MapData, MapInfo, MapType};
use release_common::abi::RingBlock;
use release_user::kernel::SPECS;

use crate::control::usage::{memlock, pinned_memlock};

/// `struct htab_elem` in front of a key.
const ELEMENT: u64 = 48;
/// `struct bucket`; there are as many as the capacity, rounded up to a power of two.
const BUCKET: u64 = 16;

/// Bytes of all pinned maps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    /// As computed from their specs: elements, buckets and pointers, nothing else.
    pub computed: u64,
    /// As the kernel says.
    pub measured: u64,
}

/// Of all pinned maps, without what maps of maps hold.
///
/// # Errors
/// One cannot be opened.
pub fn pinned(bpffs: &Path) -> Result<Bytes> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("CPUs")? as u64;
    let mut sum = Bytes::default();
    for spec in SPECS {
        let info = MapInfo::from_pin(bpffs.join(spec.name))?;
        sum.measured += pinned_memlock(bpffs, spec.name)?;
        sum.computed += computed(&info, cpus)?;
    }
    Ok(sum)
}

fn computed(info: &MapInfo, cpus: u64) -> Result<u64> {
    let round = |bytes: u32| u64::from(bytes.next_multiple_of(8));
    let (key, value) = (round(info.key_size()), round(info.value_size()));
    let entries = u64::from(info.max_entries());
    Ok(match info.map_type()? {
        MapType::Hash | MapType::LruHash => {
            (ELEMENT + key + value) * entries + BUCKET * entries.next_power_of_two()
        }
        MapType::PerCpuArray => value * entries * cpus,
        MapType::Array => value * entries,
        // A pointer each.
        MapType::ArrayOfMaps | MapType::DevMapHash | MapType::ProgramArray => 8 * entries,
        MapType::RingBuf => entries,
        // By nodes in use.
        MapType::LpmTrie => 0,
        other => anyhow::bail!("a map of type {other:?}"),
    })
}

/// Of one ring of so many slots: a pinned map's pointer leads to it.
///
/// # Errors
/// There is no such ring.
pub fn ring(bpffs: &Path, ring: u32, slots: u32) -> Result<Bytes> {
    let map = Map::ArrayOfMaps(MapData::from_pin(bpffs.join("RINGS"))?);
    let rings: ArrayOfMaps<MapData, MapData> = map.try_into()?;
    let inner = rings.get(&ring, 0).with_context(|| format!("ring {ring}"))?;
    let blocks = 1 + u64::from(slots).div_ceil(16);
    Ok(Bytes { computed: blocks * size_of::<RingBlock>() as u64, measured: memlock(&inner)? })
}
