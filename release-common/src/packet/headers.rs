//! From bytes to [`Headers`], or to the reason why the packet is none of ours.

use super::ip::{Fragment, Ip, IpHeader};
use super::{Packet, View};
use crate::abi::{Be16, Endpoint, FlowKey, FragmentKey, IPPROTO_TCP, IPPROTO_UDP};
use crate::reason::Reason;
use crate::verifier::forget;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an Ethernet header with one VLAN tag (IEEE 802.1Q).
pub const TAGGED: usize = 18;
/// Bytes of a TCP header without options.
pub const TCP_HEADER: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Bytes of an ICMP header.
pub const ICMP_HEADER: usize = 8;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// More than any offset of an IP header.
const NETWORK_MASK: usize = 31;
/// More than any offset of a transport header: Ethernet with a tag, IPv6, extensions.
const OFFSET_MASK: u64 = 0x1ff;

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

/// Offsets into a TCP header.
pub mod tcp {
    use core::mem::offset_of;

    use network_types::tcp::TcpHdr;

    /// Source port; the destination port follows.
    pub const PORTS: usize = offset_of!(TcpHdr, source);
    /// Sequence number.
    pub const SEQ: usize = offset_of!(TcpHdr, seq);
    /// Acknowledgement number.
    pub const ACK: usize = offset_of!(TcpHdr, ack_seq);
    /// Header length in the upper four bits.
    pub const DATA_OFFSET: usize = 12;
    /// Flags.
    pub const FLAGS: usize = 13;
    /// Window.
    pub const WINDOW: usize = offset_of!(TcpHdr, window);
    /// Checksum.
    pub const CHECK: usize = offset_of!(TcpHdr, check);
    /// Urgent pointer.
    pub const URGENT: usize = offset_of!(TcpHdr, urg_ptr);
}

/// Offset of the checksum in a UDP header.
pub const UDP_CHECK: usize = 6;

/// What the Ethernet header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// EtherType behind the VLAN tag, if there is one.
    pub ethertype: u16,
    /// Bytes before the IP header: [`ETHERNET`] or [`TAGGED`].
    pub len: u16,
}

/// Reads the Ethernet header.
///
/// # Errors
/// The frame is too short.
#[inline(always)]
pub fn link<P: Packet>(packet: &P) -> Result<Link, Reason> {
    let view: View<'_, ETHERNET> = packet.view(0).ok_or(Reason::Truncated)?;
    let ethertype = view.be16::<12>().get();
    if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
        return Ok(Link { ethertype, len: ETHERNET as u16 });
    }
    let view: View<'_, TAGGED> = packet.view(0).ok_or(Reason::Truncated)?;
    Ok(Link { ethertype: view.be16::<16>().get(), len: TAGGED as u16 })
}

/// The fields of a packet that the packet path uses. Those of a transport that the packet does not
/// have are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<A> {
    /// The IP header.
    pub ip: IpHeader<A>,
    /// Offset of the IP header in the frame, see [`Self::network`].
    pub at: u16,
    /// Source port. ICMP: 0.
    pub source_port: Be16,
    /// Destination port. ICMP: 0.
    pub destination_port: Be16,
    /// TCP: sequence number.
    pub seq: u32,
    /// TCP: acknowledgement number.
    pub ack: u32,
    /// TCP: window as it stands in the header, unscaled.
    pub window: u16,
    /// TCP: length of the header in bytes, 20 to 60. UDP: 8.
    pub transport_header: u16,
    /// TCP: flags, see [`flag`]. ICMP: type.
    pub flags: u8,
    /// ICMP: code.
    pub code: u8,
}

impl<A: Ip> Headers<A> {
    /// Offset of the IP header in the frame. The mask is the bound that the verifier needs when the
    /// headers come from a map.
    #[inline(always)]
    pub const fn network(&self) -> usize {
        self.at as usize & NETWORK_MASK
    }

    /// Offset of the transport header in the frame.
    #[inline(always)]
    pub const fn transport(&self) -> usize {
        ((self.at as u64 + self.ip.header as u64) & OFFSET_MASK) as usize
    }

    /// Bytes of the IP packet in this frame behind the IP header.
    #[inline(always)]
    pub const fn ip_payload(&self) -> u32 {
        self.ip.len - self.ip.header as u32
    }

    /// Bytes of data behind the transport header.
    #[inline(always)]
    pub const fn payload(&self) -> u32 {
        self.ip_payload().wrapping_sub(self.transport_header as u32)
    }

    /// Whether all the TCP flags in `mask` are set.
    #[inline(always)]
    pub const fn has(&self, mask: u8) -> bool {
        self.flags & mask == mask
    }

