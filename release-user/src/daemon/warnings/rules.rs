//! What of the host is not as a service needs it. Pure: facts in, sentences out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::Warning;
use crate::config::{Family, Mode, Protocol};
use crate::control::state::{InstanceState, ServiceState};
use crate::net::ethtool::Merging;
use crate::net::neighbours::{Neighbour, Place};
use crate::net::netlink::Interface;
use crate::net::route::Way;
use crate::net::sysctl::{OwnPorts, Setting};

/// Instances named in one sentence; the others are counted.
const NAMED: usize = 3;
/// What nearly every sender takes for granted, and what every IPv6 sender may (RFC 8200 §5).
const USUAL_MTU: u32 = 1500;
const LEAST_MTU6: u32 = 1280;

/// The host, as far as services ask about it.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// Managed interfaces, and whether the program runs in the network stack there.
    pub managed: Vec<(String, bool)>,
    /// Ways to the addresses asked about.
    pub ways: BTreeMap<IpAddr, Way>,
    /// Neighbours.
    pub neighbours: HashMap<Place, Neighbour>,
    /// Kernel settings that are not as they must be.
    pub settings: Vec<Setting>,
    /// Ports of the host's own connections, if known.
    pub ports: Option<OwnPorts>,
    /// What managed interfaces merge on reception.
    pub merging: BTreeMap<String, Merging>,
}

impl Host {
    fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    fn manages(&self, name: &str) -> bool {
        self.managed.iter().any(|(managed, _)| managed == name)
    }

    fn owns(&self, addr: IpAddr) -> bool {
        self.ways.get(&addr).is_some_and(|way| way.local)
    }

    /// Most bytes of an IP packet on a way.
    fn mtu(&self, way: &Way) -> Option<u32> {
        way.mtu.or_else(|| self.interface(way.interface).map(|interface| interface.mtu))
    }

    /// Who must be known for a packet to be sent on a way; `None` where nobody need be.
    pub fn neighbour_of(&self, addr: IpAddr) -> Option<Place> {
        let way = self.ways.get(&addr).filter(|way| !way.local)?;
        let resolves = self.interface(way.interface).is_some_and(|found| found.resolves);
        resolves.then(|| (way.interface, way.gateway.unwrap_or(addr)))
    }
}

/// Whether the kernel must forward IPv6 for these services.
pub fn forwards_v6<'a>(services: impl IntoIterator<Item = &'a ServiceState>) -> bool {
    services.into_iter().any(|service| {
        let v6 = |addr: IpAddr| addr.is_ipv6();
        service.settings.mode != Mode::Local
            && (service.all_frontends().any(|at| v6(at.socket().ip()))
                || service.instances().any(|(_, instance)| v6(instance.addr.ip())))
    })
}

/// Everything that is not as it should be.
pub fn find(services: &[ServiceState], host: &Host) -> Vec<Warning> {
    let mut found = Vec::new();
    let services = || services.iter().filter(|service| !service.removed);
    let modes: Vec<Mode> = services().map(|service| service.settings.mode).collect();
    plane(&modes, host, &mut found);
    for service in services() {
        let mut texts = frontends(service, host);
        texts.extend(translated_sources(service, host));
        texts.extend(instances(service, host));
        let of = |text| Warning { service: Some(service.name.clone()), text };
        found.extend(texts.into_iter().map(of));
    }
    found
}

/// What concerns every service alike.
fn plane(modes: &[Mode], host: &Host, found: &mut Vec<Warning>) {
    let mut add = |text| found.push(Warning { service: None, text });
    let sends_on = modes.iter().any(|mode| *mode != Mode::Local);
    // Of these the kernel may have to forward what is rewritten.
    let rewritten = modes.iter().any(|mode| !matches!(mode, Mode::Local | Mode::Dsr));
    for Setting { name, wanted, found } in &host.settings {
        let why = match name.rsplit('/').next() {
            Some("ip_forward" | "forwarding") if sends_on => "packets are not sent on",
            Some("rp_filter" | "accept_local") if rewritten => {
                "packets of which the next hop is not known yet are dropped"
            }
            _ => continue,
        };
        add(format!("/proc/sys/net/{name} is {found} and must be {wanted}: {why}"));
    }
    for (name, generic) in &host.managed {
        let merging = host.merging.get(name).copied().unwrap_or_default();
        if *generic && sends_on && (merging.gro || merging.lro) {
            add(format!(
                "{name} merges packets on reception, and in generic mode the program sees them \
                 merged, larger than the way out takes: ethtool -K {name} gro off lro off"
            ));
        }
    }
}

/// Whether packets to the frontends come here.
fn frontends(service: &ServiceState, host: &Host) -> Vec<String> {
    let mut addresses: Vec<IpAddr> = service.all_frontends().map(|at| at.socket().ip()).collect();
    addresses.sort();
    addresses.dedup();
    let mut texts = Vec::new();
    let mode = service.settings.mode;
    for addr in addresses {
        match (mode, host.owns(addr)) {
            // Who answers for the address is settled elsewhere: the kernel here need not know it.
            (Mode::Dsr | Mode::Ipip | Mode::Gue, _) => {}
            (_, false) => texts.push(format!(
                "{addr} is not an address of this host: packets to it come here only if a router \
                 sends them (else: ip address add {addr}/{} dev lo)",
                bits(addr)
            )),
            (Mode::Local, true) if !host.manages("lo") => texts.push(format!(
                "clients on this host reach {addr} through lo, which is not among \
                 daemon.interfaces: this host's own stack answers them"
            )),
            _ => {}
        }
    }
    texts
}

const fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// Mode `snat`: whether replies come here, and to nobody else's port.
fn translated_sources(service: &ServiceState, host: &Host) -> Vec<String> {
    let Some(snat) = &service.settings.snat else { return Vec::new() };
    let mut texts = Vec::new();
    for addr in Family::ALL.into_iter().flat_map(|family| snat.addresses(family)) {
        if !host.owns(addr) {
            texts.push(format!(
                "snat address {addr} is not an address of this host: replies to it come here only \
                 if they are routed here (else: ip address add {addr}/{} dev lo)",
                bits(addr)
            ));
        }
    }
    let ports = snat.ports();
    if let Some(own) = &host.ports
        && own.meet(ports.first(), ports.last())
    {
        let (first, last) = own.range;
        texts.push(format!(
            "snat ports {ports} meet net.ipv4.ip_local_port_range ({first}-{last}), from which this \
             host's own connections take theirs: sysctl net.ipv4.ip_local_reserved_ports={ports}"
        ));
    }
    texts
}

/// Whether packets come to the instances. What is wrong with many is said once.
fn instances(service: &ServiceState, host: &Host) -> Vec<String> {
    let mut by_problem: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (_, instance) in service.instances().filter(|(_, instance)| !instance.orphaned) {
        for problem in reaching(service, instance, host) {
            by_problem.entry(problem).or_default().push(&instance.id);
        }
    }
    by_problem.into_iter().map(|(problem, ids)| format!("{}: {problem}", names(&ids))).collect()
}

/// "instances a, b, c and 2 more".
fn names(ids: &[&str]) -> String {
    let shown = ids[..ids.len().min(NAMED)].join(", ");
    match ids.len() {
        1 => format!("instance {shown}"),
        0..=NAMED => format!("instances {shown}"),
        all => format!("instances {shown} and {} more", all - NAMED),
    }
}

/// What is wrong with the way to one instance.
fn reaching(service: &ServiceState, instance: &InstanceState, host: &Host) -> Vec<String> {
    let (mode, addr) = (service.settings.mode, instance.addr.ip());
    let Some(way) = host.ways.get(&addr) else { return vec!["there is no route to it".to_owned()] };
    match (mode, way.local, way.gateway) {
        (Mode::Local, false, Some(gateway)) => {
            return vec![format!(
                "the way to it leads over {gateway}, and mode local is for sockets of this host"
            )];
        }
        (Mode::Local, _, _) => return Vec::new(),
        (Mode::Dsr, true, _) => {
            return vec!["is on this host, where mode dsr cannot send to".to_owned()];
        }
        (_, true, _) => return Vec::new(),
        (Mode::Dsr, false, Some(gateway)) => {
            return vec![format!(
                "the way to it leads over {gateway}, and mode dsr reaches only hosts on a link of \
                 this one: its packets go to {gateway}, still addressed to the frontend"
            )];
        }
        (_, false, _) => {}
    }
    let mut problems = Vec::new();
    if let Some(name) = host.interface(way.interface).map(|found| found.name.as_str())
        && !host.manages(name)
    {
        let so = match mode {
            Mode::Dsr => "its packets are dropped",
            Mode::Ipip | Mode::Gue => "its packets take the slow way through the kernel",
            _ => "replies that come in by it are not translated there",
        };
        problems.push(format!("the way to it leaves by {name}, not in daemon.interfaces: {so}"));
    }
    if mode.is_one_way()
        && let Some(place) = host.neighbour_of(addr)
        && host.neighbours.get(&place) == Some(&Neighbour::Silent)
    {
        let who =
            if place.1 == addr { "it".to_owned() } else { format!("its gateway {}", place.1) };
        let so = if mode == Mode::Dsr { "its packets are dropped" } else { "nobody takes packets" };
        problems.push(format!("{who} does not answer on its link: {so}"));
    }
    if let (Mode::Ipip | Mode::Gue, Some(mtu)) = (mode, host.mtu(way)) {
        problems.extend(tunnel_mtu(service, instance.family(), mtu));
    }
    problems
}

/// Bytes that a tunnel adds: an IP header, and in mode `gue` a UDP header.
const fn overhead(mode: Mode, outer: Family) -> u32 {
    let ip = match outer {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    if matches!(mode, Mode::Gue) { ip + 8 } else { ip }
}

/// Whether what clients send fits the tunnel.
fn tunnel_mtu(service: &ServiceState, outer: Family, mtu: u32) -> Option<String> {
    let overhead = overhead(service.settings.mode, outer);
    let inner = mtu.saturating_sub(overhead);
    let has = |family| service.all_frontends().any(|at| at.family() == family);
    let (least, usual) = (LEAST_MTU6 + overhead, USUAL_MTU + overhead);
    let fits = format!("the way to it takes {mtu} bytes, {inner} of them for the client's packet");
    if has(Family::V6) && inner < LEAST_MTU6 {
        return Some(format!(
            "{fits}, and IPv6 clients send {LEAST_MTU6} whatever they are told: it needs an MTU of \
             {least} at least"
        ));
    }
    if inner >= USUAL_MTU {
        return None;
    }
    let mut text = format!(
        "{fits}: larger ones are answered with ICMP. An MTU of {usual} on the way takes them all"
    );
    let segments: Vec<String> = [(Family::V4, 40), (Family::V6, 60)]
        .into_iter()
        .filter(|(family, _)| has(*family))
        .map(|(family, headers)| format!("{} ({family})", inner.saturating_sub(headers)))
        .collect();
    // What a client sends goes by what the instance announces in its handshake.
    if service.all_frontends().any(|at| at.protocol() == Protocol::Tcp) {
        text += &format!(", or let it announce an MSS of {}", segments.join(" and "));
    }
    Some(text)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
