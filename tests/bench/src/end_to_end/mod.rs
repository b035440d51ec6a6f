//! End to end: real stacks, clients and servers, in namespaces.
//!
//! Every peer has the same topology for itself, with the same client and the same servers, and is
//! measured in turn with the others in each round; those whose turn it is not are idle. All links
//! are alike: veth with transmit offloads (checksums, TSO, GSO) off, since packets that XDP
//! rewrites must have checksums, GRO off where they reach the balancer and on where they reach
//! client and servers. Connection tracking, which nftables alone uses here, keeps the machine's size
//! and timeouts; our flow tables are as large as that by default.
//!
//! Client, servers and balancer share the machine's CPUs: where these are busy, a balancer costs
//! requests by what it takes from the others, and the rates of two balancers differ by no more than
//! the whole way's cost through each. The rows of CPU time say what each adds to that way.

mod bed;
mod client;
mod cpu;
mod peer;
mod programs;
mod report;
mod service;

use std::time::Duration;

use anyhow::Result;

use crate::row::Measured;
use crate::{Scope, interrupt, say};
use bed::Bed;
use client::{Kind, Run};
use peer::Peer;

/// How much is measured of each peer in a round.
#[derive(Clone, Copy, Debug)]
struct Amount {
    peers: usize,
    keep_alive: Duration,
    paced: Duration,
    connections: Duration,
    /// How many of the peers send bulk, over so many connections at once.
    bulk_peers: usize,
    streams: &'static [u8],
    bytes: u64,
}

/// What a peer did in a round.
#[derive(Clone, Debug)]
struct Round {
    keep_alive: Run,
    paced: Run,
    connections: Run,
    /// Gbit/s, over as many connections as [`Amount::streams`] says.
    bulk: Vec<f64>,
}

/// Measures.
///
/// # Errors
/// What cannot be measured, or was not what it should have been.
pub fn measure(scope: Scope) -> Result<Measured> {
    programs::demand()?;
    let amount = amount(scope);
    let peers = &Peer::ALL[..amount.peers];
    say("end to end: topologies, servers and balancers");
    let topologies = peers.iter().map(|peer| bed::topology(*peer)).collect::<Result<Vec<_>>>()?;
    let beds = peers.iter().zip(&topologies).map(|(peer, topology)| Bed::new(*peer, topology));
    let beds = beds.collect::<Result<Vec<_>>>()?;
    for bed in &beds {
        bed.ready()?;
        // What the first run of all has to warm up is not measured.
        bed.requests(Kind::KeepAlive, Duration::from_millis(100))?;
    }
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); beds.len()];
    for number in 0..scope.rounds() {
        interrupt::check()?;
        say(&format!("end to end: round {} of {}", number + 1, scope.rounds()));
        for turn in 0..beds.len() {
            // Each is once the first, and follows another one each time it is not.
            let place = (turn + number) % beds.len();
            let sends_bulk = place < amount.bulk_peers;
            rounds[place].push(round(&beds[place], amount, sends_bulk)?);
        }
    }
    for bed in &beds {
        bed.inspect()?;
    }
    let names: Vec<String> = beds.iter().map(Bed::name).collect();
    Ok(report::report(peers, &names, &rounds, amount.streams))
}

fn amount(scope: Scope) -> Amount {
    if scope.quick {
        Amount {
            peers: 5,
            keep_alive: Duration::from_millis(250),
            paced: Duration::from_millis(250),
            connections: Duration::from_millis(250),
            bulk_peers: 2,
            streams: &[1],
            bytes: 64 << 20,
        }
    } else {
        Amount {
            peers: Peer::ALL.len(),
            keep_alive: Duration::from_millis(1500),
            paced: Duration::from_millis(1000),
            connections: Duration::from_millis(1000),
            bulk_peers: Peer::ALL.len(),
            streams: &[1, 4],
            bytes: 256 << 20,
        }
    }
}

fn round(bed: &Bed<'_>, amount: Amount, sends_bulk: bool) -> Result<Round> {
    let keep_alive = bed.requests(Kind::KeepAlive, amount.keep_alive)?;
    let paced = bed.requests(Kind::Paced, amount.paced)?;
    let connections = bed.requests(Kind::Connection, amount.connections)?;
    let streams = if sends_bulk { amount.streams } else { &[] };
    let bulk = streams.iter().map(|streams| bed.bulk(*streams, amount.bytes));
    Ok(Round { keep_alive, paced, connections, bulk: bulk.collect::<Result<_>>()? })
}
