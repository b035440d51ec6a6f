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
    (a.wrapping_sub(b) as i32) > 0
}
