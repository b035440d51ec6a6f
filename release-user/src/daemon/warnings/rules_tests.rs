use std::net::IpAddr;

use serde_json::json;

use super::{Host, find, forwards_v6};
use crate::config::Family;
use crate::control::settings::Settings;
use crate::control::state::ServiceState;
use crate::net::ethtool::Merging;
use crate::net::neighbours::Neighbour;
use crate::net::netlink::Interface;
use crate::net::route::Way;
use crate::net::sysctl::{OwnPorts, Setting};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A service as the store would have it.
fn service(mode: &str, frontends: &[&str], instances: &[&str]) -> ServiceState {
    let (v6, v4): (Vec<&str>, Vec<&str>) = frontends.iter().partition(|at| at.starts_with('['));
    let instances: Vec<_> = instances
        .iter()
        .map(|addr| {
            json!({"id": addr, "addr": addr, "weight": 1, "backend": 1, "epoch": 1,
            "drain": null})
        })
        .collect();
    serde_json::from_value(json!({
        "name": "web", "id": 1, "generation": 1, "settings": {"mode": mode},
        "frontends": v4, "frontends6": v6,
        "versions": [{"name": "v1", "ring": 1, "weight": 1, "closed_at": 0, "drain": null,
            "first_flow_at": null, "instances": instances}],
    }))
    .unwrap()
}

const LOCAL: Way = Way { local: true, interface: 1, gateway: None, mtu: None };
const LINK: Way = Way { local: false, interface: 2, gateway: None, mtu: None };

/// `lo` (1), `eth0` (2, managed) and `eth1` (3); VIPs are the host's, instances are on eth0's link.
fn host() -> Host {
    let interface = |name: &str, index, mtu, resolves| Interface {
        name: name.into(),
        index,
        xdp: None,
        mtu,
        resolves,
    };
    let ways = [
        ("192.0.2.10", LOCAL),
        ("2001:db8::10", LOCAL),
        ("10.0.0.11", LINK),
        ("10.0.0.12", LINK),
        ("10.0.0.13", LINK),
        ("10.0.0.14", LINK),
        ("fd00::11", LINK),
    ];
    Host {
        interfaces: vec![
            interface("lo", 1, 65536, false),
            interface("eth0", 2, 1500, true),
            interface("eth1", 3, 1500, true),
        ],
        managed: vec![("eth0".into(), false)],
        ways: ways.map(|(addr, way)| (ip(addr), way)).into(),
        ..Host::default()
    }
}

fn said(service: &ServiceState, host: &Host) -> Vec<String> {
    find(std::slice::from_ref(service), host).into_iter().map(|warning| warning.text).collect()
}

#[test]
fn a_host_in_order_needs_nothing() {
    for mode in ["nat", "dsr"] {
        let service = service(mode, &["192.0.2.10:80/tcp"], &["10.0.0.11:80"]);
        assert_eq!(said(&service, &host()), [""; 0], "{mode}");
    }
}

#[test]
fn frontends_must_come_here_where_the_kernel_answers_for_them() {
    let mut host = host();
    host.ways.insert(ip("192.0.2.10"), LINK);
    let of = |mode| said(&service(mode, &["192.0.2.10:80/tcp"], &["10.0.0.11:80"]), &host);
    assert!(of("nat")[0].contains("ip address add 192.0.2.10/32 dev lo"), "{:?}", of("nat"));
    assert_eq!(of("dsr"), [""; 0]);
}

#[test]
fn clients_on_this_host_come_by_lo() {
    let mut host = host();
    host.ways.insert(ip("127.0.0.1"), LOCAL);
    let service = service("local", &["192.0.2.10:80/tcp"], &["127.0.0.1:8080"]);
    assert!(said(&service, &host)[0].contains("through lo"));
    host.managed.push(("lo".into(), true));
    assert_eq!(said(&service, &host), [""; 0]);
    host.ways.insert(ip("127.0.0.1"), Way { gateway: Some(ip("10.0.0.1")), ..LINK });
    assert!(said(&service, &host)[0].contains("leads over 10.0.0.1"));
}

#[test]
fn direct_return_needs_the_link() {
    let service = service("dsr", &["192.0.2.10:80/tcp"], &["10.0.0.11:80"]);
    let mut host = host();
    let mut with = |way| {
        host.ways.insert(ip("10.0.0.11"), way);
        said(&service, &host)
    };
    assert!(with(Way { gateway: Some(ip("10.0.0.1")), ..LINK })[0].contains("over 10.0.0.1"));
    assert!(with(Way { interface: 3, ..LINK })[0].contains("leaves by eth1"));
    assert!(with(LOCAL)[0].contains("is on this host"));
    host.ways.remove(&ip("10.0.0.11"));
    assert_eq!(said(&service, &host), ["instance 10.0.0.11:80: there is no route to it"]);
}

