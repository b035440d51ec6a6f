//! Keys that not every mode and conversation can have.

use super::super::MAX_SNAT_ADDRESSES;
use super::super::address::{Family, Frontend, Protocol};
use super::super::error::{Invalid, Place};
use super::super::raw::{DraftService, DraftSnat, DraftTunnel};
use super::super::reader::At;
use super::super::settings::{Conversation, Mode};
use super::Found;
use super::claims::claim;
use std::collections::HashMap;

pub(super) fn check(service: &At<DraftService>, found: &mut Found) {
    let At { place, value: service } = service;
    timeouts(service, found);
    sessions(service, found);
    limits(service, found);
    silence(service, found);
    match (service.mode(), &service.snat) {
        (Mode::Snat, Some(snat)) => sources(service, snat, found),
        (Mode::Snat, None) => {
            let hint = r#"snat = { addresses = ["10.0.0.5"] }, the sources that clients get"#;
            found.error(&place.key("snat"), Invalid::new("missing").hint(hint));
        }
        (mode, snat) => refuse(snat, found, || {
            Invalid::new(format!("mode `{mode}` keeps the client's address")).hint("only `snat`")
        }),
    }
    match &service.tunnel {
        Some(tunnel) if service.mode().is_tunnel() => wrapping(service, tunnel, found),
        tunnel => refuse(tunnel, found, || {
            Invalid::new(format!("mode `{}` has no tunnel", service.mode()))
                .hint("only `ipip` and `gue`")
        }),
    }
    quic(service, found);
}

/// Reports a key that the service cannot have.
pub(super) fn refuse<T>(key: &Option<At<T>>, found: &mut Found, why: impl FnOnce() -> Invalid) {
    if let Some(key) = key {
        found.error(&key.place, why());
    }
}

fn timeouts(service: &DraftService, found: &mut Found) {
    let stateless = !service.conversation().tracks_flows();
    let spoken = |protocol: Protocol| {
        service.all_frontends().any(|frontend| frontend.value.protocol() == protocol)
    };
    let mut place = |at: Option<&Place>, protocol: Protocol| {
        let Some(place) = at else { return };
        if stateless {
            found.error(place, without_flows());
        } else if !spoken(protocol) {
            let what = format!("no frontend is {}", protocol.as_str().to_uppercase());
            let other = match protocol {
                Protocol::Tcp => "UDP flows have udp_timeout",
                Protocol::Udp => "TCP connections have idle_timeout",
            };
            found.error(place, Invalid::new(what).hint(other));
        }
    };
    place(service.idle_timeout.as_ref().map(|at| &at.place), Protocol::Tcp);
    place(service.udp_timeout.as_ref().map(|at| &at.place), Protocol::Udp);
    place(service.unreplied_timeout.as_ref().map(|at| &at.place), Protocol::Udp);
}

pub(super) fn without_flows() -> Invalid {
    Invalid::new("conversation `datagram` has no flows")
        .hint("each datagram is placed by itself, nothing is kept or counted")
}

fn sessions(service: &DraftService, found: &mut Found) {
    let conversation = service.conversation();
    if conversation != Conversation::Client {
        let why = || {
            Invalid::new(format!("conversation `{conversation}` has no sessions"))
                .hint("only `client`")
        };
        refuse(&service.session_timeout, found, why);
        refuse(&service.drain.sessions, found, why);
    }
}

fn limits(service: &DraftService, found: &mut Found) {
    if !service.conversation().tracks_flows() {
        refuse(&service.limits, found, without_flows);
    }
}

/// What is about silent TCP connections whose both halves pass here.
fn silence(service: &DraftService, found: &mut Found) {
    let tcp = |frontend: &At<Frontend>| frontend.value.protocol() == Protocol::Tcp;
    let (mode, conversation) = (service.mode(), service.conversation());
    let why = || {
        if !conversation.tracks_flows() {
            without_flows()
        } else if mode.is_one_way() {
            Invalid::new(format!("mode `{mode}`: the instances' replies do not pass here"))
                .hint("whose numbers are not known cannot be spoken for")
        } else {
            Invalid::new("no frontend is TCP").hint("UDP flows end by udp_timeout")
        }
    };
    if !conversation.tracks_flows() || mode.is_one_way() || !service.all_frontends().any(tcp) {
        refuse(&service.probes, found, why);
        refuse(&service.keepalive_only, found, why);
    }
}

