//! 64-bit atomics that compile for both targets.
//!
//! `core::sync::atomic` offers no read-modify-write on the BPF target and its load and store abort
//! the linker, so the BPF side uses the instructions directly (cpu v3, Linux ≥ 5.12).

/// Reads `*ptr` once, untorn.
///
/// # Safety
/// `ptr` must be valid for reads and aligned to 8 bytes.
#[inline(always)]
pub unsafe fn load(ptr: *const u64) -> u64 {
    // SAFETY: the caller vouches for `ptr`; an aligned 8-byte load is untorn on 64-bit targets.
    unsafe { core::ptr::read_volatile(ptr) }
}

/// Compare-and-swap with full ordering: stores `new` if `*ptr == old`. Returns whether it did.
///
/// # Safety
/// `ptr` must be valid for reads and writes and aligned to 8 bytes.
#[inline(always)]
pub unsafe fn compare_exchange(ptr: *mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let seen: u64;
        // SAFETY: BPF_CMPXCHG compares with and returns in r0; the caller vouches for `ptr`.
        unsafe {
            core::arch::asm!(
                "r0 = {old}",
                "r0 = cmpxchg_64({ptr} + 0, r0, {new})",
                "{seen} = r0",
                ptr = in(reg) ptr,
                old = in(reg) old,
                new = in(reg) new,
                seen = lateout(reg) seen,
                out("r0") _,
            );
        }
        seen == old
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: same size and alignment; every concurrent access goes through this module.
        let cell = unsafe { AtomicU64::from_ptr(ptr) };
        cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Adds `value` (two's complement) to `*ptr` and returns what it was before.
///
/// # Safety
/// `ptr` must be valid for reads and writes and aligned to 8 bytes.
#[inline(always)]
pub unsafe fn fetch_add(ptr: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: the caller vouches for `ptr`.
        unsafe {
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({ptr} + 0), {value})",
                ptr = in(reg) ptr,
                value = inout(reg) value,
            );
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: same size and alignment; every concurrent access goes through this module.
        unsafe { AtomicU64::from_ptr(ptr) }.fetch_add(value, Ordering::SeqCst)
    }
}

/// Adds `value` (two's complement, so it may be "negative") to `*ptr`.
///
/// # Safety
/// `ptr` must be valid for reads and writes and aligned to 8 bytes.
#[inline(always)]
pub unsafe fn add(ptr: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller vouches for `ptr`.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({ptr} + 0) += {value}",
            ptr = in(reg) ptr,
            value = in(reg) value,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: same size and alignment; every concurrent access goes through this module.
        unsafe { AtomicU64::from_ptr(ptr) }.fetch_add(value, Ordering::SeqCst);
    }
}
