//! IP headers of both families.

use super::{Packet, View};
use crate::abi::{
    Addr6, Address, Be16, Be32, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IPIP, IPPROTO_IPV6,
};
use crate::packet::checksum::Sum;
use crate::reason::Reason;
use crate::verifier::forget;

/// Longest chain of IPv6 extension headers looked through, in headers and in bytes.
const MOST_EXTENSIONS: usize = 4;
const MOST_EXTENSION_BYTES: u64 = 255;
/// IPv6 extension headers (RFC 8200 §4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// IPv4: "don't fragment" and "more fragments" (RFC 791 §3.1).
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// TTL of packets made here.
const TTL: u8 = 64;

/// What an IP header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpHeader<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Protocol of what follows the header and its extensions.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Whether no router may fragment the packet.
    pub dont_fragment: bool,
    /// Which part of a fragmented packet it is.
    pub fragment: Fragment,
    /// Identification, which the fragments of one packet share. IPv6: 0 without a fragment header.
    pub ident: u32,
    /// Bytes of the fragmented packet before the payload of this part: in the first fragment, those
    /// of IPv6 extension headers behind the fragment header.
    pub fragment_offset: u16,
    /// Length of the packet in bytes, header included.
    pub len: u32,
    /// Length of the header in bytes, options and extensions included.
    pub header: u16,
}

/// Which part of a packet a frame holds. Bits rather than variants: nearly all packets are whole, and
/// to find that out takes no branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment(u8);

impl Fragment {
    const LATER: u8 = 1;
    const MORE: u8 = 2;
    /// All of it.
    pub const WHOLE: Self = Self(0);
    /// The first fragment.
    pub const FIRST: Self = Self(Self::MORE);
    /// One in the middle.
    pub const MIDDLE: Self = Self(Self::LATER | Self::MORE);
    /// The last fragment.
    pub const LAST: Self = Self(Self::LATER);

    #[inline(always)]
    const fn of(offset: u16, more: bool) -> Self {
        let (later, more) = ((offset != 0) as u8, more as u8);
        Self(later * Self::LATER + more * Self::MORE)
    }

    /// Whether it holds the transport header, and others follow.
    #[inline(always)]
    pub const fn is_first(self) -> bool {
        self.0 == Self::MORE
    }

    /// Whether the transport header is in another fragment.
    #[inline(always)]
    pub const fn is_later(self) -> bool {
        self.0 & Self::LATER != 0
    }
}

/// What differs between the families in a packet.
pub trait Ip: Address {
    /// EtherType.
    const ETHERTYPE: u16;
    /// Bytes of a header without options and extensions.
    const HEADER: usize;
    /// Most bytes of options, or of extensions looked through.
    const MOST_OPTIONS: usize;
    /// Protocol number of this family's ICMP.
    const ICMP: u8;
    /// Protocol number of this family inside an IP packet.
    const ENCAPSULATED: u8;

    /// Reads the header at `at`. The rest of the packet need not be there.
    ///
    /// # Errors
    /// The reason to leave the packet alone.
    fn read<P: Packet>(packet: &P, at: usize) -> Result<IpHeader<Self>, Reason>;

    /// Replaces addresses (`change` is their difference) and, if given, the TTL.
    fn rewrite<P: Packet>(
        packet: &P,
        at: usize,
        change: Sum,
        ends: (Self, Self),
        ttl: Option<u8>,
    ) -> Option<()>;

    /// Writes a fresh header at `at` for `payload` bytes of `protocol` behind it.
    fn write<P: Packet>(
        packet: &P,
        at: usize,
        ends: (Self, Self),
        protocol: u8,
        tos: u8,
        payload: u16,
    ) -> Option<()>;
}

impl Ip for Be32 {
    const ETHERTYPE: u16 = 0x0800;
    const HEADER: usize = 20;
    const MOST_OPTIONS: usize = 40;
    const ICMP: u8 = IPPROTO_ICMP;
    const ENCAPSULATED: u8 = IPPROTO_IPIP;

    #[inline(always)]
    fn read<P: Packet>(packet: &P, at: usize) -> Result<IpHeader<Self>, Reason> {
        let view: View<'_, 20> = packet.view(at).ok_or(Reason::Truncated)?;
        let version_length = view.u8::<0>();
        if version_length >> 4 != 4 || version_length & 15 < 5 {
            return Err(Reason::BadLength);
        }
        let header = u16::from(version_length & 15) * 4;
        let len = u32::from(view.be16::<2>().get());
        if len < u32::from(header) {
            return Err(Reason::BadLength);
        }
        let bits = view.be16::<6>().get();
        let fragment = Fragment::of(bits & FRAGMENT_OFFSET, bits & MORE_FRAGMENTS != 0);
        Ok(IpHeader {
            source: view.be32::<12>(),
            destination: view.be32::<16>(),
            protocol: view.u8::<9>(),
            ttl: view.u8::<8>(),
            tos: view.u8::<1>(),
            dont_fragment: bits & DONT_FRAGMENT != 0,
            fragment,
            ident: u32::from(view.be16::<4>().0),
            fragment_offset: (bits & FRAGMENT_OFFSET) << 3,
            len,
            header,
        })
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        packet: &P,
        at: usize,
        change: Sum,
        ends: (Self, Self),
        ttl: Option<u8>,
    ) -> Option<()> {
        let view: View<'_, 20> = packet.view(at)?;
        let mut sum = Sum::of(view.be16::<10>().0).add(change);
        if let Some(ttl) = ttl {
            // As one word: to read two bytes right after one of them was written takes until the
            // write is done.
            let before = view.be16::<8>();
            let now = Be16::new(u16::from(ttl) << 8 | before.get() & 0xff);
            view.set_be16::<8>(now);
            sum = sum.sub16(before.0).add16(now.0);
        }
        view.set_be16::<10>(Be16(sum.check()));
        view.set_be32::<12>(ends.0);
        view.set_be32::<16>(ends.1);
        Some(())
    }

