//! Clients and frontends that always reach one version.

use super::super::address::Family;
use super::super::error::{Invalid, Place};
use super::super::raw::{DraftService, DraftVersion};
use super::super::reader::At;
use super::super::suggest::did_you_mean;
use super::super::types::Name;
use super::Found;
use super::claims::claim;
use std::collections::HashMap;

pub(super) fn check(service: &DraftService, found: &mut Found) {
    let mut prefixes = HashMap::new();
    for (name, list) in &service.test_sources {
        let version = version(service, name, &list.place, found);
        for source in &list.value {
            if let Some(taken) = claim(&mut prefixes, source.value, &source.place) {
                let invalid = taken.of(&format!("test source {}", source.value));
                found.error(&source.place, invalid.hint("a client can be sent to one version"));
            }
            let family = source.value.family();
            if !service.all_frontends().any(|frontend| frontend.value.family() == family) {
                let what = format!("{}: no frontend is {family}", source.value);
                found.warn(&source.place, Invalid::new(what).hint("it has no effect"));
            } else if let Some(version) = version {
                served(service, version, family, &source.place, found);
            }
        }
    }
    for (name, list) in &service.test_frontends {
        if let Some(version) = version(service, name, &list.place, found) {
            for frontend in &list.value {
                served(service, version, frontend.value.family(), &frontend.place, found);
            }
        }
    }
}

/// The version meant.
pub(super) fn version<'a>(
    service: &'a DraftService,
    name: &Name,
    place: &Place,
    found: &mut Found,
) -> Option<&'a DraftVersion> {
    let names = || service.versions.iter().filter_map(|v| Some((v.value.name.as_ref()?, &v.value)));
    if let Some((_, version)) = names().find(|(known, _)| known.value == *name) {
        return Some(version);
    }
    let known: Vec<&str> = names().map(|(name, _)| name.value.as_str()).collect();
    let hint = did_you_mean(name.as_str(), &known)
        .unwrap_or_else(|| format!("it has {}", known.join(", ")));
    found.error(place, Invalid::new(format!("there is no version `{name}`")).hint(hint));
    None
}

/// Does the version have somebody for these clients?
fn served(
    service: &DraftService,
    version: &DraftVersion,
    family: Family,
    place: &Place,
    found: &mut Found,
) {
    let fits = |addr: &At<super::super::address::Endpoint>| {
        service.mode().is_tunnel() || addr.value.family() == family
    };
    if service.may_register(version)
        || version.instances.iter().filter_map(|i| i.value.addr.as_ref()).any(fits)
    {
        return;
    }
    let name = version.name.as_ref().map(|name| name.value.as_str()).unwrap_or_default();
    let what = format!("version `{name}` has no instance for {family} clients");
    let hint = format!("their new flows get when_empty: {}", service.when_empty);
    found.warn(place, Invalid::new(what).hint(hint));
}
