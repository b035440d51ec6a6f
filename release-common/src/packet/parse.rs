//! From bytes to a [`Segment`], or to the reason why the packet is none of ours.

use super::{Packet, View};
use crate::abi::{Be16, Be32, FlowKey4, IPPROTO_TCP};
use crate::reason::Reason;
use crate::verifier::forget;

/// Bytes of an Ethernet, IPv4 and TCP header without options.
pub const FRAME: usize = 54;

const ETHERTYPE_IPV4: u16 = 0x0800;
/// "More fragments" and the fragment offset (RFC 791 §3.1).
const FRAGMENT_BITS: u16 = 0x3fff;
/// "Don't fragment".
const DONT_FRAGMENT: u16 = 0x4000;
const IP_HEADER: u16 = 20;
const TCP_HEADER: u16 = 20;
/// Largest shift a window scale option may ask for (RFC 7323 §2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// Offsets into a frame.
pub mod offset {
    use core::mem::offset_of;

    use network_types::eth::EthHdr;
    use network_types::ip::Ipv4Hdr;
    use network_types::tcp::TcpHdr;

    /// Destination MAC.
    pub const DMAC: usize = offset_of!(EthHdr, dst_addr);
    /// Source MAC.
    pub const SMAC: usize = offset_of!(EthHdr, src_addr);
    /// EtherType.
    pub const ETHERTYPE: usize = offset_of!(EthHdr, ether_type);
    /// IPv4 header.
    pub const IP: usize = EthHdr::LEN;
    /// IPv4: type of service.
    pub const TOS: usize = IP + offset_of!(Ipv4Hdr, tos);
    /// IPv4: total length.
    pub const TOTAL_LEN: usize = IP + offset_of!(Ipv4Hdr, tot_len);
    /// IPv4: identification.
    pub const IDENT: usize = IP + offset_of!(Ipv4Hdr, id);
    /// IPv4: flags and fragment offset.
    pub const FRAGMENT: usize = IP + offset_of!(Ipv4Hdr, frags);
    /// IPv4: time to live; the protocol follows.
    pub const TTL: usize = IP + offset_of!(Ipv4Hdr, ttl);
    /// IPv4: protocol.
    pub const PROTOCOL: usize = IP + offset_of!(Ipv4Hdr, proto);
    /// IPv4: header checksum.
    pub const IP_CHECK: usize = IP + offset_of!(Ipv4Hdr, check);
    /// IPv4: source address.
    pub const SOURCE: usize = IP + offset_of!(Ipv4Hdr, src_addr);
    /// IPv4: destination address.
    pub const DESTINATION: usize = IP + offset_of!(Ipv4Hdr, dst_addr);
    /// TCP header.
    pub const TCP: usize = IP + Ipv4Hdr::LEN;
    /// TCP: source port.
    pub const SOURCE_PORT: usize = TCP + offset_of!(TcpHdr, source);
    /// TCP: destination port.
    pub const DESTINATION_PORT: usize = TCP + offset_of!(TcpHdr, dest);
    /// TCP: sequence number.
    pub const SEQ: usize = TCP + offset_of!(TcpHdr, seq);
    /// TCP: acknowledgement number.
    pub const ACK: usize = TCP + offset_of!(TcpHdr, ack_seq);
    /// TCP: header length in the upper four bits.
    pub const DATA_OFFSET: usize = TCP + 12;
    /// TCP: flags.
    pub const FLAGS: usize = TCP + 13;
    /// TCP: window.
    pub const WINDOW: usize = TCP + offset_of!(TcpHdr, window);
    /// TCP: checksum.
    pub const TCP_CHECK: usize = TCP + offset_of!(TcpHdr, check);
    /// TCP: urgent pointer.
    pub const URGENT: usize = TCP + offset_of!(TcpHdr, urg_ptr);
}

/// TCP flags (RFC 9293 §3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// The fields of an IPv4 TCP segment that the packet path uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window as it stands in the header, unscaled.
    pub window: u16,
    /// Flags, see [`flag`].
    pub flags: u8,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Whether the packet must not be fragmented.
    pub dont_fragment: bool,
    /// Length of the IP packet in bytes.
    pub ip_len: u16,
    /// Length of the TCP header in bytes, 20 to 60.
    pub tcp_header: u16,
}

impl Segment {
    /// Bytes of data.
    #[inline(always)]
    pub const fn payload(&self) -> u32 {
        (self.ip_len - IP_HEADER - self.tcp_header) as u32
    }

