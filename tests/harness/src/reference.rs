//! A slow decoder in plain code, written from the RFCs and independent of the one it checks. The
//! limits of that one (how far it looks through options and extension headers) are repeated here,
//! since they are promises too.

/// An IP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip<'a> {
    /// 4 or 6.
    pub version: u8,
    /// Offset in the frame.
    pub at: usize,
    /// Bytes of header, options and extension headers included.
    pub header: usize,
    /// Bytes of the packet, header included.
    pub len: usize,
    /// What follows the header.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
    /// Whether more fragments follow.
    pub more: bool,
    /// Bytes of the datagram before this part.
    pub offset: u16,
    /// The field's bytes, in memory order. 0 without an IPv6 fragment header.
    pub ident: u32,
    /// Source address.
    pub source: &'a [u8],
    /// Destination address.
    pub destination: &'a [u8],
}

/// A TCP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Unscaled window.
    pub window: u16,
    /// Bytes of the header.
    pub header: usize,
    /// The lower eight flags.
    pub flags: u8,
    /// Shift count of the window scale option.
    pub scale: Option<u8>,
}

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// The header is in another fragment.
    Elsewhere,
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// ICMP of the packet's family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// EtherType and length of the Ethernet header, one VLAN tag included.
pub fn link(frame: &[u8]) -> Option<(u16, usize)> {
    match be16(frame, 12)? {
        0x8100 | 0x88a8 => Some((be16(frame, 16)?, 18)),
        ethertype => Some((ethertype, 14)),
    }
}

/// The whole packet of a frame, in the family that its EtherType names.
pub fn decode(frame: &[u8]) -> Option<(Ip<'_>, Transport)> {
    match link(frame)? {
        (0x0800, at) => packet(frame, at, 4),
        (0x86dd, at) => packet(frame, at, 6),
        _ => None,
    }
}

/// The packet of a family at `at`, if it is complete and consistent.
pub fn packet(frame: &[u8], at: usize, version: u8) -> Option<(Ip<'_>, Transport)> {
    let ip = ip(frame, at, version)?;
    let payload = frame.get(at..at + ip.len)?.get(ip.header..)?;
    if ip.offset != 0 {
        return Some((ip, Transport::Elsewhere));
    }
    let transport = match (ip.protocol, version) {
        (6, _) => Transport::Tcp(tcp(payload)?),
        (17, _) => {
            let len = usize::from(be16(payload, 4)?);
            payload.get(..8)?;
            if len < 8 || !ip.more && len > payload.len() {
                return None;
            }
            Transport::Udp { ports: (be16(payload, 0)?, be16(payload, 2)?) }
        }
        (1, 4) | (58, 6) => {
            payload.get(..8)?;
            Transport::Icmp { kind: payload[0], code: payload[1] }
        }
        _ => return None,
    };
    Some((ip, transport))
}

/// An IP header alone; what it announces need not be there.
pub fn ip(bytes: &[u8], at: usize, version: u8) -> Option<Ip<'_>> {
    let bytes = bytes.get(at..)?;
    if bytes.first()? >> 4 != version {
        return None;
    }
    if version == 4 { ip4(bytes, at) } else { ip6(bytes, at) }
}

/// RFC 791 §3.1.
fn ip4(bytes: &[u8], at: usize) -> Option<Ip<'_>> {
    let header = usize::from(bytes[0] & 15) * 4;
    let fixed = bytes.get(..20)?;
    let len = usize::from(be16(fixed, 2)?);
    if header < 20 || len < header {
        return None;
    }
    let fragment = be16(fixed, 6)?;
    Some(Ip {
        version: 4,
        at,
        header,
        len,
        protocol: fixed[9],
        ttl: fixed[8],
        tos: fixed[1],
        dont_fragment: fragment & 0x4000 != 0,
        more: fragment & 0x2000 != 0,
        offset: (fragment & 0x1fff) * 8,
        ident: u16::from_ne_bytes([fixed[4], fixed[5]]).into(),
        source: &fixed[12..16],
        destination: &fixed[16..20],
    })
}

/// RFC 8200 §3, §4: at most four extension headers of 255 bytes in all.
fn ip6(bytes: &[u8], at: usize) -> Option<Ip<'_>> {
    let fixed = bytes.get(..40)?;
    let mut ip = Ip {
        version: 6,
        at,
        header: 40,
        len: 40 + usize::from(be16(fixed, 4)?),
        protocol: fixed[6],
        ttl: fixed[7],
        tos: fixed[0] << 4 | fixed[1] >> 4,
        dont_fragment: true,
        more: false,
        offset: 0,
        ident: 0,
        source: &fixed[8..24],
        destination: &fixed[24..40],
    };
    let mut extensions = 0;
    while ip.offset == 0 && matches!(ip.protocol, 0 | 43 | 44 | 60) {
        let extension = bytes.get(ip.header..)?.get(..8)?;
        extensions += 1;
        if extensions > 4 || ip.protocol == 43 && extension[3] != 0 {
            return None;
        }
        if ip.protocol == 44 {
            let bits = be16(extension, 2)?;
            (ip.offset, ip.more) = (bits & !7, bits & 1 == 1);
            ip.ident = u32::from_ne_bytes(extension[4..].try_into().ok()?);
            ip.header += 8;
        } else {
            ip.header += 8 + 8 * usize::from(extension[1]);
        }
        ip.protocol = extension[0];
        if ip.header > 40 + 255 {
            return None;
        }
    }
    (ip.header <= ip.len).then_some(ip)
}

/// RFC 9293 §3.1.
fn tcp(segment: &[u8]) -> Option<Tcp> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let options = segment.get(..header)?.get(20..)?;
    Some(Tcp {
        ports: (be16(segment, 0)?, be16(segment, 2)?),
        seq: be32(segment, 4)?,
        ack: be32(segment, 8)?,
        window: be16(segment, 14)?,
        header,
        flags: segment[13],
        scale: scale(options),
    })
}

/// RFC 7323 §2.2, among the first ten options. Like real stacks: an option that is shorter than two
/// bytes or longer than the header ends the search.
fn scale(mut options: &[u8]) -> Option<u8> {
    for _ in 0..10 {
        let len = match options.first()? {
            0 => return None,
            1 => 1,
            _ => usize::from(*options.get(1)?),
        };
        let (option, rest) = options.split_at_checked(len)?;
        match option {
            [3, 3, shift] => return Some((*shift).min(14)),
            [1] | [_, _, ..] => options = rest,
            _ => return None,
        }
    }
    None
}

/// Whether type and protocol are those of an ICMP error that is about a packet's fate.
pub fn is_error(ip: &Ip<'_>, kind: u8) -> bool {
    match ip.version {
        4 => ip.protocol == 1 && [3, 11, 12].contains(&kind),
        _ => ip.protocol == 58 && [1, 2, 3, 4].contains(&kind),
    }
}

/// The TCP or UDP packet that an ICMP message quotes, and the offset of its transport header: IP
/// header and 8 bytes at least (RFC 792), all of it inside the message.
pub fn quote<'a>(frame: &'a [u8], outer: &Ip<'_>) -> Option<(Ip<'a>, usize)> {
    let message = frame.get(..outer.at + outer.len)?;
    let inner = ip(message, outer.at + outer.header + 8, outer.version)?;
    let transport = inner.at + inner.header;
    message.get(transport..transport + 8)?;
    (matches!(inner.protocol, 6 | 17) && inner.offset == 0).then_some((inner, transport))
}
