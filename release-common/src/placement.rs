//! Which version and which instance a new flow belongs to.
//!
//! hash(client, frontend) → split picks the version → that version's ring picks the instance. The
//! two stages use different halves of the hash.

use crate::abi::{FlowKey4, Split, VERSIONS_PER_SERVICE};

/// Hash of a flow's key: the same on every host and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash(u64);

impl FlowHash {
    /// Hashes `key`.
    #[inline(always)]
    pub const fn of(key: &FlowKey4) -> Self {
        let addresses = (key.client.get() as u64) << 32 | key.frontend.get() as u64;
        let ports = (key.client_port.get() as u64) << 32
            | (key.frontend_port.get() as u64) << 16
            | key.proto as u64;
        Self(mix(mix(addresses ^ 0x9e37_79b9_7f4a_7c15) ^ ports))
    }

    /// The half that picks the version.
    #[inline(always)]
    pub const fn for_split(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The slot of a ring of `size` slots.
    #[inline(always)]
    pub const fn slot(self, size: u32) -> u32 {
        (((self.0 & 0xffff_ffff) * size as u64) >> 32) as u32
    }

    /// Another hash, for the next try on the same ring.
    #[inline(always)]
    pub const fn next(self) -> Self {
        Self(mix(self.0))
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Index of the version that a hash falls on; `None` if no version has weight.
#[inline(always)]
pub fn version_of(split: &Split, hash: FlowHash) -> Option<u8> {
    let point = u64::from(hash.for_split());
    for index in 0..VERSIONS_PER_SERVICE {
        if index as u32 >= split.count {
            return None;
        }
        if point < split.entries[index].bound {
            return Some(index as u8);
        }
    }
    None
}
