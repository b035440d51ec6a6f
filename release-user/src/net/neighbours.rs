//! Neighbours: what XDP sends on counts neither as use nor as a question, so both are done here.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, IpVersion};

use super::netlink::with_handle;

/// A neighbour: index of the interface, and its address there.
pub type Place = (u32, IpAddr);

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its MAC, and that it answered lately.
    Known,
    /// Its MAC as it was some time ago. Packets are sent there all the same.
    Stale,
    /// Not yet: it is being asked.
    Asked,
    /// That it did not answer.
    Silent,
}

/// All neighbours of both families.
///
/// # Errors
/// The socket's or the kernel's.
pub async fn all() -> io::Result<HashMap<Place, Neighbour>> {
    with_handle(|handle| async move { dump(&handle).await }).await
}

/// Has the kernel find out the MAC of these, or check it, as it would if it sent to them itself.
///
/// # Errors
/// The socket's or the kernel's.
pub async fn ask(places: &[Place]) -> io::Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    with_handle(|handle| async move {
        for (index, addr) in places {
            let request = handle
                .neighbours()
                .add(*index, *addr)
                .state(NeighbourState::None)
                .flags(NeighbourFlags::Use)
                .replace();
            // The interface may have gone meanwhile: the others are asked all the same.
            if let Err(error) = request.execute().await {
                log::debug!("neighbour {addr} on interface {index}: {error}");
            }
        }
        Ok(())
    })
    .await
}

async fn dump(handle: &Handle) -> Result<HashMap<Place, Neighbour>, rtnetlink::Error> {
    let mut found = HashMap::new();
    for family in [IpVersion::V4, IpVersion::V6] {
        let all: Vec<NeighbourMessage> =
            handle.neighbours().get().set_family(family).execute().try_collect().await?;
        found.extend(all.iter().filter_map(neighbour));
    }
    Ok(found)
}

fn neighbour(message: &NeighbourMessage) -> Option<(Place, Neighbour)> {
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some((*addr).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    })?;
    let state = match message.header.state {
        NeighbourState::Stale => Neighbour::Stale,
        NeighbourState::Failed => Neighbour::Silent,
        NeighbourState::Incomplete | NeighbourState::None => Neighbour::Asked,
        _ => Neighbour::Known,
    };
    Some(((message.header.ifindex, addr), state))
}
