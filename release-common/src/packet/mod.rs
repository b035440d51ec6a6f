//! Bounds-checked access to a frame, parsing, checksums, rewriting, tunnels and answers.

pub mod answer;
pub mod checksum;
mod headers;
mod ip;
mod quic;
pub mod quote;
pub mod rewrite;
pub mod tunnel;
mod view;
mod window;

use checksum::Sum;
pub use headers::{
    ETHERNET, Headers, ICMP_HEADER, Link, TAGGED, TCP_HEADER, UDP_CHECK, UDP_HEADER, flag, link,
    parse, tcp,
};
pub use ip::{Fragment, Ip, IpHeader};
pub use quic::server_id;
pub use view::{SliceFrame, View};
pub use window::window_scale;

use crate::abi::Be16;

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

    /// Updates the TCP or UDP checksum at `at` (RFC 1624) by what changed in the pseudo-header and
    /// in the rest. A UDP checksum of 0 means that there is none, and stays (RFC 768). Views taken
    /// before are gone.
    ///
    /// Frames that the kernel still computes the checksum of are updated differently, hence this
    /// is the frame's own business.
    #[inline(always)]
    fn update_transport(&mut self, at: usize, pseudo: Sum, rest: Sum, udp: bool) -> Option<()> {
        let view: View<'_, 2> = self.view(at)?;
        let old = view.be16::<0>().0;
        if udp && old == 0 {
            return Some(());
        }
        let new = Sum::of(old).add(pseudo).add(rest).check();
        view.set_be16::<0>(Be16(if udp && new == 0 { 0xffff } else { new }));
        Some(())
    }
}
