//! Where new flows go, computed in user space and handed to the packet path as tables.
//!
//! Placement has two stages. The [`Split`] turns a service's weights into intervals of the 32-bit
//! flow hash and so picks the version; the [`Ring`] is a version's own Maglev table and picks the
//! instance. A ring depends on its version's instances alone, so a change of weights rewrites one
//! small table whatever the ring size, and every balancer host computes the same ring.

mod hash;
mod maglev;
mod split;

pub use maglev::{Member, Ring, RingSize, RingSizeError};
pub use split::{HASH_SPACE, Split};

#[cfg(test)]
mod maglev_tests;
#[cfg(test)]
mod split_tests;
