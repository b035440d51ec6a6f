//! Rounds: references and cases, one after the other.

use anyhow::{Context as _, Result, ensure};
use release_tests::driver::{Driven, Driver, Packets, Reference};

use super::case::{Case, TX};
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
    /// Packets of a case in a round.
    pub times: u32,
    /// What the references run over: no data, of an established flow.
    pub reference: Packets,
    /// What was measured.
    pub measured: Measured,
}

/// Times of all rounds, in nanoseconds.
#[derive(Default)]
pub struct Times {
    floor: Vec<f64>,
    drive: Vec<f64>,
    lookup: Vec<f64>,
    /// By case: itself, and what making its packet takes.
    cases: Vec<[Vec<f64>; 2]>,
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
    /// All cases and the references in turn, in each round.
    ///
    /// # Errors
    /// One of them was not what it should be.
    pub fn take(&mut self, cases: &mut [Case]) -> Result<Times> {
        let mut times = Times { cases: vec![Default::default(); cases.len()], ..Times::default() };
        for _ in 0..self.scope.rounds() {
            interrupt::check()?;
            let frame = &self.reference.frame;
            times.floor.push(ns(&self.driver.alone(Reference::Floor, frame, self.times)?));
            let drive = self.refer(Reference::Floor)?;
            times.drive.push(drive);
            times.lookup.push(self.refer(Reference::Lookup)?);
            for (case, [into, floor]) in cases.iter_mut().zip(&mut times.cases) {
                floor.push(match case.own_floor() {
                    Some(packets) => self.refer_to(Reference::Floor, packets)?,
                    None => drive,
                });
                self.rig.drive(&mut self.driver)?;
                into.push(ns(&case.run(&mut self.rig, &mut self.driver).context(case.id)?));
            }
        }
        Ok(times)
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
        let rows = [
            ("packet.floor", "floor: an empty program", &times.floor),
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
            interrupt::check()?;
            let floor = self.refer(Reference::Floor)?;
            times.push(self.refer_to(Reference::Lookup, packets)? - floor);
        }
        self.driver.know(&self.reference)?;
        Ok(times)
    }

    fn refer(&mut self, which: Reference) -> Result<f64> {
        self.refer_to(which, &self.reference.clone())
    }

    fn refer_to(&mut self, which: Reference, packets: &Packets) -> Result<f64> {
        self.driver.measure(which)?;
        let driven = self.driver.run(packets, self.times)?;
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
