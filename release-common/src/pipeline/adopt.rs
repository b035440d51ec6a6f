//! Taking over a connection whose beginning was not seen here, or not to its end.

use super::open::{Found, How, NotOpened, begun, entry, open};
use super::place::Target;
use super::{Counter, Decision, FamilyTables, count_step, udp};
use crate::abi::{Flow, FrontendRef, Side};
use crate::packet::{Headers, Ip, flag};
use crate::reason::Reason;
use crate::tcp::after;
use crate::tcp::lifecycle::observe;
use crate::tcp::word::{EmbryoPhase, EmbryoWord, End, FlowWord};

/// Makes a flow of an embryo on the instance's word that it has the conversation: a trial that it
/// answered (`adopted`), a handshake whose last acknowledgement it must have had, or a datagram that
/// it replied to (`opened`). `decision` is what becomes of the packet if nothing is against it,
/// `word` the embryo as the packet found it: whatever else there is by now, is left to its own
/// packets.
#[inline(always)]
pub fn adopt<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    decision: &Decision,
    word: EmbryoWord,
) -> Decision {
    let Some(key) = tables.kept_key() else {
        return Decision::drop(Reason::BrokenReference);
    };
    let key = tables.keep_key(&key);
    let Some(embryo) = tables.embryo(key) else { return *decision };
    let service_id = match tables.backend(decision.backend) {
        Some(backend) => backend.service,
        None => return Decision::drop(Reason::BrokenReference),
    };
    let Some(service) = tables.service(service_id) else {
        return Decision::drop(Reason::BrokenReference);
    };
    let to = Target::new(key, FrontendRef { service: service_id, ring: 0 }, service);

    let trial = matches!(word.phase(), EmbryoPhase::Trial);
    let mut flow = begun(embryo, tables.now());
    let (how, old) = if headers.is_tcp() {
        taken_over(tables, headers, &to, (embryo, word), &mut flow);
        let how = if trial { How::ADOPTED } else { How { limited: false, ..How::OPENED } };
        (how, None)
    } else {
        flow.state = udp::state(tables, &to, true).0;
        (How::OPENED, entry(tables, key))
    };
    match open(tables, &to, &mut flow, (embryo, word), old, how) {
        Ok(()) => {}
        Err(NotOpened::Full) => {
            // The answer goes on to the client, so the connection lives without an entry.
            tables.count(flow.backend, Counter::Untracked);
            return *decision;
        }
        Err(NotOpened::Busy) => return *decision,
        Err(NotOpened::Limit) => return Decision::drop(Reason::MaxFlows),
    }
    if headers.is_tcp()
        && !headers.has(flag::SYN)
        && let Some(entry) = tables.flow(key)
    {
        let seen = observe(entry, End::Server, headers, tables.now() as u32, false);
        count_step(tables, key, entry, End::Server, seen);
    }
    *decision
}

/// What is known of a TCP connection from one segment of the instance. The windows of a handshake
/// that was not seen are taken as the largest, so that nothing valid is taken for invalid.
#[inline(always)]
fn taken_over<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    (embryo, word): Found<'_>,
    flow: &mut Flow,
) {
    const LARGEST_WINDOW: u32 = 1 << 30;
    const LARGEST_SCALE: u8 = 14;
    let trial = matches!(word.phase(), EmbryoPhase::Trial);
    let (sent, fin) = (embryo.client_seq().get(), trial && word.client_fin());
    // Of a handshake: the SYN's number, which tells a late copy of it from a new one.
    let end = sent.wrapping_add(u32::from(trial));
    // What the instance acknowledges was sent, seen here or not.
    let beyond = after(segment.ack, sent.wrapping_add(u32::from(fin)));
    let state =
        FlowWord::live(tables.tag(), LARGEST_SCALE, LARGEST_SCALE).with_mode(to.service.mode);
    // This segment itself is not measured: the instance speaks first.
    let state = state.with_measured_as(word).with_spoken(End::Server, true);
    flow.state = if fin && !beyond { state.with_fin_seen(End::Client).0 } else { state.0 };
    flow.client = Side {
        next: if beyond { segment.ack } else { sent },
        ack: segment.seq,
        edge: segment.seq.wrapping_add(LARGEST_WINDOW),
        fin: end,
    };
    flow.server = Side {
        next: segment.seq,
        ack: segment.ack,
        edge: segment.ack.wrapping_add(LARGEST_WINDOW),
        fin: 0,
    };
}
