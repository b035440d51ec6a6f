//! Frames as they stand on the wire, and what a receiver checks of them.
//!
//! Everything here is computed the straightforward way, word by word over the whole frame, so that
//! it can judge the packet path's incremental arithmetic.

use std::net::{Ipv4Addr, SocketAddrV4};

/// TCP flags (RFC 9293 §3.1), as in `release_common::packet::flag`, with the two unused there.
pub mod flags {
    pub use release_common::packet::flag::{ACK, FIN, PSH, RST, SYN};
    /// The urgent pointer is valid.
    pub const URG: u8 = 0x20;
    /// Congestion notification echo (RFC 3168 §6.1).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// MAC of the side a frame comes from, unless changed.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC of the balancer's interface, unless changed.
pub const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// An Ethernet frame with an IPv4 TCP segment without IP options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Destination MAC.
    pub dmac: [u8; 6],
    /// Source MAC.
    pub smac: [u8; 6],
    /// Sender.
    pub source: SocketAddrV4,
    /// Receiver.
    pub destination: SocketAddrV4,
    /// Type of service.
    pub tos: u8,
    /// IP identification.
    pub ident: u16,
    /// "Don't fragment".
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// TCP options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

impl Tcp {
    /// A segment without data, TTL 64, "don't fragment".
    pub const fn new(source: SocketAddrV4, destination: SocketAddrV4, flags: u8) -> Self {
        Self {
            dmac: OWN_MAC,
            smac: PEER_MAC,
            source,
            destination,
            tos: 0,
            ident: 0x1234,
            dont_fragment: true,
            ttl: 64,
            seq: 0,
            ack: 0,
            flags,
            window: 0xfff0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// With these sequence and acknowledgement numbers.
    #[must_use]
    pub const fn numbers(mut self, seq: u32, ack: u32) -> Self {
        self.seq = seq;
        self.ack = ack;
        self
    }

    /// With `len` bytes of data.
    #[must_use]
    pub fn data(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|at| at as u8 ^ 0x5a).collect();
        self
    }

    /// The number after this segment.
    pub fn end(&self) -> u32 {
        let flags =
            u32::from(self.flags & flags::SYN != 0) + u32::from(self.flags & flags::FIN != 0);
        self.seq.wrapping_add(self.payload.len() as u32).wrapping_add(flags)
    }

    /// The frame, with correct lengths and checksums.
    pub fn build(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(20 + self.options.len() + self.payload.len());
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push((5 + self.options.len() as u8 / 4) << 4);
        tcp.push(self.flags);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        let check = pseudo_checksum(*self.source.ip(), *self.destination.ip(), 6, &tcp);
        tcp[16..18].copy_from_slice(&check.to_be_bytes());
        let header = Ipv4 {
            source: *self.source.ip(),
            destination: *self.destination.ip(),
            protocol: 6,
            tos: self.tos,
            ident: self.ident,
            fragment: if self.dont_fragment { 0x4000 } else { 0 },
            ttl: self.ttl,
            options: Vec::new(),
        };
        ethernet(self.dmac, self.smac, 0x0800, &header.build(&tcp))
    }
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub ident: u16,
    /// Fragment flags and offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
}

impl Ipv4 {
    /// A header without options, TTL 64.
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        let options = Vec::new();
        Self { source, destination, protocol, tos: 0, ident: 0, fragment: 0, ttl: 64, options }
    }

    /// The packet with this header.
    pub fn build(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut ip = vec![0x40 | (header / 4) as u8, self.tos];
        ip.extend(((header + payload.len()) as u16).to_be_bytes());
        ip.extend(self.ident.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.destination.octets());
        ip.extend(&self.options);
        let check = checksum(&ip);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        ip.extend(payload);
        ip
    }

    /// The frame with this header.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(OWN_MAC, PEER_MAC, 0x0800, &self.build(payload))
    }
}

/// An Ethernet frame.
pub fn ethernet(dmac: [u8; 6], smac: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(dmac);
    frame.extend(smac);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame with an 802.1Q tag.
pub fn vlan(frame: &[u8], id: u16) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &[0x81, 0], &id.to_be_bytes(), rest].concat()
}

/// The TCP frame's segment behind an IP header with options.
pub fn with_ip_options(tcp: &Tcp, options: &[u8]) -> Vec<u8> {
    let segment = tcp.build().split_off(34);
    let header = Ipv4::new(*tcp.source.ip(), *tcp.destination.ip(), 6);
    Ipv4 { options: options.to_vec(), ..header }.frame(&segment)
}

