//! A 64-bit hash that never changes.
//!
//! Rings must come out the same on every host, after every restart and in every later release,
//! so the hash is written down here instead of taken from a library that may change its own.

use std::net::SocketAddr;

use release_common::placement::mix;

/// Odd constant of SplitMix64 (2^64 divided by the golden ratio).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes `bytes`, eight at a time; the length goes in last, so zero padding is not ambiguous.
pub(super) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed.wrapping_add(GOLDEN));
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state.wrapping_add(GOLDEN) ^ u64::from_le_bytes(word));
    }
    mix(state ^ bytes.len() as u64)
}

/// Hashes a socket address: the address in network order, then the port. Flow label and scope of
/// an IPv6 address are not part of an instance's identity.
pub(super) fn hash_socket(seed: u64, socket: &SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    let used = match socket {
        SocketAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.ip().octets());
            4
        }
        SocketAddr::V6(v6) => {
            bytes[..16].copy_from_slice(&v6.ip().octets());
            16
        }
    };
    bytes[used..used + 2].copy_from_slice(&socket.port().to_be_bytes());
    hash_bytes(seed, &bytes[..used + 2])
}
