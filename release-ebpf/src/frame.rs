//! The frame of an XDP program. The only file with raw context pointers.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};
use release_common::packet::{Packet, View};

/// A frame between `data` and `data_end`.
pub struct XdpFrame {
    ctx: *mut xdp_md,
}

impl XdpFrame {
    /// Wraps the context the program was called with.
    #[inline(always)]
    pub const fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: `ctx` is the program's own context, valid while it runs.
        unsafe { ((*self.ctx).data as usize, (*self.ctx).data_end as usize) }
    }

    #[inline(always)]
    fn total_len(&self) -> u64 {
        // SAFETY: as above (helper since Linux 5.18).
        unsafe { bpf_xdp_get_buff_len(self.ctx) }
    }
}

impl Packet for XdpFrame {
    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        let (data, end) = self.bounds();
        len <= end - data || len as u64 <= self.total_len()
    }

    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        let (data, end) = self.bounds();
        let start = data + offset;
        if start + N > end {
            return None;
        }
        // SAFETY: `start..start + N` lies between data and data_end, which the verifier proves too.
        Some(unsafe { View::new(start as *mut u8) })
    }

    #[inline(always)]
    fn move_head(&mut self, bytes: i32) -> bool {
        // SAFETY: own context; views cannot outlive this call, they borrow `self`.
        unsafe { bpf_xdp_adjust_head(self.ctx, bytes) == 0 }
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> bool {
        let now = self.total_len();
        if len as u64 > now {
            return false;
        }
        // SAFETY: as in `move_head`.
        unsafe { bpf_xdp_adjust_tail(self.ctx, (len as i64 - now as i64) as i32) == 0 }
    }
}
