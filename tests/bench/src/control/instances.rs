//! How long it takes to add an instance to a large ring, and to take it away.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use release_tests::command;
use release_tests::topology::Topology;
use release_user::api::types::{DeregisterRequest, RegisterRequest, RetireRequest};
use release_user::kernel::Maps;

use super::api::{self, Api, timed};
use super::bed::{self, MadeUp};
use crate::row::{Row, Section, Target};

/// From command to in force, in milliseconds.
const BOUND: f64 = 25.0;
/// How long the daemon may take to forget them, and how often to look.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Addresses that nobody else has.
const FIRST: u32 = 500_000;

/// Registers instances for the first version of a service and takes them out again.
///
/// # Errors
/// A command fails, or its ring is not what it should be afterwards.
pub fn measure(
    topology: &Topology,
    api: &Api,
    maps: &Maps,
    service: &MadeUp,
    rounds: usize,
) -> Result<Vec<Row>> {
    let number = bed::service_at(maps, service.port)?;
    let ring = bed::split(maps, number)?.entries[0].rings[0];
    let slots = |backend: u32| -> Result<usize> {
        let ring = maps.ring(ring)?;
        ensure!(ring.len() == service.ring as usize, "a ring of {} slots", ring.len());
        Ok(ring.iter().filter(|slot| **slot == backend).count())
    };
    let share = service.ring as usize / (service.instances.1[0] as usize + 1);
    let (mut added, mut taken, mut by_command) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = Vec::new();
    for round in 0..rounds as u32 {
        crate::interrupt::check()?;
        let addr = bed::instance(FIRST + 2 * round);
        let request = RegisterRequest {
            service: service.name.clone(),
            version: "v1".to_owned(),
            addr: addr.clone(),
            id: None,
            weight: 1,
            meta: Default::default(),
            lease_s: None,
            watch_pid: None,
            pid_namespace: None,
        };
        let (registered, took) = timed(|| api.ask(|client| client.register(&request)))?;
        let has = slots(registered.backend)?;
        ensure!(has.abs_diff(share) <= 1, "{addr} has {has} slots, not {share}");
        added.push(took);
        let request = DeregisterRequest {
            service: service.name.clone(),
            id: addr.clone(),
            force: false,
            allow_empty: false,
        };
        let (_, took) = timed(|| api.ask(|client| client.deregister(&request)))?;
        ensure!(slots(registered.backend)? == 0, "{addr} still has slots");
        taken.push(took);
        names.push((addr, registered.backend));

        let addr = bed::instance(FIRST + 2 * round + 1);
        let words = ["instance", "register", &*service.name, "v1", &addr, "-o", "json"];
        let mut register = api::command(&topology.lb, &words)?;
        let (output, took) = timed(|| command::output(&mut register))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| said)?;
        let backend = u32::try_from(answer["backend"].as_u64().context("no backend")?)?;
        ensure!(slots(backend)?.abs_diff(share) <= 1, "{addr} is not in the ring");
        by_command.push(took);
        topology.lb.releasectl_ok(&["instance", "deregister", &service.name, &addr])?;
        names.push((addr, backend));
    }
    forget(api, maps, &service.name, &names)?;
    let of = format!("ring of {} slots, {} instances", service.ring, service.instances.1[0]);
    let row = |id: &str, what: &str, times: &[f64]| {
        let id = format!("control.instance.{id}");
        Row::new(Section::ControlPath, &id, &format!("{what}, {of}"), "ms", times)
            .target(Target::at_most(BOUND))
    };
    Ok(vec![
        row("add.api", "instance added by the API", &added),
        row("take.api", "instance taken away by the API", &taken),
        row("add.command", "instance added, as a command", &by_command),
    ])
}

/// Has instances given up that had no connections, and waits until their numbers are free: as long as
/// they are not, the daemon looks for evidence.
fn forget(api: &Api, maps: &Maps, service: &str, instances: &[(String, u32)]) -> Result<()> {
    for (id, backend) in instances {
        let request =
            RetireRequest { service: service.to_owned(), target: id.clone(), force: true };
        let retired = api.ask(|client| client.retire(&request));
        // Unless it was proven idle, and is gone already.
        if maps.backend(*backend)?.is_used() {
            retired?;
        }
    }
    let until = Instant::now() + PATIENCE;
    for (id, backend) in instances {
        while maps.backend(*backend)?.is_used() {
            ensure!(Instant::now() < until, "{id} is still known");
            thread::sleep(POLL);
        }
    }
    Ok(())
}
