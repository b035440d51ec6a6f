//! ICMP errors and the packets they quote.

use super::checksum::Sum;
use super::rewrite::Ends;
use super::{Headers, ICMP_HEADER, Ip, Packet, UDP_CHECK, View, tcp};
use crate::abi::{Be16, IPPROTO_TCP, IPPROTO_UDP};
use crate::reason::Reason;
use crate::verifier::forget;

/// More than any offset of a quoted transport header, for the verifier.
const QUOTE_MASK: u16 = 0x3ff;
/// Offset of the checksum in an ICMP header.
const ICMP_CHECK: usize = 2;
/// Bytes of the quoted transport header that are always there (RFC 792).
const QUOTED: usize = 8;

/// The packet that an ICMP error quotes. Often only its first 8 bytes behind the IP header are
/// there (RFC 792).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote<A> {
    /// Its ends, as its sender sent it.
    pub ends: Ends<A>,
    /// Its protocol, TCP or UDP.
    pub protocol: u8,
    /// Offset of its IP header in the frame.
    pub at: u16,
    /// Offset of its transport header in the frame.
    pub transport: u16,
}

/// Whether a packet is an ICMP error (RFC 792; RFC 4443 §2.1: types below 128), and one that tells
/// of a packet's fate: redirects and source quenches are for the host itself.
#[inline(always)]
pub fn is_error<A: Ip>(headers: &Headers<A>) -> bool {
    // Unreachable, time exceeded, parameter problem; for IPv6 packet too big too.
    headers.ip.protocol == A::ICMP
        && if A::VERSION == 4 {
            matches!(headers.flags, 3 | 11 | 12)
        } else {
            matches!(headers.flags, 1..=4)
        }
}

/// Reads what an ICMP error quotes.
///
/// # Errors
/// The reason to leave the packet alone.
#[inline(always)]
pub fn quote<A: Ip, P: Packet>(packet: &P, headers: &Headers<A>) -> Result<Quote<A>, Reason> {
    let at = headers.transport() + ICMP_HEADER;
    let ip = A::read(packet, at)?;
    if !matches!(ip.protocol, IPPROTO_TCP | IPPROTO_UDP) {
        return Err(Reason::NotOurProtocol);
    }
    if ip.fragment.is_later() {
        return Err(Reason::FragmentUnknown);
    }
    let transport =
        forget((at + usize::from(ip.header)) as u64, u64::from(ip.len)) as u16 & QUOTE_MASK;
    if usize::from(transport) + QUOTED > end(headers) {
        return Err(Reason::Truncated);
    }
    let ports: View<'_, QUOTED> = packet.view(usize::from(transport)).ok_or(Reason::Truncated)?;
    Ok(Quote {
        ends: Ends {
            source: ip.source,
            destination: ip.destination,
            source_port: ports.be16::<0>(),
            destination_port: ports.be16::<2>(),
        },
        protocol: ip.protocol,
        at: at as u16,
        transport,
    })
}

/// Where the error ends in the frame. What lies behind is padding, and under no checksum.
#[inline(always)]
const fn end<A: Ip>(headers: &Headers<A>) -> usize {
    headers.at as usize + headers.ip.len as usize
}

/// Gives the quoted packet other ends and the error other addresses, all checksums included; lowers
/// the TTL of the error if it is sent on by us. `None` if the frame is too short.
#[inline(always)]
pub fn translate_error<A: Ip, P: Packet>(
    packet: &P,
    headers: &Headers<A>,
    quote: &Quote<A>,
    inner: &Ends<A>,
    outer: (A, A),
    routed: bool,
) -> Option<()> {
    let addresses = inner.address_change(&quote.ends);
    let ports = inner.port_change(&quote.ends);
    let mut change = addresses.add(ports);
    let at = usize::from(quote.at & QUOTE_MASK);
    if A::VERSION == 4 {
        let check: View<'_, 2> = packet.view(at + 10)?;
        let (old, new) = updated(&check, addresses, false);
        change = change.sub16(old).add16(new);
    }
    let transport = usize::from(quote.transport & QUOTE_MASK);
    let check_at = transport + if quote.protocol == IPPROTO_UDP { UDP_CHECK } else { tcp::CHECK };
    // Often the quote ends before it.
    if check_at + 2 <= end(headers)
        && let Some(check) = packet.view::<2>(check_at)
        && (quote.protocol == IPPROTO_TCP || check.be16::<0>().0 != 0)
    {
        let (old, new) = updated(&check, addresses.add(ports), quote.protocol == IPPROTO_UDP);
        change = change.sub16(old).add16(new);
    }
    let view: View<'_, 4> = packet.view(transport)?;
    view.set_be16::<0>(inner.source_port);
    view.set_be16::<2>(inner.destination_port);
    if A::VERSION == 4 {
        let view: View<'_, 8> = packet.view(at + 12)?;
        view.set_be32::<0>(crate::abi::Be32(inner.source.words()[0]));
        view.set_be32::<4>(crate::abi::Be32(inner.destination.words()[0]));
    } else {
        let view: View<'_, 32> = packet.view(at + 8)?;
        view.set_addr6::<0>(crate::abi::Addr6(inner.source.words()));
        view.set_addr6::<16>(crate::abi::Addr6(inner.destination.words()));
    }
    let outside = Sum::zero()
        .sub_address(headers.ip.source)
        .sub_address(headers.ip.destination)
        .add_address(outer.0)
        .add_address(outer.1);
    // ICMPv6 covers the addresses of its IP header (RFC 4443 §2.3), ICMP does not.
    let change = if A::VERSION == 6 { change.add(outside) } else { change };
    updated(&packet.view(headers.transport() + ICMP_CHECK)?, change, false);
    let ttl = if routed { Some(headers.ip.ttl.wrapping_sub(1)) } else { None };
    A::rewrite(packet, headers.network(), outside, outer, ttl)
}

/// Updates a checksum and returns it before and after. In UDP, 0 would say that there is none
/// (RFC 768).
#[inline(always)]
fn updated(check: &View<'_, 2>, change: Sum, udp: bool) -> (u16, u16) {
    let old = check.be16::<0>().0;
    let new = Sum::of(old).add(change).check();
    let new = if udp && new == 0 { 0xffff } else { new };
    check.set_be16::<0>(Be16(new));
    (old, new)
}
