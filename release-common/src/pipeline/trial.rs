//! Mid-flow packets without an entry: another balancer died, or this one was restarted. Each
//! version's instance for the flow is asked in turn; a RST says "not mine" and is swallowed, the
//! first other answer adopts the flow. So flows survive without shared flow state.

use super::place::{Target, add_flow, end_embryo};
use super::{Counter, Decision, Insert, InsertError, Seg, Tables, count_step};
use crate::abi::{Embryo, Endpoint4, Flow, FlowKey4, Side, event_kind};
use crate::packet::flag;
use crate::placement::{FlowHash, next_trial};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::after;
use crate::tcp::lifecycle::observe;
use crate::tcp::word::{EmbryoPhase, EmbryoWord, End, FlowWord};

/// Marks a trial whose instance has refused: the client's next packet tries the next version.
const NONE: u8 = 0xff;

/// A mid-flow packet of a connection we have no entry of: to the instance being tried, or to the
/// next version's if that one has refused, or to the first.
#[inline(always)]
pub fn mid_flow<T: Tables>(
    tables: &T,
    segment: Seg<'_>,
    to: &Target<'_>,
    embryo: Option<Shared<'_, Embryo>>,
) -> Decision {
    let mut tried = 0;
    if let Some(embryo) = embryo {
        let word = EmbryoWord(embryo.state().get());
        if word.version() != NONE {
            if !segment.has(flag::RST) {
                let end = segment.seq.wrapping_add(segment.payload());
                if after(end, embryo.client_seq().get()) {
                    embryo.client_seq().set(end);
                }
                if segment.has(flag::FIN) && !word.client_fin() {
                    embryo.state().swap_if(word.0, word.with_client_fin().0);
                }
            }
            return Decision::to_backend(embryo.backend().get(), Reason::Tried);
        }
        if !end_embryo(tables, &to.key, embryo, word) {
            return Decision::drop(Reason::EmbryoBusy);
        }
        tried = word.tried();
    }
    try_next(tables, segment, to, tried)
}

#[inline(always)]
fn try_next<T: Tables>(tables: &T, segment: Seg<'_>, to: &Target<'_>, tried: u16) -> Decision {
    let Some(split) = tables.split(to.service_id) else {
        return Decision::drop(Reason::NoVersion);
    };
    let hash = FlowHash::of(&to.key);
    let next = next_trial(split, hash, tried).and_then(|version| {
        let entry = split.entries.get(version as usize)?;
        Some((version, tables.instance(entry.ring, hash)?))
    });
    let Some((version, backend)) = next else {
        return Decision::drop(Reason::NoInstance);
    };
    // A RST asks for no answer, so it cannot decide anything: it only goes where the flow most
    // likely is.
    if !segment.has(flag::RST) && segment.ttl > 1 {
        let word = EmbryoWord::trial(tables.tag(), tried | 1 << version, version as u8);
        let word = if segment.has(flag::FIN) { word.with_client_fin() } else { word };
        let embryo = Embryo {
            state: word.0,
            backend,
            // No split placed it.
            generation: 0,
            created: tables.now() as u32,
            client_seq: segment.seq.wrapping_add(segment.payload()),
        };
        if tables.insert_embryo(&to.key, &embryo).is_err() {
            return Decision::drop(Reason::InsertFailed);
        }
        tables.count(backend, Counter::Trials);
    }
    Decision::to_backend(backend, Reason::Tried)
}

/// The instance being tried answered.
#[inline(always)]
pub fn answered<T: Tables>(
    tables: &T,
    segment: Seg<'_>,
    key: &FlowKey4,
    service: u32,
    embryo: Shared<'_, Embryo>,
) -> Decision {
    let word = EmbryoWord(embryo.state().get());
    let backend = embryo.backend().get();
    let frontend = Endpoint4::tcp(key.frontend, key.frontend_port);
    if !segment.has(flag::RST) {
        adopt(tables, segment, key, service, embryo, word);
        return Decision::to_client(backend, frontend);
    }
    if word.version() == NONE {
        return Decision::drop(Reason::TrialRefused);
    }
    let more =
        tables.split(service).and_then(|split| next_trial(split, FlowHash::of(key), word.tried()));
    if more.is_some() {
        embryo.state().swap_if(word.0, EmbryoWord::trial(word.tag(), word.tried(), NONE).0);
        return Decision::drop(Reason::TrialRefused);
    }
    // All said so: the connection is nowhere, and the client may know.
    end_embryo(tables, key, embryo, word);
    Decision::to_client(backend, frontend)
}

/// Makes a flow of an embryo on the instance's word that it has the connection: a trial that it
/// answered (`adopted`), or a handshake whose last acknowledgement it must have had (`opened`). The
/// windows of a handshake that was not seen are taken as the largest, so that nothing valid is taken
/// for invalid.
#[inline(always)]
pub fn adopt<T: Tables>(
    tables: &T,
    segment: Seg<'_>,
    key: &FlowKey4,
    service: u32,
    embryo: Shared<'_, Embryo>,
    word: EmbryoWord,
) {
    const LARGEST_WINDOW: u32 = 1 << 30;
    const LARGEST_SCALE: u8 = 14;
    let now = tables.now();
    let trial = matches!(word.phase(), EmbryoPhase::Trial);
    let (sent, fin) = (embryo.client_seq().get(), trial && word.client_fin());
    // What the instance acknowledges was sent, seen here or not.
    let beyond = after(segment.ack, sent.wrapping_add(u32::from(fin)));
    let state = FlowWord::live(tables.tag(), LARGEST_SCALE, LARGEST_SCALE);
    let flow = Flow {
        state: if fin && !beyond { state.with_fin_seen(End::Client).0 } else { state.0 },
        backend: embryo.backend().get(),
        generation: embryo.generation().get(),
        opened_at: now,
        last_packet: now as u32,
        last_data: now as u32,
        client: Side {
            next: if beyond { segment.ack } else { sent },
            ack: segment.seq,
            edge: segment.seq.wrapping_add(LARGEST_WINDOW),
            fin: sent.wrapping_add(1),
        },
        server: Side {
            next: segment.seq,
            ack: segment.ack,
            edge: segment.ack.wrapping_add(LARGEST_WINDOW),
            fin: 0,
        },
    };
    if word.ended() == word || !embryo.state().swap_if(word.0, word.ended().0) {
        return;
    }
    if let Err(error) = add_flow(tables, key, &flow, Insert::New) {
        embryo.state().swap_if(word.ended().0, word.0);
        if matches!(error, InsertError::Refused) {
            // The answer goes on to the client, so the connection lives without an entry.
            tables.count(flow.backend, Counter::Untracked);
            tables.event(event_kind::TABLE_FULL, key, flow.backend, flow.generation);
        }
        return;
    }
    tables.remove_embryo(key);
    let (counter, kind) = if trial {
        (Counter::Adopted, event_kind::ADOPTED)
    } else {
        (Counter::Opened, event_kind::OPENED)
    };
    tables.count(flow.backend, counter);
    tables.live_flows(service, 1);
    tables.event(kind, key, flow.backend, flow.generation);
    if let Some(entry) = tables.flow(key)
        && !segment.has(flag::SYN)
    {
        let step = observe(entry, End::Server, segment, now as u32);
        count_step(tables, key, entry, step);
    }
}
