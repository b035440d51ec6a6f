//! Buckets of histograms of durations.
//!
//! Bucket `4n + p` holds what took at least `2^n (1 + p/4)` microseconds and less than what the next
//! one begins with: each doubling is cut in four, so a duration is told to a fifth. What took less
//! than a microsecond is in the first, what took more than two minutes in the last.

/// Buckets for each doubling.
const PARTS: u64 = 4;
/// Doublings: from a microsecond to more than two minutes.
const OCTAVES: u64 = 27;
/// Number of buckets.
pub const BUCKETS: usize = (PARTS * OCTAVES) as usize;
/// Nanoseconds in a quarter of a microsecond, the step in which the first buckets differ.
const QUARTER: u64 = 250;

/// The bucket of a duration in nanoseconds.
///
/// The highest bit of the number of quarters of microseconds says which doubling it is, the next two
/// which part of it.
#[inline(always)]
pub const fn bucket_of(nanoseconds: u64) -> usize {
    let quarters = nanoseconds / QUARTER;
    let quarters = if quarters < PARTS { PARTS } else { quarters };
    let octave = 61 - quarters.leading_zeros() as u64;
    let bucket = octave * PARTS + (quarters >> octave & (PARTS - 1));
    if bucket < BUCKETS as u64 { bucket as usize } else { BUCKETS - 1 }
}

/// log2 of the nanoseconds in a unit of [`stamp_of`].
const STAMP_SHIFT: u32 = 12;

/// When something passed, by the monotonic clock in nanoseconds, as a flow has room for it: in units of
/// 4 µs, which come again after five hours.
#[inline(always)]
pub const fn stamp_of(nanoseconds: u64) -> u32 {
    (nanoseconds >> STAMP_SHIFT) as u32
}

/// Nanoseconds since then.
#[inline(always)]
pub const fn since(stamp: u32, nanoseconds: u64) -> u64 {
    (stamp_of(nanoseconds).wrapping_sub(stamp) as u64) << STAMP_SHIFT
}

/// The shortest duration in a bucket, in nanoseconds. Of the number behind the last: where that ends.
#[inline(always)]
pub const fn begin_of(bucket: usize) -> u64 {
    let (octave, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    (QUARTER * (PARTS + part)) << octave
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends() {
        assert_eq!((bucket_of(0), bucket_of(999), bucket_of(1249)), (0, 0, 0));
        assert_eq!((bucket_of(1250), bucket_of(1999), bucket_of(2000)), (1, 3, 4));
        assert_eq!(begin_of(BUCKETS), 1000 << 27);
        assert_eq!(bucket_of(begin_of(BUCKETS) - 1), BUCKETS - 1);
        assert_eq!((bucket_of(begin_of(BUCKETS)), bucket_of(u64::MAX)), (BUCKETS - 1, BUCKETS - 1));
    }

    /// Each bucket begins where the one before ends.
    #[test]
    fn neighbours() {
        for bucket in 1..BUCKETS {
            let begin = begin_of(bucket);
            assert_eq!((bucket_of(begin - 1), bucket_of(begin)), (bucket - 1, bucket));
            assert!(begin * 4 <= begin_of(bucket - 1) * 5, "{bucket}");
        }
    }

    proptest! {
        #[test]
        fn holds_its_durations(shift in 0..30_u32, nanoseconds: u64) {
            let nanoseconds = (nanoseconds >> (24 + shift)).clamp(1000, begin_of(BUCKETS) - 1);
            let bucket = bucket_of(nanoseconds);
            prop_assert!(begin_of(bucket) <= nanoseconds && nanoseconds < begin_of(bucket + 1));
        }
    }
}
