//! I1: one instance per flow, first packet to last, whatever weights do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use release_tests::load::{Group, Load, LoadPlan};
use release_tests::observe::{Ctl, Dice, InForce};
use release_tests::scenario::eventually;
use release_tests::topology::{FRONTEND, Topology, TopologySpec};

const DEADLINE: Duration = Duration::from_secs(10);
const STEPS: u32 = 1000;
const SEED: u64 = 0x1017;

/// What the commands so far must have led to.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    weights: BTreeMap<String, u32>,
    /// Drained versions with their weights before.
    versions: BTreeMap<String, u32>,
    /// Drained instances with their versions.
    instances: BTreeSet<(String, String)>,
}

impl Expected {
    fn new(weights: &[(&str, u32)]) -> Self {
        Self {
            weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            versions: BTreeMap::new(),
            instances: BTreeSet::new(),
        }
    }

    fn serving(&self) -> usize {
        self.weights.values().filter(|weight| **weight > 0).count()
    }

    /// Random weights, one of them 0 half of the time, now and then some version unnamed.
    fn shift(&mut self, lb: Ctl<'_>, dice: &mut Dice) -> Result<InForce> {
        let names: Vec<String> = self.weights.keys().cloned().collect();
        let zero = dice.below(2 * u32::try_from(names.len())?);
        let mut arguments = Vec::new();
        for (index, name) in (0..).zip(&names) {
            let weight = if index == zero { 0 } else { 1 + dice.below(100) };
            let left_out = dice.below(8) == 0 && self.weights[name] > 0;
            if index != zero && left_out && !arguments.is_empty() {
                continue;
            }
            arguments.push(format!("{name}={weight}"));
            self.weights.insert(name.clone(), weight);
            if weight > 0 {
                self.versions.remove(name);
            }
        }
        lb.shift(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A version out of service or back; never the last one.
    fn toggle_version(&mut self, lb: Ctl<'_>, dice: &mut Dice) -> Result<InForce> {
        let names: Vec<String> = self.weights.keys().cloned().collect();
        let name = &names[dice.below(u32::try_from(names.len())?) as usize];
        if let Some(before) = self.versions.remove(name) {
            self.weights.insert(name.clone(), before);
            return lb.undrain(name);
        }
        if self.weights[name] > 0 && self.serving() == 1 {
            // Undraining what is not drained changes nothing.
            return lb.undrain(name);
        }
        let before = self.weights.insert(name.clone(), 0).unwrap_or(0);
        self.versions.insert(name.clone(), before);
        lb.drain(name)
    }

    /// An instance out of its ring or back; never the last one of its version.
    fn toggle_instance(&mut self, lb: Ctl<'_>, dice: &mut Dice) -> Result<InForce> {
        let version = if dice.below(2) == 0 { "v1" } else { "v2" };
        let of = |number: u32| (version.to_owned(), format!("{version}-{number}"));
        let (one, other) = if dice.below(2) == 0 { (of(1), of(2)) } else { (of(2), of(1)) };
        if self.instances.remove(&one) {
            return lb.undrain(&one.1);
        }
        if self.instances.contains(&other) {
            self.instances.remove(&other);
            return lb.undrain(&other.1);
        }
        let id = one.1.clone();
        self.instances.insert(one);
        lb.drain(&id)
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_thousand_random_shifts_move_nobody() {
    let versions = vec![("v1".into(), 2), ("v2".into(), 2), ("v3".into(), 1)];
    let spec = TopologySpec { versions, clients: 4, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let _servers = topology.start_servers().unwrap();
    let lb = Ctl(&topology.lb);
    let initial = [("v1", 100), ("v2", 50), ("v3", 10)];
    lb.0.write_config(&topology.config(&initial)).unwrap();
    let _daemon = lb.0.start_daemon().unwrap();
    let load = Load::start(&topology.client, plan(&topology)).unwrap();
    let up = load.wait(DEADLINE, |s| s.versions.values().map(|v| v.active).sum::<u64>() >= 70);
    assert!(up, "no load: {:?}", load.snapshot());

    let mut dice = Dice::new(SEED);
    let mut expected = Expected::new(&initial);
    let mut generation = lb.service().unwrap().generation;
    let (first, mut changes) = (generation, 0);
    for step in 0..STEPS {
        let before = expected.clone();
        let done = match dice.below(10) {
            0 => expected.toggle_version(lb, &mut dice),
            1 => expected.toggle_instance(lb, &mut dice),
            _ => expected.shift(lb, &mut dice),
        };
        let done = done.unwrap_or_else(|error| panic!("step {step}: {error:#}: {before:?}"));
        let changed = before != expected;
        generation += u32::from(changed);
        changes += u32::from(changed);
        let wanted = InForce { generation, weights: expected.weights.clone(), changed };
        assert_eq!(done, wanted, "step {step}: {before:?} → {expected:?}");
    }
    let service = lb.service().unwrap();
    assert_eq!(service.generation, first + changes);
    assert_eq!(lb.kernel_generation().unwrap(), first + changes);
    assert_eq!(service.weights(), expected.weights);

    let report = load.finish().unwrap();
    assert_eq!(report.totals.moved, 0, "of {STEPS} steps: {:?}", report.first_moved);
    assert_eq!(report.totals.errors, 0, "{:?}", report.first_errors);
    assert!(report.totals.connections > 1000, "{} connections", report.totals.connections);
    eventually(DEADLINE, "all flows closed", || lb.service().unwrap().active() == 0);
    lb.check_maps().unwrap();
    // The clients and the balancer counted the same.
    for version in &lb.service().unwrap().versions {
        for instance in &version.instances {
            let clients = report.totals.versions[&version.name].instances[&instance.id];
            let counters = instance.counters;
            assert_eq!((counters.opened, counters.adopted), (clients, 0), "{}", instance.id);
        }
    }
}

/// Connections of every kind: short ones, sessions, idle ones and streams that span it all.
fn plan(topology: &Topology) -> LoadPlan {
    let keep_alive = |connections, pause, life: Option<u64>| Group::KeepAlive {
        connections,
        pause: Duration::from_millis(pause),
        life: life.map(Duration::from_millis),
    };
    LoadPlan {
        target: FRONTEND,
        sources: topology.client_addresses(),
        groups: vec![
            Group::Short { per_second: 150, limit: None, path: "/".into() },
            keep_alive(20, 50, Some(1000)),
            keep_alive(20, 50, None),
            keep_alive(10, 2000, None),
            Group::Stream { connections: 20, length: Duration::from_secs(120) },
        ],
        threads: 1,
    }
}
