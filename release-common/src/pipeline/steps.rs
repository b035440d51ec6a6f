//! What a segment did to a flow, counted and measured.

use super::{Counter, FamilyTables, Tables, Timed, session};
use crate::abi::{Flow, FlowKey, Side, event_kind};
use crate::measure::{since, stamp_of};
use crate::packet::{Headers, Ip};
use crate::shared::Shared;
use crate::tcp::lifecycle::{Seen, Step, observe};
use crate::tcp::word::{End, FlowWord};

/// Takes a segment from `from` into account, see [`observe`].
#[inline(always)]
pub fn look<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    flow: Shared<'_, Flow>,
    from: End,
    segment: &Headers<A>,
) -> Seen {
    observe(flow, from, segment, tables.now() as u32, T::MEASURES)
}

/// Counts what [`look`] reports of a segment from `from`.
#[inline(always)]
pub fn count_step<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    flow: Shared<'_, Flow>,
    from: End,
    seen: Seen,
) {
    let (counter, change, kind) = match seen.step {
        Step::None | Step::Answer => return,
        Step::Spoke => {
            spoke(tables, flow, from, seen);
            return;
        }
        Step::Unverified => {
            tables.count(flow.backend().get(), Counter::Unverified);
            return;
        }
        Step::ClosedFin => (Counter::ClosedFin, -1, event_kind::CLOSED),
        Step::ClosedRst => (Counter::ClosedRst, -1, event_kind::CLOSED),
        Step::Forced => (Counter::Forced, -1, event_kind::CLOSED),
        Step::Reopened => (Counter::Reopened, 1, event_kind::REOPENED),
    };
    let (backend, generation) = (flow.backend().get(), flow.generation().get());
    let side = match from {
        End::Client => Counter::ClientResets,
        End::Server => Counter::ServerResets,
    };
    let reset = matches!(seen.step, Step::ClosedRst) & FlowWord(flow.state().get()).measured();
    tables.count_both(backend, counter, side, reset);
    if let Some(entry) = tables.backend(backend) {
        tables.add_live_flows(entry.service, change);
        let word = FlowWord(flow.state().get());
        if word.in_session()
            && !session::change(tables, key.client, entry.service, change)
            && change > 0
        {
            // Its session ended while it was taken for closed.
            flow.state().swap_if(word.0, word.with_session(false).0);
        }
    }
    tables.event(kind, key, backend, generation);
}

/// The first data of one end of a measured flow. Where the server speaks first, it answers nothing.
#[inline(always)]
fn spoke<T: Tables>(tables: &T, flow: Shared<'_, Flow>, from: End, seen: Seen) {
    if matches!(from, End::Client) {
        let before = flow.server().get();
        if before.fin == before.unasked() {
            // The request is still here: its answer will find the time. Unless something else of the
            // server's passes right now, such as a FIN: that counts, and this is not measured.
            let asked = Side { fin: stamp_of(tables.nanoseconds()), ..before };
            flow.server_tail().swap_if(before.tail(), asked.tail());
        }
        return;
    }
    if seen.asked_at != 0 {
        let took = since(seen.asked_at, tables.nanoseconds());
        tables.took(flow.backend().get(), Timed::FirstByte, took);
    }
}
