//! TCP segments and UDP datagrams of both families.

use std::net::{IpAddr, SocketAddr};

use super::{OWN_MAC, PEER_MAC, flags};
use crate::checksums::{internet, transport};

/// An IPv6 extension header: its number, and its bytes; the first says what follows and is filled in.
pub type Extension = (u8, Vec<u8>);

/// An Ethernet frame with a TCP segment or a UDP datagram. Fields of the other protocol or the other
/// family have no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Destination MAC.
    pub dmac: [u8; 6],
    /// Source MAC.
    pub smac: [u8; 6],
    /// Id of the VLAN tag, if there is one.
    pub vlan: Option<u16>,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver; of the same family.
    pub destination: SocketAddr,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// IPv6: flow label.
    pub label: u32,
    /// IP identification; IPv6: of fragments.
    pub ident: u16,
    /// IPv4: "don't fragment".
    pub dont_fragment: bool,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4: options, a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// IPv6: extension headers.
    pub extensions: Vec<Extension>,
    /// 6 or 17.
    pub protocol: u8,
    /// TCP: sequence number.
    pub seq: u32,
    /// TCP: acknowledgement number.
    pub ack: u32,
    /// TCP: flags.
    pub flags: u8,
    /// TCP: window, unscaled.
    pub window: u16,
    /// TCP: options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// UDP: no checksum.
    pub unchecked: bool,
    /// Data.
    pub payload: Vec<u8>,
}

impl Segment {
    /// A TCP segment without data, TTL 64, "don't fragment".
    pub const fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self {
            dmac: OWN_MAC,
            smac: PEER_MAC,
            vlan: None,
            source,
            destination,
            tos: 0,
            label: 0,
            ident: 0x1234,
            dont_fragment: true,
            ttl: 64,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            protocol: 6,
            seq: 0,
            ack: 0,
            flags,
            window: 0xfff0,
            options: Vec::new(),
            unchecked: false,
            payload: Vec::new(),
        }
    }

    /// A UDP datagram without data.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { protocol: 17, ..Self::tcp(source, destination, 0) }
    }

    /// With these sequence and acknowledgement numbers.
    #[must_use]
    pub const fn numbers(mut self, seq: u32, ack: u32) -> Self {
        self.seq = seq;
        self.ack = ack;
        self
    }

    /// With `len` bytes of data.
    #[must_use]
    pub fn data(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|at| at as u8 ^ 0x5a).collect();
        self
    }

    /// The number after this segment.
    pub fn end(&self) -> u32 {
        let flags =
            u32::from(self.flags & flags::SYN != 0) + u32::from(self.flags & flags::FIN != 0);
        self.seq.wrapping_add(self.payload.len() as u32).wrapping_add(flags)
    }

    /// Bytes of IP header, with options and extensions.
    pub fn ip_header(&self) -> usize {
        if self.source.is_ipv4() {
            20 + self.ip_options.len()
        } else {
            40 + self.extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
        }
    }

    /// Most bytes of data that the IP packet has room for.
    pub fn room(&self) -> usize {
        let header = if self.protocol == 6 { 20 + self.options.len() } else { 8 };
        // The length of IPv6 does not count its first header.
        let ip = self.ip_header() - if self.source.is_ipv4() { 0 } else { 40 };
        65_535 - ip - header
    }

    /// The transport header and what follows.
    pub fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + self.options.len() + self.payload.len());
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        let check_at = if self.protocol == 6 {
            bytes.extend(self.seq.to_be_bytes());
            bytes.extend(self.ack.to_be_bytes());
            bytes.push((5 + self.options.len() as u8 / 4) << 4);
            bytes.push(self.flags);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(&self.options);
            16
        } else {
            bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
            bytes.extend([0; 2]);
            6
        };
        bytes.extend(&self.payload);
        if self.protocol == 6 || !self.unchecked {
            let ends = (self.source.ip(), self.destination.ip());
            let mut check = transport(ends.0, ends.1, self.protocol, &bytes);
            // RFC 768: 0 would say that there is none.
            if self.protocol == 17 && check == 0 {
                check = 0xffff;
            }
            bytes[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
        }
        bytes
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        self.around(&self.transport(), None)
    }

    /// The frame, with correct lengths and checksums.
    pub fn build(&self) -> Vec<u8> {
        self.frame(&self.packet())
    }

    /// The frames of its fragments, cut where `cuts` say: multiples of 8 bytes of what follows the IP
    /// header. IPv6: destination options are cut too, for they are for the receiver (RFC 8200 §4.1).
    pub fn fragments(&self, cuts: &[usize]) -> Vec<Vec<u8>> {
        let (mut cut, mut next) = (self.transport(), self.protocol);
        let mut before = self.clone();
        let mut ahead = 0;
        while self.source.is_ipv6() && before.extensions.last().is_some_and(|last| last.0 == 60) {
            if let Some((number, mut bytes)) = before.extensions.pop() {
                bytes[0] = next;
                next = number;
                ahead += bytes.len();
                cut.splice(..0, bytes);
            }
        }
        before.protocol = next;
        let mut from = 0;
        let mut frames = Vec::new();
        for to in cuts.iter().map(|to| to + ahead).chain([cut.len()]) {
            let place = (from as u16, to != cut.len());
            frames.push(self.frame(&before.around(&cut[from..to], Some(place))));
            from = to;
        }
        frames
    }

    /// The IP packet around `payload`; a fragment with its offset and whether more follow.
    fn around(&self, payload: &[u8], fragment: Option<(u16, bool)>) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (offset, more) = fragment.unwrap_or_default();
                let dont = u16::from(self.dont_fragment && fragment.is_none()) << 14;
                super::Ipv4 {
                    tos: self.tos,
                    ident: self.ident,
                    fragment: dont | u16::from(more) << 13 | offset >> 3,
                    ttl: self.ttl,
                    options: self.ip_options.clone(),
                    ..super::Ipv4::new(source, destination, self.protocol)
                }
                .build(payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut extensions = self.extensions.clone();
                if let Some((offset, more)) = fragment {
                    let [high, low] = (offset | u16::from(more)).to_be_bytes();
                    let [a, b] = self.ident.to_be_bytes();
                    extensions.push((44, vec![0, 0, high, low, 0, 0, a, b]));
                }
                let mut next = self.protocol;
                for (number, bytes) in extensions.iter_mut().rev() {
                    bytes[0] = next;
                    next = *number;
                }
                let chain: Vec<u8> = extensions.into_iter().flat_map(|(_, bytes)| bytes).collect();
                let first = 6 << 28 | u32::from(self.tos) << 20 | self.label;
                let mut ip = first.to_be_bytes().to_vec();
                ip.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
                ip.extend([next, self.ttl]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                ip.extend(chain);
                ip.extend(payload);
                ip
            }
            (source, destination) => panic!("{source} and {destination} are of two families"),
        }
    }

    /// The frame around an IP packet.
    pub fn frame(&self, packet: &[u8]) -> Vec<u8> {
        framed(self.dmac, self.smac, self.vlan, packet)
    }
}

/// The frame around an IP packet, with a VLAN tag if there is one.
pub fn framed(dmac: [u8; 6], smac: [u8; 6], vlan: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    let frame = super::ethernet(dmac, smac, ethertype, packet);
    match vlan {
        Some(id) => super::vlan(&frame, id),
        None => frame,
    }
}

/// Sum of an IPv4 header.
pub fn header_sum(header: &[u8]) -> u16 {
    internet(&[header])
}
