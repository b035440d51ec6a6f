//! Values the kernel's verifier is to forget.
//!
//! The verifier follows every path through a program and merges two only if all it knows of their
//! values agrees. A flag that each branch sets to a constant so doubles the paths from there on. A
//! forgotten value is an unknown number to it, whichever branch it comes from.

/// `value`, of which the verifier knows nothing any more. `unknown` is a number that it does not
/// know: something read from a map or a packet.
#[inline(always)]
#[must_use]
pub fn forget(value: u64, unknown: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: arithmetic on registers. The verifier does not see that two equal unknown numbers
        // cancel out.
        unsafe {
            core::arch::asm!(
                "{value} ^= {unknown}",
                "{value} ^= {unknown}",
                value = inout(reg) value,
                unknown = in(reg) unknown,
                options(pure, nomem, nostack),
            );
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = unknown;
        value
    }
}

/// `pointer`, of which the compiler knows nothing any more: it reads what it wrote there again,
/// instead of keeping a second copy on the stack.
#[inline(always)]
#[must_use]
pub fn hide<T>(pointer: *mut T) -> *mut T {
    #[cfg(target_arch = "bpf")]
    {
        let mut pointer = pointer;
        // SAFETY: moves a register to itself; memory counts as changed. It must be an instruction:
        // without one, two lines of debug information would be about the same place, which the
        // kernel refuses.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nostack));
        }
        pointer
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer
    }
}

/// An address in a packet, or an index, of which the compiler does not know how it was computed.
/// Otherwise it leaves out a comparison that an earlier one implies, although the address was
/// computed anew and the verifier knows nothing of that one; or it compares something else that
/// comes to the same.
#[inline(always)]
#[must_use]
pub fn opaque(address: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut address = address;
        // SAFETY: moves a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) address, options(pure, nomem, nostack));
        }
        address
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        address
    }
}