#[test]
fn only_a_neighbour_that_was_asked_and_silent_is_reported() {
    let service = service("dsr", &["192.0.2.10:80/tcp"], &["10.0.0.11:80"]);
    let mut host = host();
    let place = (2, ip("10.0.0.11"));
    assert_eq!(host.neighbour_of(ip("10.0.0.11")), Some(place));
    for state in [Neighbour::Known, Neighbour::Stale, Neighbour::Asked] {
        host.neighbours.insert(place, state);
        assert_eq!(said(&service, &host), [""; 0]);
    }
    host.neighbours.insert(place, Neighbour::Silent);
    assert!(said(&service, &host)[0].contains("does not answer"));
    host.interfaces[1].resolves = false;
    assert_eq!(host.neighbour_of(ip("10.0.0.11")), None);
}

#[test]
fn tunnels_need_room() {
    let mut host = host();
    let of = |mode, frontend, instance, host: &Host| {
        said(&service(mode, &[frontend], &[instance]), host)
    };
    let v4 = "192.0.2.10:80/tcp";
    let v6 = "[2001:db8::10]:80/tcp";
    let text = of("ipip", v4, "10.0.0.11:80", &host).remove(0);
    assert!(text.contains("1480 of them") && text.contains("MTU of 1520"), "{text}");
    assert!(text.ends_with("an MSS of 1440 (IPv4)"), "{text}");
    assert!(of("gue", v4, "[fd00::11]:80", &host)[0].contains("MTU of 1548"));
    host.interfaces[1].mtu = 1300;
    assert!(of("gue", v6, "10.0.0.11:80", &host)[0].contains("an MTU of 1308 at least"));
    // The route's own MTU counts before the interface's.
    host.ways.insert(ip("10.0.0.11"), Way { mtu: Some(1528), ..LINK });
    assert_eq!(of("gue", v4, "10.0.0.11:80", &host), [""; 0]);
}

#[test]
fn what_is_wrong_with_many_is_said_once() {
    let instances = ["10.0.0.11:80", "10.0.0.12:80", "10.0.0.13:80", "10.0.0.14:80"];
    let all = said(&service("ipip", &["192.0.2.10:80/tcp"], &instances), &host());
    assert_eq!(all.len(), 1);
    let start = "instances 10.0.0.11:80, 10.0.0.12:80, 10.0.0.13:80 and 1 more: ";
    assert!(all[0].starts_with(start), "{all:?}");
}

#[test]
fn translated_sources_are_this_hosts_alone() {
    let mut service = service("snat", &["192.0.2.10:80/tcp"], &["10.0.0.11:80"]);
    service.settings = serde_json::from_value::<Settings>(json!({"mode": "snat",
        "snat": {"addresses": ["10.0.0.5"], "ports": "50000-65535"}}))
    .unwrap();
    let mut host = host();
    host.ports = Some(OwnPorts { range: (32768, 60999), reserved: Vec::new() });
    host.ways.insert(ip("10.0.0.5"), LINK);
    let texts = said(&service, &host);
    assert!(texts[0].contains("10.0.0.5 is not an address of this host"), "{texts:?}");
    assert!(texts[1].contains("ip_local_reserved_ports=50000-65535"), "{texts:?}");
    host.ports = Some(OwnPorts { range: (32768, 60999), reserved: vec![(50000, 65535)] });
    host.ways.insert(ip("10.0.0.5"), LOCAL);
    assert_eq!(said(&service, &host), [""; 0]);
}

#[test]
fn settings_count_where_the_mode_needs_them() {
    let setting = |name: &str| Setting { name: name.into(), wanted: "0", found: "1".into() };
    let host = Host {
        settings: vec![setting("ipv4/conf/eth0/rp_filter"), setting("ipv6/conf/all/forwarding")],
        managed: vec![("eth0".into(), true), ("lo".into(), true)],
        merging: [("eth0".to_owned(), Merging { gro: true, lro: false })].into(),
        ..host()
    };
    let count = |mode| said(&service(mode, &["192.0.2.10:80/tcp"], &["10.0.0.11:80"]), &host).len();
    assert_eq!(count("nat"), 3);
    // Nothing of it is left to the kernel.
    assert_eq!(count("dsr"), 2);
    assert_eq!(count("local"), 0);
}

#[test]
fn ipv6_is_forwarded_where_it_is_used() {
    let v6 = |mode, frontend, instance| forwards_v6([&service(mode, &[frontend], &[instance])]);
    assert!(!v6("nat", "192.0.2.10:80/tcp", "10.0.0.11:80"));
    assert!(v6("nat", "[2001:db8::10]:80/tcp", "[fd00::11]:80"));
    assert!(v6("ipip", "192.0.2.10:80/tcp", "[fd00::11]:80"));
    assert!(!v6("local", "[2001:db8::10]:80/tcp", "[fd00::11]:80"));
    assert_eq!(Family::of(ip("fd00::11")), Family::V6);
}
