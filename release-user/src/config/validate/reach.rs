//! Can each frontend's traffic reach instances that can serve it?

use super::super::MAX_FRONTENDS;
use super::super::address::{Endpoint, Family, Frontend, Protocol};
use super::super::error::{Invalid, Place};
use super::super::raw::{DraftService, DraftVersion};
use super::super::reader::At;
use super::super::registration::{keeps_family, other_family, other_port};
use super::super::settings::{Conversation, Mode};
use super::Found;

pub(super) fn check(service: &At<DraftService>, found: &mut Found) {
    let At { place, value: service } = service;
    counts(service, found);
    datagrams(service, found);
    if !service.mode().rewrites() {
        ports(service, found);
    }
    if !service.mode().is_tunnel() {
        instance_families(service, found);
    }
    weights(service, place, found);
}

fn counts(service: &DraftService, found: &mut Found) {
    for family in Family::ALL {
        let all: Vec<_> =
            service.all_frontends().filter(|frontend| frontend.value.family() == family).collect();
        if let Some(extra) = all.get(MAX_FRONTENDS) {
            let what = format!("{} {family} frontends", all.len());
            let hint = format!("at most {MAX_FRONTENDS} a family, those for tests included");
            found.error(&extra.place, Invalid::new(what).hint(hint));
        }
    }
}

/// Conversations that are a matter of UDP.
fn datagrams(service: &DraftService, found: &mut Found) {
    let (mode, conversation) = (service.mode(), service.conversation());
    if conversation.needs_udp() {
        let tcp = |frontend: &&At<Frontend>| frontend.value.protocol() == Protocol::Tcp;
        for frontend in service.all_frontends().filter(tcp) {
            let what = format!("conversation `{conversation}` is a matter of UDP");
            let hint = "give TCP frontends a service of their own";
            found.error(&frontend.place, Invalid::new(what).hint(hint));
        }
    }
    if conversation != Conversation::Datagram {
        return;
    }
    if mode == Mode::Snat
        && let Some(at) = &service.conversation
    {
        let what = "not with mode `snat`";
        let hint = "a reply finds its client through a claimed source port, which is state";
        found.error(&at.place, Invalid::new(what).hint(hint));
    }
    if matches!(mode, Mode::Nat | Mode::Local) {
        for family in Family::ALL {
            let of = |frontend: &&At<Frontend>| frontend.value.family() == family;
            if let Some(second) = service.all_frontends().filter(of).nth(1) {
                let what = format!("a second {family} frontend");
                let hint = format!(
                    "conversation `datagram` keeps no state, so in mode `{mode}` a reply could \
                     not be told to come from one or the other"
                );
                found.error(&second.place, Invalid::new(what).hint(hint));
            }
        }
    }
}

/// Modes that leave the inner packet alone cannot change its port.
fn ports(service: &DraftService, found: &mut Found) {
    let mode = service.mode();
    let Some(first) = service.frontends.first() else { return };
    let port = first.value.socket().port();
    let why = format!("mode `{mode}` does not rewrite ports");
    for frontend in service.all_frontends().filter(|f| f.value.socket().port() != port) {
        let what = format!("{}: another port than {}", frontend.value, first.value);
        let hint = format!("{why}, so all frontends and instances have the same");
        found.error(&frontend.place, Invalid::new(what).hint(hint));
    }
    for instance in service.instances() {
        let Some(addr) = &instance.value.addr else { continue };
        if let Some(invalid) = other_port(addr.value, first.value, mode) {
            found.error(&instance.place, invalid);
        }
    }
}

fn instance_families(service: &DraftService, found: &mut Found) {
    for instance in service.instances() {
        let Some(addr) = &instance.value.addr else { continue };
        let frontends = service.all_frontends().map(|frontend| frontend.value);
        if let Some(invalid) = other_family(addr.value, frontends, service.mode()) {
            found.error(&instance.place, invalid);
        }
    }
}

/// Does the initial weight lead somewhere, for clients of each family?
fn weights(service: &DraftService, place: &Place, found: &mut Found) {
    let weighted = || service.versions.iter().filter(|version| version.value.weight.get() > 0);
    let key = place.key("version");
    if weighted().next().is_none() {
        let zero = Invalid::new("all initial weights are 0");
        return found.error(&key, zero.hint("give at least one version a weight"));
    }
    let stays_empty = |version: &&At<DraftVersion>| {
        version.value.instances.is_empty() && !service.may_register(&version.value)
    };
    if weighted().all(|version| stays_empty(&version)) {
        let empty = Invalid::new("all weight is on versions without instances");
        return found.error(&key, empty.hint("no new flow could be served"));
    }
    for version in weighted().filter(stays_empty) {
        let what = format!("weight {} but no instances", version.value.weight);
        let hint = format!("its share of new flows gets when_empty: {}", service.when_empty);
        found.warn(&version.place.key("weight"), Invalid::new(what).hint(hint));
    }
    if !service.mode().is_tunnel() {
        for family in Family::ALL {
            family_served(service, family, &key, found);
        }
    }
    let most = service.versions.iter().map(|v| v.value.instances.len()).max().unwrap_or(0);
    if most * 100 > service.ring_size.get() as usize {
        let what = format!("{} slots for {most} instances", service.ring_size);
        let hint = "shares are exact to 1 % from 100 slots an instance";
        found.warn(&place.key("ring_size"), Invalid::new(what).hint(hint));
    }
}

/// Clients of this family, if there can be any, need instances of it.
fn family_served(service: &DraftService, family: Family, key: &Place, found: &mut Found) {
    let of = |frontend: &&At<Frontend>| frontend.value.family() == family;
    let Some(frontend) = service.frontends.iter().find(of) else { return };
    let has = |version: &DraftVersion| {
        // Who registers can be of either.
        if service.may_register(version) {
            return true;
        }
        let addr = |addr: &At<Endpoint>| addr.value.family() == family;
        version.instances.iter().filter_map(|i| i.value.addr.as_ref()).any(addr)
    };
    if !service.versions.iter().any(|version| has(&version.value)) {
        let what = format!("{}: no instance is {family}", frontend.value);
        return found.error(&frontend.place, Invalid::new(what).hint(keeps_family(service.mode())));
    }
    let weighted = || service.versions.iter().filter(|version| version.value.weight.get() > 0);
    if !weighted().any(|version| has(&version.value)) {
        let what = format!("no version with weight has an {family} instance");
        let hint = format!("no new flow to {} could be served", frontend.value);
        return found.error(key, Invalid::new(what).hint(hint));
    }
    for version in weighted().filter(|v| !has(&v.value) && !v.value.instances.is_empty()) {
        let what = format!("weight {} but no {family} instances", version.value.weight);
        let hint =
            format!("its share of new {family} flows gets when_empty: {}", service.when_empty);
        found.warn(&version.place.key("weight"), Invalid::new(what).hint(hint));
    }
}
