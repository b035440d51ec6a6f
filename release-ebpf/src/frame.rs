//! Frames: of an XDP program, and of a TC program. The only file with raw context pointers.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};
use release_common::packet::checksum::Sum;
use release_common::packet::{Packet, View};
use release_common::verifier::opaque;

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
        view(self.bounds(), offset)
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

/// `N` bytes at `offset` of the memory between `data` and `end`.
#[inline(always)]
fn view<'a, const N: usize>((data, end): (usize, usize), offset: usize) -> Option<View<'a, N>> {
    let start = opaque(data + offset);
    if start + N > end {
        return None;
    }
    // SAFETY: `start..start + N` lies between data and data_end, which the verifier proves too.
    Some(unsafe { View::new(start as *mut u8) })
}

/// A packet that this host is about to send. Its checksum may still be the kernel's or the
/// interface's to compute, hence the kernel's own way to update it. It keeps its size.
pub struct SkbFrame {
    ctx: *mut __sk_buff,
}

impl SkbFrame {
    /// Wraps the context the program was called with.
    #[inline(always)]
    pub const fn new(ctx: *mut __sk_buff) -> Self {
        Self { ctx }
    }
}

impl Packet for SkbFrame {
    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        // SAFETY: `ctx` is the program's own context, valid while it runs.
        len as u64 <= u64::from(unsafe { (*self.ctx).len })
    }

    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        // SAFETY: as above.
        let bounds = unsafe { ((*self.ctx).data as usize, (*self.ctx).data_end as usize) };
        view(bounds, offset)
    }

    #[inline(always)]
    fn move_head(&mut self, _bytes: i32) -> bool {
        false
    }

    #[inline(always)]
    fn truncate(&mut self, _len: usize) -> bool {
        false
    }

    #[inline(always)]
    fn update_transport(&mut self, at: usize, pseudo: Sum, rest: Sum, udp: bool) -> Option<()> {
        let mangled = if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let (at, pseudo_flag) = (at as u32, u64::from(BPF_F_PSEUDO_HDR));
        let (pseudo, rest) = (u64::from(pseudo.folded()), u64::from(rest.folded()));
        // SAFETY: own context; views cannot outlive this call, they borrow `self`. A size of 0 in
        // the flags means that `to` is a difference.
        let done = unsafe {
            bpf_l4_csum_replace(self.ctx, at, 0, pseudo, pseudo_flag | mangled) == 0
                && bpf_l4_csum_replace(self.ctx, at, 0, rest, mangled) == 0
        };
        if done { Some(()) } else { None }
    }
}
