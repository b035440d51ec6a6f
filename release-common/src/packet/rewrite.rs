//! Changing addresses and ports in place, checksums included.

use super::checksum::Sum;
use super::{Headers, Ip, Packet, TAGGED, UDP_CHECK, View, tcp};
use crate::abi::{Be16, Endpoint, IPPROTO_TCP, IPPROTO_UDP};

/// Both ends of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
}

impl<A: Ip> Ends<A> {
    /// Those of a packet as it is.
    #[inline(always)]
    pub const fn of(headers: &Headers<A>) -> Self {
        Self {
            source: headers.ip.source,
            destination: headers.ip.destination,
            source_port: headers.source_port,
            destination_port: headers.destination_port,
        }
    }

    /// With another source.
    #[inline(always)]
    pub const fn from(self, source: Endpoint<A>) -> Self {
        Self { source: source.addr, source_port: source.port, ..self }
    }

    /// With another destination.
    #[inline(always)]
    pub const fn to(self, destination: Endpoint<A>) -> Self {
        Self { destination: destination.addr, destination_port: destination.port, ..self }
    }

    /// What the addresses add to a checksum when they replace `old`'s.
    #[inline(always)]
    pub fn address_change(&self, old: &Self) -> Sum {
        Sum::zero()
            .sub_address(old.source)
            .sub_address(old.destination)
            .add_address(self.source)
            .add_address(self.destination)
    }

    /// What the ports add to a checksum when they replace `old`'s.
    #[inline(always)]
    pub const fn port_change(&self, old: &Self) -> Sum {
        Sum::zero()
            .sub16(old.source_port.0)
            .sub16(old.destination_port.0)
            .add16(self.source_port.0)
            .add16(self.destination_port.0)
    }
}

/// Gives the packet other ends, and lowers the TTL by one if it is sent on by us and not by the
/// kernel. Incremental checksums (RFC 1624). A later fragment has no ports. `None` if the frame is
/// too short.
#[inline(always)]
pub fn translate<A: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    ends: &Ends<A>,
    routed: bool,
) -> Option<()> {
    let old = Ends::of(headers);
    let addresses = ends.address_change(&old);
    let protocol = headers.ip.protocol;
    if !headers.ip.fragment.is_later() && matches!(protocol, IPPROTO_TCP | IPPROTO_UDP) {
        let udp = protocol == IPPROTO_UDP;
        let check = headers.transport() + if udp { UDP_CHECK } else { tcp::CHECK };
        packet.update_transport(check, addresses, ends.port_change(&old), udp)?;
        let ports: View<'_, 4> = packet.view(headers.transport())?;
        ports.set_be16::<0>(ends.source_port);
        ports.set_be16::<2>(ends.destination_port);
    }
    let ttl = if routed { Some(headers.ip.ttl.wrapping_sub(1)) } else { None };
    let at = headers.network();
    A::rewrite(packet, at, addresses, (ends.source, ends.destination), ttl)
}

/// Writes both MAC addresses.
#[inline(always)]
pub fn set_macs<P: Packet>(packet: &P, dmac: [u8; 6], smac: [u8; 6]) -> Option<()> {
    let view: View<'_, 12> = packet.view(0)?;
    view.set_mac::<0>(dmac);
    view.set_mac::<6>(smac);
    Some(())
}

/// Both MAC addresses, destination first.
#[inline(always)]
pub fn macs<P: Packet>(packet: &P) -> Option<([u8; 6], [u8; 6])> {
    let view: View<'_, 12> = packet.view(0)?;
    Some((view.mac::<0>(), view.mac::<6>()))
}

/// Makes `GROWTH` bytes of room in front of the IP header and writes the Ethernet header anew: these
/// MACs, the VLAN tag that was there, and the EtherType given.
#[inline(always)]
pub fn grow<const GROWTH: usize, P: Packet>(
    packet: &mut P,
    at: usize,
    (dmac, smac): ([u8; 6], [u8; 6]),
    ethertype: u16,
) -> Option<()> {
    let tagged = at == TAGGED;
    let tag = if tagged { packet.view::<TAGGED>(0)?.be32::<12>().0 } else { 0 };
    if !packet.move_head(-(GROWTH as i32)) {
        return None;
    }
    set_macs(packet, dmac, smac)?;
    let view: View<'_, TAGGED> = packet.view(0)?;
    if tagged {
        view.set_be32::<12>(crate::abi::Be32(tag));
        view.set_be16::<16>(Be16::new(ethertype));
    } else {
        view.set_be16::<12>(Be16::new(ethertype));
    }
    Some(())
}
