//! FNV-1a, 64 bits (Fowler, Noll, Vo): shows accidental change, and is the same in every release.

/// Hash of several pieces as of one.
pub fn hash<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    pieces.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::hash;

    /// Published test vectors.
    #[test]
    fn known_values() {
        assert_eq!(hash([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash([b"a".as_slice()]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash([b"foo".as_slice(), b"bar"]), 0x8594_4171_f739_67e8);
    }
}
