//! Maglev consistent hashing with weights (Eisenbud et al., NSDI 2016, §3.4).

use super::hash::hash_socket;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::net::SocketAddr;

/// Seeds of the two hashes that make a permutation. Changing one changes every ring, and with it
/// the answer to "which instance would this flow have?" between hosts of different releases.
const OFFSET_SEED: u64 = 0x6f66_6673_6574_0001;
const SKIP_SEED: u64 = 0x736b_6970_0000_0002;

/// A slot that nobody has taken yet, while a ring is being filled.
const FREE: u32 = u32::MAX;

/// Number of slots of a ring: a prime from 251 to 1048573.
///
/// It must be prime because each instance steps through the slots by a fixed stride, which
/// visits every slot only if stride and size have no common divisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RingSize(u32);

impl RingSize {
    /// Smallest size that is accepted.
    pub const MIN: Self = Self(251);
    /// Default: the paper's small table. Shares of 100 equal instances differ by at most 1/655.
    pub const DEFAULT: Self = Self(65_537);
    /// Largest size that is accepted.
    pub const MAX: Self = Self(1_048_573);

    /// Checks a number of slots.
    ///
    /// # Errors
    /// When it is not a prime from 251 to 1048573; the error names the nearest one.
    pub fn new(slots: u32) -> Result<Self, RingSizeError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&slots) && is_prime(slots) {
            Ok(Self(slots))
        } else {
            Err(RingSizeError { slots, nearest: nearest_prime(slots) })
        }
    }

    /// The number of slots.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for RingSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for RingSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of slots that cannot be a ring's size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{slots} is not a prime from {} to {}", RingSize::MIN, RingSize::MAX)]
pub struct RingSizeError {
    slots: u32,
    nearest: u32,
}

impl RingSizeError {
    /// The accepted size that is closest to what was asked for.
    pub const fn nearest(&self) -> u32 {
        self.nearest
    }
}

/// One instance, as a ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the slots name: the data plane's backend id. It has no influence on which slots.
    pub id: u32,
    /// Stable identity, equal on all hosts and over restarts: the instance's own socket.
    pub addr: SocketAddr,
    /// Share of slots relative to the other members. A member of weight 0 gets none.
    pub weight: u32,
}

/// A version's table: slot → backend id. Which slot a flow falls on is the packet path's affair.
///
/// Built from the set of (address, weight) pairs alone: order and ids of the members do not
/// matter, so every host and every restart computes the same table up to the ids' names.
///
/// A member of weight `w` out of a total of `W`, among `n` members, has at least
/// `(size − n)·w/W − 1` and at most `size·w/W + 2` slots; members of equal weight differ by at
/// most one slot, and nobody has none as long as `n` is not above the size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    slots: Vec<u32>,
}

impl Ring {
    /// Fills a ring of `size` slots. Without a member of a weight above 0 the ring is empty.
    ///
    /// 6 to 9 ms for 4096 members and 65537 slots in a release build.
    pub fn build(members: &[Member], size: RingSize) -> Self {
        let members = in_order(members);
        if members.is_empty() {
            return Self { slots: Vec::new() };
        }
        let mut slots = vec![FREE; size.get() as usize];
        // FREE marks emptiness by position in `members`, which stays far below u32::MAX.
        let mut walks: Vec<Walk> = members.iter().map(|m| Walk::new(&m.addr, size)).collect();
        let mut turns = Turns::new(&members);
        for _ in 0..slots.len() {
            let index = turns.next_member(&members);
            let slot = walks[index].next_free(&slots);
            slots[slot] = index as u32;
        }
        for slot in &mut slots {
            *slot = members[*slot as usize].id;
        }
        Self { slots }
    }

    /// Slots in order: the backend id of each. Empty, or as long as the ring's size.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The slots as a vector.
    pub fn into_slots(self) -> Vec<u32> {
        self.slots
    }
}

/// Members that take part, in the order in which they take their turns.
fn in_order(members: &[Member]) -> Vec<Member> {
    let mut members: Vec<Member> = members.iter().copied().filter(|m| m.weight > 0).collect();
    members.sort_by_key(|m| (m.addr, m.id));
    members
}

/// A member's permutation of the slots, walked lazily.
struct Walk {
    slot: u32,
    skip: u32,
    size: u32,
}

impl Walk {
    fn new(addr: &SocketAddr, size: RingSize) -> Self {
        let size = size.get();
        let below = |seed, bound: u32| (hash_socket(seed, addr) % u64::from(bound)) as u32;
        Self { slot: below(OFFSET_SEED, size), skip: 1 + below(SKIP_SEED, size - 1), size }
    }

    /// The next slot of the permutation that is free. Slots never become free again, so the walk
    /// does not look back. There is one: the caller places exactly as many as there are slots.
    fn next_free(&mut self, slots: &[u32]) -> usize {
        loop {
            let slot = self.slot as usize;
            self.slot = (self.slot + self.skip) % self.size;
            if slots[slot] == FREE {
                return slot;
            }
        }
    }
}

/// Whose turn is next. In each round the heaviest member takes one slot; one of weight `w` takes
/// its next when `round · w / heaviest` passes the number that it has.
///
/// The paper lets all take one slot a round; this is the same with weights that are all equal.
/// A heap skips the rounds in which a light member only waits.
struct Turns {
    /// (round, member), earliest first.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    taken: Vec<u64>,
    heaviest: u64,
}

impl Turns {
    fn new(members: &[Member]) -> Self {
        Self {
            due: (0..members.len()).map(|index| Reverse((0, index))).collect(),
            taken: vec![0; members.len()],
            heaviest: members.iter().map(|m| u64::from(m.weight)).max().unwrap_or(1),
        }
    }

    fn next_member(&mut self, members: &[Member]) -> usize {
        // Every member is always in the heap, and a ring has at least one member.
        let Some(mut top) = self.due.peek_mut() else { return 0 };
        let index = top.0.1;
        self.taken[index] += 1;
        // At most 1048573 · u32::MAX: far inside u64.
        top.0.0 = self.taken[index] * self.heaviest / u64::from(members[index].weight);
        index
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

fn nearest_prime(number: u32) -> u32 {
    let range = RingSize::MIN.0..=RingSize::MAX.0;
    let start = number.clamp(RingSize::MIN.0, RingSize::MAX.0);
    (0..=RingSize::MAX.0)
        .flat_map(|distance| [start.saturating_sub(distance), start + distance])
        .find(|candidate| range.contains(candidate) && is_prime(*candidate))
        .unwrap_or(RingSize::DEFAULT.0)
}
