//! The packet path's surroundings without a kernel: what the maps hold, as plain data ([`scene`]),
//! hash tables that reuse their elements as the kernel's do ([`slab`]), and
//! [`Tables`](release_common::pipeline::Tables) over them ([`tables`]); and TCP connections to send
//! through ([`conversation`]).

pub mod conversation;
pub mod hooked;
pub mod scene;
pub mod slab;
pub mod tables;
pub mod world;

pub use hooked::Hooked;
pub use scene::Scene;
pub use tables::{ModelTables, Tally};