/// Sources of mode `snat`: some for each family that clients can come from, none in vain.
fn sources(service: &DraftService, snat: &At<DraftSnat>, found: &mut Found) {
    let mut seen = HashMap::new();
    for address in &snat.value.addresses {
        if let Some(taken) = claim(&mut seen, address.value, &address.place) {
            found.error(&address.place, taken.of(&format!("address {}", address.value)));
        }
    }
    for family in Family::ALL {
        let of = |address: &&At<std::net::IpAddr>| Family::of(address.value) == family;
        let addresses: Vec<_> = snat.value.addresses.iter().filter(of).collect();
        let frontend = service.all_frontends().find(|frontend| frontend.value.family() == family);
        match (frontend, addresses.first()) {
            (Some(frontend), None) => {
                let what = format!("no {family} address, which {} needs", frontend.value);
                let hint = "one of this host's, to which its instances reply";
                found.error(&snat.place.key("addresses"), Invalid::new(what).hint(hint));
            }
            (None, Some(address)) => {
                let what = format!("{}: no frontend is {family}", address.value);
                let hint = "it would never be used";
                found.error(&address.place, Invalid::new(what).hint(hint));
            }
            _ => {}
        }
        if let Some(extra) = addresses.get(MAX_SNAT_ADDRESSES) {
            let what = format!("{} {family} addresses", addresses.len());
            let hint = format!("at most {MAX_SNAT_ADDRESSES} a family");
            found.error(&extra.place, Invalid::new(what).hint(hint));
        }
    }
}

/// Outer headers of modes `ipip` and `gue`.
fn wrapping(service: &DraftService, tunnel: &At<DraftTunnel>, found: &mut Found) {
    if service.mode() == Mode::Ipip {
        refuse(&tunnel.value.port, found, || {
            Invalid::new("mode `ipip` has no outer port").hint("only `gue`")
        });
    }
    let mut families = HashMap::new();
    for source in &tunnel.value.sources {
        let family = source.value.family();
        if let Some(taken) = claim(&mut families, family, &source.place) {
            let invalid = taken.of(&format!("a prefix of {family} sources"));
            found.error(&source.place, invalid.hint("one a family"));
        }
        let addr = |instance: &At<_>| Some(addr_family(&instance.value)? == family);
        if !service.instances().any(|instance| addr(instance) == Some(true)) {
            let what = format!("{}: no instance is {family}", source.value);
            let hint = "the outer packet has the instance's family; it has no effect";
            found.warn(&source.place, Invalid::new(what).hint(hint));
        }
    }
}

fn addr_family(instance: &super::super::raw::DraftInstance) -> Option<Family> {
    instance.addr.as_ref().map(|addr| addr.value.family())
}

fn quic(service: &DraftService, found: &mut Found) {
    let conversation = service.conversation();
    if conversation != Conversation::Quic {
        let why = || {
            Invalid::new(format!("conversation `{conversation}` does not read connection ids"))
                .hint("only `quic`")
        };
        refuse(&service.quic, found, why);
        for instance in service.instances() {
            refuse(&instance.value.server_id, found, why);
        }
        return;
    }
    let quic = service.quic.as_ref().map(|at| at.value).unwrap_or_default();
    let length = usize::from(quic.server_id_length());
    for instance in service.instances() {
        match &instance.value.server_id {
            None => {
                let hint = format!(
                    "{length} bytes as hexadecimal digits, which the instance puts into its \
                     connection ids"
                );
                found.error(&instance.place.key("server_id"), Invalid::new("missing").hint(hint));
            }
            Some(id) if id.value.as_bytes().len() != length => {
                let what = format!("{} bytes", id.value.as_bytes().len());
                let hint = format!("server_id_length is {length}");
                found.error(&id.place, Invalid::new(what).hint(hint));
            }
            Some(_) => {}
        }
    }
}
