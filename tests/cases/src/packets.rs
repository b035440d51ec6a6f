//! Packets of both families, made by hand: inner ones, outer headers, frames. (The case tables'
//! frames are in [`crate::frames`].)

use std::net::{IpAddr, SocketAddr};

use crate::checksums::{internet, transport};

/// Protocol numbers (IANA).
pub mod protocol {
    #![expect(missing_docs, reason = "they say what they are")]
    pub const ICMP: u8 = 1;
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const ICMPV6: u8 = 58;
}

/// GUE's port (IANA).
pub const GUE_PORT: u16 = 6080;

/// An IP packet; both addresses must be of one family.
#[must_use]
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + payload.len());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend(((20 + payload.len()) as u16).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let check = internet(&[&packet]);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("{from} and {to} are of two families"),
    }
    packet.extend(payload);
    packet
}

/// A UDP datagram in its IP packet.
#[must_use]
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(payload);
    let check = match transport(from.ip(), to.ip(), protocol::UDP, &datagram) {
        // RFC 768: 0 means that there is none.
        0 => 0xffff,
        check => check,
    };
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    ip(from.ip(), to.ip(), protocol::UDP, &datagram)
}

/// A TCP segment without options in its IP packet.
#[must_use]
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([0x50, flags, 0xff, 0xf0, 0, 0, 0, 0]);
    segment.extend(payload);
    let check = transport(from.ip(), to.ip(), protocol::TCP, &segment);
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    ip(from.ip(), to.ip(), protocol::TCP, &segment)
}

/// A packet inside IP.
#[must_use]
pub fn ip_in_ip(from: IpAddr, to: IpAddr, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 6 { protocol::IPV6 } else { protocol::IPV4 };
    ip(from, to, protocol, inner)
}

/// A packet inside GUE, variant 1: the inner packet follows the UDP header.
#[must_use]
pub fn gue(from: IpAddr, to: IpAddr, inner: &[u8]) -> Vec<u8> {
    udp(SocketAddr::new(from, 50_000), SocketAddr::new(to, GUE_PORT), inner)
}

/// The frame around an IP packet.
#[must_use]
pub fn frame(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&destination[..], &source, &ethertype, packet].concat()
}
