//! What can belong to one only: names, ids, frontends, instance addresses, source ports.

use super::super::address::{Endpoint, Frontend, Protocol};
use super::super::error::{Invalid, Place};
use super::super::forwarding::PortRange;
use super::super::raw::{DraftInstance, DraftService};
use super::super::reader::At;
use super::super::registration;
use super::super::settings::Mode;
use super::super::types::Name;
use super::Found;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

/// What has been claimed so far, with its place.
#[derive(Default)]
pub(super) struct Claims {
    names: HashMap<Name, Place>,
    frontends: HashMap<Frontend, Place>,
    instances: HashMap<Endpoint, Vec<Holder>>,
    sources: HashMap<IpAddr, Vec<(PortRange, Place)>>,
    services: usize,
}

/// Somebody who has an instance address.
struct Holder {
    place: Place,
    service: usize,
    protocols: Vec<Protocol>,
    mode: Mode,
}

impl Claims {
    /// Names, ids and addresses of one service against each other and the services before it.
    pub fn service(&mut self, service: &DraftService, found: &mut Found) {
        self.services += 1;
        if let Some(name) = &service.name
            && let Some(taken) = claim(&mut self.names, name.value.clone(), &name.place)
        {
            found.error(&name.place, taken.of(&format!("a service `{}`", name.value)));
        }
        for frontend in service.all_frontends() {
            if let Some(taken) = claim(&mut self.frontends, frontend.value, &frontend.place) {
                found.error(&frontend.place, taken.of(&format!("frontend {}", frontend.value)));
            }
        }
        let mut versions = HashMap::new();
        for version in service.versions.iter().filter_map(|version| version.value.name.as_ref()) {
            if let Some(taken) = claim(&mut versions, version.value.clone(), &version.place) {
                found.error(&version.place, taken.of(&format!("a version `{}`", version.value)));
            }
        }
        let (mut ids, mut server_ids) = (HashMap::new(), HashMap::new());
        for instance in service.instances() {
            id(instance, &versions, &mut ids, found);
            if let Some(id) = &instance.value.server_id
                && let Some(taken) = claim(&mut server_ids, id.value, &id.place)
            {
                found.error(&id.place, taken.of(&format!("server id {}", id.value)));
            }
            self.address(service, instance, found);
        }
        if let Some(snat) = &service.snat {
            for address in &snat.value.addresses {
                let ranges = self.sources.entry(address.value).or_default();
                ranges.push((snat.value.ports, address.place.clone()));
            }
        }
    }

    fn address(&mut self, service: &DraftService, instance: &At<DraftInstance>, found: &mut Found) {
        let Some(addr) = &instance.value.addr else { return };
        if let Some(invalid) = registration::loopback(addr.value, service.mode()) {
            found.error(&addr.place, invalid);
        }
        let spoken = |protocol: &Protocol| {
            service.all_frontends().any(|frontend| frontend.value.protocol() == *protocol)
        };
        let mut protocols: Vec<_> = Protocol::ALL.into_iter().filter(spoken).collect();
        if protocols.is_empty() {
            // Its frontends were refused: it may have either.
            protocols = Protocol::ALL.to_vec();
        }
        let holder = Holder {
            place: instance.place.clone(),
            service: self.services,
            protocols,
            mode: service.mode(),
        };
        let holders = self.instances.entry(addr.value).or_default();
        if let Some((first, why)) = holders.iter().find_map(|first| holder.clash(first)) {
            let taken = Taken(first.place.clone());
            let invalid = taken.of(&format!("instance {}", addr.value));
            found.error(&instance.place, invalid.hint(why));
        } else {
            holders.push(holder);
        }
    }

    /// What kinds of claims have against each other.
    pub fn across(&self, found: &mut Found) {
        for (addr, holders) in &self.instances {
            for (holder, protocol) in
                holders.iter().flat_map(|h| h.protocols.iter().map(move |p| (h, p)))
            {
                if let Some(frontend) = self.frontends.get(&addr.with(*protocol)) {
                    let what = format!("{addr} is also a frontend: {}", frontend.in_words());
                    found.error(&holder.place, Invalid::new(what));
                }
            }
            let holders = holders.iter().map(|holder| &holder.place);
            self.against_sources(*addr, "an instance", holders, found);
        }
        for (frontend, place) in &self.frontends {
            self.against_sources(frontend.endpoint(), "a frontend", [place].into_iter(), found);
        }
    }

    /// A reply to a claimed source port must not look like a packet to or from something else.
    fn against_sources<'a>(
        &self,
        at: Endpoint,
        what: &str,
        places: impl Iterator<Item = &'a Place> + Clone,
        found: &mut Found,
    ) {
        let socket = at.socket();
        for (range, source) in self.sources.get(&socket.ip()).into_iter().flatten() {
            for place in places.clone().filter(|_| range.contains(socket.port())) {
                let what = format!("{at} is {what}: {}", place.in_words());
                let hint = format!("its port must not be one of snat's, {range}");
                found.error(source, Invalid::new(what).hint(hint));
            }
        }
    }
}

impl Holder {
    /// Whether the two cannot both have the address, and why.
    fn clash<'a>(&self, first: &'a Self) -> Option<(&'a Self, &'static str)> {
        if self.service == first.service {
            return Some((first, "it can be on one version of one service"));
        }
        let shared = self.protocols.iter().any(|protocol| first.protocols.contains(protocol));
        let owned = self.mode.owns_instances() || first.mode.owns_instances();
        (shared && owned).then_some((
            first,
            "it can be on one version of one service: modes `nat` and `local` tell by the sender \
             which service a reply belongs to",
        ))
    }
}

fn id(
    instance: &At<DraftInstance>,
    versions: &HashMap<Name, Place>,
    ids: &mut HashMap<Name, Place>,
    found: &mut Found,
) {
    let Some(id) = &instance.value.id else { return };
    if let Some(version) = versions.get(&id.value) {
        let what = format!("`{}` is also a version: {}", id.value, version.in_words());
        found.error(&id.place, Invalid::new(what).hint("commands take either"));
    }
    if let Some(taken) = claim(ids, id.value.clone(), &id.place) {
        found.error(&id.place, taken.of(&format!("an instance `{}`", id.value)));
    }
}

/// The place that claimed something first.
pub(super) struct Taken(Place);

impl Taken {
    pub fn of(&self, what: &str) -> Invalid {
        Invalid::new(format!("{what} is there already: {}", self.0.in_words()))
    }
}

pub(super) fn claim<K: Eq + Hash>(
    seen: &mut HashMap<K, Place>,
    key: K,
    place: &Place,
) -> Option<Taken> {
    match seen.entry(key) {
        Entry::Occupied(first) => Some(Taken(first.get().clone())),
        Entry::Vacant(free) => {
            free.insert(place.clone());
            None
        }
    }
}
