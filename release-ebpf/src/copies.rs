//! Copies of table entries, for programs that look only: they may change these.

use aya_ebpf::btf_maps::PerCpuArray;
use bytemuck::Pod;
use release_common::abi::{Embryo, Flow, FlowKey, Session};
use release_common::shared::Shared;

use crate::maps::{self, COPIES, FamilyMaps, shared};
use crate::tables::Run;
use crate::work::Work;

/// Place of the embryo that the run would have made.
const MADE: u32 = 0;

/// The embryo of the packet's own key is as it was.
const FOUND: u32 = 0;
/// The run would have made one.
const NEW: u32 = 1;
/// The run would have taken it down.
const GONE: u32 = 2;

/// A copy of a flow.
#[inline(always)]
pub fn flow<'a>(entry: Option<*mut Flow>) -> Option<Shared<'a, Flow>> {
    copy(entry, &maps::COPIED_FLOWS)
}

/// A copy of an embryo. Under the packet's own key: what the run would have made of it.
#[inline(always)]
pub fn embryo<'a, A: FamilyMaps, R: Run>(
    key: &FlowKey<A>,
    entry: Option<*mut Embryo>,
) -> Option<Shared<'a, Embryo>> {
    let own = maps::COPIES_USED.get(0)?[1];
    // The packet's own key stands in one place, and is asked for there; comparing its bytes would
    // take stack that some programs do not have.
    if own == FOUND || !core::ptr::eq(Work::<A>::of::<R>()?.key(), key) {
        return copy(entry, &maps::COPIED_EMBRYOS);
    }
    if own == GONE { None } else { shared(maps::COPIED_EMBRYOS.get_ptr_mut(MADE)) }
}

/// Notes the embryo that the run would make, or (`None`) would take down.
#[inline(always)]
pub fn make(embryo: Option<&Embryo>) {
    if let (Some(place), Some(used)) =
        (maps::COPIED_EMBRYOS.get_ptr_mut(MADE), maps::COPIES_USED.get_ptr_mut(0))
    {
        // SAFETY: as in `begin`.
        unsafe {
            (*used)[1] = if embryo.is_some() { NEW } else { GONE };
            if let Some(embryo) = embryo {
                place.write(*embryo);
            }
        }
    }
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
        unsafe { *used = [0; 2] };
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
        // The first place is taken.
        (*used)[0] = (*used)[0] % (COPIES - 1) + 1;
        (*used)[0] & (COPIES - 1)
    };
    let place = copies.get_ptr_mut(index)?;
    // SAFETY: the entry is a live map value; the copy may be torn, as any look at it.
    unsafe { place.write(entry.read_volatile()) };
    shared(Some(place))
}
