//! Client sessions: several flows of one client that stay on one instance.

use bytemuck::{Pod, Zeroable};

use crate::shared::{Shared, shared_fields};

/// Value of `SESSIONS`, 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable, Default)]
pub struct Session {
    /// A [`SessionWord`].
    pub state: u64,
    /// Instance of the session (id in `BACKENDS`).
    pub backend: u32,
    /// Generation of the split that placed its first flow.
    pub generation: u32,
    /// Low 32 bits of jiffies when a flow of it last began or ended.
    pub last_seen: u32,
    /// Zero.
    pub pad: u32,
}

shared_fields!(Session {
    /// The state word.
    state => state: u64,
    /// Instance of the session.
    backend => backend: u32,
    /// Generation that placed its first flow.
    generation => generation: u32,
    /// Jiffies when a flow of it last began or ended.
    last_seen => last_seen: u32,
});

/// Attempts to change a word that other CPUs change too.
const ATTEMPTS: usize = 4;

impl Shared<'_, Session> {
    /// Counts a flow that joined (1) or left (-1). `false`: the session is being removed, or is gone.
    #[inline(always)]
    pub fn change_live(&self, change: i64) -> bool {
        let first = SessionWord(self.state().get());
        let mut word = first;
        for _ in 0..ATTEMPTS {
            if word.is_dead() || word.tag() != first.tag() {
                return false;
            }
            if self.state().swap_if(word.0, word.changed(change).0) {
                return true;
            }
            word = SessionWord(self.state().get());
        }
        false
    }
}

/// State word of a session.
///
/// Bits 0–23 live flows · 24 dead: being removed at this very moment · 32–63 tag of the
/// incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionWord(pub u64);

const LIVE: u64 = 0xff_ffff;
const DEAD: u64 = 1 << 24;

impl SessionWord {
    /// A session with one live flow.
    #[inline(always)]
    pub const fn first(tag: u32) -> Self {
        Self((tag as u64) << 32 | 1)
    }

    /// Number of live flows.
    #[inline(always)]
    pub const fn live(self) -> u32 {
        (self.0 & LIVE) as u32
    }

    /// Whether it is being removed.
    #[inline(always)]
    pub const fn is_dead(self) -> bool {
        self.0 & DEAD != 0
    }

    /// Incarnation tag.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The word while the session is removed.
    #[inline(always)]
    pub const fn dead(self) -> Self {
        Self(self.0 | DEAD)
    }

    /// The word after a flow joined (1) or left (-1); a count never wraps.
    #[inline(always)]
    pub const fn changed(self, change: i64) -> Self {
        let live = (self.0 & LIVE) as i64 + change;
        if live < 0 || live > LIVE as i64 { self } else { Self(self.0 & !LIVE | live as u64) }
    }
}
