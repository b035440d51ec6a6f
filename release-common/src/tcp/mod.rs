//! The lifecycle of a tracked connection.

mod embryo;
pub mod lifecycle;
mod step;
#[cfg(test)]
mod tests;
pub mod word;

/// Whether sequence number `a` comes after `b` (RFC 9293 §3.4: arithmetic modulo 2^32).
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    later(a, b) != 0
}

/// The same as a number, 0 or 1, for sums of conditions that nobody branches on.
#[inline(always)]
const fn later(a: u32, b: u32) -> u64 {
    (b.wrapping_sub(a) >> 31) as u64
}

/// 1 if two numbers are the same, otherwise 0.
#[inline(always)]
const fn same(a: u32, b: u32) -> u64 {
    ((a ^ b) as u64).wrapping_sub(1) >> 63
}
