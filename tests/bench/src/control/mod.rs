//! Control path: commands, verdicts and the daemon itself.

pub mod api;
pub mod bed;
mod instances;
mod rings;
mod shift;
pub mod table;
pub mod usage;
mod verdict;
pub mod walk;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_tests::topology::{FRONTEND, SERVICE, Topology};
use release_user::kernel::{Maps, Programs};

use self::api::Api;
use self::bed::MadeUp;
use self::shift::{Shifts, Times};
use self::table::Owner;
use self::usage::Process;
use crate::row::{Measured, Row, Section, Stats, Target};
use crate::{Scope, interrupt, say};

/// Ring sizes whose shifts are compared.
const RINGS: [u32; 5] = [251, 1021, 4099, 16381, 65537];
/// Flows in the table while shifts are timed.
const FLOWS: [u32; 3] = [1_000_000, 100_000, 10_000];
/// Services beside each other in the end.
const SERVICES: u32 = 1000;
/// Services of the ring sizes have their frontends at these ports and above, the many others at
/// those.
const RING_PORT: u16 = 1000;
const MANY_PORT: u16 = 2000;
/// Instances of the service that gets another one.
const MEMBERS: u32 = 10;

/// Longer than between two of the daemon's looks at its tables.
const LOOKS: Duration = Duration::from_secs(6);
/// Percent of a CPU that a daemon uses that still works at something.
const WORKS: f64 = 1.0;
/// What it works at is over by then: closed connections linger for a minute, and may for two.
const SETTLED: Duration = Duration::from_secs(240);

/// Measures.
///
/// # Errors
/// What cannot be measured, or was not what it should have been.
pub fn measure(scope: Scope) -> Result<Measured> {
    say("control path: rings");
    let (rows, figure) = rings::measure()?;
    let mut measured = Measured { rows, figures: vec![figure] };
    let topology = bed::topology("")?;
    let _servers = topology.start_servers()?;
    let base = topology.config(&[("v1", 100)]);
    topology.lb.write_config(&base)?;
    say("control path: a daemon starts");
    let daemon = topology.lb.start_daemon()?;
    let bed = Bed::new(&topology, Process(daemon.process().pid()), scope)?;
    bed.measure(&base, &mut measured)?;
    drop(bed);
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(measured)
}

/// The middle of some rounds.
fn median(rounds: &[f64]) -> f64 {
    Stats::of(rounds).median
}

struct Bed<'a> {
    topology: &'a Topology,
    daemon: Process,
    api: Api,
    maps: Maps,
    scope: Scope,
}

impl<'a> Bed<'a> {
    fn new(topology: &'a Topology, daemon: Process, scope: Scope) -> Result<Self> {
        let (api, maps) = (Api::new(&topology.lb)?, Maps::open(topology.lb.bpffs())?);
        Ok(Self { topology, daemon, api, maps, scope })
    }

    fn measure(&self, base: &str, measured: &mut Measured) -> Result<()> {
        say("control path: verdicts");
        let rounds = self.scope.rounds();
        measured.rows.extend(verdict::measure(self.topology, &self.api, rounds)?);
        say("control path: shifts against ring size");
        let few = self.few(base)?;
        measured.rows.extend(shift::references(self.topology, rounds)?);
        self.against_rings(measured)?;
        say("control path: instances");
        let [.., last] = &few[..] else { return Ok(()) };
        let rows = instances::measure(self.topology, &self.api, &self.maps, last, rounds)?;
        measured.rows.extend(rows);
        say("control path: at rest");
        measured.rows.extend(self.at_rest(0)?);
        let owner = self.owner()?;
        let jiffies = Programs::open(self.topology.lb.bpffs())?.jiffies()?;
        table::fill(self.topology.lb.bpffs(), owner, 0..FLOWS[0], jiffies)?;
        say("control path: walks");
        measured.rows.extend(self.walks(owner, u64::from(FLOWS[0]))?);
        say("control path: at rest with flows");
        measured.rows.extend(self.at_rest(FLOWS[0])?);
        say("control path: shifts against flows");
        let none = self.against_flows(owner, measured)?;
        say("control path: shifts against services");
        self.against_services(base, &few, &none, measured)
    }

