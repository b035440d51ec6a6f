//! Drafts of all files → configuration: what no single value can tell.

use super::error::{ConfigError, Invalid, Place};
use super::raw::{Draft, DraftInstance, DraftService, DraftVersion};
use super::reader::At;
use super::service::{Instance, Service, Version};
use super::settings::Daemon;
use super::types::{Endpoint, InstanceId, Name};
use super::{MAX_INSTANCES, MAX_SERVICES, MAX_VERSIONS_IN_ALL};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// What the drafts amount to. Errors and warnings are in the order in which they were found.
pub(super) struct Outcome {
    pub daemon: Option<Daemon>,
    /// Those that are whole; some may be missing if there are errors.
    pub services: Vec<Service>,
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<ConfigError>,
}

/// Checks all drafts together.
pub(super) fn validate(drafts: Vec<Draft>) -> Outcome {
    let mut check = Check::default();
    let mut daemon: Option<At<Daemon>> = None;
    let mut services = Vec::new();
    for draft in drafts {
        match (draft.daemon, &daemon) {
            (Some(second), Some(first)) => {
                let what = format!("stands in two files, already at {}", first.place.line_only());
                check.error(&second.place, Invalid::new(what).hint("keep one of them"));
            }
            (Some(first), None) => daemon = Some(first),
            (None, _) => {}
        }
        services.extend(draft.services);
    }
    check.totals(&services);
    for service in &services {
        check.service(&service.value);
    }
    check.frontends_against_instances();
    let services = services.into_iter().filter_map(|draft| check.finish(draft)).collect();
    let Check { errors, warnings, .. } = check;
    Outcome { daemon: daemon.map(|at| at.value), services, errors, warnings }
}

impl Place {
    /// The place as a person would name it inside a sentence.
    fn line_only(&self) -> String {
        Self { key: String::new(), ..self.clone() }.to_string()
    }

    fn in_words(&self) -> String {
        format!("{} at {}", self.key, self.line_only())
    }
}

/// What has been seen so far, with its place, and what was found.
#[derive(Default)]
struct Check {
    names: HashMap<Name, Place>,
    frontends: HashMap<Endpoint, Place>,
    instances: HashMap<Endpoint, Place>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Check {
    fn error(&mut self, place: &Place, invalid: Invalid) {
        self.errors.push(ConfigError::new(place.clone(), invalid));
    }

    fn warn(&mut self, place: &Place, key: &str, invalid: Invalid) {
        let place = Place { key: format!("{}.{key}", place.key), ..place.clone() };
        self.warnings.push(ConfigError::new(place, invalid));
    }

    fn totals(&mut self, services: &[At<DraftService>]) {
        let versions = || services.iter().flat_map(|service| &service.value.versions);
        let instances = versions().flat_map(|version| &version.value.instances);
        self.total("services", services.iter().map(|service| &service.place), MAX_SERVICES);
        self.total("versions", versions().map(|version| &version.place), MAX_VERSIONS_IN_ALL);
        self.total("instances", instances.map(|instance| &instance.place), MAX_INSTANCES);
    }

    fn total<'a>(&mut self, what: &str, places: impl Iterator<Item = &'a Place>, most: usize) {
        let places: Vec<_> = places.collect();
        if let Some(extra) = places.get(most) {
            let what = format!("{} {what} in all", places.len());
            self.error(extra, Invalid::new(what).hint(format!("at most {most}")));
        }
    }

    /// Names, ids and addresses of one service against each other and the services before it.
    fn service(&mut self, service: &DraftService) {
        if let Some(name) = &service.name
            && let Some(taken) = claim(&mut self.names, name.value.clone(), &name.place)
        {
            self.error(&name.place, taken.of(&format!("a service `{}`", name.value)));
        }
        for frontend in &service.frontends {
            let endpoint = frontend.value.endpoint();
            if let Some(taken) = claim(&mut self.frontends, endpoint, &frontend.place) {
                self.error(&frontend.place, taken.of(&format!("frontend {}", frontend.value)));
            }
        }
        let mut versions = HashMap::new();
        for version in service.versions.iter().filter_map(|version| version.value.name.as_ref()) {
            if let Some(taken) = claim(&mut versions, version.value.clone(), &version.place) {
                self.error(&version.place, taken.of(&format!("a version `{}`", version.value)));
            }
        }
        let mut ids = HashMap::new();
        for instance in service.versions.iter().flat_map(|version| &version.value.instances) {
            self.instance(instance, &versions, &mut ids);
        }
    }

