//! What all of them need.

use release_tests::topology::{Family, Mode, Protocol, TopologySpec};

/// The families that a test goes through, with one balancer: that takes longest to start.
pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// One instance a version, `v1` and `v2`; both families.
pub fn spec(mode: Mode, protocol: Protocol) -> TopologySpec {
    TopologySpec {
        versions: vec![("v1".into(), 1), ("v2".into(), 1)],
        mode,
        families: BOTH.to_vec(),
        protocols: vec![protocol],
        wired: true,
        ..TopologySpec::default()
    }
}

/// Defines a test for each name, in a module named as the function that does the work.
macro_rules! tests {
    ($how:ident: $($name:ident($($argument:expr),*);)*) => {
        mod $how {
            #[allow(clippy::wildcard_imports, reason = "what the arguments are written with")]
            use super::*;
            $(
                #[test]
                #[ignore = "needs root: cargo xtask test"]
                fn $name() {
                    super::$how($($argument),*);
                }
            )*
        }
    };
}
pub(crate) use tests;
