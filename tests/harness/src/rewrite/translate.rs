//! Other ends for TCP, UDP and later fragments.

use release_common::packet::Ip;
use release_common::packet::rewrite::{Ends, translate};

use super::{Case, addresses, assert_same, check_at, ports};
use crate::reference::{self, Transport};
use crate::{buffer, checksum};

pub(super) fn check<A: Ip>(case: &Case<'_, A>) -> Option<u16> {
    let mut udp = None;
    for routed in [false, true] {
        let (done, after) = buffer::with(case.frame, 0, |packet| {
            translate(packet, &case.headers, &case.ends, routed)
        });
        assert_eq!(done, Some(()), "a frame that was decoded can be translated");
        compare(case, &after, routed);
        if !routed {
            and_back(case, &after);
        }
        if matches!(case.transport, Transport::Udp { .. }) {
            udp = transport_check(case).map(|at| check_at(&after, at));
        }
    }
    udp.filter(|check| *check != 0)
}

/// Offset of the transport checksum, if it is in this frame.
fn transport_check<A>(case: &Case<'_, A>) -> Option<usize> {
    let transport = case.ip.at + case.ip.header;
    match case.transport {
        Transport::Tcp(_) => Some(transport + 16),
        Transport::Udp { .. } => Some(transport + 6),
        _ => None,
    }
}

/// Offsets of all checksums.
fn checks<A>(case: &Case<'_, A>) -> Vec<usize> {
    let ip = (case.ip.version == 4).then_some(case.ip.at + checksum::IPV4);
    ip.into_iter().chain(transport_check(case)).collect()
}

fn compare<A: Ip>(case: &Case<'_, A>, after: &[u8], routed: bool) {
    let [source, destination] = addresses(&case.ip, &(case.ends.source, case.ends.destination));
    let ports = ports(&case.ends);
    let mut fields = vec![(source.0, &source.1[..]), (destination.0, &destination.1[..])];
    if transport_check(case).is_some() {
        fields.push((case.ip.at + case.ip.header, &ports[..]));
    }
    let expected = case.with(&fields, routed);
    assert_same(after, &expected, &checks(case), "translation changes ends and TTL only");

    // Headers of the same shape with other addresses: decode them anew.
    let Some(ip) = reference::ip(after, case.ip.at, case.ip.version) else {
        panic!("a translated header is a header");
    };
    if ip.version == 4 {
        let (before, now) =
            (checksum::header_residue(case.frame, &case.ip), checksum::header_residue(after, &ip));
        assert_eq!(before, now, "IPv4 header checksum");
    }
    let Some(at) = transport_check(case) else { return };
    let (old, new) = (check_at(case.frame, at), check_at(after, at));
    if matches!(case.transport, Transport::Udp { .. }) {
        assert_eq!(old == 0, new == 0, "no UDP checksum stays none, one stays one (RFC 768)");
        if old == 0 {
            return;
        }
    }
    let before = checksum::transport_residue(case.frame, &case.ip, case.end());
    let now = checksum::transport_residue(after, &ip, case.end());
    assert_eq!(before, now, "transport checksum");
}

/// A reply is translated back: the bytes are what they were.
fn and_back<A: Ip>(case: &Case<'_, A>, after: &[u8]) {
    let mut headers = case.headers;
    let ends = case.ends;
    (headers.ip.source, headers.ip.destination) = (ends.source, ends.destination);
    if transport_check(case).is_some() {
        (headers.source_port, headers.destination_port) = (ends.source_port, ends.destination_port);
    }
    let original = Ends::of(&case.headers);
    let (done, back) =
        buffer::with(after, 0, |packet| translate(packet, &headers, &original, false));
    assert_eq!(done, Some(()));
    let checks = checks(case);
    assert_same(&back, case.frame, &checks, "there and back");
    for at in checks {
        let (before, now) = (check_at(case.frame, at), check_at(&back, at));
        assert!(checksum::same(before, now), "there and back: {before:#x}, {now:#x}");
    }
}
