//! Telling user space what happens.

use release_common::abi::{Event, FlowKey};

use crate::maps::{self, FamilyMaps};

/// Events a CPU may send in one jiffy; more are counted as suppressed.
const EVENTS_PER_JIFFY: u64 = 8;

/// Sends an event, unless there were too many in this jiffy.
#[inline(always)]
pub fn send<A: FamilyMaps>(kind: u32, key: &FlowKey<A>, backend: u32, generation: u32, now: u64) {
    let Some(limit) = maps::EVENT_LIMIT.get_ptr_mut(0) else { return };
    // SAFETY: per-CPU element.
    let [tick, suppressed] = unsafe { &mut *limit };
    let tick_now = now << 32;
    if *tick & 0xffff_ffff_0000_0000 != tick_now {
        *tick = tick_now;
    }
    *tick += 1;
    if *tick & 0xffff_ffff > EVENTS_PER_JIFFY {
        *suppressed += 1;
        return;
    }
    // Written in place: it would take much of the stack.
    match maps::EVENTS.reserve(0) {
        Some(mut entry) => {
            let event = entry.as_mut_ptr();
            // SAFETY: memory of an event, which the ring buffer has given to us alone.
            unsafe {
                (&raw mut (*event).kind).write(kind);
                (&raw mut (*event).backend).write(backend);
                (&raw mut (*event).generation).write(generation);
                (&raw mut (*event).suppressed).write(*suppressed as u32);
                (&raw mut (*event).version).write(u32::from(A::VERSION));
                (&raw mut (*event).pad).write(0);
                (&raw mut (*event).key).write(Event::wide(key));
            }
            entry.submit(0);
            *suppressed = 0;
        }
        None => *suppressed += 1,
    }
}
