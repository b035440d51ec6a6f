//! Answers built in place of the packet that caused them.

use super::checksum::Sum;
use super::{FRAME, Packet, Segment, View, flag, offset, rewrite};
use crate::abi::{Be16, Be32, IPPROTO_TCP};

/// IP header, ICMP header, and the quoted IP header with 8 bytes of TCP (RFC 792).
const ICMP_PACKET: u16 = 20 + 8 + 20 + 8;
const ICMP_FRAME: usize = offset::IP + ICMP_PACKET as usize;
const IPPROTO_ICMP: u8 = 1;
const ANSWER_TTL: u8 = 64;

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// Type 11 code 0: the TTL was used up on the way through.
    TimeExceeded,
    /// Type 3 code 4 with the next hop's MTU in bytes (RFC 1191 §4).
    FragmentationNeeded(u16),
}

/// Turns a SYN into the RST that refuses it (RFC 9293 §3.10.7.1). `None` if there is no room.
#[inline(always)]
pub fn refuse<P: Packet>(packet: &mut P, segment: &Segment) -> Option<()> {
    if !packet.truncate(FRAME) {
        return None;
    }
    let view: View<'_, FRAME> = packet.view(0)?;
    swap_macs(packet)?;
    ip_header(packet, 40, IPPROTO_TCP, segment.destination, segment.source)?;
    view.set_be16::<{ offset::SOURCE_PORT }>(segment.destination_port);
    view.set_be16::<{ offset::DESTINATION_PORT }>(segment.source_port);
    view.set_be32::<{ offset::SEQ }>(Be32(0));
    view.set_be32::<{ offset::ACK }>(Be32::new(segment.end()));
    view.set_be16::<{ offset::DATA_OFFSET }>(Be16::new(5 << 12 | u16::from(flag::RST | flag::ACK)));
    view.set_be32::<{ offset::WINDOW }>(Be32(0));
    view.set_be16::<{ offset::URGENT }>(Be16(0));
    let check = Sum::zero()
        .add32(segment.source.0)
        .add32(segment.destination.0)
        .add16(Be16::new(u16::from(IPPROTO_TCP)).0)
        .add16(Be16::new(20).0)
        .add32(view.be32::<{ offset::SOURCE_PORT }>().0)
        .add32(view.be32::<{ offset::ACK }>().0)
        .add16(view.be16::<{ offset::DATA_OFFSET }>().0)
        .check();
    view.set_be16::<{ offset::TCP_CHECK }>(Be16(check));
    Some(())
}

/// Turns a packet into the ICMP error about it, sent by the packet's own destination and quoting
/// what the sender sent: left to the kernel, the error would quote a translated address.
/// `None` if there is no room.
#[inline(always)]
pub fn icmp_error<P: Packet>(packet: &mut P, segment: &Segment, error: IcmpError) -> Option<()> {
    const GROWTH: usize = 28;
    if !packet.truncate(ICMP_FRAME - GROWTH) || !packet.move_head(-(GROWTH as i32)) {
        return None;
    }
    let view: View<'_, ICMP_FRAME> = packet.view(0)?;
    let (dmac, smac) = (view.mac::<{ GROWTH + 6 }>(), view.mac::<GROWTH>());
    rewrite::set_macs(packet, dmac, smac)?;
    view.set_be16::<{ offset::ETHERTYPE }>(Be16::new(0x0800));
    ip_header(packet, ICMP_PACKET, IPPROTO_ICMP, segment.destination, segment.source)?;
    let (kind, rest) = match error {
        IcmpError::TimeExceeded => (0x0b00, 0),
        IcmpError::FragmentationNeeded(mtu) => (0x0304, mtu),
    };
    view.set_be16::<34>(Be16::new(kind));
    view.set_be16::<38>(Be16(0));
    view.set_be16::<40>(Be16::new(rest));
    let check = Sum::zero()
        .add16(Be16::new(kind).0)
        .add16(Be16::new(rest).0)
        .add32(view.be32::<42>().0)
        .add32(view.be32::<46>().0)
        .add32(view.be32::<50>().0)
        .add32(view.be32::<54>().0)
        .add32(view.be32::<58>().0)
        .add32(view.be32::<62>().0)
        .add32(view.be32::<66>().0)
        .check();
    view.set_be16::<36>(Be16(check));
    Some(())
}

/// Writes a fresh IPv4 header without options behind the Ethernet header.
#[inline(always)]
fn ip_header<P: Packet>(packet: &P, len: u16, protocol: u8, from: Be32, to: Be32) -> Option<()> {
    let view: View<'_, 34> = packet.view(0)?;
    let words = [0x4500, len, 0, 0x4000, u16::from(ANSWER_TTL) << 8 | u16::from(protocol)];
    view.set_be16::<{ offset::IP }>(Be16::new(words[0]));
    view.set_be16::<{ offset::TOTAL_LEN }>(Be16::new(words[1]));
    view.set_be16::<{ offset::IDENT }>(Be16::new(words[2]));
    view.set_be16::<{ offset::FRAGMENT }>(Be16::new(words[3]));
    view.set_be16::<{ offset::TTL }>(Be16::new(words[4]));
    view.set_be32::<{ offset::SOURCE }>(from);
    view.set_be32::<{ offset::DESTINATION }>(to);
    let check = Sum::zero()
        .add16(Be16::new(words[0]).0)
        .add16(Be16::new(words[1]).0)
        .add16(Be16::new(words[3]).0)
        .add16(Be16::new(words[4]).0)
        .add32(from.0)
        .add32(to.0)
        .check();
    view.set_be16::<{ offset::IP_CHECK }>(Be16(check));
    Some(())
}

/// Sends the frame back where it came from.
#[inline(always)]
fn swap_macs<P: Packet>(packet: &P) -> Option<()> {
    let view: View<'_, 12> = packet.view(0)?;
    let (dmac, smac) = (view.mac::<{ offset::SMAC }>(), view.mac::<{ offset::DMAC }>());
    rewrite::set_macs(packet, dmac, smac)
}
