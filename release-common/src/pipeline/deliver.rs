//! The last leg: translate or encapsulate, find the way, send.

use super::decision::{Decision, Deed};
use super::{FamilyTables, Hop, Outcome, Route};
use crate::abi::{
    Addr6, Backend, Be16, Be32, Endpoint, FlowKey, IPPROTO_TCP, Service, SnatSource, mode, refusal,
};
use crate::packet::answer::{IcmpError, IcmpKind, icmp_error, refuse, reset};
use crate::packet::rewrite::{Ends, macs, set_macs, translate};
use crate::packet::tunnel::{Tunnel, encapsulate};
use crate::packet::{Headers, Ip, Packet, quote};
use crate::placement::FlowHash;
use crate::reason::Reason;

/// First source port of GUE: the dynamic range (RFC 6335 §6).
const FIRST_GUE_PORT: u16 = 49152;
/// Smallest MTU that an ICMP error names: below, senders stop listening (RFC 791, RFC 8200 §5).
const LEAST_MTU4: u16 = 68;
const LEAST_MTU6: u16 = 1280;

/// What delivering asks of the tables: routes of both families, since a tunnel may be of the other.
pub trait Roads: FamilyTables<Be32> + FamilyTables<Addr6> {}
impl<T: FamilyTables<Be32> + FamilyTables<Addr6>> Roads for T {}

/// An error to answer the sender with, and why.
type Answer = (IcmpError, Reason);

/// Does what was decided about a packet that is only to be translated, by a way that is known: what
/// becomes of nearly all of them. `None`: nothing is done yet, it is left to [`act`].
#[inline(always)]
pub fn act_at_once<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<A>,
    decision: &Decision,
) -> Option<Outcome> {
    let way = match decision.deed {
        Deed::ToClient => to_client(&tables.kept_key()?),
        Deed::Translate => {
            translated(headers, tables.backend(decision.backend).filter(|entry| entry.is_used())?)
        }
        Deed::ToBackend => {
            let entry = tables.backend(decision.backend).filter(|entry| entry.is_used())?;
            to_backend(headers, entry, tables.service(entry.service)?, decision.snat)
        }
        _ => return None,
    };
    if !mode::routed(way.mode) || headers.ip.ttl <= 1 || headers.ip.protocol == A::ICMP {
        return None;
    }
    let hop = tables.known_hop(way.route.1, headers.ip.len)?;
    tables.traffic(decision.backend, decision.traffic(headers.ip.len), tables.now());
    let done = translate(packet, headers, &way.ends, true)
        .and_then(|()| set_macs(packet, hop.dmac, hop.smac));
    let outcome = match done {
        Some(()) => out(hop.ifindex, decision.reason),
        None => Outcome::drop(Reason::NoRoom),
    };
    Some(outcome.about(decision.backend))
}

/// Does what was decided.
#[inline(always)]
pub fn act<A: Ip, P: Packet, T: FamilyTables<A> + Roads>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<A>,
    decision: &Decision,
) -> Outcome {
    let backend = decision.backend;
    if backend != 0 && headers.ip.protocol != A::ICMP {
        tables.traffic(backend, decision.traffic(headers.ip.len), tables.now());
    }
    let done = match decision.deed {
        Deed::Pass => Ok(Outcome::pass(decision.reason)),
        Deed::Drop => Ok(Outcome::drop(decision.reason)),
        Deed::Refuse => refused(packet, headers, decision),
        Deed::ToClient => {
            let Some(key): Option<FlowKey<A>> = tables.kept_key() else {
                return Outcome::drop(Reason::BrokenReference);
            };
            let way = to_client(&key);
            forward(packet, tables, headers, &way, decision.reason)
        }
        Deed::ToBackend | Deed::Translate | Deed::Reset => {
            let Some(entry) = tables.backend(backend).filter(|entry| entry.is_used()) else {
                return Outcome::drop(Reason::BrokenReference);
            };
            let Some(service) = tables.service(entry.service) else {
                return Outcome::drop(Reason::BrokenReference);
            };
            if matches!(decision.deed, Deed::Reset) && reset(packet, headers).is_none() {
                return Outcome::drop(Reason::NoRoom);
            }
            match (service.mode, entry.version) {
                (mode::IPIP | mode::GUE, 4) => {
                    tunnel::<A, Be32, P, T>(packet, tables, headers, entry, service, decision)
                }
                (mode::IPIP | mode::GUE, _) => {
                    tunnel::<A, Addr6, P, T>(packet, tables, headers, entry, service, decision)
                }
                _ => {
                    let way = to_backend(headers, entry, service, decision.snat);
                    forward(packet, tables, headers, &way, decision.reason)
                }
            }
        }
    };
    match done {
        Ok(outcome) => outcome,
        Err((error, why)) => answer(packet, headers, error, why),
    }
    .about(backend)
}

