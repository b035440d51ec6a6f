//! From embryo to flow.

use super::place::{Target, add_flow};
use super::{Counter, Decision, Insert, InsertError, Seg, Tables, count_step};
use crate::abi::{Embryo, Flow, Side, event_kind};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::tcp::lifecycle::observe;
use crate::tcp::word::{EmbryoWord, End, FlowWord, Phase};

/// Largest window a segment can offer without scaling.
const UNSCALED: u32 = 65535;

/// The client completed its handshake: the embryo becomes a flow. `old` is the entry under the same
/// key, closed or superseded, which the flow replaces.
///
/// Whoever swaps the embryo's word makes the flow, so it is opened once; the flow is in its table
/// before the embryo leaves its own, so a walk of embryos and then flows misses none.
#[inline(always)]
pub fn promote<T: Tables>(
    tables: &T,
    segment: Seg<'_>,
    to: &Target<'_>,
    embryo: Shared<'_, Embryo>,
    word: EmbryoWord,
    old: Option<(Shared<'_, Flow>, FlowWord)>,
) -> Decision {
    let client_seq = embryo.client_seq().get().wrapping_add(1);
    let server_seq = word.server_seq().wrapping_add(1);
    let (client_scale, server_scale) = word.scales();
    let now = tables.now();
    let flow = Flow {
        state: FlowWord::live(tables.tag(), client_scale, server_scale).0,
        backend: embryo.backend().get(),
        generation: embryo.generation().get(),
        opened_at: now,
        last_packet: now as u32,
        last_data: now as u32,
        client: Side {
            next: client_seq,
            ack: server_seq,
            edge: server_seq.wrapping_add(UNSCALED),
            // Until there is a FIN: tells a late copy of this connection's SYN from a new one.
            fin: embryo.client_seq().get(),
        },
        server: Side {
            // With TCP Fast Open the server may have sent data already.
            next: segment.ack,
            ack: client_seq,
            edge: client_seq.wrapping_add(UNSCALED),
            fin: 0,
        },
    };
    if !embryo.state().swap_if(word.0, word.ended().0) {
        return Decision::drop(Reason::EmbryoBusy);
    }
    if let Err(error) = enter(tables, to, &flow, old) {
        if matches!(error, InsertError::Refused) {
            tables.event(event_kind::TABLE_FULL, &to.key, flow.backend, flow.generation);
        }
        // The handshake goes on: the client will repeat itself.
        embryo.state().swap_if(word.ended().0, word.0);
        return Decision::drop(Reason::InsertFailed);
    }
    tables.remove_embryo(&to.key);
    tables.count(flow.backend, Counter::Opened);
    tables.live_flows(to.service_id, 1);
    tables.event(event_kind::OPENED, &to.key, flow.backend, flow.generation);
    if let Some(entry) = tables.flow(&to.key) {
        let step = observe(entry, End::Client, segment, now as u32);
        count_step(tables, &to.key, entry, step);
    }
    Decision::to_backend(flow.backend, Reason::Forwarded)
}

/// Puts the flow in its table, in place of `old` if there is one.
#[inline(always)]
fn enter<T: Tables>(
    tables: &T,
    to: &Target<'_>,
    flow: &Flow,
    old: Option<(Shared<'_, Flow>, FlowWord)>,
) -> Result<(), InsertError> {
    let Some((old, word)) = old else {
        return add_flow(tables, &to.key, flow, Insert::New);
    };
    if matches!(word.phase(), Phase::Dead) {
        return Err(InsertError::Exists);
    }
    let dead = word.with_phase(Phase::Dead);
    if !old.state().swap_if(word.0, dead.0) {
        return Err(InsertError::Exists);
    }
    let old_backend = old.backend().get();
    if let Err(error) = add_flow(tables, &to.key, flow, Insert::Replace) {
        old.state().swap_if(dead.0, word.0);
        return Err(error);
    }
    if word.is_live() {
        tables.count(old_backend, Counter::Superseded);
        tables.live_flows(to.service_id, -1);
    }
    Ok(())
}
