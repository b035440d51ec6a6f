//! Finding outer headers, and stripping them.

use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;

/// Ethernet header without tags.
const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// GUE's port (IANA), the one that tests use.
const GUE_PORT: u16 = 6080;

/// What a packet turned out to be. The numbers are known to `release_tests::wire`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Kind {
    /// Without outer headers.
    Plain = 0,
    Ipv4InIpv4 = 1,
    Ipv6InIpv4 = 2,
    Ipv4InIpv6 = 3,
    Ipv6InIpv6 = 4,
    GueIpv4InIpv4 = 5,
    GueIpv6InIpv4 = 6,
    GueIpv4InIpv6 = 7,
    GueIpv6InIpv6 = 8,
}

/// Outer headers of a packet.
#[derive(Clone, Copy)]
pub struct Outer {
    pub kind: Kind,
    /// Bytes between Ethernet header and inner packet.
    pub length: i32,
    /// Of the inner packet.
    pub ethertype: u16,
}

/// Reads what stands at `offset`.
#[inline(always)]
fn read<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes lie between data and data_end, as the verifier proves too; the types used
    // are integers and arrays of bytes.
    Some(unsafe { (start as *const T).read_unaligned() })
}

/// The outer headers of what a tunnel's end would take: no options, no extension headers, no
/// fragments.
#[inline(always)]
pub fn parse(ctx: &XdpContext) -> Option<Outer> {
    let (v6, length, protocol) = match u16::from_be(read(ctx, 12)?) {
        IPV4 => {
            // More fragments, or an offset: incomplete either way.
            let fragment = u16::from_be(read(ctx, ETHERNET + 6)?) & 0x3fff;
            if read::<u8>(ctx, ETHERNET)? != 0x45 || fragment != 0 {
                return None;
            }
            (false, 20, read::<u8>(ctx, ETHERNET + 9)?)
        }
        IPV6 => (true, 40, read::<u8>(ctx, ETHERNET + 6)?),
        _ => return None,
    };
    match protocol {
        4 | 41 => {
            let inner = version(ctx, ETHERNET + length)?;
            if (inner == 6) != (protocol == 41) {
                return None;
            }
            let kind = match (inner == 6, v6) {
                (false, false) => Kind::Ipv4InIpv4,
                (true, false) => Kind::Ipv6InIpv4,
                (false, true) => Kind::Ipv4InIpv6,
                (true, true) => Kind::Ipv6InIpv6,
            };
            Some(outer(kind, length, inner))
        }
        17 if u16::from_be(read(ctx, ETHERNET + length + 2)?) == GUE_PORT => {
            let length = length + 8;
            let inner = version(ctx, ETHERNET + length)?;
            let kind = match (inner == 6, v6) {
                (false, false) => Kind::GueIpv4InIpv4,
                (true, false) => Kind::GueIpv6InIpv4,
                (false, true) => Kind::GueIpv4InIpv6,
                (true, true) => Kind::GueIpv6InIpv6,
            };
            Some(outer(kind, length, inner))
        }
        _ => None,
    }
}

#[inline(always)]
fn outer(kind: Kind, length: usize, inner: u8) -> Outer {
    let ethertype = if inner == 6 { IPV6 } else { IPV4 };
    Outer { kind, length: length as i32, ethertype }
}

/// IP version of what begins at `offset`; none for what is no IP.
#[inline(always)]
fn version(ctx: &XdpContext, offset: usize) -> Option<u8> {
    let version = read::<u8>(ctx, offset)? >> 4;
    (version == 4 || version == 6).then_some(version)
}

/// Takes `length` bytes out from behind the Ethernet header, which gets the new type.
#[inline(always)]
pub fn strip(ctx: &XdpContext, length: i32, ethertype: u16) -> Option<()> {
    let addresses: [u8; 12] = read(ctx, 0)?;
    // SAFETY: own context; no pointer into the packet lives across this call.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, length) } != 0 {
        return None;
    }
    let start = ctx.data();
    if start + ETHERNET > ctx.data_end() {
        return None;
    }
    // SAFETY: the first 14 bytes lie between data and data_end.
    unsafe {
        (start as *mut [u8; 12]).write_unaligned(addresses);
        ((start + 12) as *mut [u8; 2]).write_unaligned(ethertype.to_be_bytes());
    }
    Some(())
}