    #[inline(always)]
    fn write<P: Packet>(
        packet: &P,
        at: usize,
        (source, destination): (Self, Self),
        protocol: u8,
        tos: u8,
        payload: u16,
    ) -> Option<()> {
        let view: View<'_, 20> = packet.view(at)?;
        let words = [
            0x4500 | u16::from(tos),
            payload.wrapping_add(20),
            0,
            DONT_FRAGMENT,
            u16::from(TTL) << 8 | u16::from(protocol),
        ];
        view.set_be16::<0>(Be16::new(words[0]));
        view.set_be16::<2>(Be16::new(words[1]));
        view.set_be16::<4>(Be16::new(words[2]));
        view.set_be16::<6>(Be16::new(words[3]));
        view.set_be16::<8>(Be16::new(words[4]));
        view.set_be32::<12>(source);
        view.set_be32::<16>(destination);
        let check = Sum::zero()
            .add16(Be16::new(words[0]).0)
            .add16(Be16::new(words[1]).0)
            .add16(Be16::new(words[3]).0)
            .add16(Be16::new(words[4]).0)
            .add_address(source)
            .add_address(destination)
            .check();
        view.set_be16::<10>(Be16(check));
        Some(())
    }
}

impl Ip for Addr6 {
    const ETHERTYPE: u16 = 0x86dd;
    const HEADER: usize = 40;
    const MOST_OPTIONS: usize = MOST_EXTENSION_BYTES as usize;
    const ICMP: u8 = IPPROTO_ICMPV6;
    const ENCAPSULATED: u8 = IPPROTO_IPV6;

    #[inline(always)]
    fn read<P: Packet>(packet: &P, at: usize) -> Result<IpHeader<Self>, Reason> {
        let view: View<'_, 40> = packet.view(at).ok_or(Reason::Truncated)?;
        let first = view.be16::<0>().get();
        if first >> 12 != 6 {
            return Err(Reason::BadLength);
        }
        let mut header = IpHeader {
            source: view.addr6::<8>(),
            destination: view.addr6::<24>(),
            protocol: view.u8::<6>(),
            ttl: view.u8::<7>(),
            tos: (first >> 4) as u8,
            dont_fragment: true,
            fragment: Fragment::WHOLE,
            ident: 0,
            fragment_offset: 0,
            len: u32::from(view.be16::<4>().get()) + 40,
            header: 40,
        };
        extensions(packet, at, &mut header)?;
        if header.len < u32::from(header.header) {
            return Err(Reason::BadLength);
        }
        Ok(header)
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        packet: &P,
        at: usize,
        _change: Sum,
        ends: (Self, Self),
        ttl: Option<u8>,
    ) -> Option<()> {
        let view: View<'_, 40> = packet.view(at)?;
        if let Some(ttl) = ttl {
            view.set_u8::<7>(ttl);
        }
        view.set_addr6::<8>(ends.0);
        view.set_addr6::<24>(ends.1);
        Some(())
    }

    #[inline(always)]
    fn write<P: Packet>(
        packet: &P,
        at: usize,
        (source, destination): (Self, Self),
        protocol: u8,
        tos: u8,
        payload: u16,
    ) -> Option<()> {
        let view: View<'_, 40> = packet.view(at)?;
        view.set_be32::<0>(Be32::new(6 << 28 | u32::from(tos) << 20));
        view.set_be16::<4>(Be16::new(payload));
        view.set_be16::<6>(Be16::new(u16::from(protocol) << 8 | u16::from(TTL)));
        view.set_addr6::<8>(source);
        view.set_addr6::<24>(destination);
        Some(())
    }
}

/// Looks through the extension headers behind the header at `at` (RFC 8200 §4).
#[inline(always)]
fn extensions<P: Packet>(
    packet: &P,
    at: usize,
    header: &mut IpHeader<Addr6>,
) -> Result<(), Reason> {
    let mut len = 0;
    for _ in 0..MOST_EXTENSIONS {
        let kind = header.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok(());
        }
        let view: View<'_, 8> = packet.view(at + 40 + len as usize).ok_or(Reason::Truncated)?;
        // The packet is not at its destination yet (RFC 8200 §4.4).
        if kind == ROUTING && view.u8::<3>() != 0 {
            return Err(Reason::ExtensionHeaders);
        }
        let mut bytes = (u64::from(view.u8::<1>()) + 1) * 8;
        if kind == FRAGMENT {
            bytes = 8;
            let bits = view.be16::<2>().get();
            header.fragment = Fragment::of(bits & 0xfff8, bits & 1 != 0);
            header.fragment_offset = bits & 0xfff8;
            header.ident = view.be32::<4>().0;
        } else if header.fragment.is_first() {
            header.fragment_offset += bytes as u16;
        }
        header.protocol = view.u8::<0>();
        len = forget(len + bytes, u64::from(header.source.0[3]));
        if len > MOST_EXTENSION_BYTES {
            return Err(Reason::ExtensionHeaders);
        }
        header.header = 40 + len as u16;
        // What follows here belongs to the fragment, not to the header.
        if header.fragment.is_later() {
            return Ok(());
        }
    }
    match header.protocol {
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => Err(Reason::ExtensionHeaders),
        _ => Ok(()),
    }
}
