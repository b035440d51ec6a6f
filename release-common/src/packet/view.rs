//! Raw packet memory. The only file of the packet logic with pointers.

use core::marker::PhantomData;

use bytemuck::Pod;

use super::Packet;
use super::checksum::Sum;
use crate::abi::{Addr6, Be16, Be32};

/// `N` bytes of a frame whose bounds were checked once; offsets into them are checked when the
/// program is compiled.
pub struct View<'a, const N: usize> {
    ptr: *mut u8,
    frame: PhantomData<&'a mut [u8]>,
}

impl<const N: usize> View<'_, N> {
    /// # Safety
    /// `ptr` must be valid for reads and writes of `N` bytes for the lifetime chosen.
    #[inline(always)]
    pub const unsafe fn new(ptr: *mut u8) -> Self {
        Self { ptr, frame: PhantomData }
    }

    /// The byte at `AT`.
    #[inline(always)]
    pub fn u8<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        // SAFETY: AT < N, and `new`'s contract covers N bytes.
        unsafe { self.ptr.add(AT).read_volatile() }
    }

    /// The two bytes at `AT`.
    #[inline(always)]
    pub fn be16<const AT: usize>(&self) -> Be16 {
        const { assert!(AT + 2 <= N) };
        // SAFETY: in bounds as above. See `load` for the alignment.
        Be16(unsafe { load(self.ptr.add(AT).cast::<u16>()) })
    }

    /// The four bytes at `AT`.
    #[inline(always)]
    pub fn be32<const AT: usize>(&self) -> Be32 {
        const { assert!(AT + 4 <= N) };
        // SAFETY: in bounds as above.
        Be32(unsafe { load(self.ptr.add(AT).cast::<u32>()) })
    }

    /// The IPv6 address at `AT`.
    #[inline(always)]
    pub fn addr6<const AT: usize>(&self) -> Addr6 {
        const { assert!(AT + 16 <= N) };
        let word = |at: usize| {
            // SAFETY: AT + at + 4 <= N for the offsets below.
            unsafe { load(self.ptr.add(AT + at).cast::<u32>()) }
        };
        Addr6([word(0), word(4), word(8), word(12)])
    }

    /// Stores an IPv6 address at `AT`.
    #[inline(always)]
    pub fn set_addr6<const AT: usize>(&self, value: Addr6) {
        const { assert!(AT + 16 <= N) };
        let set = |at: usize, word: u32| {
            // SAFETY: AT + at + 4 <= N for the offsets below.
            unsafe { store(self.ptr.add(AT + at).cast::<u32>(), word) }
        };
        set(0, value.0[0]);
        set(4, value.0[1]);
        set(8, value.0[2]);
        set(12, value.0[3]);
    }

    /// All of it as a value of `N` bytes.
    #[inline(always)]
    pub fn pod<T: Pod>(&self) -> T {
        const { assert!(size_of::<T>() == N && N.is_multiple_of(4) && align_of::<T>() == 4) };
        let mut value = T::zeroed();
        // Word by word: a copy of the whole would be a call of `memcpy`, byte by byte.
        let words = (&raw mut value).cast::<u32>();
        let mut at = 0;
        while at < N / 4 {
            // SAFETY: `new`'s contract covers N bytes, and `value` has N bytes, aligned to 4.
            unsafe { words.add(at).write(load(self.ptr.add(4 * at).cast::<u32>())) };
            at += 1;
        }
        value
    }

    /// One's complement sum of all bytes. `N` is a multiple of 4.
    #[inline(always)]
    pub fn sum(&self) -> Sum {
        const { assert!(N.is_multiple_of(4)) };
        let mut sum = Sum::zero();
        let mut at = 0;
        while at < N {
            // SAFETY: at + 4 <= N.
            sum = sum.add32(unsafe { load(self.ptr.add(at).cast::<u32>()) });
            at += 4;
        }
        sum
    }

    /// The six bytes of a MAC address at `AT`.
    #[inline(always)]
    pub fn mac<const AT: usize>(&self) -> [u8; 6] {
        const { assert!(AT + 6 <= N) };
        // SAFETY: in bounds as above; byte arrays have no alignment.
        unsafe { self.ptr.add(AT).cast::<[u8; 6]>().read() }
    }

    /// Stores the byte at `AT`.
    #[inline(always)]
    pub fn set_u8<const AT: usize>(&self, value: u8) {
        const { assert!(AT < N) };
        // SAFETY: in bounds as above.
        unsafe { self.ptr.add(AT).write_volatile(value) }
    }

    /// Stores two bytes at `AT`.
    #[inline(always)]
    pub fn set_be16<const AT: usize>(&self, value: Be16) {
        const { assert!(AT + 2 <= N) };
        // SAFETY: in bounds as above.
        unsafe { store(self.ptr.add(AT).cast::<u16>(), value.0) }
    }

    /// Stores four bytes at `AT`.
    #[inline(always)]
    pub fn set_be32<const AT: usize>(&self, value: Be32) {
        const { assert!(AT + 4 <= N) };
        // SAFETY: in bounds as above.
        unsafe { store(self.ptr.add(AT).cast::<u32>(), value.0) }
    }

    /// Stores a MAC address at `AT`.
    #[inline(always)]
    pub fn set_mac<const AT: usize>(&self, value: [u8; 6]) {
        const { assert!(AT + 6 <= N) };
        let [a, b, c, d, e, f] = value;
        // SAFETY: in bounds as above. Three halfword stores: MACs stand at even offsets.
        unsafe {
            store(self.ptr.add(AT).cast::<u16>(), u16::from_ne_bytes([a, b]));
            store(self.ptr.add(AT + 2).cast::<u16>(), u16::from_ne_bytes([c, d]));
            store(self.ptr.add(AT + 4).cast::<u16>(), u16::from_ne_bytes([e, f]));
        }
    }
}