/// Does what was decided about a packet of this host: its own stack sends it.
#[inline(always)]
pub fn act_egress<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<A>,
    decision: &Decision,
) -> Outcome {
    let outcome = match decision.deed {
        Deed::ToClient => {
            if headers.ip.protocol != A::ICMP {
                tables.traffic(decision.backend, decision.traffic(headers.ip.len), tables.now());
            }
            let Some(key): Option<FlowKey<A>> = tables.kept_key() else {
                return Outcome::drop(Reason::BrokenReference);
            };
            here(packet, headers, &to_client(&key).ends, decision.reason)
        }
        Deed::Drop => Outcome::drop(decision.reason),
        _ => Outcome::pass(decision.reason),
    };
    outcome.about(decision.backend)
}

/// How a packet that is not encapsulated goes on.
struct Way<A> {
    /// The ends it gets.
    ends: Ends<A>,
    /// Source and destination of the route.
    route: (A, A),
    /// One of [`mode`].
    mode: u8,
    /// Towards the client.
    reply: bool,
}

#[inline(always)]
fn to_client<A: Ip>(key: &FlowKey<A>) -> Way<A> {
    let ends = Ends {
        source: key.frontend,
        destination: key.client,
        source_port: key.frontend_port,
        destination_port: key.client_port,
    };
    Way { ends, route: (key.frontend, key.client), mode: mode::NAT, reply: true }
}

#[inline(always)]
fn to_backend<A: Ip>(
    headers: &Headers<A>,
    entry: &Backend,
    service: &Service,
    snat: SnatSource,
) -> Way<A> {
    let unchanged = Ends::of(headers);
    let to: A = entry.address();
    if service.mode == mode::DSR {
        let route = (headers.ip.source, to);
        return Way { ends: unchanged, route, mode: mode::DSR, reply: false };
    }
    let mut way = Way { mode: service.mode, ..translated(headers, entry) };
    if snat.port != Be16(0)
        && let Some(source) = service.snat_address(usize::from(snat.index))
    {
        way.ends = way.ends.from(Endpoint::new(source, snat.port, 0));
        way.route.0 = source;
    }
    way
}

/// Mode `nat`: all that changes is the destination.
#[inline(always)]
fn translated<A: Ip>(headers: &Headers<A>, entry: &Backend) -> Way<A> {
    let to: A = entry.address();
    let ends = Ends::of(headers).to(Endpoint::new(to, Be16::new(entry.port), 0));
    Way { ends, route: (ends.source, to), mode: mode::NAT, reply: false }
}

/// Translates the packet, or only addresses the frame (mode `dsr`: the instance has the frontend's
/// address too), and sends it on.
///
/// # Errors
/// What to answer the sender. In replies to a client's own address a TTL used up and a packet too
/// big are the kernel's to answer: it sees the packet as the instance sent it, and quotes that. In
/// those of mode `snat` it would see one to this host, and no socket there.
#[inline(always)]
fn forward<A: Ip, P: Packet, T: FamilyTables<A>>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<A>,
    way: &Way<A>,
    reason: Reason,
) -> Result<Outcome, Answer> {
    let ip = &headers.ip;
    if way.mode == mode::LOCAL {
        return Ok(here(packet, headers, &way.ends, reason));
    }
    let routed = mode::routed(way.mode);
    let passing_by = way.reply && ip.destination == way.ends.destination;
    if routed && ip.ttl <= 1 {
        if passing_by {
            return Ok(Outcome::pass(Reason::TtlExceeded));
        }
        return Err((IcmpError::new(IcmpKind::TimeExceeded, 0), Reason::TtlExceeded));
    }
    let hop = match tables.route(way.route.0, way.route.1, ip.tos, ip.len) {
        Route::Via(hop) => hop,
        Route::TooBig(mtu) if ip.dont_fragment || !routed => {
            if passing_by {
                return Ok(Outcome::pass(Reason::TooBig));
            }
            return Err((IcmpError::new(IcmpKind::TooBig, mtu), Reason::TooBig));
        }
        // To the kernel the packet is for this host.
        _ if !routed => return Ok(Outcome::drop(Reason::NoNeighbour)),
        _ => return Ok(here(packet, headers, &way.ends, Reason::HandedToKernel)),
    };
    if routed && rewritten(packet, headers, &way.ends, true).is_none()
        || set_macs(packet, hop.dmac, hop.smac).is_none()
    {
        return Ok(Outcome::drop(Reason::NoRoom));
    }
    Ok(out(hop.ifindex, reason))
}

/// Translates and leaves the packet to this host's stack.
#[inline(always)]
fn here<A: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    ends: &Ends<A>,
    reason: Reason,
) -> Outcome {
    match rewritten(packet, headers, ends, false) {
        None => Outcome::drop(Reason::NoRoom),
        Some(()) => Outcome::pass(reason),
    }
}

