//! What must hold of the packet logic for any input.
//!
//! One harness, run in three ways: by libFuzzer (`fuzz/`, `cargo xtask fuzz`), over the checked-in
//! corpus and over generated packets (both ordinary tests). Each entry point takes arbitrary bytes
//! and panics if something does not hold:
//!
//! * [`decode`] – the decoder agrees with [`mod@reference`], a slow one in plain code;
//! * [`rewrite`] – only the fields named change, and no checksum becomes right or wrong.
//!
//! [`packet`] builds well-formed frames, [`seeds`] one for each combination of protocols.

mod buffer;
pub mod checksum;
mod decode;
pub mod packet;
pub mod reference;
mod rewrite;
pub mod seeds;

pub use decode::decode;
pub use rewrite::{PREFIX, rewrite};

/// An entry point: panics if what it checks does not hold of the input.
pub type Target = fn(&[u8]);

/// All entry points, by the names of fuzz targets and corpus folders.
pub const TARGETS: [(&str, Target); 2] = [("decode", decode), ("rewrite", rewrite)];
