//! Frames as they stand on the wire, and what a receiver checks of them.
//!
//! Everything here is computed the straightforward way, word by word over the whole frame, so that
//! it can judge the packet path's incremental arithmetic.

mod icmp;
mod raw;
mod segment;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use icmp::{Error, IcmpError};
pub use raw::{Ipv4, arp, ethernet, icmp_echo, ipv6, padded, vlan};
pub use segment::{Extension, Segment};

use crate::checksums;

/// TCP flags (RFC 9293 §3.1), as in `release_common::packet::flag`, with the two unused there.
pub mod flags {
    pub use release_common::packet::flag::{ACK, FIN, PSH, RST, SYN};
    /// The urgent pointer is valid.
    pub const URG: u8 = 0x20;
    /// Congestion notification echo (RFC 3168 §6.1).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// MAC of the side a frame comes from, unless changed.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC of the balancer's interface, unless changed.
pub const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// Options of a SYN: MSS 1460, SACK, and a window scale if there is one (RFC 7323 §2.2).
pub fn syn_options(window_scale: Option<u8>) -> Vec<u8> {
    let mut options = vec![2, 4, 0x05, 0xb4, 4, 2, 1, 1];
    if let Some(scale) = window_scale {
        options.extend([1, 3, 3, scale]);
    }
    options
}

/// What a receiver checks: all checksums of a frame, those of packets in tunnels too.
///
/// # Errors
/// What is wrong.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    checksums::frame(frame, &mut checksums::Seen::default())
}

/// Where the IP packet of a frame begins: behind one VLAN tag at most.
pub fn ip_at(frame: &[u8]) -> usize {
    if frame.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 }
}

/// Source and destination of a frame's IP packet, with the ports that follow a plain header: those
/// of TCP or UDP, if it has no options.
pub fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = frame.get(ip_at(frame)..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
    if ip.first()? >> 4 == 4 {
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        };
        let at = usize::from(ip[0] & 15) * 4;
        let ends = (address(12)?, address(16)?);
        return Some(((ends.0, port(at)?).into(), (ends.1, port(at + 2)?).into()));
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let (mut next, mut at) = (*ip.get(6)?, 40);
    while matches!(next, 0 | 43 | 44 | 60) {
        let length = if next == 44 { 8 } else { 8 + 8 * usize::from(*ip.get(at + 1)?) };
        next = *ip.get(at)?;
        at += length;
    }
    let ends = (address(8)?, address(24)?);
    Some(((ends.0, port(at)?).into(), (ends.1, port(at + 2)?).into()))
}

/// Where a frame is going; the unspecified address if it has no IP packet.
pub fn destination(frame: &[u8]) -> SocketAddr {
    ends(frame).map_or((Ipv4Addr::UNSPECIFIED, 0).into(), |ends| ends.1)
}
