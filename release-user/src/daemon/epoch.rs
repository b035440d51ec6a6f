//! Evidence epochs: what was before one began, the tables cannot say.
//!
//! One begins when the tables do, and when some of them are not those that were left here: a map
//! was replaced from outside, or the kernel's clock went back. A daemon that was away, for however
//! long, begins none: the packet path went on recording, and what only the daemon removes stays in
//! the tables.

use std::collections::BTreeMap;

use release_common::abi::{ABI_VERSION, Meta};

use super::checks;
use crate::api::types::{ApiError, ErrorCode};
use crate::kernel::{Clock, Maps, Programs};
use crate::store::Store;

/// Key of the evidence epoch in the store.
const EPOCH: &str = "evidence_epoch";
/// Key of the ids of the pinned maps in the store.
const MAPS: &str = "map_ids";
/// Part of the flow table that is left to handshakes under way when it counts as full.
const RESERVE: u32 = 16;

/// Ids of pinned maps by name. The kernel gives each id once.
pub type MapIds = BTreeMap<String, u32>;

/// The epoch that is.
pub struct Begun {
    /// The kernel's clock.
    pub clock: Clock,
    /// Ids of the maps, now.
    pub map_ids: MapIds,
    /// Why it is a new one although the tables were adopted.
    pub notices: Vec<String>,
}

/// Begins an epoch with tables that were made just now, or finds out whether those adopted are what
/// was left here. `capacity` is the flow table's, as configured.
///
/// # Errors
/// The kernel's or the store's.
pub fn begin(
    maps: &mut Maps,
    store: &mut dyn Store,
    programs: &Programs,
    made: bool,
    capacity: u32,
) -> Result<Begun, ApiError> {
    let mut meta = maps.meta()?;
    let now = programs.jiffies()?;
    let map_ids = maps.ids()?;
    let mut notices = Vec::new();
    if made || meta.abi == 0 {
        let before: u32 = store.note(EPOCH)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        meta = Meta {
            abi: ABI_VERSION,
            hz: Clock::of_kernel()?.hz,
            flow_capacity: capacity,
            flow_limit: capacity - capacity / RESERVE,
            evidence_epoch: before + 1,
            boot_id: boot_id()?,
            tables_made_at: now,
            ..meta
        };
        store.set_note(checks::DATA_PLANE, Some(&checks::data_plane(&meta)))?;
    } else {
        if meta.flow_capacity != capacity {
            log::warn!(
                "flow_capacity {capacity} takes effect after `releasectl detach`; the table holds {}",
                meta.flow_capacity
            );
        }
        let noted = store.note(MAPS)?.and_then(|text| serde_json::from_str(&text).ok());
        let replaced = replaced(&noted.unwrap_or_default(), &map_ids);
        if !replaced.is_empty() {
            notices.push(format!("replaced from outside: {}", replaced.join(", ")));
        }
        if now < meta.tables_made_at {
            notices.push("the kernel's clock went back".to_owned());
        }
        meta.evidence_epoch += u32::from(!notices.is_empty());
    }
    let epoch = meta.evidence_epoch;
    let notices = notices.into_iter().map(|why| format!("evidence epoch {epoch} begins: {why}"));
    store.set_note(EPOCH, Some(&epoch.to_string()))?;
    maps.set_meta(meta)?;
    // Last: a start that is cut short before begins yet another epoch.
    let ids = serde_json::to_string(&map_ids)
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("map ids: {error}")))?;
    store.set_note(MAPS, Some(&ids))?;
    Ok(Begun { clock: Clock { hz: meta.hz }, map_ids, notices: notices.collect() })
}

/// Names of maps that are not those noted. A map that an earlier version of this program did not
/// have replaces none.
pub fn replaced(noted: &MapIds, present: &MapIds) -> Vec<String> {
    let other = |(name, id): &(&String, &u32)| present.get(*name) != Some(id);
    noted.iter().filter(other).map(|(name, _)| name.clone()).collect()
}

fn boot_id() -> Result<[u8; 16], ApiError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let failed = |why: String| ApiError::new(ErrorCode::Internal, format!("{PATH}: {why}"));
    let text = std::fs::read_to_string(PATH).map_err(|error| failed(error.to_string()))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let value = u128::from_str_radix(&digits, 16).map_err(|error| failed(error.to_string()))?;
    Ok(value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_new_replaces_none() {
        let ids = |list: &[(&str, u32)]| -> MapIds {
            list.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
        };
        let noted = ids(&[("FLOWS4", 7), ("META", 8)]);
        assert!(replaced(&noted, &ids(&[("FLOWS4", 7), ("META", 8), ("MORE", 9)])).is_empty());
        assert_eq!(replaced(&noted, &ids(&[("FLOWS4", 17), ("META", 8)])), ["FLOWS4"]);
        assert_eq!(replaced(&noted, &ids(&[("META", 8)])), ["FLOWS4"]);
        assert!(replaced(&MapIds::new(), &noted).is_empty());
    }
}
