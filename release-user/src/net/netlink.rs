//! Interfaces, rules and what changes, by rtnetlink.

use std::io;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::packet_route::rule::RuleAttribute;
use rtnetlink::{Handle, IpVersion, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// How an XDP program is attached, and the program's id.
    pub xdp: Option<(Attached, u32)>,
    /// Most bytes of an IP packet.
    pub mtu: u32,
    /// Whether it has neighbours whose MAC must be found out.
    pub resolves: bool,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver, or in hardware.
    Native,
    /// In the network stack.
    Generic,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface came, went or changed.
    Links,
    /// A route, rule, address or neighbour changed.
    Routing,
}

/// Lists interfaces.
///
/// # Errors
/// The socket's or the kernel's.
pub async fn interfaces() -> io::Result<Vec<Interface>> {
    let links: Vec<LinkMessage> =
        with_handle(|handle| async move { handle.link().get().execute().try_collect().await })
            .await?;
    Ok(links.iter().filter_map(interface).collect())
}

/// Whether routes depend on more than the destination: rules besides the kernel's own, of either
/// family.
///
/// # Errors
/// The socket's or the kernel's.
pub async fn policy_routing() -> io::Result<bool> {
    let rules = with_handle(|handle| async move {
        let mut rules: Vec<_> = handle.rule().get(IpVersion::V4).execute().try_collect().await?;
        // Where IPv6 is switched off the kernel refuses the question.
        if Path::new("/proc/sys/net/ipv6").exists() {
            let rules6: Vec<_> = handle.rule().get(IpVersion::V6).execute().try_collect().await?;
            rules.extend(rules6);
        }
        Ok(rules)
    })
    .await?;
    let own = |priority: u32| matches!(priority, 0 | 32766 | 32767);
    Ok(rules.iter().any(|rule| {
        let priority = rule.attributes.iter().find_map(|nla| match nla {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        !own(priority.unwrap_or(0))
    }))
}

/// Runs a request on a connection of its own.
pub(super) async fn with_handle<T, F>(request: impl FnOnce(Handle) -> F) -> io::Result<T>
where
    F: Future<Output = Result<T, rtnetlink::Error>>,
{
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let result = request(handle).await;
    connection.abort();
    result.map_err(io::Error::other)
}

fn interface(message: &LinkMessage) -> Option<Interface> {
    let flags = message.header.flags;
    let mut found = Interface {
        name: String::new(),
        index: message.header.index,
        xdp: None,
        mtu: 0,
        resolves: !flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => {
                let mode = xdp.iter().find_map(|nla| match nla {
                    LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Attached::Generic),
                    LinkXdp::Attached(XdpAttached::None) => None,
                    LinkXdp::Attached(_) => Some(Attached::Native),
                    _ => None,
                });
                let id = xdp.iter().find_map(|nla| match nla {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
                found.xdp = mode.map(|mode| (mode, id.unwrap_or(0)));
            }
            _ => {}
        }
    }
    (!found.name.is_empty()).then_some(found)
}

/// Follows changes. When the receiver ends, nothing is followed any more.
///
/// # Errors
/// The socket's.
pub fn watch() -> io::Result<mpsc::Receiver<Change>> {
    let (connection, _, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Rule,
        MulticastGroup::Nexthop,
    ])?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(connection);
    tokio::spawn(async move {
        while let Some((message, _)) = messages.next().await {
            let change = match message.payload {
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_),
                ) => Change::Links,
                // Anything else, lost messages included: look anew.
                _ => Change::Routing,
            };
            if sender.send(change).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
