//! Bounds-checked access to a frame, parsing, checksums, rewriting and answers.

pub mod answer;
pub mod checksum;
mod parse;
pub mod rewrite;
mod view;

pub use parse::{FRAME, Segment, flag, offset, parse, window_scale};
pub use view::{SliceFrame, View};

/// A frame as a program finds it: Ethernet header first.
///
/// The BPF side knows only `data` and `data_end`; tests use [`SliceFrame`].
pub trait Packet {
    /// Whether the frame has `len` bytes, those beyond the first memory fragment included.
    fn holds(&self, len: usize) -> bool;

    /// The `N` bytes at `offset`, if the frame has them in its first memory fragment.
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>>;

    /// Moves the start of the frame forward by `bytes` (negative: makes room in front). Views
    /// taken before are gone. Returns whether there was room.
    fn move_head(&mut self, bytes: i32) -> bool;

    /// Cuts the frame to `len` bytes. Views taken before are gone.
    fn truncate(&mut self, len: usize) -> bool;
}
