//! ICMP errors follow the flow that they are about, in both directions.
//!
//! An error on its way to an instance quotes what a frontend sent; one on its way to a client quotes
//! what was sent to an instance. Neither changes what is known of the flow: anybody can forge one.

use super::open::found;
use super::place::{self, ITSELF, Target, to_embryo, to_flow};
use super::{Decision, FamilyTables, reply};
use crate::abi::{Endpoint, FlowKey, IPPROTO_UDP, conversation};
use crate::packet::quote::{self, Quote};
use crate::packet::{Headers, Ip, Packet};
use crate::reason::Reason;
use crate::tcp::word::EmbryoPhase;

/// Decides about an ICMP packet that came in.
#[inline(always)]
pub fn decide<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Decision {
    let quote = match read(packet, headers) {
        Ok(quote) => quote,
        Err(reason) => return Decision::pass(reason),
    };
    if tables.is_frontend_port(quote.ends.source_port)
        && headers.ip.destination == quote.ends.source
        && let Some(decision) = to_instance(tables, &quote)
    {
        return decision;
    }
    to_client(tables, headers, &quote)
}

/// Decides about an ICMP packet that this host is about to send.
#[inline(always)]
pub fn decide_egress<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &P,
    tables: &T,
    headers: &Headers<A>,
) -> Decision {
    match read(packet, headers) {
        Ok(quote) => to_client(tables, headers, &quote),
        Err(reason) => Decision::pass(reason),
    }
}

#[inline(always)]
fn read<A: Ip, P: Packet>(packet: &P, headers: &Headers<A>) -> Result<Quote<A>, Reason> {
    if !quote::is_error(headers) {
        return Err(Reason::NotOurProtocol);
    }
    if headers.is_first_fragment() {
        return Err(Reason::FragmentUnknown);
    }
    quote::quote(packet, headers)
}

/// About what a frontend sent to a client. `None`: not about a flow of ours.
#[inline(always)]
fn to_instance<A: Ip, T: FamilyTables<A>>(tables: &T, quote: &Quote<A>) -> Option<Decision> {
    let ends = &quote.ends;
    let key = FlowKey {
        client: ends.destination,
        frontend: ends.source,
        client_port: ends.destination_port,
        frontend_port: ends.source_port,
        proto: quote.protocol,
        pad: 0,
        pad_end: 0,
    };
    let key = tables.keep_key(&key);
    if let Some(flow) = tables.flow(key) {
        return Some(to_flow(flow, Reason::IcmpForwarded));
    }
    if let Some(embryo) = found(tables, key) {
        return Some(match embryo.1.phase() {
            EmbryoPhase::Ended => Decision::drop(Reason::EmbryoBusy),
            _ => to_embryo(embryo, Reason::IcmpForwarded),
        });
    }
    let at = tables.frontend(&key.frontend())?;
    let service = tables.service(at.service)?;
    if service.conversation != conversation::DATAGRAM || quote.protocol != IPPROTO_UDP {
        return None;
    }
    // Where the client's next datagram would go.
    let backend = place::stateless(tables, &Target::new(key, at, service)).ok()?;
    Some(Decision::to_backend(backend, ITSELF, Reason::IcmpForwarded))
}

/// About what was sent to an instance, by a router on the way or by the instance itself.
#[inline(always)]
fn to_client<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    headers: &Headers<A>,
    quote: &Quote<A>,
) -> Decision {
    let ends = &quote.ends;
    if !tables.is_backend_port(ends.destination_port) || headers.ip.destination != ends.source {
        return Decision::pass(Reason::NotOurFlow);
    }
    let instance = Endpoint::new(ends.destination, ends.destination_port, quote.protocol);
    let receiver = Endpoint::new(ends.source, ends.source_port, quote.protocol);
    let who = match reply::sender(tables, instance, receiver) {
        Ok(who) => who,
        Err(reason) => return Decision::pass(reason),
    };
    if who.service.conversation == conversation::DATAGRAM && quote.protocol == IPPROTO_UDP {
        let decision = reply::stateless(tables, &who);
        return Decision { reason: Reason::IcmpForwarded, ..decision };
    }
    match reply::find(tables, &who) {
        Some((frontend, _)) => {
            let reason = Reason::IcmpForwarded;
            let key = FlowKey::between(who.client, frontend);
            Decision::to_client(tables, &key, who.backend, reason)
        }
        None => Decision::pass(Reason::NotOurFlow),
    }
}
