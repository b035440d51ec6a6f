//! Builds frames, well-formed unless told otherwise. Checksums are filled in by
//! [`checksum::repair`].

use crate::checksum;

/// An IP header.
#[derive(Debug, Clone)]
pub struct Header {
    /// IPv6 rather than IPv4.
    pub six: bool,
    /// Source; IPv4 takes the first four bytes.
    pub source: [u8; 16],
    /// Destination, likewise.
    pub destination: [u8; 16],
    /// Type of service.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// IPv4: options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6: extension headers before the fragment header, as kind and data. The data has 6 bytes
    /// and a multiple of 8.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Offset in units of 8 bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
}

impl Header {
    /// A plain one.
    pub fn new(six: bool) -> Self {
        let mut source = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let mut destination = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        if !six {
            source[..4].copy_from_slice(&[198, 51, 100, 7]);
            destination[..4].copy_from_slice(&[203, 0, 113, 9]);
        }
        Self {
            six,
            source,
            destination,
            tos: 0,
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
        }
    }

    /// The answer's direction.
    #[must_use]
    pub fn turned(&self) -> Self {
        Self { source: self.destination, destination: self.source, ..self.clone() }
    }

    /// The header and what it carries.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        if self.six { self.packet6(protocol, payload) } else { self.packet4(protocol, payload) }
    }

    fn packet4(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let (offset, more) = self.fragment.unwrap_or_default();
        let bits = offset | if more { 0x2000 } else { 0 };
        let mut bytes = vec![0x40 | (header / 4) as u8, self.tos];
        bytes.extend(((header + payload.len()) as u16).to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(bits.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(&self.source[..4]);
        bytes.extend(&self.destination[..4]);
        [&bytes, &self.options[..], payload].concat()
    }

    fn packet6(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            chain.push((44, vec![high, low, 0, 0, 0x12, 0x34]));
        }
        let kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).chain([protocol]).collect();
        let mut body = Vec::new();
        for ((kind, data), next) in chain.iter().zip(&kinds[1..]) {
            let len = if *kind == 44 { 0 } else { (data.len() / 8) as u8 };
            body.extend([*next, len]);
            body.extend(data);
        }
        body.extend(payload);
        let mut bytes = vec![0x60 | self.tos >> 4, self.tos << 4, 0x12, 0x34];
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend([kinds[0], self.ttl]);
        bytes.extend(self.source);
        bytes.extend(self.destination);
        bytes.extend(body);
        bytes
    }
}

/// A TCP segment. The options are a multiple of 4 bytes, 40 at most.
pub fn tcp(ports: (u16, u16), flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    bytes.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    let words = (20 + options.len()) / 4;
    bytes.extend([(words as u8) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    [&bytes, options, data].concat()
}

/// A UDP datagram, with or without a checksum.
pub fn udp(ports: (u16, u16), has_checksum: bool, data: &[u8]) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    bytes.extend((data.len() as u16 + 8).to_be_bytes());
    bytes.extend([0, u8::from(has_checksum)]);
    [&bytes, data].concat()
}

/// An ICMP message: type, code, the four bytes behind the checksum, and the rest.
pub fn icmp(kind: u8, code: u8, word: u32, data: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], &word.to_be_bytes()[..], data].concat()
}

/// A frame with right checksums, and with a VLAN tag if one is given.
pub fn frame(tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if let Some(tag) = tag {
        bytes.extend([0x81, 0]);
        bytes.extend(tag.to_be_bytes());
    }
    let six = packet.first().is_some_and(|byte| byte >> 4 == 6);
    bytes.extend(if six { [0x86, 0xdd] } else { [8, 0] });
    bytes.extend(packet);
    checksum::repair(&mut bytes);
    bytes
}

/// An IP packet with right checksums.
pub fn right(packet: &[u8]) -> Vec<u8> {
    frame(None, packet)[14..].to_vec()
}
