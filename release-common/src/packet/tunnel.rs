//! Putting a packet into another.

use super::{Headers, Ip, Packet, UDP_HEADER, View, rewrite};
use crate::abi::{Be16, Be32};

/// Most bytes that a tunnel adds: IPv6 and UDP.
pub const MOST_OVERHEAD: usize = 48;

/// A tunnel to an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel<B> {
    /// Outer source address.
    pub source: B,
    /// Outer destination address.
    pub destination: B,
    /// GUE: source port, different from flow to flow. 0: IP in IP.
    pub source_port: u16,
    /// GUE: destination port.
    pub destination_port: u16,
}

impl<B: Ip> Tunnel<B> {
    /// Whether there is a UDP header between the two.
    #[inline(always)]
    pub const fn has_udp(&self) -> bool {
        self.source_port != 0
    }

    /// Bytes that it adds.
    #[inline(always)]
    pub const fn overhead(&self) -> usize {
        if self.has_udp() { B::HEADER + UDP_HEADER } else { B::HEADER }
    }
}

/// Encapsulates the packet, untouched, and addresses the frame to the next hop. `None` if there is
/// no room.
///
/// The outer UDP checksum is 0 (RFC 768; over IPv6 as RFC 6935 allows for tunnels): the inner
/// packet has its own.
#[inline(always)]
pub fn encapsulate<A: Ip, B: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    tunnel: &Tunnel<B>,
    macs: ([u8; 6], [u8; 6]),
) -> Option<()> {
    let at = headers.network();
    let ends = (tunnel.source, tunnel.destination);
    let len = headers.ip.len as u16;
    if tunnel.has_udp() {
        // Each family's growth as a constant: the verifier wants to know it.
        if B::HEADER == 20 {
            rewrite::grow::<28, P>(packet, at, macs, B::ETHERTYPE)?;
        } else {
            rewrite::grow::<48, P>(packet, at, macs, B::ETHERTYPE)?;
        }
        let udp_len = len.wrapping_add(UDP_HEADER as u16);
        B::write(packet, at, ends, crate::abi::IPPROTO_UDP, headers.ip.tos, udp_len)?;
        let udp: View<'_, UDP_HEADER> = packet.view(at + B::HEADER)?;
        udp.set_be16::<0>(Be16::new(tunnel.source_port));
        udp.set_be16::<2>(Be16::new(tunnel.destination_port));
        udp.set_be32::<4>(Be32::new(u32::from(udp_len) << 16));
    } else {
        if B::HEADER == 20 {
            rewrite::grow::<20, P>(packet, at, macs, B::ETHERTYPE)?;
        } else {
            rewrite::grow::<40, P>(packet, at, macs, B::ETHERTYPE)?;
        }
        B::write(packet, at, ends, A::ENCAPSULATED, headers.ip.tos, len)?;
    }
    Some(())
}
