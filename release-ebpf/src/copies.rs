//! Copies of table entries, for programs that look only: they may change these.

use aya_ebpf::btf_maps::PerCpuArray;
use bytemuck::Pod;
use release_common::abi::{Embryo, Flow, Session};
use release_common::shared::Shared;

use crate::maps::{self, COPIES, shared};

/// A copy of a flow.
#[inline(always)]
pub fn flow<'a>(entry: Option<*mut Flow>) -> Option<Shared<'a, Flow>> {
    copy(entry, &maps::COPIED_FLOWS)
}

/// A copy of an embryo.
#[inline(always)]
pub fn embryo<'a>(entry: Option<*mut Embryo>) -> Option<Shared<'a, Embryo>> {
    copy(entry, &maps::COPIED_EMBRYOS)
}

/// A copy of a session.
#[inline(always)]
pub fn session<'a>(entry: Option<*mut Session>) -> Option<Shared<'a, Session>> {
    copy(entry, &maps::COPIED_SESSIONS)
}

/// Begins a run: its first copy stands in the first place.
#[inline(always)]
pub fn begin() {
    if let Some(used) = maps::COPIES_USED.get_ptr_mut(0) {
        // SAFETY: per-CPU element, and user space runs one such program at a time.
        unsafe { *used = 0 };
    }
}

/// Copies `entry` to a place of its own. More copies than there are places take those of the oldest,
/// which nobody looks at any more.
#[inline(always)]
fn copy<'a, T: Pod>(
    entry: Option<*mut T>,
    copies: &PerCpuArray<T, { COPIES as usize }>,
) -> Option<Shared<'a, T>> {
    let entry = entry?;
    let used = maps::COPIES_USED.get_ptr_mut(0)?;
    // SAFETY: as in `begin`.
    let index = unsafe {
        *used = (*used).wrapping_add(1);
        *used & (COPIES - 1)
    };
    let place = copies.get_ptr_mut(index)?;
    // SAFETY: the entry is a live map value; the copy may be torn, as any look at it.
    unsafe { place.write(entry.read_volatile()) };
    shared(Some(place))
}
