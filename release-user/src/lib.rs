//! User space of `releasectl`: see the modules.

pub mod kernel;
