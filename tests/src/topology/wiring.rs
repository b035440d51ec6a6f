//! Namespaces, wires, addresses and routes.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use anyhow::{Result, bail};

use super::addresses::{self, BACKEND_PORT, FRONTEND, FRONTEND6, client_network, frontend, prefix};
use super::{Backend, CLIENT_SIDE, Family, Mode, TopologySpec, tunnel_ends};
use crate::netns::{Netns, Receiving, VethEnd, veth};
use crate::wire::Wire;

/// Room for outer headers: IPv6 and UDP around a packet of 1500 bytes.
const TUNNEL_MTU: u16 = 1600;

/// The families that exist in a topology, IPv4 always.
pub(super) fn families(spec: &TopologySpec) -> Vec<Family> {
    if spec.uses_ipv6() { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

/// A namespace with or without IPv6.
pub(super) fn namespace(spec: &TopologySpec, prefix: &str) -> Result<Netns> {
    let namespace = Netns::new(prefix)?;
    if spec.uses_ipv6() {
        // Addresses are usable at once, and nobody looks for routers.
        for (key, value) in [("accept_dad", "0"), ("router_solicitations", "0"), ("accept_ra", "0")]
        {
            namespace.sysctl(&format!("ipv6/conf/default/{key}"), value)?;
        }
    } else {
        namespace.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    }
    if spec.mode.is_one_way() {
        // Replies leave by another way than requests came, and ARP is told of no address of `lo`.
        for conf in ["all", "default"] {
            for (key, value) in [("rp_filter", "0"), ("arp_ignore", "1"), ("arp_announce", "2")] {
                namespace.sysctl(&format!("ipv4/conf/{conf}/{key}"), value)?;
            }
        }
    }
    Ok(namespace)
}

/// The balancer's namespace, which routes.
pub(super) fn balancer(spec: &TopologySpec) -> Result<Netns> {
    let lb = namespace(spec, "rt-lb")?;
    lb.sysctl("ipv4/ip_forward", "1")?;
    if spec.uses_ipv6() {
        lb.sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    if spec.mode == Mode::Snat {
        for family in families(spec) {
            add_address(&lb, "lo", addresses::snat(family), family.host_prefix())?;
        }
    }
    Ok(lb)
}

/// The client, connected to the balancer.
pub(super) fn client(spec: &TopologySpec, lb: &Netns) -> Result<(Netns, Option<Wire>)> {
    let client = namespace(spec, "rt-client")?;
    // Many connections from few addresses: more ports, and no port blocked by a bind.
    client.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
    client.sysctl("ipv4/tcp_tw_reuse", "1")?;
    let first = addresses::client(Family::V4, 0);
    connect((&client, "eth0", first), (lb, CLIENT_SIDE, addresses::balancer(Family::V4)), spec)?;
    for family in families(spec) {
        let length = prefix(family);
        for index in 0..spec.clients {
            if (family, index) != (Family::V4, 0) {
                add_address(&client, "eth0", addresses::client(family, index), length)?;
            }
        }
        let balancer = addresses::balancer(family);
        if family == Family::V6 {
            add_address(lb, CLIENT_SIDE, balancer, length)?;
        }
        client.ip(&format!("route add default via {balancer}"))?;
        add_address(lb, CLIENT_SIDE, frontend(family).ip(), family.host_prefix())?;
    }
    let wire = spec.has_wires().then(|| Wire::attach(&client, "eth0")).transpose()?;
    Ok((client, wire))
}

/// Backend number `index`, from 1.
pub(super) fn backend(
    spec: &TopologySpec,
    lb: &Arc<Netns>,
    client: &Netns,
    index: u8,
    (version, number): (&str, u8),
) -> Result<Backend> {
    let port = if spec.mode.is_one_way() { FRONTEND.port() } else { BACKEND_PORT };
    let address = |family| match spec.mode {
        Mode::Host => addresses::on_host(family, index),
        _ => addresses::backend(family, index),
    };
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (address(Family::V4), address(Family::V6)) else {
        bail!("addresses of the wrong family");
    };
    let mut backend = Backend {
        namespace: Arc::clone(lb),
        version: version.to_owned(),
        id: format!("{version}-{number}"),
        address: SocketAddrV4::new(v4, port),
        address6: SocketAddrV6::new(v6, port, 0, 0),
        balancer_side: CLIENT_SIDE.to_owned(),
        wire: None,
        serves: Vec::new(),
        udp: spec.protocols.contains(&super::Protocol::Udp),
    };
    backend.serves = families(spec).into_iter().map(|family| backend.instance(family)).collect();
    if spec.mode == Mode::Host {
        for family in families(spec) {
            add_address(lb, "lo", address(family), family.host_prefix())?;
        }
        return Ok(backend);
    }
    let namespace = namespace(spec, "rt-back")?;
    namespace.sysctl("core/somaxconn", "65535")?;
    backend.balancer_side = format!("back{index}");
    attach_to_balancer(spec, &namespace, lb, index, &backend.balancer_side)?;
    if spec.mode.is_one_way() {
        bypass(spec, &namespace, client, index)?;
        if spec.has_devices() {
            tunnel_ends::make(&namespace, [IpAddr::V4(v4), IpAddr::V6(v6)])?;
        }
        backend.serves = vec![SocketAddr::V4(FRONTEND)];
        if spec.uses_ipv6() {
            backend.serves.push(SocketAddr::V6(FRONTEND6));
        }
    }
    backend.wire = spec.has_wires().then(|| Wire::attach(&namespace, "eth0")).transpose()?;
    backend.namespace = Arc::new(namespace);
    Ok(backend)
}

/// The wire between balancer and backend, and the backend's routes over it.
fn attach_to_balancer(
    spec: &TopologySpec,
    namespace: &Netns,
    lb: &Netns,
    index: u8,
    device: &str,
) -> Result<()> {
    let v4 = Family::V4;
    let (here, there) = (addresses::backend(v4, index), addresses::gateway(v4, index));
    connect((namespace, "eth0", here), (lb, device, there), spec)?;
    if spec.mode.is_tunnel() && !spec.has_devices() {
        namespace.ip(&format!("link set eth0 mtu {TUNNEL_MTU}"))?;
        lb.ip(&format!("link set {device} mtu {TUNNEL_MTU}"))?;
    }
    for family in families(spec) {
        let gateway = addresses::gateway(family, index);
        if family == Family::V6 {
            let length = prefix(family);
            add_address(namespace, "eth0", addresses::backend(family, index), length)?;
            add_address(lb, device, gateway, length)?;
        }
        let route = match spec.mode {
            Mode::Snat => addresses::snat(family).to_string(),
            // Only the way around the balancer, which is yet to come.
            Mode::Dsr | Mode::Ipip | Mode::Gue => continue,
            Mode::Nat | Mode::Host | Mode::Container => "default".to_owned(),
        };
        namespace.ip(&format!("route add {route} via {gateway}"))?;
    }
    Ok(())
}

/// The way of replies around the balancer, and the VIP on the backend's `lo`.
fn bypass(spec: &TopologySpec, namespace: &Netns, client: &Netns, index: u8) -> Result<()> {
    let (v4, device) = (Family::V4, format!("direct{index}"));
    let end = |namespace, device, address| (namespace, device, address);
    connect(
        end(namespace, "direct0", addresses::direct(v4, index, 2)),
        end(client, &device, addresses::direct(v4, index, 1)),
        // No XDP on this wire.
        &TopologySpec { wired: false, mode: Mode::Nat, ..spec.clone() },
    )?;
    for family in families(spec) {
        let gateway = addresses::direct(family, index, 1);
        if family == Family::V6 {
            let here = addresses::direct(family, index, 2);
            add_address(namespace, "direct0", here, prefix(family))?;
            add_address(client, &device, gateway, prefix(family))?;
        }
        namespace.ip(&format!("route add {} via {gateway}", client_network(family)))?;
        if !spec.has_devices() {
            add_address(namespace, "lo", frontend(family).ip(), family.host_prefix())?;
        }
    }
    Ok(())
}

pub(super) type End<'a> = (&'a Netns, &'a str, IpAddr);

/// A wire whose first end belongs to a client or backend, the second to the balancer.
pub(super) fn connect(end: End<'_>, balancer: End<'_>, spec: &TopologySpec) -> Result<()> {
    // A wire's own program is XDP too: it brings NAPI, and must see packets unmerged.
    let receiving = if spec.has_wires() { Receiving::IntoXdp } else { Receiving::FromXdp };
    let [a, b] = [end, balancer].map(|(_, _, address)| format!("{address}/24"));
    veth(
        VethEnd { namespace: end.0, device: end.1, address: &a, receiving },
        VethEnd {
            namespace: balancer.0,
            device: balancer.1,
            address: &b,
            receiving: Receiving::IntoXdp,
        },
    )
}

pub(super) fn add_address(
    namespace: &Netns,
    device: &str,
    address: IpAddr,
    prefix: u8,
) -> Result<()> {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    namespace.ip(&format!("addr add {address}/{prefix} dev {device}{nodad}"))?;
    Ok(())
}
