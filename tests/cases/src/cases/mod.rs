//! One table of packet cases, run through the host build and through the kernel's test run.
//!
//! A [`Case`] is a script: packets with what must become of each, clock advances, shifts, and
//! checks of entries and counters. A [`Runner`] executes it; after every step the engine also
//! checks that flows and embryos are conserved. Cases are told once and run in several
//! `variants`: families, VLAN tags, IP options.

mod datagram;
mod engine;
mod failover;
mod fragment;
mod handshake;
mod icmp;
mod lifecycle;
mod limits;
mod local;
mod measure;
mod one_way;
mod placement;
mod quic;
mod reset;
mod rewrite;
mod rules;
mod runner;
mod script;
mod session;
mod snat;
mod udp;
mod untouched;
mod variants;

pub use engine::{Report, run_case, say};
pub use runner::{ModelRunner, Run, Runner};
pub use script::{
    Case, EmbryoIs, FlowIs, Icmp, Measure, Packet, Setting, Step, Verdict, Want, Way,
};
use variants::{ALL, BOTH, in_variants};

/// All cases.
pub fn all() -> Vec<Case> {
    let tcp = [
        placement::cases(),
        handshake::cases(),
        lifecycle::cases(),
        reset::cases(),
        failover::cases(),
        rewrite::cases(),
        measure::cases(),
    ];
    // Those whose frames are parsed and rewritten in ways of their own.
    let frames = [udp::cases(), snat::cases(), one_way::cases(), icmp::cases(), fragment::cases()];
    let others = [
        datagram::cases(),
        quic::cases(),
        local::cases(),
        session::cases(),
        rules::cases(),
        limits::cases(),
    ];
    let mut cases = untouched::cases();
    cases.extend(in_variants(tcp.concat(), &ALL));
    cases.extend(in_variants(frames.concat(), &ALL));
    cases.extend(in_variants(others.concat(), &BOTH));
    cases
}
