//! Scratch memory: what one program leaves to the next, and what is too large for the stack.

use core::marker::PhantomData;

use release_common::abi::FlowKey;
use release_common::packet::Headers;
use release_common::pipeline::Decision;
use release_common::tcp::word::EmbryoWord;
use release_common::verifier::hide;

use crate::maps::FamilyMaps;
use crate::tables::Run;

/// Value of `WORK4/6`: a packet under way.
pub struct Packet<A> {
    headers: Headers<A>,
    decision: Decision,
    embryo: EmbryoWord,
    key: FlowKey<A>,
}

/// The packet under way on this CPU.
pub struct Work<A> {
    packet: *mut Packet<A>,
    map: PhantomData<A>,
}

impl<A: FamilyMaps> Work<A> {
    /// The scratch memory of this kind of run.
    #[inline(always)]
    pub fn of<R: Run>() -> Option<Self> {
        let packet = A::work().get_ptr_mut(R::KIND)?;
        Some(Self { packet, map: PhantomData })
    }

    /// Puts the headers there.
    #[inline(always)]
    pub fn keep_headers(&self, headers: Headers<A>) {
        // SAFETY: a per-CPU element that no other program uses meanwhile, see `Run::KIND`.
        unsafe { (&raw mut (*self.packet).headers).write(headers) };
    }

    /// Puts the decision there.
    #[inline(always)]
    pub fn keep_decision(&self, decision: Decision) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.packet).decision).write(decision) };
    }

    /// Puts the embryo's word there.
    #[inline(always)]
    pub fn keep_embryo(&self, word: EmbryoWord) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.packet).embryo).write(word) };
    }

    /// Puts the flow's key there.
    #[inline(always)]
    pub fn keep_key<'a>(self, key: &FlowKey<A>) -> &'a FlowKey<A> {
        // SAFETY: as above; map memory outlives the program run.
        unsafe {
            (&raw mut (*self.packet).key).write(*key);
            &(*hide(self.packet)).key
        }
    }

    /// The key that was put there.
    #[inline(always)]
    pub fn key(&self) -> &FlowKey<A> {
        // SAFETY: as above; whoever asks has put one there.
        unsafe { &(*hide(self.packet)).key }
    }

    /// The headers that were put there.
    #[inline(always)]
    pub fn headers(&self) -> &Headers<A> {
        // SAFETY: as above; the first stage has written them.
        unsafe { &(*hide(self.packet)).headers }
    }

    /// The embryo's word that was put there.
    #[inline(always)]
    pub fn embryo(&self) -> EmbryoWord {
        // SAFETY: as above; the stage before has written it.
        unsafe { (&raw const (*self.packet).embryo).read() }
    }

    /// The decision that was put there.
    #[inline(always)]
    pub fn decision(&self) -> &Decision {
        // SAFETY: as above; the stage before has written it.
        unsafe { &(*hide(self.packet)).decision }
    }
}
