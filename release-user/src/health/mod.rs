//! Health of instances: is one able to serve?
//!
//! Active checks go straight to the instance's own address, never to a frontend, so the packet path
//! counts no flow for them: what comes back matches none, and is passed to this host. Passive ones
//! ask nobody, and judge by what the packet path has counted. What comes of it is said by
//! [`settle()`]; all here is pure but the asking.

mod passive;
mod plan;
mod probe;
mod settle;
mod streak;

pub use passive::{Window, judge};
pub use plan::{Check, Passive, Plan, Share};
pub use probe::{Failure, probe};
pub use settle::{Signs, Wanted, settle};
pub use streak::Streak;
