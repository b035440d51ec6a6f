//! Answers built in place, byte for byte as the RFCs have them.

use bytemuck::bytes_of;
use release_common::packet::Ip;
use release_common::packet::answer::{IcmpError, IcmpKind, icmp_error, refuse, reset};

use super::{Case, assert_same, ethernet, fresh};
use crate::buffer::{self, HEAD_ROOM};
use crate::checksum;
use crate::reference::{Tcp, Transport};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Kinds of errors; type and code for IPv4 (RFC 792, RFC 1191), then IPv6 (RFC 4443).
const KINDS: [(IcmpKind, [u8; 2], [u8; 2]); 3] = [
    (IcmpKind::TimeExceeded, [11, 0], [3, 0]),
    (IcmpKind::TooBig, [3, 4], [2, 0]),
    (IcmpKind::PortUnreachable, [3, 3], [1, 4]),
];

pub(super) fn check<A: Ip>(case: &Case<'_, A>) {
    match &case.transport {
        Transport::Tcp(tcp) => {
            refusal(case, tcp);
            turned_to_reset(case);
            icmp_errors(case);
        }
        Transport::Udp { .. } => icmp_errors(case),
        Transport::Icmp { .. } | Transport::Elsewhere => {}
    }
}

/// The frame's MACs, the other way round.
fn back<'a, A>(case: &Case<'a, A>) -> [&'a [u8]; 2] {
    [&case.frame[6..12], &case.frame[..6]]
}

fn ethertype<A: Ip>() -> u16 {
    if A::VERSION == 4 { 0x0800 } else { 0x86dd }
}

/// A reset in answer to the segment (RFC 9293 §3.10.7.1).
fn refusal<A: Ip>(case: &Case<'_, A>, tcp: &Tcp) {
    let (done, after) = buffer::with(case.frame, 0, |packet| refuse(packet, &case.headers));
    assert_eq!(done, Some(()), "a segment is large enough");
    let data = (case.ip.len - case.ip.header - tcp.header) as u32;
    let one = |mask| u32::from(tcp.flags & mask != 0);
    let (seq, ack, flags) = if tcp.flags & ACK != 0 {
        (tcp.ack, 0, RST)
    } else {
        (0, tcp.seq.wrapping_add(data).wrapping_add(one(SYN) + one(FIN)), RST | ACK)
    };
    let mut segment = Vec::new();
    segment.extend(tcp.ports.1.to_be_bytes());
    segment.extend(tcp.ports.0.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let pseudo = checksum::pseudo(case.ip.destination, case.ip.source, 6, segment.len());
    let check = checksum::compute(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&check.to_be_bytes());

    let ends = (case.headers.ip.destination, case.headers.ip.source);
    let header = fresh(ends, 6, 0, segment.len());
    let ethernet = ethernet(case, back(case), ethertype::<A>());
    assert_eq!(after, [ethernet, header, segment].concat(), "reset in answer");
}

/// A segment that becomes a reset on its way.
fn turned_to_reset<A: Ip>(case: &Case<'_, A>) {
    let (done, after) = buffer::with(case.frame, 0, |packet| reset(packet, &case.headers));
    assert_eq!(done, Some(()));
    let at = case.ip.at + case.ip.header;
    let word = [case.frame[at + 12] & 0xf0, RST | ACK];
    let expected = case.with(&[(at + 12, &word)], false);
    assert_same(&after, &expected, &[at + 16], "only flags change");
    let residue = |frame| checksum::transport_residue(frame, &case.ip, case.end());
    assert_eq!(residue(case.frame), residue(&after), "TCP checksum");
}

/// ICMP errors about the packet. How much is quoted is the packet path's choice, within the RFCs.
fn icmp_errors<A: Ip>(case: &Case<'_, A>) {
    for (kind, four, six) in KINDS {
        let mtu = if kind == IcmpKind::TooBig { 1400 } else { 0 };
        let run = |room| {
            buffer::with(case.frame, room, |packet| {
                icmp_error(packet, &case.headers, IcmpError::new(kind, mtu))
            })
        };
        let (done, after) = run(HEAD_ROOM);
        if done.is_none() {
            assert!(case.ip.header != A::HEADER, "an ordinary packet is large enough to quote");
            continue;
        }
        let header = if A::VERSION == 4 { 20 } else { 40 };
        let Some(quoted) = after.len().checked_sub(case.ip.at + header + 8) else {
            panic!("the error has no room for its headers");
        };
        // RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c).
        let most = if A::VERSION == 4 { 576 } else { 1280 };
        assert!(after.len() - case.ip.at <= most, "{} bytes", after.len());
        // RFC 792: the header and 8 bytes, but for long chains of extension headers.
        assert!(quoted >= (case.ip.header + 8).min(128), "{quoted} bytes quoted");

        let mut message = if A::VERSION == 4 { four } else { six }.to_vec();
        message.extend([0, 0, 0, 0]);
        message.extend(mtu.to_be_bytes());
        message.extend(&case.frame[case.ip.at..case.ip.at + quoted]);
        let ends = (case.headers.ip.destination, case.headers.ip.source);
        let protocol = if A::VERSION == 4 { 1 } else { 58 };
        let mut pseudo = Vec::new();
        if A::VERSION == 6 {
            let (source, destination) = (bytes_of(&ends.0), bytes_of(&ends.1));
            pseudo = checksum::pseudo(source, destination, protocol, message.len());
        }
        let check = checksum::compute(&[&pseudo, &message]);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        let ethernet = ethernet(case, back(case), ethertype::<A>());
        let expected = [ethernet, fresh(ends, protocol, 0, message.len()), message].concat();
        assert_eq!(after, expected, "{kind:?}");

        let (done, _) = run(header + 7);
        assert_eq!(done, None, "without room there is no answer");
    }
}
