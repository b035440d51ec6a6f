//! Internet checksums (RFC 1071) by full computation.
//!
//! One's complement arithmetic is arithmetic modulo 0xffff. What a checksum is wrong by is
//! therefore the sum of all words, the checksum among them, modulo 0xffff.

use crate::reference::{Ip, Transport, decode};

/// Offset of the checksum in an IPv4 header.
pub const IPV4: usize = 10;

/// What the checksum in the data is wrong by, 0 if it is right. All parts but the last have even
/// lengths.
pub fn residue(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|w| u64::from(w[0]) << 8 | w.get(1).map_or(0, |&b| b.into())).sum();
    (sum % 0xffff) as u16
}

/// The checksum of data in which its place is 0.
pub fn compute(parts: &[&[u8]]) -> u16 {
    match residue(parts) {
        0 => 0,
        residue => !residue,
    }
}

/// Whether two checksums say the same: 0 and 0xffff are both zero in one's complement.
pub fn same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

/// The pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1), for addresses of either family. Both forms
/// have the same sum.
pub fn pseudo(source: &[u8], destination: &[u8], protocol: u8, len: usize) -> Vec<u8> {
    let rest = (len as u64) << 32 | u64::from(protocol);
    [source, destination, &rest.to_be_bytes()].concat()
}

/// What the IPv4 header checksum is wrong by.
pub fn header_residue(frame: &[u8], ip: &Ip<'_>) -> u16 {
    residue(&[&frame[ip.at..ip.at + ip.header]])
}

/// What the transport checksum is wrong by, as far as the packet is in this frame. `end` is where it
/// ends.
pub fn transport_residue(frame: &[u8], ip: &Ip<'_>, end: usize) -> u16 {
    let segment = &frame[ip.at + ip.header..end];
    // ICMP for IPv4 has no pseudo-header (RFC 792).
    if ip.protocol == 1 {
        return residue(&[segment]);
    }
    let pseudo = pseudo(ip.source, ip.destination, ip.protocol, ip.len - ip.header);
    residue(&[&pseudo, segment])
}

/// Makes all checksums of a frame right. A UDP checksum of 0 over IPv4 stays: there is none.
pub fn repair(frame: &mut [u8]) {
    let copy = frame.to_vec();
    let Some((ip, transport)) = decode(&copy) else { return };
    let put = |frame: &mut [u8], at: usize, value: u16| {
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    };
    let old = |at: usize| u16::from_be_bytes([copy[at], copy[at + 1]]);
    // What is wrong by r becomes right by taking r away.
    let mended = |at: usize, wrong: u16| match u32::from(old(at)) + 0xffff - u32::from(wrong) {
        sum if sum % 0xffff == 0 => 0,
        sum => (sum % 0xffff) as u16,
    };
    if ip.version == 4 {
        let at = ip.at + IPV4;
        put(frame, at, mended(at, header_residue(&copy, &ip)));
    }
    let offset = match transport {
        Transport::Tcp(_) => 16,
        Transport::Udp { .. } => 6,
        Transport::Icmp { .. } => 2,
        Transport::Elsewhere => return,
    };
    let at = ip.at + ip.header + offset;
    let udp = matches!(transport, Transport::Udp { .. });
    if udp && ip.version == 4 && old(at) == 0 {
        return;
    }
    let value = mended(at, transport_residue(&copy, &ip, ip.at + ip.len));
    put(frame, at, if udp && value == 0 { 0xffff } else { value });
}