    /// Whether all the flags in `mask` are set.
    #[inline(always)]
    pub const fn has(&self, mask: u8) -> bool {
        self.flags & mask == mask
    }

    /// The number after this segment: data, SYN and FIN take their place (RFC 9293 §3.4).
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        let mut len = self.payload();
        if self.has(flag::SYN) {
            len += 1;
        }
        if self.has(flag::FIN) {
            len += 1;
        }
        self.seq.wrapping_add(len)
    }

    /// The flow's key if this segment comes from the client.
    #[inline(always)]
    pub const fn key_from_client(&self) -> FlowKey4 {
        FlowKey4::tcp(self.source, self.source_port, self.destination, self.destination_port)
    }
}

/// Decodes an IPv4 TCP segment.
///
/// # Errors
/// The reason to pass the packet on untouched: something this program does not handle, or lengths
/// that contradict each other or the frame.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<Segment, Reason> {
    let ip: View<'_, 34> = packet.view(0).ok_or(Reason::Truncated)?;
    if ip.be16::<{ offset::ETHERTYPE }>() != Be16::new(ETHERTYPE_IPV4) {
        return Err(Reason::NotIpv4);
    }
    let version_length = ip.u8::<{ offset::IP }>();
    if version_length != 0x45 {
        return Err(match version_length {
            0x46..=0x4f => Reason::IpOptions,
            _ => Reason::BadLength,
        });
    }
    if ip.u8::<{ offset::PROTOCOL }>() != IPPROTO_TCP {
        return Err(Reason::NotTcp);
    }
    let fragment = ip.be16::<{ offset::FRAGMENT }>().get();
    if fragment & FRAGMENT_BITS != 0 {
        return Err(Reason::Fragment);
    }
    let view: View<'_, FRAME> = packet.view(0).ok_or(Reason::Truncated)?;
    let ip_len = view.be16::<{ offset::TOTAL_LEN }>().get();
    let tcp_header = u16::from(view.u8::<{ offset::DATA_OFFSET }>() >> 4) * 4;
    if tcp_header < TCP_HEADER || ip_len < IP_HEADER + tcp_header {
        return Err(Reason::BadLength);
    }
    if !packet.holds(usize::from(ip_len) + offset::IP) {
        return Err(Reason::Truncated);
    }
    Ok(Segment {
        source: view.be32::<{ offset::SOURCE }>(),
        destination: view.be32::<{ offset::DESTINATION }>(),
        source_port: view.be16::<{ offset::SOURCE_PORT }>(),
        destination_port: view.be16::<{ offset::DESTINATION_PORT }>(),
        seq: view.be32::<{ offset::SEQ }>().get(),
        ack: view.be32::<{ offset::ACK }>().get(),
        window: view.be16::<{ offset::WINDOW }>().get(),
        flags: view.u8::<{ offset::FLAGS }>(),
        ttl: view.u8::<{ offset::TTL }>(),
        tos: view.u8::<{ offset::TOS }>(),
        dont_fragment: fragment & DONT_FRAGMENT != 0,
        ip_len,
        tcp_header,
    })
}

/// The window scale option of a SYN (RFC 7323 §2.2), `None` if it has none.
#[inline(always)]
pub fn window_scale<P: Packet>(packet: &P, segment: &Segment) -> Option<u8> {
    /// Options looked at. Those of real stacks stand among the first five.
    const LOOKED_AT: usize = 10;
    let end = u64::from(segment.tcp_header) - u64::from(TCP_HEADER);
    let mut at = 0;
    for _ in 0..LOOKED_AT {
        if at >= end {
            return None;
        }
        // The option sought has three bytes, so what begins later is of no interest.
        let option: View<'_, 3> = packet.view(FRAME + at as usize)?;
        let kind = option.u8::<0>();
        let len = u64::from(option.u8::<1>());
        match kind {
            0 => return None,
            3 => {
                let scale = option.u8::<2>();
                return Some(if scale > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { scale });
            }
            _ => {}
        }
        // Kind 1 is a single byte; any other has a length of two at least.
        let step = if kind == 1 { 1 } else { len };
        if step == 0 {
            return None;
        }
        // The header has at most 40 bytes of options: what points beyond leads nowhere. The mask is
        // the bound that the verifier needs.
        at = forget(at + step, u64::from(segment.seq));
        if at > 63 {
            return None;
        }
        at &= 63;
    }
    None
}
