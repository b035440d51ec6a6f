//! A hash table with the kernel's habits: elements are allocated once, a deleted element is the
//! next one to be given out, and a replaced element becomes the spare of the next replacement.
//!
//! So a pointer that outlives its entry comes to point at another key's value, as in a preallocated
//! BPF hash.

use std::cell::{RefCell, UnsafeCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::ptr::NonNull;

use bytemuck::Pod;
use release_common::pipeline::{Insert, InsertError};
use release_common::shared::Shared;

/// What happens when the table is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// The insert fails.
    Refuse,
    /// The oldest entry goes.
    EvictOldest,
}

/// The table.
pub struct Slab<K, V> {
    elements: Vec<Box<UnsafeCell<V>>>,
    index: RefCell<Index<K>>,
    when_full: WhenFull,
}

struct Index<K> {
    places: HashMap<K, (usize, u64)>,
    free: Vec<usize>,
    spare: usize,
    inserts: u64,
    evicted: u64,
}

impl<K: Copy + Eq + Hash, V: Pod> Slab<K, V> {
    /// An empty table for `capacity` entries.
    pub fn new(capacity: usize, when_full: WhenFull) -> Self {
        let elements = (0..=capacity).map(|_| Box::new(UnsafeCell::new(V::zeroed()))).collect();
        let free = (0..capacity).rev().collect();
        let places = HashMap::new();
        let index = Index { places, free, spare: capacity, inserts: 0, evicted: 0 };
        Self { elements, index: RefCell::new(index), when_full }
    }

    /// The value of a key, live.
    pub fn get(&self, key: &K) -> Option<Shared<'_, V>> {
        let place = self.index.borrow().places.get(key)?.0;
        let value = NonNull::new(self.elements[place].get())?;
        // SAFETY: the element is never freed while the table lives; boxes keep their addresses and
        // are aligned. The table is not `Sync`: accesses are one after another.
        Some(unsafe { Shared::new(value) })
    }

    /// A copy of a key's value.
    pub fn copy(&self, key: &K) -> Option<V> {
        let place = self.index.borrow().places.get(key)?.0;
        // SAFETY: as in `get`.
        Some(unsafe { self.elements[place].get().read_volatile() })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// See [`InsertError`].
    pub fn insert(&self, key: &K, value: &V, how: Insert) -> Result<(), InsertError> {
        let mut index = self.index.borrow_mut();
        let index = &mut *index;
        index.inserts += 1;
        let age = index.inserts;
        if let Entry::Occupied(mut old) = index.places.entry(*key) {
            if how == Insert::New {
                return Err(InsertError::Exists);
            }
            let place = index.spare;
            self.store(place, value);
            index.spare = old.insert((place, age)).0;
            return Ok(());
        }
        if index.free.is_empty() && self.when_full == WhenFull::EvictOldest {
            let oldest = index.places.iter().min_by_key(|(_, (_, age))| *age).map(|(key, _)| *key);
            if let Some((place, _)) = oldest.and_then(|key| index.places.remove(&key)) {
                index.free.push(place);
                index.evicted += 1;
            }
        }
        let place = index.free.pop().ok_or(InsertError::Refused)?;
        self.store(place, value);
        index.places.insert(*key, (place, age));
        Ok(())
    }

    /// Removes an entry; returns whether there was one.
    pub fn remove(&self, key: &K) -> bool {
        let mut index = self.index.borrow_mut();
        let Some((place, _)) = index.places.remove(key) else { return false };
        index.free.push(place);
        true
    }

    /// Copies of all entries.
    pub fn all(&self) -> Vec<(K, V)> {
        let keys: Vec<K> = self.index.borrow().places.keys().copied().collect();
        keys.into_iter().filter_map(|key| Some((key, self.copy(&key)?))).collect()
    }

    /// Entries that went because the table was full.
    pub fn evicted(&self) -> u64 {
        self.index.borrow().evicted
    }

    fn store(&self, place: usize, value: &V) {
        // SAFETY: as in `get`.
        unsafe { self.elements[place].get().write_volatile(*value) }
    }
}
