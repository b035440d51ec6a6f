//! What the routing table says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};

use super::netlink::with_handle;

/// The way to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// It ends here: an address of this host, or one that a `local` route makes its own.
    pub local: bool,
    /// Index of the interface that packets leave by.
    pub interface: u32,
    /// Who takes them on; `None`: the destination itself, on the link.
    pub gateway: Option<IpAddr>,
    /// The route's own MTU, or one learned on the way.
    pub mtu: Option<u32>,
}

/// This host's own address towards `destination`, as the kernel would choose it. No packet is sent.
/// `None`: there is no way.
pub fn source_towards(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The port means nothing: connecting only looks the route up.
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The ways to these addresses, as the kernel's routing table has them for this host's own packets.
/// Those it knows no way to are left out.
///
/// # Errors
/// The socket's.
pub async fn ways(addresses: BTreeSet<IpAddr>) -> io::Result<BTreeMap<IpAddr, Way>> {
    with_handle(|handle| async move {
        let mut ways = BTreeMap::new();
        for addr in addresses {
            // The error is the answer: unreachable, prohibited, none.
            let found: Result<Vec<RouteMessage>, _> =
                handle.route().get(question(addr)).execute().try_collect().await;
            if let Some(way) = found.ok().as_deref().and_then(|routes| routes.first()).and_then(way)
            {
                ways.insert(addr, way);
            }
        }
        Ok(ways)
    })
    .await
}

pub(crate) fn question(addr: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, bits, address) = match addr {
        IpAddr::V4(addr) => (AddressFamily::Inet, 32, RouteAddress::Inet(addr)),
        IpAddr::V6(addr) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(addr)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(address));
    message
}

pub(crate) fn way(message: &RouteMessage) -> Option<Way> {
    let local = message.header.kind == RouteType::Local;
    if !local && message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut way = Way { local, ..Way::default() };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => way.interface = *index,
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) => way.gateway = Some((*addr).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(addr)) => {
                way.gateway = Some((*addr).into());
            }
            RouteAttribute::Via(via) => way.gateway = via_gateway(via),
            RouteAttribute::Metrics(metrics) => {
                way.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(way)
}

/// A gateway of the other family (RFC 5549).
fn via_gateway(via: &rtnetlink::packet_route::route::RouteVia) -> Option<IpAddr> {
    use rtnetlink::packet_route::route::RouteVia;
    match via {
        RouteVia::Inet(addr) => Some((*addr).into()),
        RouteVia::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}
