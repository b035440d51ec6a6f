//! What a release does to a service's state. Pure.

use std::collections::BTreeMap;

use super::commands::commit;
use super::state::{ServiceState, VersionState};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::Prefix;

/// Largest weight.
const LARGEST: u32 = 1_000_000;

/// Weights that give `to` so many percent of what it and `from` have together. Other versions keep
/// their shares; all weights grow tenfold or a hundredfold where whole numbers do not reach.
pub fn share(service: &ServiceState, from: &str, to: &str, percent: u32) -> BTreeMap<String, u32> {
    let weight = |name: &str| service.version(name).map_or(0, |version| version.weight);
    let both = match weight(from) + weight(to) {
        0 => 100,
        both => both,
    };
    let most = service.versions.iter().map(|version| version.weight).max().unwrap_or(0).max(both);
    let exact =
        |factor: &u32| (u64::from(both) * u64::from(*factor) * u64::from(percent)) % 100 == 0;
    let fits = |factor: &u32| most.checked_mul(*factor).is_some_and(|weight| weight <= LARGEST);
    let factor = [1, 10, 100].into_iter().filter(fits).find(exact).unwrap_or(1);
    let both = both * factor;
    let new = (u64::from(both) * u64::from(percent)).div_ceil(100) as u32;
    let others = service.versions.iter().filter(|version| !version.removed);
    let mut weights: BTreeMap<String, u32> =
        others.map(|version| (version.name.clone(), version.weight * factor)).collect();
    weights.insert(from.to_owned(), both - new);
    weights.insert(to.to_owned(), new);
    weights
}

/// Lets clients of these prefixes, besides those of the configuration, reach a version.
///
/// # Errors
/// Usage, if there is no such version.
pub fn test(
    service: &mut ServiceState,
    version: &str,
    sources: &[Prefix],
) -> Result<bool, ApiError> {
    let mut next = service.clone();
    let generation = service.generation + 1;
    let Some(tested) = next.version_mut(version) else {
        if sources.is_empty() {
            return Ok(false);
        }
        let text = format!("version {version}: no such version of service {}", service.name);
        return Err(ApiError::new(ErrorCode::Usage, text));
    };
    let open = tested.open();
    tested.test = sources.to_vec();
    tested.note_closed(open, generation);
    commit(service, next, true)
}

impl ServiceState {
    /// The one version that has all the weight.
    pub fn serving(&self) -> Option<&VersionState> {
        let mut serving = self.versions.iter().filter(|version| version.weight > 0);
        serving.next().filter(|_| serving.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(weights: &[(&str, u32)]) -> ServiceState {
        let version = |(name, weight): &(&str, u32)| VersionState {
            name: (*name).to_owned(),
            weight: *weight,
            ..VersionState::default()
        };
        ServiceState {
            name: "web".to_owned(),
            versions: weights.iter().map(version).collect(),
            ..ServiceState::default()
        }
    }

    fn shared(weights: &[(&str, u32)], percent: u32) -> Vec<u32> {
        share(&service(weights), "v1", "v2", percent).into_values().collect()
    }

    #[test]
    fn the_new_version_gets_its_part_of_what_both_have() {
        assert_eq!(shared(&[("v1", 100), ("v2", 0)], 10), [90, 10]);
        assert_eq!(shared(&[("v1", 90), ("v2", 10)], 50), [50, 50]);
        assert_eq!(shared(&[("v1", 50), ("v2", 50)], 100), [0, 100]);
        assert_eq!(shared(&[("v1", 50), ("v2", 50)], 0), [100, 0]);
        // Whole numbers do not reach: a third version keeps its share.
        assert_eq!(shared(&[("v1", 1), ("v2", 0), ("v3", 1)], 10), [9, 1, 10]);
        assert_eq!(shared(&[("v1", 1), ("v2", 0), ("v3", 1)], 1), [99, 1, 100]);
        assert_eq!(shared(&[("v1", 3), ("v2", 0)], 50), [15, 15]);
        assert_eq!(shared(&[("v1", 1_000_000), ("v2", 0), ("v3", 7)], 33), [670_000, 330_000, 7]);
        assert_eq!(shared(&[("v1", 0), ("v2", 0)], 10), [90, 10]);
    }

    #[test]
    fn who_serves_alone() {
        let name = |weights: &[(&str, u32)]| service(weights).serving().map(|v| v.name.clone());
        assert_eq!(name(&[("v1", 0), ("v2", 7)]).as_deref(), Some("v2"));
        assert_eq!(name(&[("v1", 1), ("v2", 7)]), None);
        assert_eq!(name(&[("v1", 0)]), None);
    }

    #[test]
    fn a_test_is_a_way_to_a_version() {
        let mut web = service(&[("v1", 100), ("v2", 0)]);
        let prefix: Prefix = Prefix::parse("198.51.100.0/24").unwrap();
        assert!(test(&mut web, "v2", &[prefix]).unwrap());
        assert!(web.version("v2").unwrap().open());
        assert!(!test(&mut web, "v2", &[prefix]).unwrap(), "nothing new");
        assert!(test(&mut web, "v2", &[]).unwrap());
        let v2 = web.version("v2").unwrap();
        assert_eq!((v2.open(), v2.closed_at, web.generation), (false, 2, 2));
        test(&mut web, "v3", &[prefix]).unwrap_err();
        assert!(!test(&mut web, "v3", &[]).unwrap());
    }
}
