//! The window scale option.

use super::headers::{Headers, TCP_HEADER};
use super::ip::Ip;
use super::{Packet, View};
use crate::verifier::forget;

/// Largest shift a window scale option may ask for (RFC 7323 §2.3).
const MAX_WINDOW_SCALE: u8 = 14;
/// Options looked at. Those of real stacks stand among the first five.
const LOOKED_AT: usize = 10;

/// The window scale option of a SYN (RFC 7323 §2.2), `None` if it has none.
#[inline(always)]
pub fn window_scale<A: Ip, P: Packet>(packet: &P, headers: &Headers<A>) -> Option<u8> {
    let end = u64::from(headers.transport_header) - TCP_HEADER as u64;
    let options = headers.transport() + TCP_HEADER;
    let mut at = 0;
    for _ in 0..LOOKED_AT {
        if at >= end {
            return None;
        }
        // The option sought has three bytes, so what begins later is of no interest.
        let option: View<'_, 3> = packet.view(options + at as usize)?;
        let kind = option.u8::<0>();
        // Kind 1 is a single byte; any other has a length of two at least. Where real stacks stop
        // or go on, so does this: both are to see the same window.
        let step = if kind == 1 { 1 } else { u64::from(option.u8::<1>()) };
        if kind == 0 || step == 0 || kind != 1 && step == 1 {
            return None;
        }
        if kind == 3 && step == 3 {
            if at + 3 > end {
                return None;
            }
            let scale = option.u8::<2>();
            return Some(if scale > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { scale });
        }
        // The header has at most 40 bytes of options: what points beyond leads nowhere. The mask is
        // the bound that the verifier needs.
        at = forget(at + step, u64::from(headers.seq));
        if at > 63 {
            return None;
        }
        at &= 63;
    }
    None
}
