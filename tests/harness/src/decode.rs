//! The decoder against the reference.

use bytemuck::bytes_of;
use release_common::abi::{Addr6, Be32};
use release_common::packet::quote::{self, is_error};
use release_common::packet::{
    self, Fragment, Headers, Ip, Link, Packet as _, SliceFrame, server_id, window_scale,
};

use crate::buffer;
use crate::reference::{self, Transport};

/// Longest server id of a QUIC connection id that is looked at.
const LONGEST_ID: u8 = 8;

/// Decodes arbitrary bytes as a frame, in both families whatever its EtherType says.
///
/// # Panics
/// If the decoder reads outside the frame, disagrees with the reference, or changes anything.
pub fn decode(frame: &[u8]) {
    let ((), after) = buffer::with(frame, 0, |packet| {
        let link = packet::link(packet);
        let expected = reference::link(frame);
        assert_eq!(link.ok().map(|l| (l.ethertype, usize::from(l.len))), expected, "link");
        if let Ok(link) = link {
            family::<Be32>(packet, frame, link);
            family::<Addr6>(packet, frame, link);
        }
    });
    assert_eq!(after, frame, "decoding changes nothing");
}

fn family<A: Ip>(packet: &SliceFrame<'_>, frame: &[u8], link: Link) {
    let expected = reference::packet(frame, link.len.into(), A::VERSION);
    match (packet::parse::<A, _>(packet, link), expected) {
        (Err(_), None) => {}
        (Ok(headers), Some((ip, transport))) => {
            compare(packet, &headers, &ip, &transport);
            match transport {
                Transport::Tcp(tcp) => {
                    assert_eq!(window_scale(packet, &headers), tcp.scale, "window scale");
                }
                Transport::Udp { .. } => server_ids(packet, &headers, frame),
                Transport::Icmp { kind, .. } => quoted(packet, &headers, frame, &ip, kind),
                Transport::Elsewhere => {}
            }
        }
        (decoded, expected) => panic!("decoder: {decoded:?}\nreference: {expected:?}"),
    }
}

fn compare<A: Ip>(
    packet: &SliceFrame<'_>,
    headers: &Headers<A>,
    expected: &reference::Ip<'_>,
    transport: &Transport,
) {
    let ip = &headers.ip;
    let fragment = match (expected.offset, expected.more) {
        (0, false) => Fragment::WHOLE,
        (0, true) => Fragment::FIRST,
        (_, true) => Fragment::MIDDLE,
        (_, false) => Fragment::LAST,
    };
    let found = reference::Ip {
        version: A::VERSION,
        at: headers.at.into(),
        header: ip.header.into(),
        len: ip.len as usize,
        protocol: ip.protocol,
        ttl: ip.ttl,
        tos: ip.tos,
        dont_fragment: ip.dont_fragment,
        more: matches!(ip.fragment, Fragment::FIRST | Fragment::MIDDLE),
        // In a first fragment it counts the extension headers behind the fragment header.
        offset: if expected.offset == 0 { 0 } else { ip.fragment_offset },
        ident: ip.ident,
        source: bytes_of(&ip.source),
        destination: bytes_of(&ip.destination),
    };
    assert_eq!(found, *expected, "IP header");
    assert_eq!(ip.fragment, fragment);
    if expected.offset == 0 {
        assert!(
            ip.fragment_offset.is_multiple_of(8)
                && ip.fragment_offset <= ip.header - A::HEADER as u16
        );
        assert!(ip.fragment_offset == 0 || fragment == Fragment::FIRST && A::VERSION == 6);
    }
    assert_eq!(headers.transport(), expected.at + expected.header, "offset of the transport");
    assert!(packet.holds(headers.transport() + headers.ip_payload() as usize), "ends inside");

    let ports = (headers.source_port.get(), headers.destination_port.get());
    let numbers = (headers.seq, headers.ack, headers.window);
    let bytes = (headers.transport_header, headers.flags, headers.code);
    let payload = headers.ip_payload().wrapping_sub(headers.transport_header.into());
    assert_eq!(headers.payload(), payload);
    match transport {
        Transport::Elsewhere => assert_eq!((ports, bytes), ((0, 0), (0, 0, 0)), "later fragment"),
        Transport::Tcp(tcp) => {
            assert_eq!(ports, tcp.ports, "ports");
            assert_eq!(numbers, (tcp.seq, tcp.ack, tcp.window), "TCP numbers");
            assert_eq!(bytes, (tcp.header as u16, tcp.flags, 0), "TCP header");
            assert!(payload as usize <= expected.len, "payload");
            // SYN and FIN count as one byte each (RFC 9293 §3.4).
            let one = |mask| u32::from(tcp.flags & mask != 0);
            let end = tcp.seq.wrapping_add(payload).wrapping_add(one(2)).wrapping_add(one(1));
            assert_eq!(headers.end(), end, "next number");
        }
        Transport::Udp { ports: expected } => {
            assert_eq!((ports, bytes), (*expected, (8, 0, 0)), "UDP");
        }
        Transport::Icmp { kind, code } => {
            assert_eq!((ports, bytes), ((0, 0), (0, *kind, *code)), "ICMP");
        }
    }
    let key = headers.key_from_client();
    assert_eq!((key.client, key.frontend), (ip.source, ip.destination));
    assert_eq!((key.client_port.get(), key.frontend_port.get()), ports);
}

/// draft-ietf-quic-load-balancers-21 §3. A short-header packet has 21 bytes at least (RFC 9000
/// §10.3), hence ten are expected whatever the length of the id.
fn server_ids<A: Ip>(packet: &SliceFrame<'_>, headers: &Headers<A>, frame: &[u8]) {
    let start = headers.transport() + 8;
    let end = usize::from(headers.at) + headers.ip.len as usize;
    let (data, room) = (&frame[start..end], frame.len() >= start + 10);
    for len in 0..=LONGEST_ID {
        for config in 0..8 {
            let mine = room
                && data.len() >= 2 + usize::from(len)
                && data[0] & 0xc0 == 0x40
                && data[1] >> 5 == config;
            let expected = mine.then(|| {
                let mut id = [0; 8];
                id[..len.into()].copy_from_slice(&data[2..2 + usize::from(len)]);
                id
            });
            assert_eq!(server_id(packet, headers, config, len), expected, "server id");
        }
    }
}

fn quoted<A: Ip>(
    packet: &SliceFrame<'_>,
    headers: &Headers<A>,
    frame: &[u8],
    ip: &reference::Ip<'_>,
    kind: u8,
) {
    assert_eq!(is_error(headers), reference::is_error(ip, kind), "ICMP error");
    match (quote::quote(packet, headers), reference::quote(frame, ip)) {
        (Err(_), None) => {}
        (Ok(quote), Some((inner, transport))) => {
            assert_eq!(
                (usize::from(quote.at), usize::from(quote.transport)),
                (inner.at, transport)
            );
            assert_eq!(quote.protocol, inner.protocol);
            assert_eq!(bytes_of(&quote.ends.source), inner.source, "quoted source");
            assert_eq!(bytes_of(&quote.ends.destination), inner.destination);
            let ports = [quote.ends.source_port, quote.ends.destination_port];
            assert_eq!(bytes_of(&ports), &frame[transport..transport + 4], "quoted ports");
        }
        (decoded, expected) => panic!("quote: {decoded:?}\nreference: {expected:?}"),
    }
}