/// Reads a header field of any alignment.
///
/// # Safety
/// `ptr` must be valid for reads.
#[inline(always)]
unsafe fn load<T: Copy>(ptr: *const T) -> T {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller vouches for the bounds. BPF programs may load unaligned packet data where
    // the kernel says so (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS; it verifies otherwise), while
    // `read_unaligned` would become one load a byte.
    unsafe {
        *ptr
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller vouches for the bounds.
    unsafe {
        ptr.read_unaligned()
    }
}

/// Writes a header field of any alignment.
///
/// # Safety
/// `ptr` must be valid for writes.
#[inline(always)]
unsafe fn store<T: Copy>(ptr: *mut T, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as in `load`.
    unsafe {
        *ptr = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller vouches for the bounds.
    unsafe {
        ptr.write_unaligned(value)
    }
}

/// A frame in ordinary memory, with head room for answers that grow in front. For tests, and for
/// everything that looks at a frame outside the kernel.
pub struct SliceFrame<'a> {
    memory: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> SliceFrame<'a> {
    /// A frame that occupies `memory[start..end]`; `None` if that is not inside.
    pub fn new(memory: &'a mut [u8], start: usize, end: usize) -> Option<Self> {
        (start <= end && end <= memory.len()).then_some(Self { memory, start, end })
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }
}

impl Packet for SliceFrame<'_> {
    fn holds(&self, len: usize) -> bool {
        len <= self.end - self.start
    }

    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        let begin = self.start.checked_add(offset)?;
        if begin.checked_add(N)? > self.end {
            return None;
        }
        // SAFETY: in bounds of `memory`, which `self` borrows mutably for longer than the view
        // lives; views of one frame are used by one thread, one access at a time.
        Some(unsafe { View::new(self.memory.as_ptr().cast_mut().add(begin)) })
    }

    fn move_head(&mut self, bytes: i32) -> bool {
        match usize::try_from(self.start as i64 + i64::from(bytes)) {
            Ok(start) if start <= self.end => {
                self.start = start;
                true
            }
            _ => false,
        }
    }

    fn truncate(&mut self, len: usize) -> bool {
        if !self.holds(len) {
            return false;
        }
        self.end = self.start + len;
        true
    }
}
