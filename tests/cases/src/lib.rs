//! What the packet path must do with a packet, as a table; and everything to check it without a
//! kernel: frames, the tables it looks things up in, and who runs it.
//!
//! Needs `release-common` alone, so that it says in seconds what a change of the packet logic breaks.
//! `release-tests` runs the same table through the kernel.

pub mod cases;
pub mod checksums;
pub mod frames;
pub mod model;
pub mod packets;
