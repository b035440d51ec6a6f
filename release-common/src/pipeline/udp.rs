//! Client → frontend, UDP.
//!
//! The first datagram of a conversation makes an embryo. The instance's answer makes it a flow, and
//! so does a datagram of the client a second later: a flood of random sources, however often each is
//! used, evicts embryos only. Conversation `datagram` keeps nothing.

use super::open::{Entry, Found, How, NotOpened, begun, entries, entry, open};
use super::place::{self, ITSELF, Target, end_embryo, to_embryo, to_flow};
use super::{Counter, Decision, FamilyTables, Inbound, snat};
use crate::abi::{Embryo, Flow, QuicKey, conversation, mode};
use crate::packet::{Headers, Ip, Packet, server_id};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::lifecycle::update;
use crate::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

/// A datagram to a port that some frontend uses, of a flow that is simply live; `None` if it is not.
#[inline(always)]
pub fn live<A: Ip, T: FamilyTables<A>>(tables: &T, datagram: &Headers<A>) -> Option<Decision> {
    let (flow, word) = entry(tables, &datagram.key_from_client())?;
    if !word.is_live() || word.quic() {
        return None;
    }
    touch(tables, flow, word, false);
    Some(to_flow(flow, Reason::Forwarded))
}

/// Handles a datagram that [`live`] left.
#[inline(always)]
pub fn inbound<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    datagram: &Headers<A>,
) -> Inbound {
    let key = datagram.key_from_client();
    let key = tables.keep_key(&key);
    let (old, embryo) = entries(tables, key);
    let known = old.map(|(flow, _)| flow);
    let to = match place::target(tables, key, false, known, embryo) {
        Ok(to) => to,
        Err(none) => return none,
    };
    if to.service.conversation == conversation::DATAGRAM {
        return Inbound::Place;
    }
    let server = if to.service.conversation == conversation::QUIC {
        named(packet, tables, datagram, &to)
    } else {
        None
    };
    if let Some((flow, word)) = old {
        if matches!(word.phase(), Phase::Dead) {
            return Inbound::Decided(Decision::drop(Reason::DeadEntry));
        }
        if server.is_none_or(|server| server == flow.backend().get()) {
            touch(tables, flow, word, false);
            return Inbound::Decided(to_flow(flow, Reason::Forwarded));
        }
    }
    Inbound::Decided(match (embryo, server) {
        (Some(embryo), None) => again(tables, &to, embryo, old),
        (Some(embryo), Some(server)) if server == embryo.0.backend().get() => {
            again(tables, &to, embryo, old)
        }
        (embryo, Some(server)) => migrate(tables, datagram, &to, embryo, server),
        (None, None) => return Inbound::Place,
    })
}

/// A packet of a conversation that we have.
#[inline(always)]
pub fn touch<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    flow: Shared<'_, Flow>,
    word: FlowWord,
    replied: bool,
) {
    let now = tables.now() as u32;
    flow.last_packet().set(now);
    flow.last_data().set(now);
    if word.dying() || replied && !word.replied() {
        update(flow, word, |word| match word.phase() {
            Phase::Dead => word,
            _ if replied => word.revived().with_replied(),
            _ => word.revived(),
        });
    }
}

/// Another datagram of the client without an answer yet.
#[inline(always)]
fn again<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    to: &Target<'_, A>,
    (embryo, word): Found<'_>,
    old: Option<Entry<'_>>,
) -> Decision {
    let decision = to_embryo((embryo, word), Reason::Forwarded);
    if !matches!(word.phase(), EmbryoPhase::Syn) {
        return Decision::drop(Reason::EmbryoBusy);
    }
    // Within a second it proves nothing: a flood repeats itself, too.
    let now = tables.now();
    if (now as u32).wrapping_sub(embryo.created().get()) < tables.hz() {
        return decision;
    }
    let mut flow = begun(embryo, now);
    flow.state = state(tables, to, false).0;
    match open(tables, to, &mut flow, (embryo, word), old, How::OPENED) {
        // Busy: another CPU's datagram did it. Full: it stays an embryo.
        Ok(()) | Err(NotOpened::Busy | NotOpened::Full) => decision,
        Err(NotOpened::Limit) => Decision::refuse(to.service.when_full, Reason::MaxFlows),
    }
}

/// State word of a conversation that has a second datagram (`replied`: from the instance).
#[inline(always)]
pub fn state<A: Ip, T: FamilyTables<A>>(tables: &T, to: &Target<'_, A>, replied: bool) -> FlowWord {
    let state = FlowWord::live(tables.tag(), 0, 0)
        .with_mode(to.service.mode)
        .with_quic(to.service.conversation == conversation::QUIC);
    if replied { state.with_replied() } else { state }
}

/// The instance that the packet's connection id names.
#[inline(always)]
fn named<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    datagram: &Headers<A>,
    to: &Target<'_, A>,
) -> Option<u32> {
    let (config, len) = (to.service.quic_config, to.service.quic_id_len);
    let id = server_id(packet, datagram, config, len)?;
    tables.quic_server(&QuicKey { service: to.service_id, family: A::INDEX as u32, id })
}

/// A connection that came from another address, or to another's old one: its connection id names
/// the instance, whatever the split says.
#[inline(always)]
fn migrate<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    datagram: &Headers<A>,
    to: &Target<'_, A>,
    embryo: Option<Found<'_>>,
    server: u32,
) -> Decision {
    let mut source = ITSELF;
    if to.service.mode == mode::SNAT {
        match snat::claim(tables, to, server) {
            Some(claimed) => source = claimed,
            None => return Decision::drop(Reason::NoSourcePort),
        }
    }
    if let Some(embryo) = embryo
        && !end_embryo(tables, to.key, embryo)
    {
        return Decision::drop(Reason::EmbryoBusy);
    }
    let new = Embryo {
        state: EmbryoWord::syn(tables.tag(), None).0,
        backend: server,
        // No split placed it.
        generation: 0,
        created: tables.now() as u32,
        client_seq: datagram.seq,
        snat: source,
        chosen_by: Counter::Trials as u32,
        syn_at: 0,
    };
    if tables.insert_embryo(to.key, &new).is_err() {
        return Decision::drop(Reason::InsertFailed);
    }
    tables.count(server, Counter::Trials);
    tables.count(server, Counter::Migrated);
    Decision::to_backend(server, source, Reason::Migrated)
}