    /// Whether it is TCP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.ip.protocol == IPPROTO_TCP
    }

    /// Whether this frame holds the first part of a fragmented packet.
    #[inline(always)]
    pub const fn is_first_fragment(&self) -> bool {
        self.ip.fragment.is_first()
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

    /// Where it comes from.
    #[inline(always)]
    pub const fn source(&self) -> Endpoint<A> {
        Endpoint { addr: self.ip.source, port: self.source_port, proto: self.ip.protocol, pad: 0 }
    }

    /// Where it goes.
    #[inline(always)]
    pub const fn destination(&self) -> Endpoint<A> {
        Endpoint {
            addr: self.ip.destination,
            port: self.destination_port,
            proto: self.ip.protocol,
            pad: 0,
        }
    }

    /// The flow's key if this packet comes from the client.
    #[inline(always)]
    pub const fn key_from_client(&self) -> FlowKey<A> {
        FlowKey {
            client: self.ip.source,
            frontend: self.ip.destination,
            client_port: self.source_port,
            frontend_port: self.destination_port,
            proto: self.ip.protocol,
            pad: 0,
            pad_end: 0,
        }
    }

    /// What its fragments have in common. In IPv6 not the protocol: what follows the fragment header
    /// may be an extension header, behind which only the first fragment can look (RFC 8200 §4.5).
    #[inline(always)]
    pub const fn fragment_key(&self) -> FragmentKey<A> {
        FragmentKey {
            source: self.ip.source,
            destination: self.ip.destination,
            ident: self.ip.ident,
            proto: if A::VERSION == 4 { self.ip.protocol } else { 0 },
            pad: 0,
            pad_end: 0,
        }
    }
}

/// Decodes the packet behind the Ethernet header.
///
/// # Errors
/// The reason to pass the packet on untouched: something this program does not handle, or lengths
/// that contradict each other or the frame.
#[inline(always)]
pub fn parse<A: Ip, P: Packet>(packet: &P, link: Link) -> Result<Headers<A>, Reason> {
    let mut ip = A::read(packet, usize::from(link.len))?;
    // Where exactly it starts is of no interest to the verifier.
    let unknown = u64::from(ip.ident) ^ u64::from(ip.len);
    ip.header = forget(u64::from(ip.header), unknown) as u16;
    let at = forget(u64::from(link.len), unknown) as u16 & NETWORK_MASK as u16;
    if !packet.holds(at as usize + ip.len as usize) {
        return Err(Reason::Truncated);
    }
    let mut headers = Headers {
        ip,
        at,
        source_port: Be16(0),
        destination_port: Be16(0),
        seq: 0,
        ack: 0,
        window: 0,
        transport_header: 0,
        flags: 0,
        code: 0,
    };
    if ip.fragment.is_later() {
        return Ok(headers);
    }
    let payload = headers.ip_payload();
    if ip.protocol == IPPROTO_TCP {
        let view: View<'_, TCP_HEADER> =
            packet.view(headers.transport()).ok_or(Reason::Truncated)?;
        let header = u16::from(view.u8::<{ tcp::DATA_OFFSET }>() >> 4) * 4;
        if usize::from(header) < TCP_HEADER || payload < u32::from(header) {
            return Err(Reason::BadLength);
        }
        headers.source_port = view.be16::<0>();
        headers.destination_port = view.be16::<2>();
        headers.seq = view.be32::<{ tcp::SEQ }>().get();
        headers.ack = view.be32::<{ tcp::ACK }>().get();
        headers.window = view.be16::<{ tcp::WINDOW }>().get();
        headers.flags = view.u8::<{ tcp::FLAGS }>();
        headers.transport_header = header;
    } else if ip.protocol == IPPROTO_UDP {
        let view: View<'_, UDP_HEADER> =
            packet.view(headers.transport()).ok_or(Reason::Truncated)?;
        let len = u32::from(view.be16::<4>().get());
        let whole = ip.fragment == Fragment::WHOLE;
        if payload < UDP_HEADER as u32 || len < UDP_HEADER as u32 || whole && len > payload {
            return Err(Reason::BadLength);
        }
        headers.source_port = view.be16::<0>();
        headers.destination_port = view.be16::<2>();
        headers.transport_header = UDP_HEADER as u16;
    } else if ip.protocol == A::ICMP {
        // Else padding behind the packet would be taken for it.
        if payload < ICMP_HEADER as u32 {
            return Err(Reason::BadLength);
        }
        let view: View<'_, 2> = packet.view(headers.transport()).ok_or(Reason::Truncated)?;
        headers.flags = view.u8::<0>();
        headers.code = view.u8::<1>();
    } else {
        return Err(Reason::NotOurProtocol);
    }
    Ok(headers)
}
