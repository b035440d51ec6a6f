//! Asking the kernel for all sockets of some addresses.
//!
//! The kernel lists its hash table bucket by bucket, each under its lock. Only a list that does not
//! fit into one part goes on later, by the position within a bucket, and may then miss a socket. So
//! the filter is the kernel's: where nothing remains the list is empty, or nearly, and "none" is
//! exact. Listeners and TIME_WAIT sockets are asked for apart, as they would fill it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::diag::{Af, Found, INET, INET6, Message, Request};
use super::summary::{Question, State, Summary, Target};
use crate::config::Protocol;
use crate::net::exchange::{DUMP, ExchangeError, exchange};
use crate::net::namespace::{Namespace, NamespaceError};
use crate::net::route;

/// Sockets that the kernel takes from a bucket at once at least (`SKARR_SZ`): lists up to there are
/// made in one go.
const AT_ONCE: u64 = 16;
/// Lists made until one is exact.
const TRIES: usize = 3;

/// Every state (a bit each).
pub(super) const ALL_TCP: u32 = 0x1fff;
/// Listeners.
pub(super) const LISTEN: u32 = 1 << 10;
/// What is left of connections that have ended.
pub(super) const TIME_WAIT: u32 = 1 << 6;

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The namespace is gone, or closed to us.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The address is that of somebody else: its sockets are elsewhere.
    #[error("{0} is no address there")]
    NotHere(IpAddr),
    /// The kernel does not say.
    #[error("sock_diag: {0}")]
    Kernel(#[from] ExchangeError),
    /// Too many sockets came and went to be sure that none was missed.
    #[error("sock_diag: the list of sockets changed while it was made")]
    Moving,
}

/// All sockets in `namespace` whose local end is one of the targets, those of IPv6 sockets that serve
/// IPv4 and of wildcard listeners included. Blocks for as long as the kernel takes.
///
/// # Errors
/// Whenever the answer would not be the whole truth.
pub fn ask(namespace: &Namespace, question: &Question) -> Result<Summary, AskError> {
    namespace.run(|| {
        let mut sum = Summary::default();
        for own in &question.own {
            if !is_local(*own)? {
                return Err(AskError::NotHere(*own));
            }
        }
        for target in &question.targets {
            sum.add(of_target(target)?);
        }
        sum.cookies = cookies_sent().unwrap_or(u64::MAX);
        Ok(sum)
    })?
}

/// Whether packets to the address end in the calling thread's namespace.
fn is_local(address: IpAddr) -> Result<bool, ExchangeError> {
    let question = RouteNetlinkMessage::GetRoute(route::question(address));
    let answers = match exchange(SockProtocol::NetlinkRoute, question, 0) {
        // Unreachable, prohibited, no such family: not here, in any case.
        Err(ExchangeError::Refused(_)) => return Ok(false),
        answers => answers?,
    };
    Ok(answers.iter().any(|answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => route::way(message).is_some_and(|way| way.local),
        _ => false,
    }))
}

fn of_target(target: &Target) -> Result<Summary, AskError> {
    match target.protocol {
        Protocol::Udp => {
            let mut summary = Summary::default();
            for found in list(target, ALL_TCP, None)? {
                summary.udp(&found);
            }
            Ok(summary)
        }
        Protocol::Tcp => {
            for _ in 0..TRIES {
                let summary = of_tcp(target)?;
                let apart = |state| summary.states.get(&state).copied().unwrap_or(0);
                let listed = summary.states.values().sum::<u64>()
                    - apart(State::Listen)
                    - apart(State::TimeWait);
                if summary.remaining() > 0 || listed <= AT_ONCE {
                    return Ok(summary);
                }
            }
            Err(AskError::Moving)
        }
    }
}

fn of_tcp(target: &Target) -> Result<Summary, AskError> {
    let mut summary = Summary::default();
    // Listeners first: who leaves their queue meanwhile is among the connections.
    for states in [LISTEN, ALL_TCP & !LISTEN & !TIME_WAIT, TIME_WAIT] {
        for found in list(target, states, None)? {
            summary.tcp(&found);
        }
    }
    Ok(summary)
}

/// The target's sockets in the calling thread's namespace: those of its own family, and IPv6 ones
/// that serve IPv4. With `towards`, only those whose other end has that port.
pub(super) fn list(
    target: &Target,
    states: u32,
    towards: Option<u16>,
) -> Result<Vec<Found>, ExchangeError> {
    let port = target.address.port();
    let list = |family: Af, ends: &[IpAddr]| {
        let mut request = Request::all(family, target.protocol.number(), states, ends, port);
        if let Some(port) = towards {
            request = request.towards(port);
        }
        let answers = exchange(SockProtocol::NetlinkSockDiag, Message::Request(request), DUMP)?;
        let found = answers.into_iter().filter_map(|answer| match answer {
            Message::Found(found) => Some(found),
            Message::Request(_) => None,
        });
        Ok::<_, ExchangeError>(found.collect::<Vec<_>>())
    };
    match target.address.ip() {
        IpAddr::V6(address) => list(INET6, &[address.into(), Ipv6Addr::UNSPECIFIED.into()]),
        IpAddr::V4(address) => {
            let mut found = list(INET, &[address.into(), Ipv4Addr::UNSPECIFIED.into()])?;
            let mapped = |address: Ipv4Addr| IpAddr::from(address.to_ipv6_mapped());
            let ends =
                [mapped(address), mapped(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
            // Those that take IPv6 alone are not for this address.
            found.extend(list(INET6, &ends)?.into_iter().filter(|found| !found.v6only));
            Ok(found)
        }
    }
}

/// SYN cookies sent in the calling thread's namespace.
fn cookies_sent() -> Option<u64> {
    named_counter(&fs::read_to_string("/proc/thread-self/net/netstat").ok()?, "SyncookiesSent")
}

/// A counter of a file that has a line of names and a line of values.
fn named_counter(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    let (names, values) = lines
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .find(|(names, _)| names.split_whitespace().any(|found| found == name))?;
    let at = names.split_whitespace().position(|found| found == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
