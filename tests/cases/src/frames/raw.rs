//! Frames of other kinds.

use std::net::{IpAddr, Ipv4Addr};

use super::{OWN_MAC, PEER_MAC, segment};
use crate::checksums::{internet, transport};

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub ident: u16,
    /// Fragment flags and offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
}

impl Ipv4 {
    /// A header without options, TTL 64.
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        let options = Vec::new();
        Self { source, destination, protocol, tos: 0, ident: 0, fragment: 0, ttl: 64, options }
    }

    /// The packet with this header.
    pub fn build(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut ip = vec![0x40 | (header / 4) as u8, self.tos];
        ip.extend(((header + payload.len()) as u16).to_be_bytes());
        ip.extend(self.ident.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.destination.octets());
        ip.extend(&self.options);
        let check = segment::header_sum(&ip);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        ip.extend(payload);
        ip
    }

    /// The frame with this header.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(OWN_MAC, PEER_MAC, 0x0800, &self.build(payload))
    }
}

/// An Ethernet frame.
pub fn ethernet(dmac: [u8; 6], smac: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(dmac);
    frame.extend(smac);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame with an 802.1Q tag.
pub fn vlan(frame: &[u8], id: u16) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &[0x81, 0], &id.to_be_bytes(), rest].concat()
}

/// An ICMP or ICMPv6 echo request.
pub fn icmp_echo(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4];
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        let check = internet(&[&icmp]);
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        return Ipv4::new(source, destination, 1).frame(&icmp);
    }
    icmp[0] = 128;
    let check = transport(source, destination, 58, &icmp);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    segment::framed(OWN_MAC, PEER_MAC, None, &crate::packets::ip(source, destination, 58, &icmp))
}

/// An ARP request.
pub fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(PEER_MAC);
    arp.extend(sender.octets());
    arp.extend([0; 6]);
    arp.extend(target.octets());
    ethernet([0xff; 6], PEER_MAC, 0x0806, &arp)
}

/// A TCP SYN over IPv6 between two addresses of no importance, with these bytes between the IPv6
/// header and TCP.
pub fn ipv6(next_header: u8, extension: &[u8], port: u16) -> Vec<u8> {
    let mut tcp = vec![0x9c, 0x40];
    tcp.extend(port.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(((extension.len() + tcp.len()) as u16).to_be_bytes());
    ip.extend([next_header, 64]);
    ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    ip.extend(extension);
    ip.extend(&tcp);
    ethernet(OWN_MAC, PEER_MAC, 0x86dd, &ip)
}

/// Padded with zeros to Ethernet's smallest frame, as receivers see short packets.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}
