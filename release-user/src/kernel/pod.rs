//! Map keys and values as aya wants them.

/// A key or value of the ABI.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Abi<T>(pub T);

// SAFETY: `bytemuck::Pod` says what `aya::Pod` asks for: plain data without padding, valid for any
// bytes; `Abi` is transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Abi<T> {}
