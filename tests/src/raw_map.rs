//! Maps as bytes, many entries a system call.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::{io, ptr};

use anyhow::{Context, Result};
use aya::maps::MapData;
use bytemuck::{Pod, Zeroable};

/// Commands of bpf(2), see include/uapi/linux/bpf.h.
const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const LOOKUP_BATCH: libc::c_long = 24;
const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const UPDATE_BATCH: libc::c_long = 26;
const DELETE_BATCH: libc::c_long = 27;

/// `union bpf_attr` of the commands about one element.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` of the batch commands.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Batch {
    begin: u64,
    end: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map.
#[derive(Debug)]
pub struct Raw {
    name: &'static str,
    data: MapData,
    key: usize,
    /// Of all CPUs, if there is a value for each.
    value: usize,
    capacity: usize,
}

/// Entries of a hash table.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

impl Raw {
    /// Opens a pinned one.
    ///
    /// # Errors
    /// There is none.
    pub fn open(bpffs: &Path, name: &'static str) -> Result<Self> {
        Self::of(name, MapData::from_pin(bpffs.join(name)).context(name)?)
    }

    /// Of a map that is open.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(name: &'static str, data: MapData) -> Result<Self> {
        let info = data.info()?;
        let kind = info.map_type().map(|kind| format!("{kind:?}")).unwrap_or_default();
        let one = info.value_size() as usize;
        let value = if kind.starts_with("PerCpu") {
            one.next_multiple_of(8) * aya::util::nr_cpus().map_err(|(_, error)| error)?
        } else {
            one
        };
        let (key, capacity) = (info.key_size() as usize, info.max_entries() as usize);
        Ok(Self { name, data, key, value, capacity })
    }

    /// The first values of an array.
    ///
    /// # Errors
    /// The kernel's.
    pub fn first(&self, count: usize) -> Result<Vec<u8>> {
        Ok(self.batch(LOOKUP_BATCH, count)?.1)
    }

    /// All values of an array.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all(&self) -> Result<Vec<u8>> {
        self.first(self.capacity)
    }

    /// A value of an array.
    ///
    /// # Errors
    /// The kernel's.
    pub fn at(&self, index: u32) -> Result<Vec<u8>> {
        let mut value = vec![0; self.value];
        self.element(LOOKUP, index, value.as_mut_ptr() as u64)?;
        Ok(value)
    }

    /// Sets a value of an array to zero.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reset(&self, index: u32) -> Result<()> {
        let value = vec![0; self.value];
        self.element(UPDATE, index, value.as_ptr() as u64)
    }

    /// Replaces a value of an array.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, index: u32, value: u64) -> Result<()> {
        anyhow::ensure!(self.value == size_of_val(&value), "{}", self.name);
        self.element(UPDATE, index, (&raw const value) as u64)
    }

    /// All entries of a hash table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> Result<Entries> {
        let (keys, values) = self.batch(LOOKUP_BATCH, self.capacity)?;
        let values = values.chunks(self.value).map(<[u8]>::to_vec);
        Ok(keys.chunks(self.key).map(<[u8]>::to_vec).zip(values).collect())
    }

    /// Empties a hash table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&self) -> Result<()> {
        self.batch(LOOKUP_AND_DELETE_BATCH, self.capacity).map(drop)
    }

    /// Replaces entries of a hash table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn replace(&self, entries: &Entries) -> Result<()> {
        let keys: Vec<u8> = entries.keys().flatten().copied().collect();
        let values: Vec<u8> = entries.values().flatten().copied().collect();
        self.fill(&keys, &values)
    }

    /// Puts entries into a hash table, one after the other in memory.
    ///
    /// # Errors
    /// The kernel's; and if there are not as many keys as values.
    pub fn fill(&self, keys: &[u8], values: &[u8]) -> Result<()> {
        let count = keys.len() / self.key;
        anyhow::ensure!(
            count * self.key == keys.len() && count * self.value == values.len(),
            "{}: not whole entries",
            self.name
        );
        let attr = Batch {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: count as u32,
            map: self.fd(),
            ..Batch::zeroed()
        };
        // SAFETY: as many keys and values as it says, of the map's own sizes.
        unsafe { bpf(UPDATE_BATCH, attr) }.map(drop).context(self.name)
    }

    /// Removes entries of a hash table: their keys, one after the other in memory.
    ///
    /// # Errors
    /// The kernel's, and if one is not there.
    pub fn remove(&self, keys: &[u8]) -> Result<()> {
        let count = (keys.len() / self.key) as u32;
        let attr = Batch { keys: keys.as_ptr() as u64, count, map: self.fd(), ..Batch::zeroed() };
        // SAFETY: as many keys as it says, of the map's own size.
        let done = unsafe { bpf(DELETE_BATCH, attr) }.context(self.name)?.count;
        anyhow::ensure!(done == count, "{}: {done} of {count} entries removed", self.name);
        Ok(())
    }

    fn fd(&self) -> u32 {
        self.data.fd().as_fd().as_raw_fd() as u32
    }

    fn element(&self, command: libc::c_long, index: u32, value: u64) -> Result<()> {
        let key = (&raw const index) as u64;
        let attr = Element { map: self.fd(), pad: 0, key, value, flags: 0 };
        // SAFETY: an array's key is 4 bytes, and callers' values are of the map's size.
        unsafe { bpf(command, attr) }.map(drop).context(self.name)
    }

    /// Keys and values of the first `count` entries.
    fn batch(&self, command: libc::c_long, count: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut keys, mut values) = (vec![0; count * self.key], vec![0; count * self.value]);
        // Where the next batch would begin: a bucket, or a key of an array.
        let mut end = 0_u32;
        let attr = Batch {
            end: (&raw mut end) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            map: self.fd(),
            ..Batch::zeroed()
        };
        // SAFETY: room for as many keys and values as it says, of the map's own sizes.
        let found = unsafe { bpf(command, attr) }.context(self.name)?.count as usize;
        keys.truncate(found * self.key);
        values.truncate(found * self.value);
        Ok((keys, values))
    }
}

/// Calls the kernel. That nothing follows what was found (ENOENT) is no error.
///
/// # Safety
/// What `attr` points to must be as large as the command and the map say.
unsafe fn bpf<T: Pod>(command: libc::c_long, mut attr: T) -> io::Result<T> {
    // SAFETY: the caller's.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(&mut attr), size_of::<T>()) };
    let error = io::Error::last_os_error();
    if result < 0 && !(command >= LOOKUP_BATCH && error.raw_os_error() == Some(libc::ENOENT)) {
        return Err(error);
    }
    Ok(attr)
}
