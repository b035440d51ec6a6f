//! Socket evidence: what the kernel on the instance's host has for the instance's address.
//!
//! The flow table says what passed here; the socket table says what the instance holds. [`diag`]
//! speaks to the kernel, [`mod@ask`] asks it for all sockets of an address, [`summary`] says what they
//! mean for somebody who wants to stop the instance.

pub mod agent;
pub mod ask;
pub mod destroy;
pub mod diag;
pub mod summary;

pub use ask::{AskError, ask};
pub use destroy::{DestroyError, destroy};
pub use summary::{Peer, Question, State, Summary, Target};
