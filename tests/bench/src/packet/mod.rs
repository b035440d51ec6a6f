//! Packet path: programs run over packets by BPF_PROG_TEST_RUN.
//!
//! Every figure is taken in rounds; in each round the references and all cases run one after the
//! other. What a case costs is its time less that of the driver and an empty program; its ratio is
//! to what the same makes of a program that finds one entry in a hash table.

mod case;
mod cases;
mod check;
mod connection;
mod curves;
mod rig;
mod rounds;

use anyhow::Result;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use release_tests::driver::{Driver, Packets};
use release_tests::model::Scene;
use release_user::kernel::Capacities;

use self::case::padded;
use self::cases::CLIENT;
use self::connection::Connection;
use self::rig::Rig;
use self::rounds::Rounds;
use crate::row::Measured;
use crate::{Scope, say};

/// Capacities of the tables: the defaults.
const FLOWS: u32 = 1 << 20;
const EMBRYOS: u32 = 1 << 16;

/// Measures.
///
/// # Errors
/// What cannot be measured, or was not what it should have been.
pub fn measure(scope: Scope) -> Result<Measured> {
    // Its thread enters a namespace, and stays on one CPU.
    std::thread::scope(|threads| {
        let measured = threads.spawn(|| on_one_cpu(scope)).join();
        measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn on_one_cpu(scope: Scope) -> Result<Measured> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    say("packet path: loading the programs");
    let mut scene = Scene::new(&[1], 4);
    scene.frontends.truncate(1);
    let capacities = Capacities { flows: FLOWS, ..Capacities::small(FLOWS, EMBRYOS) };
    let mut rig = Rig::new(capacities, scene)?;
    let mut driver = Driver::load(FLOWS, rig.bpffs())?;
    let one = Connection::open(&mut rig, CLIENT)?;
    let reference = Packets::of_one(padded(one.by_client(0)));
    driver.know(&reference)?;
    let flow = rig.flow(&reference.frame)?;
    let mut run = Rounds { scope, rig, driver, reference, measured: Measured::default() };
    run.references()?;
    say("packet path: established flows");
    run.established(&one, flow)?;
    say("packet path: by the number of flows, instances and services");
    run.by_flows(flow)?;
    run.by_instances(flow)?;
    say("packet path: handshakes and others");
    run.handshakes()?;
    run.others()?;
    run.programs();
    Ok(run.measured)
}
