//! Checksums of whole frames, recomputed word by word: IPv4 header, TCP, UDP, ICMP, ICMPv6, and the
//! same of what tunnels carry.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packets::{GUE_PORT, protocol};

/// What frames contained, checked or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// IPv4 headers, those inside tunnels too.
    pub ipv4: u64,
    /// IPv6 headers, those inside tunnels too.
    pub ipv6: u64,
    /// TCP segments with a right checksum.
    pub tcp: u64,
    /// UDP datagrams with a right checksum.
    pub udp: u64,
    /// UDP datagrams without a checksum.
    pub udp_without: u64,
    /// ICMP and ICMPv6 messages with a right checksum.
    pub icmp: u64,
    /// Packets inside IP or GUE.
    pub tunnelled: u64,
    /// Ends of the tunnels.
    pub tunnels: BTreeSet<(IpAddr, IpAddr)>,
    /// Fragments: what they carry cannot be checked one by one.
    pub fragments: u64,
    /// Frames without IP, and IP protocols not named here.
    pub others: u64,
}

/// The Internet checksum over all of the parts (RFC 1071); all but the last have even lengths. Over
/// data that includes a right checksum it is 0.
#[must_use]
pub fn internet(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum with the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1); addresses of one family.
#[must_use]
pub fn transport(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let rest = (segment.len() as u64) << 32 | u64::from(protocol);
    let rest = rest.to_be_bytes();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            internet(&[&from.octets(), &to.octets(), &rest, segment])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            internet(&[&from.octets(), &to.octets(), &rest, segment])
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// Checks a frame.
///
/// # Errors
/// What is wrong.
pub fn frame(bytes: &[u8], seen: &mut Seen) -> Result<(), String> {
    // Behind one 802.1Q tag at most.
    let at = if bytes.get(12..14) == Some(&[0x81, 0]) { 16 } else { 12 };
    match bytes.get(at..at + 2) {
        Some([8, 0] | [0x86, 0xdd]) => packet(&bytes[at + 2..], seen),
        _ => {
            seen.others += 1;
            Ok(())
        }
    }
}

/// Checks an IP packet, which may have padding behind it.
fn packet(bytes: &[u8], seen: &mut Seen) -> Result<(), String> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(bytes, seen),
        Some(6) => ipv6(bytes, seen),
        version => Err(format!("IP version {version:?}")),
    }
}

fn ipv4(bytes: &[u8], seen: &mut Seen) -> Result<(), String> {
    let length = usize::from(bytes[0] & 15) * 4;
    let header = bytes.get(..length).filter(|header| header.len() >= 20).ok_or("IPv4: cut")?;
    if internet(&[header]) != 0 {
        return Err("IPv4: header checksum".into());
    }
    seen.ipv4 += 1;
    let payload = bytes.get(length..word(header, 2).into()).ok_or("IPv4: total length")?;
    if word(header, 6) & 0x3fff != 0 {
        seen.fragments += 1;
        return Ok(());
    }
    let address = |at: usize| {
        IpAddr::from(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]))
    };
    upper(header[9], address(12), address(16), payload, seen)
}

fn ipv6(bytes: &[u8], seen: &mut Seen) -> Result<(), String> {
    let header = bytes.get(..40).ok_or("IPv6: cut")?;
    seen.ipv6 += 1;
    let end = 40 + usize::from(word(header, 4));
    let mut payload = bytes.get(40..end).ok_or("IPv6: payload length")?;
    let mut next = header[6];
    // Hop-by-hop options, routing header, destination options (RFC 8200 §4).
    while matches!(next, 0 | 43 | 60) {
        let length = 8 + 8 * usize::from(*payload.get(1).ok_or("IPv6: extension header")?);
        next = payload[0];
        payload = payload.get(length..).ok_or("IPv6: extension header")?;
    }
    if next == 44 {
        seen.fragments += 1;
        return Ok(());
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(Ipv6Addr::from(octets))
    };
    upper(next, address(8), address(24), payload, seen)
}

/// Checks what an IP packet carries.
fn upper(
    number: u8,
    from: IpAddr,
    to: IpAddr,
    payload: &[u8],
    seen: &mut Seen,
) -> Result<(), String> {
    let right = || transport(from, to, number, payload) == 0;
    let (name, right, count) = match number {
        protocol::TCP => ("TCP", payload.len() >= 20 && right(), &mut seen.tcp),
        protocol::UDP => return udp(from, to, payload, seen),
        protocol::ICMP => ("ICMP", internet(&[payload]) == 0, &mut seen.icmp),
        protocol::ICMPV6 => ("ICMPv6", right(), &mut seen.icmp),
        protocol::IPV4 | protocol::IPV6 => return inner(from, to, payload, seen),
        _ => {
            seen.others += 1;
            return Ok(());
        }
    };
    if !right {
        return Err(format!("{name} checksum, {from} to {to}, {} bytes", payload.len()));
    }
    *count += 1;
    Ok(())
}

/// RFC 768: no checksum is allowed over IPv4. Over IPv6 it is not, except for the outer header of a
/// tunnel (RFC 6935 §5).
fn udp(from: IpAddr, to: IpAddr, datagram: &[u8], seen: &mut Seen) -> Result<(), String> {
    let header = datagram.get(..8).ok_or("UDP: cut")?;
    if usize::from(word(header, 4)) != datagram.len() {
        return Err("UDP: length".into());
    }
    let gue = word(header, 2) == GUE_PORT;
    if word(header, 6) == 0 {
        if from.is_ipv6() && !gue {
            return Err(format!("UDP over IPv6 without a checksum, {from} to {to}"));
        }
        seen.udp_without += 1;
    } else if transport(from, to, protocol::UDP, datagram) != 0 {
        return Err(format!("UDP checksum, {from} to {to}, {} bytes", datagram.len()));
    } else {
        seen.udp += 1;
    }
    if gue { inner(from, to, &datagram[8..], seen) } else { Ok(()) }
}

fn inner(from: IpAddr, to: IpAddr, bytes: &[u8], seen: &mut Seen) -> Result<(), String> {
    seen.tunnelled += 1;
    seen.tunnels.insert((from, to));
    packet(bytes, seen).map_err(|error| format!("inside a tunnel: {error}"))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
