//! User space of releasectl.
pub mod config;
pub mod placement;
