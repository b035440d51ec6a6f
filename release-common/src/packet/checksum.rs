//! Internet checksums: RFC 1071, incremental update RFC 1624.

use crate::abi::Address;

/// Adds 16-bit words in one's complement; order and byte order do not matter as long as all words
/// are read the same way.
#[derive(Clone, Copy)]
pub struct Sum(u64);

impl Sum {
    /// Starts from nothing: for a full computation.
    #[inline(always)]
    pub const fn zero() -> Self {
        Self(0)
    }

    /// Starts from a checksum as it stands in a header: for an update (RFC 1624 eqn. 3).
    #[inline(always)]
    pub const fn of(check: u16) -> Self {
        Self(!check as u64)
    }

    /// Adds a 16-bit word.
    #[inline(always)]
    pub const fn add16(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit word.
    #[inline(always)]
    pub const fn add32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds everything another sum holds.
    #[inline(always)]
    pub const fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds an address.
    #[inline(always)]
    pub fn add_address<A: Address>(self, address: A) -> Self {
        let words = address.words();
        let sum = self.add32(words[0]);
        if A::INDEX == 0 { sum } else { sum.add32(words[1]).add32(words[2]).add32(words[3]) }
    }

    /// Takes an address out.
    #[inline(always)]
    pub fn sub_address<A: Address>(self, address: A) -> Self {
        let words = address.words();
        let sum = self.sub32(words[0]);
        if A::INDEX == 0 { sum } else { sum.sub32(words[1]).sub32(words[2]).sub32(words[3]) }
    }

    /// Takes a 16-bit word out.
    #[inline(always)]
    pub const fn sub16(self, word: u16) -> Self {
        self.add16(!word)
    }

    /// Takes a 32-bit word out.
    #[inline(always)]
    pub const fn sub32(self, word: u32) -> Self {
        self.add32(!word)
    }

    /// The sum in 32 bits, as the kernel's checksum helpers take it.
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The checksum to store.
    #[inline(always)]
    pub const fn check(self) -> u16 {
        // The upper half holds carries alone, far fewer than 16 bits of them.
        let sum = (self.0 & 0xffff) + ((self.0 >> 16) & 0xffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(words: &[u16]) -> u16 {
        words.iter().fold(Sum::zero(), |sum, &word| sum.add16(word)).check()
    }

    /// RFC 1071 §3's example data.
    #[test]
    fn rfc_1071_example() {
        assert_eq!(full(&[0x0001, 0xf203, 0xf4f5, 0xf6f7]), !0xddf2);
    }

    /// RFC 1624 §4's example, where RFC 1141's formula fails.
    #[test]
    fn rfc_1624_example() {
        assert_eq!(Sum::of(0xdd2f).sub16(0x5555).add16(0x3285).check(), 0x0000);
    }

    proptest! {
        /// An update equals a recomputation. Data is never all zero in a real packet, which is the
        /// one case where one's complement has two zeros.
        #[test]
        fn update_equals_recomputation(
            mut words in prop::collection::vec(any::<u16>(), 6..40),
            new in any::<[u16; 3]>(),
        ) {
            words[0] = 0x4500;
            let old = full(&words);
            let mut sum = Sum::of(old);
            let (a, b) = ([words[1], words[2]], words[4]);
            let wide = |hi: u16, lo: u16| u32::from(hi) << 16 | u32::from(lo);
            sum = sum.sub32(wide(a[0], a[1])).add32(wide(new[0], new[1])).sub16(b).add16(new[2]);
            words[1] = new[0];
            words[2] = new[1];
            words[4] = new[2];
            prop_assert_eq!(sum.check(), full(&words));
        }
    }
}
