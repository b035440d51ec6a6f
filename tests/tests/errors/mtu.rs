//! Path MTU discovery: a bulk transfer meets a link that it is too big for, wherever that is.

use release_tests::netns::Netns;
use release_tests::observe::Ctl;
use release_tests::topology::Family::{self, V4, V6};
use release_tests::topology::Mode::{self, Container, Dsr, Gue, Host, Ipip, Nat, Snat};
use release_tests::topology::{
    BEHIND, Backend, CLIENT_SIDE, Protocol, Topology, TopologySpec, far_client, frontend,
};

use crate::arriving::{Arriving, Segments, TooBig, path_mtu, segments, too_big};
use crate::bulk::Bulk;
use crate::common::{BOTH, spec, tests};

/// MTU of links, but for the small one.
const USUAL: usize = 1500;
/// No less than IPv6 demands of a link.
const SMALL: usize = 1300;
/// So many packets of the right size at least: the megabyte has 800.
const MANY: usize = 500;

fn topology(mode: Mode, outer: Family) -> Topology {
    Topology::new(&TopologySpec { outer, ..spec(mode, Protocol::Tcp) }).unwrap()
}

fn shrink(namespace: &Netns, device: &str, mtu: usize) {
    namespace.ip(&format!("link set {device} mtu {mtu}")).unwrap();
}

/// Where packets to a backend arrive, as its network stack sees them.
fn at_backend(backend: &Backend) -> Arriving {
    let device = if backend.wire.is_some() { "eth0" } else { CLIENT_SIDE };
    Arriving::at(&backend.namespace, device).unwrap()
}

/// Errors that all say the same.
#[track_caller]
fn the_same(errors: &[TooBig]) -> &TooBig {
    assert!(!errors.is_empty(), "nobody was told");
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    &errors[0]
}

/// All as large as fits, and nearly all that large.
#[track_caller]
fn fit(segments: &Segments, mtu: usize) {
    assert!(segments.largest == mtu && segments.full >= MANY, "{segments:?}, not {mtu}");
}

/// Between balancer and client. The router's error is addressed to the frontend, and must come to
/// the instance that the connection is pinned to, about a packet that this one has sent.
fn on_the_way_to_the_client(mode: Mode, outer: Family) {
    let topology = topology(mode, outer);
    let far = topology.far_client().unwrap();
    shrink(&topology.client, BEHIND, SMALL);
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    for family in BOTH {
        download_from_afar(&topology, &far, family);
    }
    Ctl(&topology.lb).check_maps().unwrap();
}

fn download_from_afar(topology: &Topology, far: &Netns, family: Family) {
    let mode = topology.spec.mode;
    let mut bulk = Bulk::open(topology, far, family).unwrap();
    let (backend, other) = (&topology.backends[0], &topology.backends[1]);
    let (instance, client) = bulk.at_server().unwrap();
    let (_, frontend) = bulk.at_client().unwrap();
    let (ours, theirs) = (at_backend(backend), at_backend(other));
    let arriving = Arriving::at(far, "eth0").unwrap();
    let router = Arriving::at(&topology.client, "eth0").unwrap();
    assert_eq!(path_mtu(&backend.namespace, client.ip()).unwrap(), None);

    bulk.download().unwrap();
    let told = too_big(&ours.take().unwrap()).unwrap();
    let TooBig { to, mtu, about, .. } = the_same(&told);
    assert_eq!((*to, *mtu, *about), (instance.ip(), SMALL as u32, (instance, client)));
    assert_eq!(path_mtu(&backend.namespace, client.ip()).unwrap(), Some(SMALL));
    let to_client = bulk.at_client().unwrap().0;
    assert_eq!(to_client.ip(), far_client(family));
    let before = segments(&router.take().unwrap(), frontend, to_client).unwrap();
    if !mode.is_one_way() {
        assert_eq!(before.largest, USUAL, "{before:?}");
    }
    fit(&segments(&arriving.take().unwrap(), frontend, to_client).unwrap(), SMALL);
    if !mode.is_local() {
        assert_eq!(too_big(&theirs.take().unwrap()).unwrap(), [], "another instance was told");
        assert_eq!(path_mtu(&other.namespace, client.ip()).unwrap(), None);
    }
}

