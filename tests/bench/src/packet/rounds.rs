//! Rounds: references and cases, one after the other.

use anyhow::{Context as _, Result, ensure};
use release_tests::driver::{Driven, Driver, Packets, Reference};

use super::case::{Case, TIMES, TX};
use super::rig::Rig;
use crate::row::{Measured, Row, Section, Stats, Target};
use crate::{Scope, interrupt};

/// What is measured, and with what.
pub struct Rounds {
    /// How much.
    pub scope: Scope,
    /// The programs.
    pub rig: Rig,
    /// What drives them.
    pub driver: Driver,
    /// What the references run over: no data, of an established flow.
    pub reference: Packets,
    /// What was measured.
    pub measured: Measured,
}

/// Times of all rounds, in nanoseconds.
pub struct Times {
    drive: Vec<f64>,
    lookup: Vec<f64>,
    /// By case: itself, and what making its packet takes.
    cases: Vec<[Vec<f64>; 2]>,
}

/// The same of one turn.
struct Turn {
    drive: f64,
    lookup: f64,
    cases: Vec<[f64; 2]>,
}

impl Times {
    /// What a case takes by itself.
    pub fn net(&self, case: usize) -> Vec<f64> {
        let [times, drive] = &self.cases[case];
        net(times, drive)
    }

    /// The same in terms of `lookup`.
    pub fn ratios(&self, case: usize) -> Vec<f64> {
        let lookup = net(&self.lookup, &self.drive);
        self.net(case).iter().zip(&lookup).map(|(case, lookup)| case / lookup).collect()
    }
}

impl Rounds {
    /// All cases and the references in turn, many times in each round. The fastest of its turns counts:
    /// whatever else goes on in a machine only adds to what a program takes, and seldom for all of a
    /// round.
    ///
    /// # Errors
    /// One of them was not what it should be.
    pub fn take(&mut self, cases: &mut [Case]) -> Result<Times> {
        let mut rounds = Times {
            drive: Vec::new(),
            lookup: Vec::new(),
            cases: vec![Default::default(); cases.len()],
        };
        for _ in 0..self.scope.rounds() {
            let mut turns = Vec::new();
            for _ in 0..self.scope.turns() {
                interrupt::check()?;
                turns.push(self.turn(cases)?);
            }
            let least = |of: &dyn Fn(&Turn) -> f64| turns.iter().map(of).fold(f64::MAX, f64::min);
            rounds.drive.push(least(&|turn| turn.drive));
            rounds.lookup.push(least(&|turn| turn.lookup));
            for (index, [times, drive]) in rounds.cases.iter_mut().enumerate() {
                times.push(least(&|turn| turn.cases[index][0]));
                drive.push(least(&|turn| turn.cases[index][1]));
            }
        }
        Ok(rounds)
    }

    fn turn(&mut self, cases: &mut [Case]) -> Result<Turn> {
        let drive = self.refer(Reference::Floor)?;
        let lookup = self.refer(Reference::Lookup)?;
        let mut turn = Turn { drive, lookup, cases: Vec::new() };
        for case in cases {
            let drive = match case.own_floor() {
                Some(packets) => self.refer_to(Reference::Floor, packets)?,
                None => drive,
            };
            self.rig.drive(&mut self.driver)?;
            let time = ns(&case.run(&mut self.rig, &mut self.driver).context(case.id)?);
            turn.cases.push([time, drive]);
        }
        Ok(turn)
    }

    /// The same, as rows.
    ///
    /// # Errors
    /// As there.
    pub fn rows(&mut self, cases: &mut [Case]) -> Result<()> {
        let times = self.take(cases)?;
        for (index, case) in cases.iter().enumerate() {
            let row = Row::new(Section::PacketPath, case.id, case.what, "ns", &times.net(index))
                .ratio("lookup, net", &times.ratios(index));
            self.measured.rows.push(match case.target {
                Some(bound) => row.target(Target::at_most(bound)),
                None => row,
            });
        }
        Ok(())
    }

    /// What the references take, as rows.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn references(&mut self) -> Result<()> {
        let times = self.take(&mut [])?;
        let mut floor = Vec::new();
        for _ in 0..self.scope.rounds() {
            let frame = &self.reference.frame;
            floor.push(ns(&self.driver.alone(
                Reference::Floor,
                frame,
                TIMES * self.scope.turns(),
            )?));
        }
        let rows = [
            ("packet.floor", "floor: an empty program", &floor),
            ("packet.drive", "a packet made anew, and an empty program", &times.drive),
            (
                "packet.lookup",
                "lookup: headers and one hit, net",
                &net(&times.lookup, &times.drive),
            ),
        ];
        let rows = rows.map(|(id, what, ns)| Row::new(Section::PacketPath, id, what, "ns", ns));
        self.measured.rows.extend(rows);
        Ok(())
    }

    /// What looking up takes over the flows of packets, net, round by round.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn lookups(&mut self, packets: &Packets) -> Result<Vec<f64>> {
        self.driver.know(packets)?;
        let mut times = Vec::new();
        for _ in 0..self.scope.rounds() {
            let (mut floor, mut lookup) = (f64::MAX, f64::MAX);
            for _ in 0..self.scope.turns() {
                interrupt::check()?;
                floor = floor.min(self.refer(Reference::Floor)?);
                lookup = lookup.min(self.refer_to(Reference::Lookup, packets)?);
            }
            times.push(lookup - floor);
        }
        self.driver.know(&self.reference)?;
        Ok(times)
    }

    fn refer(&mut self, which: Reference) -> Result<f64> {
        self.refer_to(which, &self.reference.clone())
    }

    fn refer_to(&mut self, which: Reference, packets: &Packets) -> Result<f64> {
        self.driver.measure(which)?;
        let driven = self.driver.run(packets, TIMES)?;
        ensure!(driven.action == TX, "{which:?}: action {}", driven.action);
        Ok(ns(&driven))
    }
}

/// The middle of what rounds took.
pub fn median(rounds: &[f64]) -> f64 {
    Stats::of(rounds).median
}

fn ns(driven: &Driven) -> f64 {
    driven.each.as_nanos() as f64
}

fn net(times: &[f64], floor: &[f64]) -> Vec<f64> {
    times.iter().zip(floor).map(|(time, floor)| time - floor).collect()
}
