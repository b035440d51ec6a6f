//! Many elements in one system call: writing with BPF_MAP_UPDATE_BATCH, and walking hash maps with
//! BPF_MAP_LOOKUP_BATCH (Linux 5.6; maps of maps 5.19). A key-by-key iteration, which is what
//! aya offers, is no safe walk: when the current key is deleted it starts over or ends.
//!
//! A batch walk takes each bucket's lock once, so it sees every entry that stays in its bucket for
//! as long as the walk lasts exactly once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use bytemuck::Pod;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
/// Entries asked for at once. A bucket that holds more makes the kernel answer ENOSPC.
const CHUNK: usize = 4096;

/// `union bpf_attr` of the batch commands (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Pod, bytemuck::Zeroable)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes elements of a map: as many keys as values.
///
/// # Errors
/// The system call's; some may have been written.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    if attr.count == 0 {
        return Ok(());
    }
    // SAFETY: the pointers lead to at least `count` keys and values of the sizes that the map has,
    // which the caller's types match; the kernel reads them.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut attr, size_of::<BatchAttr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The id of the map at `place` in an array of maps; `None` if there is none.
///
/// # Errors
/// The system call's.
pub fn inner_id(outer: BorrowedFd<'_>, place: u32) -> io::Result<Option<u32>> {
    #[repr(C)]
    struct ElementAttr {
        map_fd: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut id = 0u32;
    let mut attr = ElementAttr {
        map_fd: outer.as_raw_fd() as u32,
        key: (&raw const place) as u64,
        value: (&raw mut id) as u64,
        flags: 0,
    };
    // SAFETY: key and value are 4 bytes, as those of every array of maps are from user space.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, &raw mut attr, size_of::<ElementAttr>())
    };
    match result {
        0 => Ok(Some(id)),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            error => Err(error),
        },
    }
}

/// Calls `each` for every entry of a hash map.
///
/// # Errors
/// The system call's.
pub fn walk<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
    // Written by the kernel alone: filling them first would be most of a walk's work.
    let mut keys: Vec<K> = Vec::with_capacity(CHUNK);
    let mut values: Vec<V> = Vec::with_capacity(CHUNK);
    // The position is an opaque 4 bytes for hash maps.
    let (mut position, mut next) = (0u32, 0u32);
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { (&raw mut position) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CHUNK as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: all pointers lead to buffers of the sizes the kernel computes from `count` and
        // the map's key and value sizes, which the caller's types match (checked when opened).
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attr,
                size_of::<BatchAttr>(),
            )
        };
        let error = io::Error::last_os_error();
        let end = result < 0 && error.raw_os_error() == Some(libc::ENOENT);
        if result < 0 && !end {
            return Err(error);
        }
        let count = (attr.count as usize).min(CHUNK);
        // SAFETY: the kernel has filled that many elements, of types for which all bytes are valid,
        // in buffers of at least that capacity.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.iter().zip(&values) {
            each(key, value);
        }
        if end {
            return Ok(());
        }
        position = next;
        first = false;
    }
}
