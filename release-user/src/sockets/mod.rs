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

use crate::config::Sockets as Place;
use crate::net::namespace::Namespace;

pub use ask::{AskError, ask};
pub use destroy::{DestroyError, destroy};
pub use summary::{Peer, Question, State, Summary, Target};

/// The network namespace of this host that a place is, if it is one.
pub fn namespace_of(place: &Place) -> Option<Namespace> {
    match place {
        Place::Host => Some(Namespace::Own),
        Place::Netns(name) => Some(Namespace::Named(name.clone())),
        Place::PidFile(path) => Some(Namespace::PidFile(path.clone())),
        Place::Agent(_) | Place::None => None,
    }
}
