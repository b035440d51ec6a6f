//! What the rounds say.

use crate::row::{Curve, Figure, Measured, Row, Section, Stats, Target};

use super::Round;
use super::client::{PERCENTILES, Run};
use super::peer::Peer;

/// What is to be reached, by the ratio to direct ones…
const KEEP_ALIVE: f64 = 0.95;
const P99: f64 = 1.1;
/// … and to connections of a second through these.
const TO_NFTABLES: f64 = 1.2;
const TO_HAPROXY: f64 = 3.0;

/// Rows and figures of rounds, which are those of each peer.
pub fn report(peers: &[Peer], names: &[String], rounds: &[Vec<Round>], streams: &[u8]) -> Measured {
    let all = All { peers, names, rounds };
    let mut rows = Vec::new();
    for peer in peers.iter().copied() {
        all.requests(&mut rows, peer);
        all.cpu(&mut rows, peer);
        for (place, streams) in streams.iter().enumerate() {
            all.throughput(&mut rows, peer, place, *streams);
        }
    }
    Measured { rows, figures: vec![all.latencies()] }
}

/// One of the runs of a round.
type RunOf = fn(&Round) -> &Run;

struct All<'a> {
    peers: &'a [Peer],
    /// Who they are, for people.
    names: &'a [String],
    rounds: &'a [Vec<Round>],
}

impl All<'_> {
    fn place(&self, peer: Peer) -> Option<usize> {
        self.peers.iter().position(|other| *other == peer)
    }

    /// A figure of each round of a peer; none at all of a peer that did not take part.
    fn of(&self, peer: Peer, figure: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        let rounds = self.place(peer).and_then(|place| self.rounds.get(place));
        rounds.into_iter().flatten().filter_map(figure).collect()
    }

    /// A row of a figure, with its ratio to that of another peer.
    fn row(
        &self,
        (id, what, unit): (&str, &str, &str),
        (peer, of): (Peer, Peer),
        figure: impl Fn(&Round) -> Option<f64>,
    ) -> Row {
        let (values, others) = (self.of(peer, &figure), self.of(of, &figure));
        let id = if of == Peer::Direct {
            format!("end-to-end.{id}.{}", peer.id())
        } else {
            format!("end-to-end.{id}.{}.{}", peer.id(), of.id())
        };
        let name = self.place(peer).and_then(|place| self.names.get(place));
        let what = format!("{}: {what}", name.map_or(peer.id(), String::as_str));
        let row = Row::new(Section::EndToEnd, &id, &what, unit, &values);
        if peer == of {
            return row;
        }
        let ratios: Vec<f64> = values.iter().zip(&others).map(|(one, other)| one / other).collect();
        row.ratio(of.id(), &ratios)
    }

    fn requests(&self, rows: &mut Vec<Row>, peer: Peer) {
        let limit = (peer, Peer::Direct);
        let ours = |row: Row, target| if peer.is_ours() { row.target(target) } else { row };
        let what = ("keepalive", "requests on 64 connections that stay", "requests/s");
        let row = self.row(what, limit, |round| Some(round.keep_alive.rate));
        rows.push(ours(row, Target::at_least(KEEP_ALIVE)));
        let runs: [(&str, &str, RunOf); 2] = [
            ("", "latency of those requests", |round| &round.keep_alive),
            ("paced.", "latency of requests at a quarter of that pace", |round| &round.paced),
        ];
        for (which, of, run) in runs {
            for (id, percent) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
                let (which, what) =
                    (format!("{which}{id}"), format!("{of}, {percent} % are answered within"));
                let row = self.row((&which, &what, "ms"), limit, |r| Some(run(r).at(percent)));
                rows.push(if id == "p99" { ours(row, Target::at_most(P99)) } else { row });
            }
        }
        let what = ("connections", "connections of one request each, 64 at once", "connections/s");
        let rate = |round: &Round| Some(round.connections.rate);
        rows.push(self.row(what, limit, rate));
        if peer.is_ours() {
            let to = |other, bound| self.row(what, (peer, other), rate).target(bound);
            rows.push(to(Peer::Nftables, Target::at_least(TO_NFTABLES)));
            rows.push(to(Peer::Haproxy, Target::at_least(TO_HAPROXY)));
            rows.push(self.row(what, (peer, Peer::Nginx), rate));
        }
        let what = ("lost", "requests and connections that failed", "requests");
        let lost = |round: &Round| {
            Some((round.keep_alive.lost + round.paced.lost + round.connections.lost) as f64)
        };
        // Nothing to nothing is no ratio.
        let row = Row { ratio: None, of: None, ..self.row(what, limit, lost) };
        rows.push(ours(row, Target::at_most(0.0)));
    }

    fn cpu(&self, rows: &mut Vec<Row>, peer: Peer) {
        let limit = (peer, Peer::Direct);
        let kinds: [RunOf; 2] = [|round| &round.keep_alive, |round| &round.connections];
        let names = [
            ("cpu", "requests on connections that stay"),
            ("cpu-connections", "connections of one request each"),
        ];
        for ((id, kind), run) in names.into_iter().zip(kinds) {
            let cpu = |round: &Round| Some(run(round).per_million(run(round).cpu));
            let what = format!(
                "CPU time of client, servers, balancer and the kernel's network threads for a \
                 million {kind}"
            );
            rows.push(self.row((id, &what, "s"), limit, cpu));
            if peer != Peer::Direct {
                let (its, direct) = (self.of(peer, cpu), self.of(Peer::Direct, cpu));
                let added: Vec<f64> =
                    its.iter().zip(&direct).map(|(its, direct)| its - direct).collect();
                let what = format!(
                    "the balancer's part of the CPU time for a million {kind}: all of it less \
                     that of direct ones in the same round"
                );
                let row = self.row((&format!("{id}-added"), &what, "s"), limit, |_| None);
                rows.push(Row { value: Stats::of(&added), ratio: None, of: None, ..row });
            }
            let own = |round: &Round| Some(run(round).per_million(run(round).own?));
            let what = format!(
                "CPU time of the balancer's own processes for a million {kind}, which is in that"
            );
            let row = self.row((&format!("{id}-own"), &what, "s"), limit, own);
            if row.value.rounds > 0 {
                rows.push(Row { ratio: None, of: None, ..row });
            }
        }
    }

    fn throughput(&self, rows: &mut Vec<Row>, peer: Peer, place: usize, streams: u8) {
        let what = format!("bulk over {streams} TCP connections");
        let id = format!("throughput.{streams}");
        let rate = |round: &Round| round.bulk.get(place).copied();
        let row = self.row((&id, &what, "Gbit/s"), (peer, Peer::Direct), rate);
        if row.value.rounds > 0 {
            rows.push(row);
        }
    }

    /// The distributions, each point the median of its rounds.
    fn latencies(&self) -> Figure {
        let shown = self
            .peers
            .iter()
            .filter(|peer| !peer.is_ours() || peer.mode() == release_tests::topology::Mode::Nat);
        let curve = |peer: &Peer| {
            let at = |percent: &f64| {
                let rounds = self.of(*peer, |round| Some(round.keep_alive.at(*percent)));
                (*percent, Stats::of(&rounds).median)
            };
            Curve { name: peer.id().to_owned(), points: PERCENTILES.iter().map(at).collect() }
        };
        Figure {
            section: Section::EndToEnd,
            id: "end-to-end.latency".to_owned(),
            title: "Latency of requests on 64 connections that stay".to_owned(),
            x: "requests answered (%)".to_owned(),
            x_log: false,
            y: "latency (ms)".to_owned(),
            y_log: true,
            curves: shown.map(curve).collect(),
        }
    }
}