    fn instance(
        &mut self,
        instance: &At<DraftInstance>,
        versions: &HashMap<Name, Place>,
        ids: &mut HashMap<Name, Place>,
    ) {
        if let Some(id) = &instance.value.id {
            if let Some(version) = versions.get(&id.value) {
                let what = format!("`{}` is also a version: {}", id.value, version.in_words());
                self.error(&id.place, Invalid::new(what).hint("commands take either"));
            }
            if let Some(taken) = claim(ids, id.value.clone(), &id.place) {
                self.error(&id.place, taken.of(&format!("an instance `{}`", id.value)));
            }
        }
        if let Some(addr) = instance.value.addr
            && let Some(taken) = claim(&mut self.instances, addr, &instance.place)
        {
            let invalid = taken.of(&format!("instance {addr}"));
            self.error(&instance.place, invalid.hint("it can be on one version of one service"));
        }
    }

    fn frontends_against_instances(&mut self) {
        let clashes = self.instances.iter().filter_map(|(addr, instance)| {
            let frontend = self.frontends.get(addr)?;
            let what = format!("{addr} is also a frontend: {}", frontend.in_words());
            Some(ConfigError::new(instance.clone(), Invalid::new(what)))
        });
        self.errors.extend(clashes);
    }

    /// The finished service, unless something in it was refused.
    fn finish(&mut self, draft: At<DraftService>) -> Option<Service> {
        let At { place, value: draft } = draft;
        if !draft.clean {
            return None;
        }
        let versions: Option<_> = draft.versions.iter().map(|v| finish_version(&v.value)).collect();
        let service = Service {
            name: draft.name?.value,
            frontends: draft.frontends.iter().map(|frontend| frontend.value).collect(),
            mode: draft.mode,
            conversation: draft.conversation,
            idle_timeout: draft.idle_timeout,
            when_empty: draft.when_empty,
            when_full: draft.when_full,
            drain: draft.drain,
            ring_size: draft.ring_size,
            versions: versions?,
        };
        let places: Vec<&Place> = draft.versions.iter().map(|version| &version.place).collect();
        self.weights(&service, &place, &places);
        Some(service)
    }

    /// Does the initial weight lead somewhere?
    fn weights(&mut self, service: &Service, place: &Place, places: &[&Place]) {
        let weighted = || service.versions.iter().zip(places).filter(|(v, _)| v.weight.get() > 0);
        let key = Place { key: format!("{}.version", place.key), ..place.clone() };
        if weighted().next().is_none() {
            let zero = Invalid::new("all initial weights are 0");
            return self.error(&key, zero.hint("give at least one version a weight"));
        }
        if weighted().all(|(version, _)| version.instances.is_empty()) {
            let empty = Invalid::new("all weight is on versions without instances");
            return self.error(&key, empty.hint("no new flow could be served"));
        }
        for (version, place) in weighted().filter(|(version, _)| version.instances.is_empty()) {
            let what = format!("weight {} but no instances", version.weight);
            let hint = format!("its share of new flows gets when_empty: {}", service.when_empty);
            self.warn(place, "weight", Invalid::new(what).hint(hint));
        }
        let most = service.versions.iter().map(|v| v.instances.len()).max().unwrap_or(0);
        if most * 100 > service.ring_size.get() as usize {
            let what = format!("{} slots for {most} instances", service.ring_size);
            let hint = "shares are exact to 1 % from 100 slots an instance";
            self.warn(place, "ring_size", Invalid::new(what).hint(hint));
        }
    }
}

fn finish_version(draft: &DraftVersion) -> Option<Version> {
    let instances = draft.instances.iter().map(|instance| {
        let DraftInstance { id, addr, weight } = &instance.value;
        let addr = (*addr)?;
        let id = id.as_ref().map_or_else(|| addr.into(), |id| InstanceId::from(id.value.clone()));
        Some(Instance { id, addr, weight: *weight })
    });
    Some(Version {
        name: draft.name.as_ref()?.value.clone(),
        weight: draft.weight,
        meta: draft.meta.clone(),
        instances: instances.collect::<Option<_>>()?,
    })
}

/// The place that claimed something first.
struct Taken(Place);

impl Taken {
    fn of(&self, what: &str) -> Invalid {
        Invalid::new(format!("{what} is there already: {}", self.0.in_words()))
    }
}

fn claim<K: Eq + Hash>(seen: &mut HashMap<K, Place>, key: K, place: &Place) -> Option<Taken> {
    match seen.entry(key) {
        Entry::Occupied(first) => Some(Taken(first.get().clone())),
        Entry::Vacant(free) => {
            free.insert(place.clone());
            None
        }
    }
}
