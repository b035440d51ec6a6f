//! Server ids in QUIC connection ids (draft-ietf-quic-load-balancers-21 §3, plaintext).
//!
//! ```text
//! short header: 0 1 S R R K P P | connection id                              | …
//!                                 config id (3), length (5) | server id | nonce
//! ```

use super::{Headers, Ip, Packet, UDP_HEADER, View};

/// Header form and fixed bit of a packet (RFC 9000 §17).
const FORM: u8 = 0xc0;
const SHORT: u8 = 0x40;
/// Longest server id looked at.
const LONGEST: usize = 8;

/// The server id in a short-header packet with this config id; zeros stand behind its `len` bytes.
/// `None`: a long header, whose connection id the client may have made up, another config, or no
/// room for an id.
#[inline(always)]
pub fn server_id<A: Ip, P: Packet>(
    packet: &P,
    headers: &Headers<A>,
    config: u8,
    len: u8,
) -> Option<[u8; 8]> {
    let at = headers.transport() + UDP_HEADER;
    let view: View<'_, { 2 + LONGEST }> = packet.view(at)?;
    if view.u8::<0>() & FORM != SHORT
        || view.u8::<1>() >> 5 != config
        || headers.payload() < 2 + u32::from(len)
    {
        return None;
    }
    let bytes = [
        view.u8::<2>(),
        view.u8::<3>(),
        view.u8::<4>(),
        view.u8::<5>(),
        view.u8::<6>(),
        view.u8::<7>(),
        view.u8::<8>(),
        view.u8::<9>(),
    ];
    // Without a branch: bytes beyond the length become 0.
    let keep = u64::MAX.checked_shl(64u32.saturating_sub(8 * u32::from(len))).unwrap_or(0);
    Some((u64::from_be_bytes(bytes) & keep).to_be_bytes())
}
