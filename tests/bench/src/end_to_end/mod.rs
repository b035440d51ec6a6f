//! End to end: real stacks, clients and servers, in namespaces.
//!
//! Every peer has the same topology for itself, with the same client and the same servers, and is
//! measured in turn with the others, in several short runs each round, of which the best counts, since
//! whatever else goes on in the machine only takes away; those whose turn it is not are idle. All links
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

use anyhow::{Context as _, Result};

use crate::row::Measured;
use crate::{Scope, interrupt, say};
use bed::Bed;
use client::{Kind, Run};
use peer::Peer;

/// How much is measured of each peer in a round: runs of each kind.
#[derive(Clone, Copy, Debug)]
struct Amount {
    peers: usize,
    /// How long a run of requests takes.
    run: Duration,
    /// Runs of each kind.
    keep_alive: usize,
    paced: usize,
    connections: usize,
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
        say(&format!("end to end: round {} of {}", number + 1, scope.rounds()));
        // Each is once the first, and follows another one each time it is not.
        let order = (0..beds.len()).map(|turn| (turn + number) % beds.len());
        let order: Vec<usize> = order.collect();
        let runs = |kind, turns| runs(&beds, &order, kind, turns, amount.run);
        let keep_alive = runs(Kind::KeepAlive, amount.keep_alive)?;
        let paced = runs(Kind::Paced, amount.paced)?;
        let connections = runs(Kind::Connection, amount.connections)?;
        let requests = keep_alive.into_iter().zip(paced).zip(connections);
        for (place, ((keep_alive, paced), connections)) in requests.enumerate() {
            interrupt::check()?;
            let streams = if place < amount.bulk_peers { amount.streams } else { &[] };
            let bulk = streams.iter().map(|streams| beds[place].bulk(*streams, amount.bytes));
            let bulk = bulk.collect::<Result<_>>()?;
            rounds[place].push(Round { keep_alive, paced, connections, bulk });
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
            run: Duration::from_millis(125),
            keep_alive: 2,
            paced: 2,
            connections: 2,
            bulk_peers: 2,
            streams: &[1],
            bytes: 64 << 20,
        }
    } else {
        Amount {
            peers: Peer::ALL.len(),
            run: Duration::from_millis(250),
            keep_alive: 6,
            paced: 4,
            connections: 4,
            bulk_peers: Peer::ALL.len(),
            streams: &[1, 4],
            bytes: 256 << 20,
        }
    }
}

/// Runs of one kind, by turns; what came of those of each bed, in the order of `beds`.
fn runs(
    beds: &[Bed<'_>],
    order: &[usize],
    kind: Kind,
    turns: usize,
    time: Duration,
) -> Result<Vec<Run>> {
    let mut all: Vec<Option<Run>> = vec![None; beds.len()];
    for _ in 0..turns {
        for place in order {
            interrupt::check()?;
            let run = beds[*place].requests(kind, time)?;
            all[*place] = Some(match all[*place].take() {
                Some(before) => before.and(run, kind),
                None => run,
            });
        }
    }
    all.into_iter().map(|run| run.context("no run")).collect()
}
