//! The last leg: translate, find the way, send.

use super::{Action, Decision, Deed, Outcome, Route, Seg, Tables};
use crate::abi::{Endpoint4, backend_state, refusal};
use crate::packet::Packet;
use crate::packet::answer::{IcmpError, icmp_error, refuse};
use crate::packet::rewrite::{Translate, route_ends, set_macs, translate};
use crate::reason::Reason;

/// Does what was decided.
#[inline(always)]
pub fn act<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    segment: Seg<'_>,
    decision: Decision,
) -> Outcome {
    let Decision { deed, reason, backend, refusal, frontend } = decision;
    match deed {
        Deed::Pass => Outcome::pass(reason),
        Deed::Drop => Outcome::drop(reason),
        Deed::ToBackend => to_backend(packet, tables, segment, backend, reason),
        Deed::ToClient => to_client(packet, tables, segment, backend, frontend),
        Deed::Refuse => refused(packet, segment, refusal, reason),
    }
}

/// Sends the packet to instance `backend`.
#[inline(always)]
fn to_backend<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    segment: Seg<'_>,
    backend: u32,
    reason: Reason,
) -> Outcome {
    let endpoint = match tables.backend(backend) {
        Some(entry) if entry.state == backend_state::USED => entry.endpoint(),
        _ => return Outcome::drop(Reason::BrokenReference),
    };
    tables.traffic(backend, segment.ip_len, tables.now());
    if segment.ttl <= 1 {
        return answer(packet, segment, IcmpError::TimeExceeded, Reason::TtlExceeded);
    }
    let (source, destination) = route_ends(segment, Translate::Destination, endpoint);
    match tables.route(source, destination, segment.tos, segment.ip_len) {
        Route::TooBig(mtu) if segment.dont_fragment => {
            answer(packet, segment, IcmpError::FragmentationNeeded(mtu), Reason::TooBig)
        }
        route => send(packet, segment, Translate::Destination, endpoint, route, reason),
    }
}

/// Sends the packet back to the client, from the frontend's address.
///
/// A TTL used up and a packet too big are the kernel's to answer here: it sees the packet as the
/// instance sent it, and quotes that.
#[inline(always)]
fn to_client<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    segment: Seg<'_>,
    backend: u32,
    frontend: Endpoint4,
) -> Outcome {
    tables.traffic(backend, segment.ip_len, tables.now());
    if segment.ttl <= 1 {
        return Outcome::pass(Reason::TtlExceeded);
    }
    let (source, destination) = route_ends(segment, Translate::Source, frontend);
    match tables.route(source, destination, segment.tos, segment.ip_len) {
        Route::TooBig(_) if segment.dont_fragment => Outcome::pass(Reason::TooBig),
        route => send(packet, segment, Translate::Source, frontend, route, Reason::Replied),
    }
}

#[inline(always)]
fn send<P: Packet>(
    packet: &mut P,
    segment: Seg<'_>,
    what: Translate,
    to: Endpoint4,
    route: Route,
    reason: Reason,
) -> Outcome {
    match route {
        Route::Via { ifindex, dmac, smac } => {
            let done = translate(packet, segment, what, to, true)
                .and_then(|()| set_macs(packet, dmac, smac));
            match (done, ifindex) {
                (None, _) => Outcome::drop(Reason::NoRoom),
                (Some(()), None) => Outcome::bounce(reason),
                (Some(()), Some(ifindex)) => Outcome { action: Action::Send, ifindex, reason },
            }
        }
        Route::Kernel | Route::TooBig(_) => match translate(packet, segment, what, to, false) {
            None => Outcome::drop(Reason::NoRoom),
            Some(()) => Outcome::pass(Reason::HandedToKernel),
        },
    }
}

/// Answers a new flow that cannot be placed, as the service wants it.
#[inline(always)]
fn refused<P: Packet>(packet: &mut P, segment: Seg<'_>, how: u8, reason: Reason) -> Outcome {
    match how {
        refusal::REJECT => match refuse(packet, segment) {
            Some(()) => Outcome::bounce(reason),
            None => Outcome::drop(Reason::NoRoom),
        },
        refusal::PASS => Outcome::pass(reason),
        _ => Outcome::drop(reason),
    }
}

#[inline(always)]
fn answer<P: Packet>(packet: &mut P, segment: Seg<'_>, error: IcmpError, why: Reason) -> Outcome {
    match icmp_error(packet, segment, error) {
        Some(()) => Outcome::bounce(why),
        None => Outcome::drop(Reason::NoRoom),
    }
}
