//! A service's weights as intervals of the flow hash.

/// Number of values of the 32-bit flow hash: the upper bound that covers everything.
pub const HASH_SPACE: u64 = 1 << 32;

/// Which part of the hash space each version serves.
///
/// Bounds are cumulative: a flow of hash `h` goes to the first version `i` with `h < bounds[i]`.
/// They stand in the order of the weights given, and depend on the weights alone. Moving weight
/// between two neighbours moves exactly that share of the hash space; between versions further
/// apart the intervals in between slide as well (they keep their size, not their place), which
/// concerns new flows only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    bounds: Vec<u64>,
}

impl Split {
    /// Lays out one interval a weight, `bounds[i] = ⌊2^32 · (w₀ + … + wᵢ) / total⌋`.
    ///
    /// A weight of 0 gets an empty interval, and the last non-zero one ends at 2^32 exactly. Any
    /// other weight gets a non-empty interval as long as the total is at most 2^32 (sixteen
    /// versions of the largest configurable weight: 16 million). If all weights are 0, all
    /// bounds are 0 and no hash has a version.
    pub fn layout(weights: &[u32]) -> Self {
        let total: u128 = weights.iter().copied().map(u128::from).sum();
        let mut sum = 0_u128;
        let bounds = weights
            .iter()
            .map(|&weight| {
                sum += u128::from(weight);
                // sum ≤ total, so the quotient is at most 2^32.
                (sum * u128::from(HASH_SPACE)).checked_div(total).unwrap_or(0) as u64
            })
            .collect();
        Self { bounds }
    }

    /// Upper bounds (exclusive) in the order of the weights, each from 0 to 2^32.
    pub fn bounds(&self) -> &[u64] {
        &self.bounds
    }

    /// Index of the version that serves `hash`; `None` if all weights are 0.
    pub fn select(&self, hash: u32) -> Option<usize> {
        self.bounds.iter().position(|&bound| u64::from(hash) < bound)
    }

    /// Number of hashes that version `index` serves, 0 to 2^32; 0 for an index that is not there.
    pub fn width(&self, index: usize) -> u64 {
        let Some(&upper) = self.bounds.get(index) else { return 0 };
        let lower = index.checked_sub(1).and_then(|before| self.bounds.get(before));
        upper - lower.copied().unwrap_or(0)
    }

    /// Share of new flows that version `index` gets, 0.0 to 1.0, as laid out (after rounding).
    pub fn share(&self, index: usize) -> f64 {
        self.width(index) as f64 / HASH_SPACE as f64
    }
}
