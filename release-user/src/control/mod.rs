//! The control loop: configuration says what exists, [`state`] says where traffic goes; both make
//! the [`plan`], which [`apply`] brings about and acknowledges.

mod admit;
pub mod apply;
pub mod commands;
mod desired;
mod encode;
pub mod force;
pub mod health;
pub mod leave;
pub mod plan;
pub mod reconcile;
pub mod register;
pub mod release;
pub mod retire;
pub mod settings;
pub mod state;

#[cfg(test)]
mod former_tests;
#[cfg(test)]
mod mixed_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod register_tests;
#[cfg(test)]
mod tests;
