//! What to do with a packet, decided before anything is done to it.

use super::{FamilyTables, Traffic};
use crate::abi::{Address, Be16, FlowKey, SnatSource};
use crate::reason::Reason;
use crate::tcp::lifecycle::Seen;

/// What becomes of the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Action {
    /// On to the host's own stack.
    Pass,
    /// Gone.
    Drop,
    /// Out of the interface it came in by.
    Bounce,
    /// Out of interface [`Outcome::ifindex`].
    Send,
}

/// What becomes of the packet, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The verdict.
    pub action: Action,
    /// Interface to send out of, 0 unless the verdict is [`Action::Send`].
    pub ifindex: u32,
    /// Instance it went to or came from, 0 if none.
    pub backend: u32,
    /// The reason, counted by the caller.
    pub reason: Reason,
}

impl Outcome {
    #[inline(always)]
    const fn of(action: Action, reason: Reason) -> Self {
        Self { action, ifindex: 0, backend: 0, reason }
    }

    /// Leaves the packet to the host.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self::of(Action::Pass, reason)
    }

    /// Drops the packet.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self::of(Action::Drop, reason)
    }

    /// Sends the packet out of the interface it came in by.
    #[inline(always)]
    pub const fn bounce(reason: Reason) -> Self {
        Self::of(Action::Bounce, reason)
    }

    /// Sends the packet out of another interface.
    #[inline(always)]
    pub const fn send(ifindex: u32, reason: Reason) -> Self {
        Self { ifindex, ..Self::of(Action::Send, reason) }
    }

    /// Notes the instance.
    #[inline(always)]
    pub const fn about(self, backend: u32) -> Self {
        Self { backend, ..self }
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Deed {
    /// Leave it to the host, untouched.
    Pass,
    /// Drop it.
    Drop,
    /// Send it to the instance, as its service's mode has it.
    ToBackend,
    /// The same in mode `nat`: its service need not be asked.
    Translate,
    /// Send a RST in its place to the instance.
    Reset,
    /// Send it back to the client, as if from the frontend: those of
    /// [`FamilyTables::kept_key`](super::FamilyTables::kept_key).
    ToClient,
    /// Refuse a new flow.
    Refuse,
}

/// What the tables say about a packet. Deciding and acting are apart so that acting exists once in
/// the program, not once for each way to a decision.
///
/// A plain struct, every field always set: in an enum the compiler leaves fields of other variants
/// undefined, and the verifier then finds pointers where numbers are expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What to do.
    pub(super) deed: Deed,
    /// Why.
    pub(super) reason: Reason,
    /// The instance it goes to or came from.
    pub(super) backend: u32,
    /// One of [`crate::abi::refusal`].
    pub(super) refusal: u8,
    /// 1 if it is a segment with data of a measured flow, otherwise 0. Numbers, since they are added
    /// to counters; and no padding is left, which would be undefined: the verifier refuses to copy it.
    pub(super) data: u8,
    /// Of those: 1 if it was sent before.
    pub(super) again: u8,
    /// Mode `snat`, to the instance: what stands for the client.
    pub(super) snat: SnatSource,
}

impl Decision {
    #[inline(always)]
    const fn of(deed: Deed, reason: Reason) -> Self {
        let snat = SnatSource { port: Be16(0), index: 0, pad: 0 };
        Self { deed, reason, backend: 0, refusal: 0, data: 0, again: 0, snat }
    }

    /// The outcome, if nothing is to be done to the packet.
    #[inline(always)]
    pub const fn at_once(&self) -> Option<Outcome> {
        match self.deed {
            Deed::Pass => Some(Outcome::pass(self.reason)),
            Deed::Drop => Some(Outcome::drop(self.reason)),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) const fn pass(reason: Reason) -> Self {
        Self::of(Deed::Pass, reason)
    }

    #[inline(always)]
    pub(super) const fn drop(reason: Reason) -> Self {
        Self::of(Deed::Drop, reason)
    }

    #[inline(always)]
    pub(super) const fn refuse(how: u8, reason: Reason) -> Self {
        Self { refusal: how, ..Self::of(Deed::Refuse, reason) }
    }

    #[inline(always)]
    pub(super) const fn to_backend(backend: u32, snat: SnatSource, reason: Reason) -> Self {
        Self { backend, snat, ..Self::of(Deed::ToBackend, reason) }
    }

    /// As [`Self::to_backend`], of a flow whose word says that it is routed.
    #[inline(always)]
    pub(super) fn to_routed(backend: u32, snat: SnatSource, routed: bool, reason: Reason) -> Self {
        let plain = routed & (snat.port == Be16(0));
        let deed = if plain { Deed::Translate } else { Deed::ToBackend };
        Self { deed, ..Self::to_backend(backend, snat, reason) }
    }

    #[inline(always)]
    pub(super) const fn reset(backend: u32, snat: SnatSource, reason: Reason) -> Self {
        Self { backend, snat, ..Self::of(Deed::Reset, reason) }
    }

    /// Of a segment that was looked at.
    #[inline(always)]
    pub(super) const fn of_segment(self, seen: Seen) -> Self {
        Self { data: seen.data as u8, again: (seen.data & seen.again) as u8, ..self }
    }

    /// What it is to its instance's counters.
    #[inline(always)]
    pub(super) const fn traffic(&self, bytes: u32) -> Traffic {
        Traffic { bytes, segments: self.data as u64, again: self.again as u64 }
    }

    /// `key`: the client's, and the frontend's that it must seem to come from.
    #[inline(always)]
    pub(super) fn to_client<A: Address, T: FamilyTables<A>>(
        tables: &T,
        key: &FlowKey<A>,
        backend: u32,
        reason: Reason,
    ) -> Self {
        tables.keep_key(key);
        Self { backend, ..Self::of(Deed::ToClient, reason) }
    }
}
