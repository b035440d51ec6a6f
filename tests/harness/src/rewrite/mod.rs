//! Rewriting: only the fields named change, and no checksum becomes right or wrong by it.
//!
//! A checksum that was right must be right afterwards, by full computation; one that was wrong must
//! stay wrong by the same amount, or the rewriter would hide what the line corrupted. Both are one
//! statement: the sum of everything the checksum covers does not change, modulo 0xffff.

mod answer;
mod error;
mod translate;
mod tunnel;

use bytemuck::bytes_of;
use release_common::abi::{Addr6, Be16, Be32};
use release_common::packet::rewrite::Ends;
use release_common::packet::{self, Headers, Ip};

use crate::reference::{self, Transport};
use crate::{buffer, checksum};

/// Bytes in front of the frame: two addresses of 16 bytes (IPv4 takes the first four), two ports.
pub const PREFIX: usize = 36;

/// Gives an arbitrary frame, behind [`PREFIX`] bytes of new ends, every treatment that fits it; once
/// as it is, and once with its checksums made right.
///
/// # Panics
/// If a treatment does anything but what it is for.
pub fn rewrite(data: &[u8]) {
    let Some((prefix, frame)) = data.split_at_checked(PREFIX) else { return };
    family_of(prefix, frame);
    let mut right = frame.to_vec();
    checksum::repair(&mut right);
    family_of(prefix, &right);
}

fn family_of(prefix: &[u8], frame: &[u8]) {
    match reference::link(frame) {
        Some((0x0800, _)) => family::<Be32>(prefix, frame),
        Some((0x86dd, _)) => family::<Addr6>(prefix, frame),
        _ => {}
    }
}

/// A frame and what both decoders say about it.
struct Case<'a, A> {
    frame: &'a [u8],
    headers: Headers<A>,
    ip: reference::Ip<'a>,
    transport: Transport,
    /// The new ends.
    ends: Ends<A>,
}

impl<A> Case<'_, A> {
    /// Where the IP packet ends.
    fn end(&self) -> usize {
        self.ip.at + self.ip.len
    }

    /// The frame with these ends at these offsets, and in the IP header a TTL lowered by one if
    /// it is routed; checksums as they were.
    fn with(&self, fields: &[(usize, &[u8])], routed: bool) -> Vec<u8> {
        let mut expected = self.frame.to_vec();
        for (at, bytes) in fields {
            expected[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        if routed {
            let ttl = self.ip.at + if self.ip.version == 4 { 8 } else { 7 };
            expected[ttl] = expected[ttl].wrapping_sub(1);
        }
        expected
    }
}

fn family<A: Ip>(prefix: &[u8], frame: &[u8]) {
    let (headers, _) = buffer::with(frame, 0, |packet| {
        packet::link(packet).and_then(|link| packet::parse::<A, _>(packet, link))
    });
    let (Ok(headers), Some((ip, transport))) = (headers, reference::decode(frame)) else { return };
    let ends = Ends {
        source: address(&prefix[..16]),
        destination: address(&prefix[16..32]),
        source_port: Be16(u16::from_ne_bytes([prefix[32], prefix[33]])),
        destination_port: Be16(u16::from_ne_bytes([prefix[34], prefix[35]])),
    };
    let mut case = Case { frame, headers, ip, transport, ends };
    if let Some(check) = translated(&case) {
        // Once more, with a port that brings the checksum to 0, which in UDP is not a checksum.
        let port = u32::from(ends.destination_port.get()) + u32::from(check);
        case.ends.destination_port = Be16::new((port % 0xffff) as u16);
        assert_eq!(translated(&case), Some(0xffff), "RFC 768");
        case.ends = ends;
    }
    tunnel::check::<A, Be32>(&case, prefix);
    tunnel::check::<A, Addr6>(&case, prefix);
    answer::check(&case);
}

/// Gives the packet, or what it quotes, its new ends. Returns the new UDP checksum, if there is one.
fn translated<A: Ip>(case: &Case<'_, A>) -> Option<u16> {
    match case.transport {
        Transport::Icmp { .. } => error::check(case),
        _ => translate::check(case),
    }
}

/// An address from the first of 16 bytes.
fn address<A: Ip>(bytes: &[u8]) -> A {
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    A::from_words([word(0), word(4), word(8), word(12)])
}

/// Source and destination address as they stand in a header, at these offsets.
fn addresses<A: Ip>(ip: &reference::Ip<'_>, ends: &(A, A)) -> [(usize, Vec<u8>); 2] {
    let (source, destination) = if ip.version == 4 { (12, 16) } else { (8, 24) };
    [
        (ip.at + source, bytes_of(&ends.0).to_vec()),
        (ip.at + destination, bytes_of(&ends.1).to_vec()),
    ]
}

/// Both ports as they stand in a header.
fn ports<A: Ip>(ends: &Ends<A>) -> [u8; 4] {
    let mut ports = [0; 4];
    ports.copy_from_slice(bytes_of(&[ends.source_port, ends.destination_port]));
    ports
}

/// The IP header that packets made here have.
fn fresh<A: Ip>(ends: (A, A), protocol: u8, tos: u8, payload: usize) -> Vec<u8> {
    let (source, destination) = (bytes_of(&ends.0), bytes_of(&ends.1));
    let payload = payload as u16;
    if A::VERSION == 6 {
        let mut header = vec![0x60 | tos >> 4, tos << 4, 0, 0];
        header.extend(payload.to_be_bytes());
        header.extend([protocol, 64]);
        return [&header, source, destination].concat();
    }
    let mut header = vec![0x45, tos];
    header.extend((payload + 20).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    let mut header = [&header, source, destination].concat();
    let check = checksum::compute(&[&header]);
    header[checksum::IPV4..checksum::IPV4 + 2].copy_from_slice(&check.to_be_bytes());
    header
}

/// An Ethernet header with these MACs, and the tag that the frame had.
fn ethernet<A>(case: &Case<'_, A>, macs: [&[u8]; 2], ethertype: u16) -> Vec<u8> {
    let tag = &case.frame[12..case.ip.at - 2];
    [macs[0], macs[1], tag, &ethertype.to_be_bytes()].concat()
}

/// Compares two frames but for the checksums at these offsets, which are judged by their sums.
fn assert_same(found: &[u8], expected: &[u8], checks: &[usize], what: &str) {
    let blank = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for &at in checks {
            bytes[at..at + 2].fill(0);
        }
        bytes
    };
    assert_eq!(blank(found), blank(expected), "{what}");
}

/// The checksum at `at`.
fn check_at(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
