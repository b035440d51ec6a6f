//! Do a service's gauge and the flow table agree? Pure.

/// A service's books at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// All steps of its flows so far, of every kind.
    pub steps: u64,
    /// Its gauge of live flows.
    pub gauge: i64,
}

/// How far the gauge is from `walked`, the live flows that a walk between the two found. Flows that
/// began or ended meanwhile explain as many: what is left is drift.
pub const fn drift(before: Books, walked: u64, after: Books) -> i64 {
    let moved = after.steps.saturating_sub(before.steps);
    let differs = after.gauge.wrapping_sub(walked as i64);
    if differs.unsigned_abs() <= moved { 0 } else { differs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_explains_as_much() {
        let books = |steps, gauge| Books { steps, gauge };
        assert_eq!(drift(books(100, 7), 7, books(100, 7)), 0);
        assert_eq!(drift(books(100, 7), 6, books(100, 7)), 1);
        assert_eq!(drift(books(100, 7), 8, books(100, 7)), -1);
        assert_eq!(drift(books(100, 7), 9, books(102, 7)), 0, "one opened, one closed");
        assert_eq!(drift(books(100, 7), 10, books(102, 7)), -3);
        assert_eq!(drift(books(0, -1), 0, books(0, -1)), -1);
    }
}
