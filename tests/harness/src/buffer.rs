//! A frame in memory of its own, head room in front and nothing behind: whoever reads past its end
//! reads past an allocation, which the address sanitizer tells.

use release_common::packet::SliceFrame;

/// More than any answer or tunnel needs: the kernel's head room (`XDP_PACKET_HEADROOM`).
pub const HEAD_ROOM: usize = 256;

/// Runs `work` on a copy of `frame`. Returns what it returns, and the frame afterwards.
pub fn with<R>(
    frame: &[u8],
    head_room: usize,
    work: impl FnOnce(&mut SliceFrame<'_>) -> R,
) -> (R, Vec<u8>) {
    let mut memory = vec![0xa5; head_room];
    memory.extend_from_slice(frame);
    let end = memory.len();
    let Some(mut packet) = SliceFrame::new(&mut memory, head_room, end) else {
        unreachable!("it lies inside");
    };
    let result = work(&mut packet);
    (result, packet.bytes().to_vec())
}
