//! Which version and which instance a new flow belongs to.
//!
//! hash(client, frontend) → split picks the version → that version's ring picks the instance. The
//! two stages use different halves of the hash.

use crate::abi::{Address, FlowKey, Split, VERSIONS_PER_SERVICE};
use crate::verifier::forget;

/// Hash of a flow's key: the same on every host and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash(u64);

impl FlowHash {
    /// Hashes `key`.
    #[inline(always)]
    pub fn of<A: Address>(key: &FlowKey<A>) -> Self {
        let ports = u64::from(key.client_port.get()) << 32
            | u64::from(key.frontend_port.get()) << 16
            | u64::from(key.proto);
        Self(mix(addresses(key.client, key.frontend) ^ ports))
    }

    /// Hashes a client, whatever its port and whichever frontend it uses.
    #[inline(always)]
    pub fn of_client<A: Address>(client: A, service: u32) -> Self {
        Self(mix(addresses(client, client) ^ u64::from(service)))
    }

    /// A number between 0 and `below`, independent of the places in split and ring.
    #[inline(always)]
    pub const fn pick(self, below: u32) -> u32 {
        (((mix(self.0) >> 32) * below as u64) >> 32) as u32
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

    /// The hash of the `attempt`-th try on the same ring; the first has number 0.
    #[inline(always)]
    pub const fn attempt(self, attempt: u32) -> Self {
        if attempt == 0 { self } else { Self(mix(self.0 ^ attempt as u64)) }
    }

    /// Another hash.
    #[inline(always)]
    pub const fn next(self) -> Self {
        Self(mix(self.0))
    }
}

#[inline(always)]
fn addresses<A: Address>(client: A, frontend: A) -> u64 {
    let (client, frontend) = (client.words(), frontend.words());
    let pair = |at: usize| {
        u64::from(u32::from_be(client[at])) << 32 | u64::from(u32::from_be(frontend[at]))
    };
    let mixed = mix(pair(0) ^ 0x9e37_79b9_7f4a_7c15);
    if A::INDEX == 0 { mixed } else { mix(mix(mix(mixed ^ pair(1)) ^ pair(2)) ^ pair(3)) }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection in which every input
/// bit flips each output bit with a probability close to one half.
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Index of the version that a hash falls on; `None` if no version has weight.
///
/// Counts the bounds that the hash is not below, without a branch: the verifier would follow each
/// outcome of a search as a path of its own.
#[inline(always)]
pub fn version_of(split: &Split, hash: FlowHash) -> Option<u32> {
    let point = u64::from(hash.for_split());
    let mut index = 0;
    for entry in &split.entries {
        // The sign of bound - 1 - point.
        index += (entry.bound.wrapping_sub(1).wrapping_sub(point) >> 63) as u32;
    }
    if index < split.count && index < VERSIONS_PER_SERVICE as u32 { Some(index) } else { None }
}

/// The next entry to try for a mid-flow packet: the version that new flows like it get, then the
/// others in order, former rings last, those without instances left out. `None` when all were
/// tried. `family` is the
/// flow's [`Address::INDEX`].
#[inline(always)]
pub fn next_trial(split: &Split, family: usize, hash: FlowHash, tried: u16) -> Option<u32> {
    let untried = split.occupied[family] & !u32::from(tried) & 0xffff;
    if untried == 0 {
        return None;
    }
    let first = version_of(split, hash).unwrap_or(0);
    let version = if untried >> first & 1 == 1 { first } else { lowest_bit(untried) };
    // Which way it was found is of no interest from here on.
    Some(forget(u64::from(version), u64::from(untried)) as u32 & (VERSIONS_PER_SERVICE as u32 - 1))
}

/// Number of the lowest bit set in a 16-bit number that is not 0. BPF has no instruction for it;
/// without a branch, as above.
#[inline(always)]
fn lowest_bit(bits: u32) -> u32 {
    let lowest = bits & bits.wrapping_neg();
    let any = |mask: u32| ((lowest & mask) + 0xffff) >> 16;
    any(0xaaaa) | any(0xcccc) << 1 | any(0xf0f0) << 2 | any(0xff00) << 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_bits() {
        for bits in 1..=0xffff_u32 {
            assert_eq!(lowest_bit(bits), bits.trailing_zeros());
        }
    }

    /// Every version with instances is tried once, the one of the split first.
    #[test]
    fn trials() {
        let mut split = Split { count: 4, occupied: [0b1011, 0], ..Split::empty(1) };
        for (entry, bound) in split.entries.iter_mut().zip([0, 1 << 31, 1 << 31, 1 << 32]) {
            entry.bound = bound;
        }
        for (hash, order) in [(FlowHash(0), [1, 0, 3]), (FlowHash(u64::MAX), [3, 0, 1])] {
            let mut tried = 0;
            for version in order {
                assert_eq!(next_trial(&split, 0, hash, tried), Some(version));
                tried |= 1 << version;
            }
            assert_eq!(next_trial(&split, 0, hash, tried), None);
        }
    }

    #[test]
    fn no_weight_no_version() {
        let mut split = Split { count: 2, ..Split::empty(1) };
        split.entries[0].bound = 0;
        split.entries[1].bound = 0;
        assert_eq!(version_of(&split, FlowHash(0)), None);
        assert_eq!(version_of(&split, FlowHash(u64::MAX)), None);
        assert_eq!(version_of(&Split::empty(1), FlowHash(7)), None);
    }
}
