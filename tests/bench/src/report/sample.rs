//! A small result for the tests of this folder.

use crate::machine::Machine;
use crate::row::{Curve, Figure, Measured, Row, Section, Target};

/// A machine.
pub fn machine() -> Machine {
    Machine {
        cpu: "Some CPU | 2 GHz".to_owned(),
        cpus: 2,
        memory: 8 << 30,
        kernel: "6.18.5 x86_64".to_owned(),
        jit: Some(true),
        governor: None,
        virtual_machine: true,
        commit: "0123456789ab, changed".to_owned(),
        date: "2026-01-02T03:04:05Z".to_owned(),
        quick: false,
    }
}

/// One row that is met, one missed, one without a target, one of a single round.
pub fn measured() -> Measured {
    let ratios = [1.65, 1.72, 1.8];
    let row = |section, id, what, unit, rounds: &[f64]| Row::new(section, id, what, unit, rounds);
    let rows = vec![
        row(Section::PacketPath, "packet.client", "client → backend", "ns", &[70.0, 71.5, 90.0])
            .ratio("lookup, net", &ratios)
            .target(Target::at_most(1.8)),
        row(Section::PacketPath, "packet.floor", "floor", "ns", &[25.0, 26.0, 29.0]),
        row(
            Section::EndToEnd,
            "e2e.rps",
            "requests/s, kept alive",
            "requests/s",
            &[9e3, 9.1e3, 9.2e3],
        )
        .ratio("direct", &[0.90, 0.92, 0.93])
        .target(Target::at_least(0.95)),
        row(Section::Scale, "scale.flow", "memory of a flow", "B", &[140.0])
            .target(Target::at_most(144.0)),
    ];
    let points = vec![(1.0, 26.0), (1000.0, 40.0), (4_194_304.0, 160.0)];
    let figure = Figure {
        section: Section::PacketPath,
        id: "packet.flows".to_owned(),
        title: "Cost against number of flows".to_owned(),
        x: "flows".to_owned(),
        x_log: true,
        y: "time of a packet (ns)".to_owned(),
        y_log: false,
        curves: vec![Curve { name: "client → backend".to_owned(), points }],
    };
    Measured { rows, figures: vec![figure] }
}
