//! Other ends for what an ICMP error quotes, and for the error.

use bytemuck::bytes_of;
use release_common::packet::Ip;
use release_common::packet::quote::{Quote, is_error, quote, translate_error};
use release_common::packet::rewrite::Ends;

use super::{Case, addresses, assert_same, check_at, ports};
use crate::{buffer, checksum, reference};

/// The quoted packet as the reference sees it.
struct Inner<'a> {
    ip: reference::Ip<'a>,
    transport: usize,
    /// Offset of the transport checksum, if the quote reaches as far.
    check: Option<usize>,
}

pub(super) fn check<A: Ip>(case: &Case<'_, A>) -> Option<u16> {
    // Fragments of errors are left alone.
    if !is_error(&case.headers) || case.ip.more {
        return None;
    }
    let (found, _) = buffer::with(case.frame, 0, |packet| quote(packet, &case.headers));
    let (Ok(found), Some((ip, transport))) = (found, reference::quote(case.frame, &case.ip)) else {
        return None;
    };
    let check = transport + if ip.protocol == 17 { 6 } else { 16 };
    let check = (check + 2 <= case.end()).then_some(check);
    let inner = Inner { ip, transport, check };
    // The error about what went from here to there comes from there to here.
    let quoted = Ends {
        source: case.ends.destination,
        destination: case.ends.source,
        source_port: case.ends.destination_port,
        destination_port: case.ends.source_port,
    };
    let outer = (case.ends.source, case.ends.destination);
    let mut udp = None;
    for routed in [false, true] {
        let (done, after) = buffer::with(case.frame, 0, |packet| {
            translate_error(packet, &case.headers, &found, &quoted, outer, routed)
        });
        assert_eq!(done, Some(()), "an error that was decoded can be translated");
        compare(case, &inner, &quoted, outer, &after, routed);
        if !routed {
            and_back(case, &inner, &found, &quoted, outer, &after);
        }
        udp = inner.check.filter(|_| inner.ip.protocol == 17).map(|at| check_at(&after, at));
    }
    udp.filter(|check| *check != 0)
}

/// Offsets of all checksums.
fn checks<A>(case: &Case<'_, A>, inner: &Inner<'_>) -> Vec<usize> {
    let mut checks = vec![case.ip.at + case.ip.header + 2];
    if case.ip.version == 4 {
        checks.extend([case.ip.at + checksum::IPV4, inner.ip.at + checksum::IPV4]);
    }
    checks.extend(inner.check);
    checks
}

fn compare<A: Ip>(
    case: &Case<'_, A>,
    inner: &Inner<'_>,
    quoted: &Ends<A>,
    outer: (A, A),
    after: &[u8],
    routed: bool,
) {
    let outside = addresses(&case.ip, &outer);
    let inside = addresses(&inner.ip, &(quoted.source, quoted.destination));
    let ports = ports(quoted);
    let mut fields: Vec<(usize, &[u8])> = Vec::new();
    fields.extend(outside.iter().chain(&inside).map(|(at, bytes)| (*at, &bytes[..])));
    fields.push((inner.transport, &ports));
    let expected = case.with(&fields, routed);
    assert_same(after, &expected, &checks(case, inner), "only ends and TTL change");

    let version = case.ip.version;
    let (Some(ip), Some(quote)) =
        (reference::ip(after, case.ip.at, version), reference::ip(after, inner.ip.at, version))
    else {
        panic!("translated headers are headers");
    };
    if version == 4 {
        let outer = |frame: &[u8], ip| checksum::header_residue(frame, ip);
        assert_eq!(outer(case.frame, &case.ip), outer(after, &ip), "outer IPv4 header");
        assert_eq!(outer(case.frame, &inner.ip), outer(after, &quote), "quoted IPv4 header");
    }
    let end = case.end();
    let before = checksum::transport_residue(case.frame, &case.ip, end);
    let now = checksum::transport_residue(after, &ip, end);
    assert_eq!(before, now, "ICMP checksum");

    let Some(at) = inner.check else { return };
    let (old, new) = (check_at(case.frame, at), check_at(after, at));
    if quote.protocol == 17 {
        assert_eq!(old == 0, new == 0, "a quoted UDP checksum stays, none stays none (RFC 768)");
        if old == 0 {
            return;
        }
    }
    // Mostly the quote is cut; what is there keeps its sum all the same.
    let before = checksum::transport_residue(case.frame, &inner.ip, end);
    let now = checksum::transport_residue(after, &quote, end);
    assert_eq!(before, now, "quoted transport checksum");
}

/// The same error on its way back.
fn and_back<A: Ip>(
    case: &Case<'_, A>,
    inner: &Inner<'_>,
    found: &Quote<A>,
    quoted: &Ends<A>,
    outer: (A, A),
    after: &[u8],
) {
    let mut headers = case.headers;
    (headers.ip.source, headers.ip.destination) = outer;
    let there = Quote { ends: *quoted, ..*found };
    let before = (case.headers.ip.source, case.headers.ip.destination);
    let (done, back) = buffer::with(after, 0, |packet| {
        translate_error(packet, &headers, &there, &found.ends, before, false)
    });
    assert_eq!(done, Some(()));
    let checks = checks(case, inner);
    assert_same(&back, case.frame, &checks, "there and back");
    for at in checks {
        let (old, new) = (check_at(case.frame, at), check_at(&back, at));
        assert!(checksum::same(old, new), "there and back: {old:#x}, {new:#x} at {at}");
    }
    assert_eq!(bytes_of(&found.ends.source), inner.ip.source);
}
