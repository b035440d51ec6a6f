//! Mid-flow packets without an entry: another balancer died, or this one was restarted. Each
//! version's instance for the flow is asked in turn; a RST says "not mine" and is swallowed, the
//! first other answer adopts the flow. So flows survive without shared flow state.

use super::open::Found;
use super::place::{ITSELF, Target, end_embryo, to_embryo};
use super::reply::Handshake;
use super::{Counter, Decision, FamilyTables, snat};
use crate::abi::{Embryo, mode};
use crate::packet::{Headers, Ip, flag};
use crate::placement::next_trial;
use crate::reason::Reason;
use crate::tcp::after;
use crate::tcp::word::EmbryoWord;

/// Marks a trial whose instance has refused: the client's next packet tries the next version.
const NONE: u8 = 0xff;

/// A mid-flow packet of a connection we have no entry of: to the instance being tried, or to the
/// next version's if that one has refused, or to the first.
#[inline(always)]
pub fn mid_flow<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    embryo: Option<Found<'_>>,
) -> Decision {
    let mut tried = 0;
    if let Some((embryo, word)) = embryo {
        if word.version() != NONE {
            let decision = to_embryo((embryo, word), Reason::Tried);
            if !segment.has(flag::RST) && decision.at_once().is_none() {
                let end = segment.seq.wrapping_add(segment.payload());
                if after(end, embryo.client_seq().get()) {
                    embryo.client_seq().set(end);
                }
                if segment.has(flag::FIN) && !word.client_fin() {
                    embryo.state().swap_if(word.0, word.with_client_fin().0);
                }
            }
            return decision;
        }
        if !end_embryo(tables, to.key, (embryo, word)) {
            return Decision::drop(Reason::EmbryoBusy);
        }
        tried = word.tried();
    }
    try_next(tables, segment, to, tried)
}

#[inline(always)]
fn try_next<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    tried: u16,
) -> Decision {
    let Some(split) = tables.split(to.service_id) else {
        return Decision::drop(Reason::NoVersion);
    };
    let hash = to.hash();
    let next = next_trial(split, A::INDEX, hash, tried).and_then(|version| {
        let entry = split.entries.get(version as usize)?;
        Some((version, tables.instance(entry.rings[A::INDEX], hash)?))
    });
    let Some((version, backend)) = next else {
        return Decision::drop(Reason::NoInstance);
    };
    // A RST asks for no answer, so it cannot decide anything: it only goes where the flow most
    // likely is.
    let reaches = to.reaches(segment);
    let snat = to.service.mode == mode::SNAT;
    if segment.has(flag::RST) && reaches && snat {
        // Not even there: whatever stood for its client is not known.
        return Decision::drop(Reason::BadFlags);
    }
    if segment.has(flag::RST) || !reaches {
        return Decision::to_backend(backend, ITSELF, Reason::Tried);
    }
    let mut source = ITSELF;
    if snat {
        // The connection's old port is not known: none of the instances will know the new one.
        match snat::claim(tables, to, backend) {
            Some(claimed) => source = claimed,
            None => return Decision::drop(Reason::NoSourcePort),
        }
    }
    let word = EmbryoWord::trial(tables.tag(), tried | 1 << version, version as u8);
    let word = if segment.has(flag::FIN) { word.with_client_fin() } else { word };
    let embryo = Embryo {
        state: word.0,
        backend,
        // No split placed it.
        generation: 0,
        created: tables.now() as u32,
        client_seq: segment.seq.wrapping_add(segment.payload()),
        snat: source,
        chosen_by: Counter::Trials as u32,
        syn_at: 0,
    };
    if tables.insert_embryo(to.key, &embryo).is_err() {
        return Decision::drop(Reason::InsertFailed);
    }
    tables.count(backend, Counter::Trials);
    Decision::to_backend(backend, source, Reason::Tried)
}

/// The instance being tried answered.
#[inline(always)]
pub fn answered<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    (embryo, word): Found<'_>,
) -> Handshake {
    if !segment.has(flag::RST) {
        return Handshake::Proven;
    }
    if word.version() == NONE {
        return Handshake::Stops(Reason::TrialRefused);
    }
    let more = tables
        .split(to.service_id)
        .and_then(|split| next_trial(split, A::INDEX, to.hash(), word.tried()));
    if more.is_some() {
        embryo.state().swap_if(word.0, EmbryoWord::trial(word.tag(), word.tried(), NONE).0);
        return Handshake::Stops(Reason::TrialRefused);
    }
    // All said so: the connection is nowhere, and the client may know.
    end_embryo(tables, to.key, (embryo, word));
    Handshake::Goes
}