    fn reload(&self, config: &str) -> Result<Vec<String>> {
        self.topology.lb.write_config(config)?;
        Ok(self.api.ask(|client| client.reload())?.changes)
    }

    /// Adds a service of each ring size, and one to which instances are added.
    fn few(&self, base: &str) -> Result<Vec<MadeUp>> {
        let service = |(port, ring): (u16, &u32)| MadeUp {
            name: format!("ring{ring}"),
            port,
            ring: *ring,
            instances: (u32::from(port) * 8, [2, 2]),
        };
        let mut few: Vec<MadeUp> = (RING_PORT..).zip(&RINGS).map(service).collect();
        let port = RING_PORT + RINGS.len() as u16;
        let instances = (u32::from(port) * 8, [MEMBERS, 0]);
        few.push(MadeUp { name: "grows".to_owned(), port, ring: RINGS[4], instances });
        self.reload(&with(base, &few))?;
        Ok(few)
    }

    fn shifts(&self) -> Shifts<'_> {
        let Self { topology, api, maps, .. } = self;
        Shifts { topology, api, maps, rounds: self.scope.rounds() }
    }

    fn against_rings(&self, measured: &mut Measured) -> Result<()> {
        let names = RINGS.map(|ring| format!("ring{ring}"));
        let services: Vec<(&str, u16)> =
            names.iter().map(String::as_str).zip(RING_PORT..).collect();
        let times = self.shifts().measure(&services)?;
        let (smallest, largest) = (&times[0], &times[times.len() - 1]);
        for (ring, times) in RINGS.iter().zip(&times) {
            let number = bed::service_at(&self.maps, services[0].1)?;
            ensure!(bed::split(&self.maps, number)?.count == 2, "two versions");
            let of = format!("rings of {ring} slots");
            measured.rows.extend(times.rows(&format!("ring.{ring}"), &of));
        }
        let of = format!("rings of {} slots", RINGS[4]);
        let than = format!("{} slots", RINGS[0]);
        measured.rows.push(largest.flat("ring", &of, smallest, &than));
        let points: Vec<(f64, Times)> = RINGS.map(f64::from).into_iter().zip(times).collect();
        measured.figures.push(shift::figure(
            "control.shift.ring",
            "Shift time against ring size",
            "slots of each ring",
            &points,
        ));
        Ok(())
    }

    /// Shifts the service whose flows fill the table, with fewer and fewer of them. Returns the times
    /// without any.
    fn against_flows(&self, owner: Owner, measured: &mut Measured) -> Result<Times> {
        let web = [(SERVICE, FRONTEND.port())];
        let mut points = Vec::new();
        for (place, flows) in FLOWS.into_iter().chain([0]).enumerate() {
            if let Some(before) = place.checked_sub(1).map(|before| FLOWS[before]) {
                table::clear(self.topology.lb.bpffs(), owner, flows..before)?;
            }
            let times = self.shifts().measure(&web)?.pop().context("no times")?;
            let of = format!("{flows} flows, rings of {} slots", RINGS[4]);
            measured.rows.extend(times.rows(&format!("flows.{flows}"), &of));
            points.insert(0, (f64::from(flows.max(1)), times));
        }
        let (most, none) = (&points[points.len() - 1].1, points[0].1.clone());
        let of = format!("{} flows", FLOWS[0]);
        measured.rows.push(most.flat("flows", &of, &none, "no flows"));
        measured.figures.push(shift::figure(
            "control.shift.flows",
            "Shift time against the number of flows",
            "flows in the table (1: none)",
            &points,
        ));
        Ok(none)
    }

    /// The first version's instance of the service with real backends.
    fn owner(&self) -> Result<Owner> {
        let service = bed::service_at(&self.maps, FRONTEND.port())?;
        let split = bed::split(&self.maps, service)?;
        let ring = self.maps.ring(split.entries[0].rings[0])?;
        let backend = *ring.first().context("an empty ring")?;
        Ok(Owner { service, backend, generation: split.generation })
    }

    fn walks(&self, owner: Owner, flows: u64) -> Result<Vec<Row>> {
        let bpffs = self.topology.lb.bpffs();
        let row = |id: &str, what: &str, unit: &str, values: &[f64]| {
            Row::new(Section::ControlPath, id, what, unit, values)
        };
        let times = walk::times(self.topology, owner, flows, self.scope.rounds())?;
        let (v4, v6) =
            (walk::bytes_per_entry(bpffs, "FLOWS4")?, walk::bytes_per_entry(bpffs, "FLOWS6")?);
        Ok(vec![
            row("control.walk", &format!("CPU time of a walk of {flows} flows"), "s", &times)
                .target(Target::at_most(0.25)),
            row("control.memory.flow4", "kernel memory of an IPv4 flow", "B", &[v4])
                .target(Target::at_most(144.0)),
            row("control.memory.flow6", "kernel memory of an IPv6 flow", "B", &[v6]),
        ])
    }

    /// Percent of a CPU that the daemon uses while nothing is asked of it. The time is what is measured
    /// over.
    fn left_alone(&self, time: Duration) -> Result<f64> {
        let wait = || {
            thread::sleep(time);
            Ok(())
        };
        let ((), cpu) = self.daemon.cpu_percent(wait)?;
        Ok(cpu)
    }

    /// Waits until nothing is left to do of what was done before: connections that lingered, instances
    /// that were taken away, a table that grew.
    fn settle(&self, flows: u32) -> Result<()> {
        let begun = Instant::now();
        loop {
            interrupt::check()?;
            let cpu = self.left_alone(LOOKS)?;
            // The tests' own connections linger for longer than a quick run takes.
            let lingers = !self.scope.quick && self.maps.fullest_table()? != i64::from(flows);
            if cpu < WORKS && !lingers {
                return Ok(());
            }
            ensure!(begun.elapsed() < SETTLED, "the daemon does not come to rest: {cpu:.1} %");
        }
    }

    /// What the daemon uses while nothing is asked of it.
    fn at_rest(&self, flows: u32) -> Result<Vec<Row>> {
        self.settle(flows)?;
        let time = match (flows, self.scope.quick) {
            (0, true) => Duration::from_secs(3),
            (_, true) => Duration::from_secs(6),
            (0, false) => Duration::from_secs(20),
            (_, false) => Duration::from_secs(120),
        };
        let cpu = self.left_alone(time)?;
        let (rss, peak) = self.daemon.memory()?;
        let row = |id: &str, what: String, unit: &str, value: f64, bound: Option<f64>| {
            let id = format!("control.rest.{id}.{flows}");
            let row = Row::new(Section::ControlPath, &id, &what, unit, &[value]);
            match bound.filter(|_| flows > 0) {
                Some(bound) => row.target(Target::at_most(bound)),
                None => row,
            }
        };
        let what = format!("daemon at rest, {flows} flows, over {} s", time.as_secs());
        Ok(vec![
            row("cpu", format!("CPU of the {what}"), "%", cpu, Some(0.5)),
            row(
                "rss",
                format!("resident memory of the daemon, {flows} flows"),
                "MB",
                rss,
                Some(40.0),
            ),
            row("peak", format!("its most so far, {flows} flows"), "MB", peak, None),
        ])
    }

    fn against_services(
        &self,
        base: &str,
        few: &[MadeUp],
        one: &Times,
        measured: &mut Measured,
    ) -> Result<()> {
        let service = |number: u32| MadeUp {
            name: format!("s{number:04}"),
            port: MANY_PORT + number as u16,
            ring: RINGS[0],
            instances: (100_000 + 2 * number, [1, 1]),
        };
        let there = few.len() as u32 + 1;
        let many: Vec<MadeUp> = (0..SERVICES - there).map(service).collect();
        let changes = self.reload(&(with(base, few) + &texts(&many)))?;
        ensure!(changes.len() >= many.len(), "{} changes", changes.len());
        let mut times = self.shifts().measure(&[(SERVICE, FRONTEND.port())])?;
        let times = times.pop().context("no times")?;
        let of = format!("{SERVICES} services");
        measured.rows.extend(times.rows(&format!("services.{SERVICES}"), &of));
        let than = format!("{there} services");
        measured.rows.push(times.flat("services", &of, one, &than));
        Ok(())
    }
}

fn texts(services: &[MadeUp]) -> String {
    services.iter().map(MadeUp::config).collect()
}

fn with(base: &str, services: &[MadeUp]) -> String {
    base.to_owned() + &texts(services)
}
