//! A reference to a map value that other CPUs read and write at the same time.

use core::marker::PhantomData;
use core::ptr::NonNull;

use bytemuck::Pod;

use crate::atomic;

/// A live map value. Plain fields are read and written with volatile accesses and may be
/// overwritten by another CPU at any moment; only the state word is changed atomically.
///
/// Preallocated hash elements are reused as soon as they are deleted, so a `Shared` may come to
/// point at another flow's entry. The state word carries an incarnation tag that makes every
/// compare-and-swap fail in that case (see [`crate::tcp::word`]).
pub struct Shared<'a, T> {
    value: NonNull<T>,
    map: PhantomData<&'a T>,
}

impl<T> Clone for Shared<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<'_, T> {}

impl<'a, T: Pod> Shared<'a, T> {
    /// Wraps the pointer that a map look-up returned.
    ///
    /// # Safety
    /// `value` must stay valid for reads and writes for `'a` (map memory outlives the program run)
    /// and must be aligned for `T`.
    #[inline(always)]
    pub const unsafe fn new(value: NonNull<T>) -> Self {
        Self { value, map: PhantomData }
    }

    /// Pointer to the value, for the methods that `shared_fields` declares.
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *mut T {
        self.value.as_ptr()
    }
}

/// A field of a [`Shared`] value.
pub struct Field<'a, F> {
    ptr: *mut F,
    map: PhantomData<&'a F>,
}

impl<'a, F: Pod> Field<'a, F> {
    /// Wraps a pointer to a field of a shared value.
    ///
    /// # Safety
    /// `ptr` must point into a value that [`Shared::new`]'s contract covers.
    #[inline(always)]
    pub(crate) const unsafe fn new(ptr: *mut F) -> Self {
        Self { ptr, map: PhantomData }
    }

    /// Pointer to the field, for the methods that `shared_fields` declares.
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *mut F {
        self.ptr
    }

    /// Reads the field once.
    #[inline(always)]
    pub fn get(&self) -> F {
        // SAFETY: the pointer is valid by `new`'s contract; volatile keeps the read single.
        unsafe { self.ptr.read_volatile() }
    }

    /// Writes the field once.
    #[inline(always)]
    pub fn set(&self, value: F) {
        // SAFETY: as in `get`.
        unsafe { self.ptr.write_volatile(value) }
    }
}

impl Field<'_, u64> {
    /// Stores `new` if the field still holds `old`; returns whether it did.
    #[inline(always)]
    pub fn swap_if(&self, old: u64, new: u64) -> bool {
        // SAFETY: the pointer is valid by `new`'s contract, and map values are 8-byte aligned.
        unsafe { atomic::compare_exchange(self.ptr, old, new) }
    }

    /// Adds to the field atomically and returns what it was before.
    #[inline(always)]
    pub fn fetch_add(&self, value: u64) -> u64 {
        // SAFETY: as in `swap_if`.
        unsafe { atomic::fetch_add(self.ptr, value) }
    }

    /// Adds to the field atomically.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        // SAFETY: as in `swap_if`.
        unsafe { atomic::add(self.ptr, value) }
    }
}

/// Declares a method per field of a shared value: `shared.field()` gives a [`Field`].
macro_rules! shared_fields {
    ($type:ty { $($(#[$doc:meta])* $method:ident => $($path:ident).+ : $field:ty),+ $(,)? }) => {
        $crate::shared::shared_fields!(Shared: $type { $($(#[$doc])* $method => $($path).+ : $field),+ });
    };
    ($of:ident: $type:ty { $($(#[$doc:meta])* $method:ident => $($path:ident).+ : $field:ty),+ $(,)? }) => {
        impl<'a> $crate::shared::$of<'a, $type> {
            $(
                $(#[$doc])*
                #[inline(always)]
                pub fn $method(&self) -> $crate::shared::Field<'a, $field> {
                    // SAFETY: projects inside the value that `Shared::new`'s contract covers.
                    unsafe {
                        $crate::shared::Field::new(&raw mut (*self.as_ptr()).$($path).+)
                    }
                }
            )+
        }
    };
}
pub(crate) use shared_fields;