/// Gives the packet, or what an ICMP error quotes, other ends.
#[inline(always)]
fn rewritten<A: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    ends: &Ends<A>,
    routed: bool,
) -> Option<()> {
    if headers.ip.protocol != A::ICMP {
        return translate(packet, headers, ends, routed);
    }
    let quote = quote::quote(packet, headers).ok()?;
    // What is quoted went the other way. An error on its way to an instance comes from any router,
    // but is about a packet to the client.
    let mut inner =
        Ends { source: ends.destination, source_port: ends.destination_port, ..quote.ends };
    if ends.source_port != Be16(0) {
        inner.destination = ends.source;
        inner.destination_port = ends.source_port;
    }
    let outer = (ends.source, ends.destination);
    quote::translate_error(packet, headers, &quote, &inner, outer, routed)
}

#[inline(always)]
fn out(ifindex: Option<u32>, reason: Reason) -> Outcome {
    match ifindex {
        None => Outcome::bounce(reason),
        Some(ifindex) => Outcome::send(ifindex, reason),
    }
}

/// Modes `ipip` and `gue`: the packet travels in another, as it is.
///
/// # Errors
/// What to answer the sender.
#[inline(always)]
fn tunnel<A: Ip, B: Ip, P: Packet, T: FamilyTables<B>>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<A>,
    entry: &Backend,
    service: &Service,
    decision: &Decision,
) -> Result<Outcome, Answer> {
    let hash = FlowHash::of(&headers.key_from_client());
    let gue = service.mode == mode::GUE;
    let tunnel = Tunnel {
        source: vary(entry.tunnel_source::<B>(), entry.tunnel_bits, hash),
        destination: entry.address::<B>(),
        source_port: if gue { FIRST_GUE_PORT | hash.pick(1 << 14) as u16 } else { 0 },
        destination_port: service.tunnel_port,
    };
    let overhead = tunnel.overhead() as u32;
    let len = headers.ip.len + overhead;
    let route = tables.route(tunnel.source, tunnel.destination, headers.ip.tos, len);
    let (known, ifindex, ends) = match route {
        Route::Via(Hop { ifindex, dmac, smac }) => (true, ifindex, (dmac, smac)),
        Route::TooBig(mtu) => {
            let least = if A::VERSION == 4 { LEAST_MTU4 } else { LEAST_MTU6 };
            let inner = mtu.saturating_sub(overhead as u16).max(least);
            return Err((IcmpError::new(IcmpKind::TooBig, inner), Reason::TooBig));
        }
        Route::Kernel => match macs(packet) {
            Some(macs) => (false, None, macs),
            None => return Ok(Outcome::drop(Reason::NoRoom)),
        },
    };
    if encapsulate(packet, headers, &tunnel, ends).is_none() {
        return Ok(Outcome::drop(Reason::NoRoom));
    }
    Ok(if known { out(ifindex, decision.reason) } else { Outcome::pass(Reason::HandedToKernel) })
}

/// An outer source address that differs from flow to flow in its low bits, so that the receiving
/// host spreads them over its queues.
#[inline(always)]
fn vary<B: Ip>(source: B, bits: u8, hash: FlowHash) -> B {
    if bits == 0 {
        return source;
    }
    let mask = Be32::new(u32::MAX >> (32 - u32::from(bits.min(32)))).0;
    let mut words = source.words();
    let last = if B::INDEX == 0 { 0 } else { 3 };
    words[last] |= hash.for_split() & mask;
    B::from_words(words)
}

/// Answers a new flow that cannot be placed, as the service wants it.
///
/// # Errors
/// What to answer the sender.
#[inline(always)]
fn refused<A: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    decision: &Decision,
) -> Result<Outcome, Answer> {
    let reason = decision.reason;
    match decision.refusal {
        refusal::REJECT if headers.ip.protocol == IPPROTO_TCP => {
            Ok(match refuse(packet, headers) {
                Some(()) => Outcome::bounce(reason),
                None => Outcome::drop(Reason::NoRoom),
            })
        }
        refusal::REJECT => Err((IcmpError::new(IcmpKind::PortUnreachable, 0), reason)),
        refusal::PASS => Ok(Outcome::pass(reason)),
        _ => Ok(Outcome::drop(reason)),
    }
}

/// Answers a packet with an ICMP error; never an ICMP error itself (RFC 1122 §3.2.2), nor a
/// fragment without its beginning.
#[inline(always)]
fn answer<A: Ip, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    error: IcmpError,
    why: Reason,
) -> Outcome {
    if headers.ip.protocol == A::ICMP || headers.ip.fragment.is_later() {
        return Outcome::drop(why);
    }
    match icmp_error(packet, headers, error) {
        Some(()) => Outcome::bounce(why),
        None => Outcome::drop(Reason::NoRoom),
    }
}
