//! The packet path's surroundings without a kernel: what the maps hold, as plain data ([`scene`]) in
//! either address family ([`family`]), hash tables that reuse their elements as the kernel's do
//! (`slab`), and [`Tables`](release_common::pipeline::Tables) over them ([`tables`]); and
//! connections to send through ([`conversation`]).

pub mod conversation;
pub mod family;
mod hooked;
mod reaper;
pub mod scene;
mod slab;
pub mod tables;
pub mod world;

pub use family::{Family, Key};
pub use hooked::Hooked;
pub use scene::Scene;
pub use slab::{Slab, WhenFull};
pub use tables::{ModelTables, Tally};