/// The balancer's own link to the client. It sees the replies first, as the instance sent them.
fn on_the_balancers_link_to_the_client(mode: Mode) {
    let topology = topology(mode, V4);
    shrink(&topology.lb.namespace, CLIENT_SIDE, SMALL);
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    for family in BOTH {
        download(&topology, family);
    }
    Ctl(&topology.lb).check_maps().unwrap();
}

fn download(topology: &Topology, family: Family) {
    let mut bulk = Bulk::open(topology, &topology.client, family).unwrap();
    let backend = &topology.backends[0];
    let (instance, client) = bulk.at_server().unwrap();
    let (at_client, frontend) = bulk.at_client().unwrap();
    let ours = at_backend(backend);
    let arriving = Arriving::at(&topology.client, "eth0").unwrap();

    bulk.download().unwrap();
    let told = too_big(&ours.take().unwrap()).unwrap();
    let TooBig { to, mtu, about, .. } = the_same(&told);
    assert_eq!((*to, *mtu, *about), (instance.ip(), SMALL as u32, (instance, client)));
    assert_eq!(path_mtu(&backend.namespace, client.ip()).unwrap(), Some(SMALL));
    fit(&segments(&arriving.take().unwrap(), frontend, at_client).unwrap(), SMALL);
}

/// Uploads for which `mtu` bytes fit on the way.
fn uploads(topology: &Topology, mtu: usize) {
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    for family in BOTH {
        upload(topology, family, mtu);
    }
    Ctl(&topology.lb).check_maps().unwrap();
}

/// The client must be told what fits as if the frontend were speaking.
fn upload(topology: &Topology, family: Family, mtu: usize) {
    let mut bulk = Bulk::open(topology, &topology.client, family).unwrap();
    let (client, vip) = (bulk.at_client().unwrap().0, frontend(family));
    let to_client = Arriving::at(&topology.client, "eth0").unwrap();
    let backend = &topology.backends[0];
    let arriving = Arriving::at(&backend.namespace, "eth0").unwrap();
    assert_eq!(path_mtu(&topology.client, vip.ip()).unwrap(), None);

    bulk.upload().unwrap();
    let told = too_big(&to_client.take().unwrap()).unwrap();
    let expected =
        TooBig { from: vip.ip(), to: client.ip(), mtu: mtu as u32, about: (client, vip) };
    assert_eq!(*the_same(&told), expected);
    assert_eq!(path_mtu(&topology.client, vip.ip()).unwrap(), Some(mtu));
    let (instance, peer) = bulk.at_server().unwrap();
    fit(&segments(&arriving.take().unwrap(), peer, instance).unwrap(), mtu);
}

/// The balancer's own link to the instance.
fn on_the_balancers_link_to_the_instance(mode: Mode) {
    let topology = topology(mode, V4);
    shrink(&topology.lb.namespace, &topology.backends[0].balancer_side, SMALL);
    uploads(&topology, SMALL);
}

/// Between balancer and instance.
fn on_the_way_to_the_instance(mode: Mode) {
    let mut topology = topology(mode, V4);
    let router = topology.move_away(0).unwrap();
    shrink(&router, BEHIND, SMALL);
    uploads(&topology, SMALL);
}

/// The outer header needs room that the link to the instance has not.
fn in_a_tunnel(mode: Mode, outer: Family) {
    let topology = topology(mode, outer);
    shrink(&topology.lb.namespace, &topology.backends[0].balancer_side, USUAL);
    let ip = if outer == V4 { 20 } else { 40 };
    let udp = if mode == Gue { 8 } else { 0 };
    uploads(&topology, USUAL - ip - udp);
}

tests! { on_the_way_to_the_client:
    nat(Nat, V4);
    snat(Snat, V4);
    dsr(Dsr, V4);
    ipip(Ipip, V4);
    gue_in_ipv6(Gue, V6);
    host(Host, V4);
    container(Container, V4);
}

tests! { on_the_balancers_link_to_the_client:
    nat(Nat);
    snat(Snat);
}

tests! { on_the_balancers_link_to_the_instance:
    nat(Nat);
    snat(Snat);
    dsr(Dsr);
}

tests! { on_the_way_to_the_instance:
    nat(Nat);
    snat(Snat);
}

tests! { in_a_tunnel:
    ipip_in_ipv4(Ipip, V4);
    ipip_in_ipv6(Ipip, V6);
    gue_in_ipv4(Gue, V4);
    gue_in_ipv6(Gue, V6);
}
