//! Changing addresses and ports in place, checksums included.

use super::checksum::Sum;
use super::{FRAME, Packet, Segment, View, offset};
use crate::abi::{Be16, Be32, Endpoint4};

/// Which end of the packet is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translate {
    /// Client to frontend becomes client to instance.
    Destination,
    /// Instance to client becomes frontend to client.
    Source,
}

/// Replaces one end's address and port by `to`, and lowers the TTL by one if the packet is sent on
/// by us and not by the kernel. Incremental checksums (RFC 1624). `None` if the frame is too short.
#[inline(always)]
pub fn translate<P: Packet>(
    packet: &P,
    segment: &Segment,
    what: Translate,
    to: Endpoint4,
    routed: bool,
) -> Option<()> {
    let view: View<'_, FRAME> = packet.view(0)?;
    let (address, port) = match what {
        Translate::Destination => (segment.destination, segment.destination_port),
        Translate::Source => (segment.source, segment.source_port),
    };
    let addresses = Sum::zero().sub32(address.0).add32(to.addr.0);
    let mut ip = Sum::of(view.be16::<{ offset::IP_CHECK }>().0);
    ip = ip.add(addresses);
    if routed {
        let before = Be16::new(u16::from(segment.ttl) << 8 | 6);
        let after = Be16::new(u16::from(segment.ttl - 1) << 8 | 6);
        ip = ip.sub16(before.0).add16(after.0);
        view.set_u8::<{ offset::TTL }>(segment.ttl - 1);
    }
    view.set_be16::<{ offset::IP_CHECK }>(Be16(ip.check()));
    let tcp = Sum::of(view.be16::<{ offset::TCP_CHECK }>().0)
        .add(addresses)
        .sub16(port.0)
        .add16(to.port.0);
    view.set_be16::<{ offset::TCP_CHECK }>(Be16(tcp.check()));
    match what {
        Translate::Destination => {
            view.set_be32::<{ offset::DESTINATION }>(to.addr);
            view.set_be16::<{ offset::DESTINATION_PORT }>(to.port);
        }
        Translate::Source => {
            view.set_be32::<{ offset::SOURCE }>(to.addr);
            view.set_be16::<{ offset::SOURCE_PORT }>(to.port);
        }
    }
    Some(())
}

/// Writes both MAC addresses.
#[inline(always)]
pub fn set_macs<P: Packet>(packet: &P, dmac: [u8; 6], smac: [u8; 6]) -> Option<()> {
    let view: View<'_, 12> = packet.view(0)?;
    view.set_mac::<{ offset::DMAC }>(dmac);
    view.set_mac::<{ offset::SMAC }>(smac);
    Some(())
}

/// The address a packet leaves with: what the route look-up must be asked for.
#[inline(always)]
pub const fn route_ends(segment: &Segment, what: Translate, to: Endpoint4) -> (Be32, Be32) {
    match what {
        Translate::Destination => (segment.source, to.addr),
        Translate::Source => (to.addr, segment.destination),
    }
}
