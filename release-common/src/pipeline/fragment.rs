//! Fragments follow their first fragment, which alone has the ports.

use super::decision::Deed;
use super::reply::to_client;
use super::{Decision, FamilyTables};
use crate::abi::{Endpoint, FlowKey, FragmentOf, IPPROTO_TCP};
use crate::packet::{Fragment, Headers, Ip, flag};
use crate::reason::Reason;
use crate::tcp::lifecycle::extend;
use crate::tcp::word::End;

/// Seconds after the first fragment in which others are believed to belong to it: identifications
/// are used again.
const LIFETIME: u32 = 5;

/// Notes where a first fragment was sent.
#[inline(always)]
pub fn note<A: Ip, T: FamilyTables<A>>(tables: &T, headers: &Headers<A>, decision: &Decision) {
    let (client, frontend, reply) = match decision.deed {
        Deed::ToBackend | Deed::Translate => (headers.source(), headers.destination(), 0),
        Deed::ToClient => match tables.kept_key() {
            Some(key) => (key.client(), key.frontend(), 1),
            None => return,
        },
        _ => return,
    };
    let of = FragmentOf {
        client: client.addr,
        frontend: frontend.addr,
        ports: [client.port, frontend.port],
        snat: decision.snat,
        backend: decision.backend,
        base: headers
            .seq
            .wrapping_sub(u32::from(headers.transport_header))
            .wrapping_sub(u32::from(headers.ip.fragment_offset)),
        created: tables.now() as u32,
        reply,
        proto: headers.ip.protocol,
        flags: headers.flags,
        pad: 0,
    };
    tables.note_fragment(&headers.fragment_key(), &of);
}

/// Sends a later fragment after its first.
#[inline(always)]
pub fn follow<A: Ip, T: FamilyTables<A>>(tables: &T, headers: &Headers<A>) -> Decision {
    let Some(of) = tables.fragment(&headers.fragment_key()) else {
        return Decision::pass(Reason::FragmentUnknown);
    };
    let age = (tables.now() as u32).wrapping_sub(of.created);
    if age > tables.hz().wrapping_mul(LIFETIME) {
        return Decision::pass(Reason::FragmentUnknown);
    }
    let key = FlowKey::between(
        Endpoint::new(of.client, of.ports[0], of.proto),
        Endpoint::new(of.frontend, of.ports[1], of.proto),
    );
    if headers.ip.fragment == Fragment::LAST
        && of.proto == IPPROTO_TCP
        && let Some(flow) = tables.flow(&key)
    {
        let end = u32::from(headers.ip.fragment_offset).wrapping_add(headers.ip_payload());
        let from = if of.reply == 0 { End::Client } else { End::Server };
        extend(flow, from, of.base.wrapping_add(end), of.flags & flag::FIN != 0);
    }
    if of.reply == 0 {
        return Decision::to_backend(of.backend, of.snat, Reason::FragmentForwarded);
    }
    Decision { reason: Reason::FragmentForwarded, ..to_client(tables, &key, of.backend) }
}