/// The TCP frame as an IP fragment with these flags and offset.
pub fn fragment(tcp: &Tcp, fragment: u16) -> Vec<u8> {
    let segment = tcp.build().split_off(34);
    let header = Ipv4::new(*tcp.source.ip(), *tcp.destination.ip(), 6);
    Ipv4 { fragment, ..header }.frame(&segment)
}

/// A UDP datagram.
pub fn udp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(source.port().to_be_bytes());
    udp.extend(destination.port().to_be_bytes());
    udp.extend(((8 + payload.len()) as u16).to_be_bytes());
    udp.extend([0; 2]);
    udp.extend(payload);
    let check = pseudo_checksum(*source.ip(), *destination.ip(), 17, &udp);
    udp[6..8].copy_from_slice(&check.to_be_bytes());
    Ipv4::new(*source.ip(), *destination.ip(), 17).frame(&udp)
}

/// An ICMP echo request.
pub fn icmp_echo(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4];
    let check = checksum(&icmp);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    Ipv4::new(source, destination, 1).frame(&icmp)
}

/// The ICMP error that a router at `frame`'s destination address sends about `frame`: RFC 792's
/// quote of the IP header and 8 bytes, from the balancer's MAC back to the sender's.
pub fn icmp_error(frame: &[u8], kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&frame[14..42]);
    let check = checksum(&icmp);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    let header = Ipv4 { fragment: 0x4000, ..Ipv4::new(address(30), address(26), 1) };
    let mut mac = [[0; 6]; 2];
    mac[0].copy_from_slice(&frame[6..12]);
    mac[1].copy_from_slice(&frame[..6]);
    ethernet(mac[0], mac[1], 0x0800, &header.build(&icmp))
}

/// An ARP request.
pub fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(PEER_MAC);
    arp.extend(sender.octets());
    arp.extend([0; 6]);
    arp.extend(target.octets());
    ethernet([0xff; 6], PEER_MAC, 0x0806, &arp)
}

/// A TCP SYN over IPv6, with these bytes between the IPv6 header and TCP.
pub fn ipv6(next_header: u8, extension: &[u8], port: u16) -> Vec<u8> {
    let mut tcp = vec![0x9c, 0x40];
    tcp.extend(port.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(((extension.len() + tcp.len()) as u16).to_be_bytes());
    ip.extend([next_header, 64]);
    ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    ip.extend(extension);
    ip.extend(&tcp);
    ethernet(OWN_MAC, PEER_MAC, 0x86dd, &ip)
}

/// Padded with zeros to Ethernet's smallest frame, as receivers see short packets.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Options of a SYN: MSS 1460, SACK, and a window scale if there is one (RFC 7323 §2.2).
pub fn syn_options(window_scale: Option<u8>) -> Vec<u8> {
    let mut options = vec![2, 4, 0x05, 0xb4, 4, 2, 1, 1];
    if let Some(scale) = window_scale {
        options.extend([1, 3, 3, scale]);
    }
    options
}

/// Internet checksum over all of `bytes` (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// Checksum of a TCP or UDP segment with its pseudo-header (RFC 9293 §3.1).
pub fn pseudo_checksum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut all = Vec::with_capacity(12 + bytes.len());
    all.extend(source.octets());
    all.extend(destination.octets());
    all.extend([0, protocol]);
    all.extend((bytes.len() as u16).to_be_bytes());
    all.extend(bytes);
    checksum(&all)
}

/// What a receiver checks of an IPv4 frame without options: header checksum, and the TCP or ICMP
/// checksum.
///
/// # Errors
/// What is wrong.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let Some(header) = frame.get(14..34) else { return Err("shorter than an IP header".into()) };
    if checksum(header) != 0 {
        return Err("IP header checksum".into());
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let Some(payload) = frame.get(34..14 + length) else { return Err("IP length".into()) };
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let check = match header[9] {
        1 => checksum(payload),
        protocol => pseudo_checksum(address(12), address(16), protocol, payload),
    };
    if check == 0 { Ok(()) } else { Err(format!("checksum of protocol {}", header[9])) }
}

/// Where an IPv4 TCP frame is going.
pub fn destination(frame: &[u8]) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]),
        u16::from_be_bytes([frame[36], frame[37]]),
    )
}
