//! Answers built in place of the packet that caused them.

use super::checksum::Sum;
use super::{Headers, ICMP_HEADER, Ip, Packet, TCP_HEADER, View, flag, rewrite, tcp};
use crate::abi::{Be16, Be32, IPPROTO_TCP};

/// Bytes quoted behind the IP header (RFC 792).
const QUOTED: usize = 8;

/// Kinds of ICMP errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum IcmpKind {
    /// The TTL was used up on the way through.
    TimeExceeded,
    /// Too big for the next hop's MTU (RFC 1191 §4, RFC 4443 §3.2).
    TooBig,
    /// Nothing listens on that port.
    PortUnreachable,
}

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    kind: IcmpKind,
    mtu: u16,
}

impl IcmpError {
    /// An error; `mtu` in bytes for [`IcmpKind::TooBig`], else 0.
    #[inline(always)]
    pub const fn new(kind: IcmpKind, mtu: u16) -> Self {
        Self { kind, mtu }
    }

    /// Type and code.
    #[inline(always)]
    const fn type_code<A: Ip>(self) -> u16 {
        match (self.kind, A::VERSION) {
            (IcmpKind::TimeExceeded, 4) => 0x0b00,
            (IcmpKind::TooBig, 4) => 0x0304,
            (IcmpKind::PortUnreachable, 4) => 0x0303,
            (IcmpKind::TimeExceeded, _) => 0x0300,
            (IcmpKind::TooBig, _) => 0x0200,
            (IcmpKind::PortUnreachable, _) => 0x0104,
        }
    }
}

/// Turns a TCP segment into the RST that refuses it (RFC 9293 §3.10.7.1). `None` if there is no
/// room.
#[inline(always)]
pub fn refuse<A: Ip, P: Packet>(packet: &mut P, headers: &Headers<A>) -> Option<()> {
    let at = headers.network();
    if !packet.truncate(at + A::HEADER + TCP_HEADER) {
        return None;
    }
    turn_around(packet)?;
    let ends = (headers.ip.destination, headers.ip.source);
    A::write(packet, at, ends, IPPROTO_TCP, 0, TCP_HEADER as u16)?;
    let view: View<'_, TCP_HEADER> = packet.view(at + A::HEADER)?;
    // RFC 9293 §3.10.7.1: a segment with an acknowledgement is answered with its number.
    let (seq, ack, flags) = if headers.has(flag::ACK) {
        (headers.ack, 0, flag::RST)
    } else {
        (0, headers.end(), flag::RST | flag::ACK)
    };
    view.set_be16::<0>(headers.destination_port);
    view.set_be16::<2>(headers.source_port);
    view.set_be32::<{ tcp::SEQ }>(Be32::new(seq));
    view.set_be32::<{ tcp::ACK }>(Be32::new(ack));
    view.set_be16::<{ tcp::DATA_OFFSET }>(Be16::new(5 << 12 | u16::from(flags)));
    view.set_be32::<{ tcp::WINDOW }>(Be32(0));
    view.set_be16::<{ tcp::URGENT }>(Be16(0));
    view.set_be16::<{ tcp::CHECK }>(Be16(0));
    let check = view
        .sum()
        .add_address(headers.ip.source)
        .add_address(headers.ip.destination)
        .add16(Be16::new(u16::from(IPPROTO_TCP)).0)
        .add16(Be16::new(TCP_HEADER as u16).0)
        .check();
    view.set_be16::<{ tcp::CHECK }>(Be16(check));
    Some(())
}

/// Turns a packet into the ICMP error about it, sent by the packet's own destination and quoting
/// what the sender sent: left to the kernel, the error would quote a translated address.
/// `None` if there is no room.
#[inline(always)]
pub fn icmp_error<A: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    error: IcmpError,
) -> Option<()> {
    if A::VERSION == 4 {
        icmp::<A, P, 28>(packet, headers, error)
    } else {
        icmp::<A, P, 48>(packet, headers, error)
    }
}

/// Grows the packet by `GROWTH` bytes (IP and ICMP header) and quotes its IP header, options and
/// extensions included, and [`QUOTED`] bytes behind it: these every packet has that is answered.
#[inline(always)]
fn icmp<A: Ip, P: Packet, const GROWTH: usize>(
    packet: &mut P,
    headers: &Headers<A>,
    error: IcmpError,
) -> Option<()> {
    let at = headers.network();
    let quoted = usize::from(headers.ip.header) + QUOTED;
    let (dmac, smac) = rewrite::macs(packet)?;
    if !packet.truncate(at + quoted) {
        return None;
    }
    rewrite::grow::<GROWTH, P>(packet, at, (smac, dmac), A::ETHERTYPE)?;
    let len = (ICMP_HEADER + quoted) as u16;
    let ends = (headers.ip.destination, headers.ip.source);
    A::write(packet, at, ends, A::ICMP, 0, len)?;
    let (kind, rest) = (error.type_code::<A>(), u32::from(error.mtu));
    let quote: View<'_, GROWTH> = packet.view(at + GROWTH)?;
    let mut sum = quote.sum().add16(Be16::new(kind).0).add32(Be32::new(rest).0);
    // What options and extensions add to a plain header.
    for word in 0..A::MOST_OPTIONS / 4 {
        if GROWTH + word * 4 >= quoted {
            break;
        }
        let more: View<'_, 4> = packet.view(at + 2 * GROWTH + word * 4)?;
        sum = sum.add(more.sum());
    }
    if A::VERSION == 6 {
        // The pseudo-header (RFC 8200 §8.1).
        sum = sum
            .add_address(ends.0)
            .add_address(ends.1)
            .add16(Be16::new(len).0)
            .add16(Be16::new(u16::from(A::ICMP)).0);
    }
    let icmp: View<'_, ICMP_HEADER> = packet.view(at + A::HEADER)?;
    icmp.set_be16::<0>(Be16::new(kind));
    icmp.set_be16::<2>(Be16(sum.check()));
    icmp.set_be32::<4>(Be32::new(rest));
    Some(())
}

/// Sends the frame back where it came from.
#[inline(always)]
fn turn_around<P: Packet>(packet: &P) -> Option<()> {
    let (dmac, smac) = rewrite::macs(packet)?;
    rewrite::set_macs(packet, smac, dmac)
}

/// Turns a segment of the client into its RST towards the instance, at the same place of the stream:
/// for a connection that must not come to be although both ends have agreed on it.
#[inline(always)]
pub fn reset<A: Ip, P: Packet>(packet: &mut P, headers: &Headers<A>) -> Option<()> {
    let at = headers.transport() + tcp::DATA_OFFSET;
    let view: View<'_, 2> = packet.view(at)?;
    let old = view.be16::<0>();
    let new = Be16::new((old.get() & 0xf000) | u16::from(flag::RST | flag::ACK));
    view.set_be16::<0>(new);
    let change = Sum::zero().sub16(old.0).add16(new.0);
    packet.update_transport(headers.transport() + tcp::CHECK, Sum::zero(), change, false)
}
