use super::{HASH_SPACE, Split};
use proptest::prelude::*;

#[test]
fn known_layouts() {
    let half = HASH_SPACE / 2;
    for (weights, bounds) in [
        (&[][..], &[][..]),
        (&[0, 0], &[0, 0]),
        (&[1], &[HASH_SPACE]),
        (&[100, 0], &[HASH_SPACE, HASH_SPACE]),
        (&[0, 100], &[0, HASH_SPACE]),
        (&[50, 50], &[half, HASH_SPACE]),
        (&[1, 0, 1, 0], &[half, half, HASH_SPACE, HASH_SPACE]),
        (&[1, 2], &[HASH_SPACE / 3, HASH_SPACE]),
        (&[u32::MAX, u32::MAX], &[half, HASH_SPACE]),
    ] {
        assert_eq!(Split::layout(weights).bounds(), bounds, "{weights:?}");
    }
}

#[test]
fn edges_of_the_hash_space() {
    let split = Split::layout(&[0, 1, 0, 1, 0]);
    assert_eq!(split.select(0), Some(1));
    assert_eq!(split.select(u32::MAX / 2), Some(1));
    assert_eq!(split.select(u32::MAX / 2 + 1), Some(3));
    assert_eq!(split.select(u32::MAX), Some(3));
    assert_eq!(Split::layout(&[0, 0]).select(0), None);
    assert_eq!(Split::layout(&[]).select(7), None);
    assert_eq!(split.share(3), 0.5);
    assert_eq!(split.share(4), 0.0);
    assert_eq!(split.share(5), 0.0);
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![Just(0), 1..=10_u32, 0..=1_000_000_u32], 1..=16)
}

proptest! {
    #[test]
    fn covers_everything_in_proportion(weights in weights(), hash: u32) {
        let split = Split::layout(&weights);
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        prop_assert!(split.bounds().is_sorted());
        let Some(index) = split.select(hash) else {
            prop_assert_eq!(total, 0);
            return Ok(());
        };
        prop_assert!(weights[index] > 0, "hash {} went to weight 0", hash);
        prop_assert_eq!(split.bounds().last(), Some(&HASH_SPACE));
        for (index, &weight) in weights.iter().enumerate() {
            let exact = u128::from(HASH_SPACE) * u128::from(weight) / u128::from(total);
            let width = u128::from(split.width(index));
            prop_assert!(width.abs_diff(exact) <= 1);
            prop_assert_eq!(width == 0, weight == 0);
        }
    }

    /// Two versions: moving `moved` of the weight moves that share and nothing back.
    #[test]
    fn a_shift_between_two_moves_exactly_that_share(
        from in 0..=1_000_000_u32, to in 0..=1_000_000_u32, part in 0.0..=1.0_f64, hash: u32,
    ) {
        prop_assume!(from + to > 0);
        let moved = (f64::from(from) * part) as u32;
        let before = Split::layout(&[from, to]);
        let after = Split::layout(&[from - moved, to + moved]);
        let lost = before.width(0) - after.width(0);
        let exact = HASH_SPACE * u64::from(moved) / u64::from(from + to);
        prop_assert!(lost.abs_diff(exact) <= 1);
        prop_assert_eq!(after.width(1) - before.width(1), lost);
        // Every hash stays or goes from the first to the second.
        prop_assert!(before.select(hash) <= after.select(hash));
    }

    /// More versions: the same holds for neighbours, and the others do not notice.
    #[test]
    fn a_shift_between_neighbours_leaves_the_others(
        weights in weights(), at in 0..15_usize, part in 0.0..=1.0_f64, hash: u32,
    ) {
        prop_assume!(at + 1 < weights.len());
        let mut shifted = weights.clone();
        let moved = (f64::from(weights[at]) * part) as u32;
        shifted[at] -= moved;
        shifted[at + 1] += moved;
        let (before, after) = (Split::layout(&weights), Split::layout(&shifted));
        let (old, new) = (before.select(hash), after.select(hash));
        prop_assert!(old == new || (old == Some(at) && new == Some(at + 1)));
    }
}
