//! The control loop: configuration says what exists, [`state`] says where traffic goes; both make
//! the [`desired`] contents of the maps, which [`apply`] brings about and acknowledges.

pub mod apply;
pub mod commands;
pub mod desired;
pub mod pending;
pub mod reconcile;
pub mod state;

#[cfg(test)]
mod tests;
