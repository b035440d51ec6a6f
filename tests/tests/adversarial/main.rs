//! Adversarial scenarios: real sockets used in every odd way, and `idle` never said while anybody
//! is there, but soon when nobody is.
//!
//! The question is asked in one place, [`harness`]. Here are those scenarios in which the flow table
//! alone is the evidence; others that are part of the same promise:
//!
//! | where | what |
//! |---|---|
//! | `sockets/verdict.rs`, `sockets/agent.rs` | a RST lost between balancer and instance, orphaned sockets, datagrams nobody has read; agents that are down, not trusted, stale, refused by their kernel |
//! | `probes.rs` | silent connections that are asked: which end has gone |
//! | `policies/sessions.rs` | clients that are remembered, in both families |
//! | `idle.rs` | every kind of close; receipts, deadlines, exit codes |
//! | `interfaces.rs`, `reload.rs`, `crash.rs`, `barrier.rs` | what live connections notice of it: nothing |

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod blind;
mod datagrams;
mod evidence;
mod faults;
mod half_open;
mod handshakes;
mod harness;
mod one_way;
mod outlook;
mod overflow;
mod reuse;
mod sessions;
mod several;
mod silent;

use release_tests::topology::{Family, Mode, Topology, TopologySpec};

use harness::{Stage, over, up};

/// Takes longest, so its name comes first.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_drain_says_when_it_will_end() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    several::an_interface(&stage);
    outlook::play(&stage);
    stage.end("interfaces, outlook");
}

/// What TCP connections do in a mode and over a family: some of the themes.
fn connections(mode: Mode, family: Family, themes: &[fn(&Stage<'_>)]) {
    let service = silent::KEEPALIVE_ONLY.to_owned();
    let topology = Topology::new(&TopologySpec { service, ..over(mode, family) }).unwrap();
    let _daemon = up(&topology);
    let stage = Stage::new(&topology);
    themes.iter().for_each(|play| play(&stage));
    stage.end(&format!("{}, {family:?}", mode.name()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_nat_ipv4() {
    connections(Mode::Nat, Family::V4, &[silent::play, half_open::play, handshakes::play]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_nat_ipv6() {
    connections(Mode::Nat, Family::V6, &[silent::play, half_open::play]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_snat() {
    let themes = [half_open::play, handshakes::play, several::in_two_services];
    connections(Mode::Snat, Family::V4, &themes);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_local() {
    let themes = [silent::play, half_open::play, handshakes::play, evidence::of_what_is_sent];
    connections(Mode::Host, Family::V6, &themes);
}
