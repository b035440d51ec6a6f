//! How long a shift takes: by the API, and as a command; against the size of the ring, the number of
//! flows and of services.

use anyhow::{Result, ensure};
use release_tests::command;
use release_tests::topology::Topology;
use release_user::kernel::Maps;

use super::api::{self, Api};
use super::bed;
use crate::row::{Curve, Figure, Row, Section, Target};

/// From command to in force, in milliseconds.
const BOUND: f64 = 15.0;
/// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h, Linux 4.3).
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
/// What is flat: no more than noise.
const FLAT: f64 = 1.25;

/// Times of one service's shifts in milliseconds, a round each.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// By the API.
    pub api: Vec<f64>,
    /// By the command, from the start of its process to its end.
    pub command: Vec<f64>,
}

/// Shifts of services, each checked.
pub struct Shifts<'a> {
    /// Where.
    pub topology: &'a Topology,
    /// The daemon's API.
    pub api: &'a Api,
    /// The maps it writes.
    pub maps: &'a Maps,
    /// Rounds of each measurement.
    pub rounds: usize,
}

impl Shifts<'_> {
    /// Moves all weight of services to their other version and back, one after the other in each
    /// round. `services`: names and the ports of their frontends; all weight is on `v1`.
    ///
    /// # Errors
    /// A shift fails, or is not in force when it says so.
    pub fn measure(&self, services: &[(&str, u16)]) -> Result<Vec<Times>> {
        let mut all = vec![Times::default(); services.len()];
        let numbers: Vec<u32> = services
            .iter()
            .map(|(_, port)| bed::service_at(self.maps, *port))
            .collect::<Result<_>>()?;
        for _ in 0..self.rounds {
            crate::interrupt::check()?;
            for (((name, _), &number), times) in services.iter().zip(&numbers).zip(&mut all) {
                let (in_force, took) = api::shift(self.api, name, [0, 100])?;
                ensure!(in_force.changed, "{name}: nothing was shifted");
                bed::demand_in_force(self.maps, number, in_force.generation, false)?;
                times.api.push(took);
                let lb = &self.topology.lb;
                let (in_force, took) = api::shift_by_command(lb, name, [100, 0])?;
                ensure!(in_force.changed, "{name}: nothing was shifted");
                bed::demand_in_force(self.maps, number, in_force.generation, true)?;
                times.command.push(took);
            }
        }
        Ok(all)
    }
}

/// What a shift is to be compared with: the kernel's grace period, which it does not wait for, and a
/// process that does nothing.
///
/// # Errors
/// Either cannot be had.
pub fn references(topology: &Topology, rounds: usize) -> Result<[Row; 2]> {
    let (mut graces, mut processes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        crate::interrupt::check()?;
        // SAFETY: no pointers. The call waits for a grace period of RCU (membarrier(2)).
        let waited = || unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
        let (done, took) = api::timed(|| Ok(waited()))?;
        ensure!(done == 0, "membarrier: {}", std::io::Error::last_os_error());
        graces.push(took);
        let mut command = api::command(&topology.lb, &["--version"])?;
        let (output, took) = api::timed(|| command::output(&mut command))?;
        ensure!(output.status.success(), "releasectl --version: {}", output.status);
        processes.push(took);
    }
    let row = |id: &str, what: &str, times: &[f64]| {
        Row::new(Section::ControlPath, &format!("control.shift.{id}"), what, "ms", times)
    };
    Ok([
        row(
            "grace",
            "a grace period of this kernel by itself, which a shift does without",
            &graces,
        ),
        row("process", "`releasectl --version`: a command that asks nobody", &processes),
    ])
}

impl Times {
    /// Rows of both ways. The target holds for the command.
    pub fn rows(&self, id: &str, of: &str) -> [Row; 2] {
        let row = |way: &str, what: &str, times: &[f64]| {
            let (id, what) = (format!("control.shift.{id}{way}"), format!("shift{what}, {of}"));
            Row::new(Section::ControlPath, &id, &what, "ms", times)
        };
        [
            row(".command", " as a command", &self.command).target(Target::at_most(BOUND)),
            row(".api", " by the API", &self.api),
        ]
    }

    /// How many times the time of others, as a command.
    pub fn flat(&self, id: &str, of: &str, others: &Self, than: &str) -> Row {
        let pairs = self.command.iter().zip(&others.command);
        let ratios: Vec<f64> = pairs.map(|(mine, theirs)| mine / theirs).collect();
        let what = format!("shift as a command, {of}: is it flat?");
        Row::new(
            Section::ControlPath,
            &format!("control.shift.flat.{id}"),
            &what,
            "ms",
            &self.command,
        )
        .ratio(than, &ratios)
        .target(Target::at_most(FLAT))
    }
}

/// Curves of both ways.
pub fn figure(id: &str, title: &str, x: &str, measured: &[(f64, Times)]) -> Figure {
    let curve = |name: &str, times: fn(&Times) -> &[f64]| Curve {
        name: name.to_owned(),
        points: measured.iter().map(|(x, all)| (*x, super::median(times(all)))).collect(),
    };
    Figure {
        section: Section::ControlPath,
        id: id.to_owned(),
        title: title.to_owned(),
        x: x.to_owned(),
        x_log: true,
        y: "from command to in force, ms".to_owned(),
        y_log: false,
        curves: vec![curve("command", |times| &times.command), curve("API", |times| &times.api)],
    }
}
