//! The only module that touches BPF: loading, pinning, attaching, map access.
//!
//! State lives in pinned maps, so everything here works on a data plane that an earlier daemon
//! left behind, and on one whose daemon is dead.

mod attach;
mod batch;
mod counters;
mod egress;
mod family;
mod grace;
mod link;
mod load;
mod maps;
mod pod;
mod programs;
mod rings;
mod spec;

pub use attach::{AttachError, Attachment, LINKS, Links, XdpMode};
pub use egress::sends_through;
pub use family::{At, RuleAt, SessionAt, Tuple};
pub use grace::{grace_period, packets_done, visit_cpus};
pub use load::{
    Capacities, Loaded, PROGRAMS, Verified, discard_unfinished, load, program_name, retire_stages,
};
pub use maps::{Maps, PinnedMap, RingHead, is_pinned};
pub use programs::{Clock, Programs, XdpRun};
pub use rings::{EventRing, KernelLog};
pub use spec::{MapSpec, SPECS};

use std::path::PathBuf;

/// What can go wrong below.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A map could not be opened, read or written.
    #[error("map {name}: {why}")]
    Map {
        /// The map.
        name: String,
        /// The cause.
        why: String,
    },
    /// A pinned map does not fit this version of the program.
    #[error("pinned map {path}: {why}", path = path.display())]
    Incompatible {
        /// Where it is pinned.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// Nothing is pinned.
    #[error("no data plane is pinned at {path}", path = path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// A program could not be loaded or run.
    #[error("program {name}: {why}")]
    Program {
        /// The program.
        name: String,
        /// The cause, with the verifier's last words.
        why: String,
    },
    /// A pin could not be made or removed.
    #[error("{path}: {why}", path = path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The cause.
        why: String,
    },
}

/// Names a map's error.
fn map_error(name: &str) -> impl Fn(aya::maps::MapError) -> KernelError + '_ {
    move |error| KernelError::Map { name: name.to_owned(), why: chain(&error) }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
