//! The table of packet cases, through the real programs by BPF_PROG_TEST_RUN; every frame is
//! explained before it comes in. Needs root.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod frames;
mod kernel;
mod runner;
mod state;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kernel::Kernel;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use release_common::pipeline::Action;
use release_tests::cases::{Case, Report, Step, all, run_case, say};
use release_tests::frames::{Segment, flags};
use release_tests::model::{Family, Scene};
use release_tests::raw_map::Raw;
use release_tests::way::Surroundings;
use runner::KernelRunner;

/// Cases with frames shorter than an Ethernet header, which the kernel takes for no test run: what
/// their names say, and how many such frames each has.
const TOO_SHORT: (&str, usize) = ("cut at every length", 14);
/// How long cases about time may be tried again, all together. All packets of such a case must be
/// early in one jiffy each, which takes luck on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The thread stays on one CPU: a small LRU table evicts early when several CPUs use it.
fn on_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}

/// Whether a case's outcome depends on the time that passes between its steps.
fn is_timed(case: &Case) -> bool {
    let settings = &case.scene.settings;
    settings.session_timeout != 0
        || settings.flow_interval != 0
        || case.steps.iter().any(|step| matches!(step, Step::Advance(_)))
}

/// What a case came to: `Ok(false)`: it was not run.
fn run(
    kernel: &RefCell<Kernel<'_>>,
    case: &Case,
    timed: bool,
    not_taken: &mut usize,
) -> Result<bool, String> {
    kernel.borrow_mut().begin(&case.scene, timed).unwrap();
    let mut runner = KernelRunner { kernel, scene: Rc::new(case.scene.clone()) };
    let done = run_case(case, &mut runner, not_taken)?;
    match kernel.borrow().differences.first() {
        Some(first) => Err(first.clone()),
        None => Ok(done),
    }
}

/// The cache of the routing table is filled by packets, and by no explanation.
fn explaining_caches_nothing(kernel: &mut Kernel<'_>) {
    for (family, name) in [(Family::V4, "NEXT_HOPS4"), (Family::V6, "NEXT_HOPS6")] {
        let scene = Scene::new(&[1], 1).told_in(family);
        kernel.begin(&scene, false).unwrap();
        let cache = Raw::open(&kernel.bpffs, name).unwrap();
        let is_empty = || cache.all().unwrap().iter().all(|byte| *byte == 0);
        let (client, frontend) = (scene.client_socket(0), scene.frontend(0).socket);
        let frame = Segment::tcp(client, frontend, flags::SYN).build();
        let (says, _) = kernel.explain(&frame).unwrap();
        assert_eq!(says.action, Action::Send as u32, "{says:?}");
        assert!(is_empty(), "{name}");
        kernel.ingress(&frame).unwrap();
        assert!(!is_empty(), "{name}");
    }
}

/// Variants whose frames have nothing before, between or behind the usual headers.
const PLAIN: [&str; 2] = ["IPv4", "IPv6"];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn plain_cases_hold_in_the_kernel() {
    hold("plain", |case| PLAIN.contains(&case.variant));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn tagged_and_extended_cases_hold_in_the_kernel() {
    hold("variants", |case| !PLAIN.contains(&case.variant));
}

/// The variable that says how many cases stand for one that is run, at least one of each category
/// and variant. Unset: all are run.
const SAMPLE: &str = "RELEASE_TEST_CASES";

/// Whether a case is in the sample; cases are counted by category and variant.
fn sampled() -> impl FnMut(&Case) -> bool {
    let every: usize = env::var(SAMPLE).map_or(1, |every| every.parse().unwrap());
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    move |case| {
        let number = seen.entry((case.category, case.variant)).or_default();
        *number += 1;
        (*number - 1).is_multiple_of(every)
    }
}

/// Runs the cases chosen, on maps of their own.
fn hold(name: &str, chosen: impl Fn(&Case) -> bool) {
    let mut way = Surroundings::new().unwrap();
    let netns = way.netns.handle();
    netns.join().unwrap();
    on_one_cpu();
    let kernel = RefCell::new(Kernel::new(&mut way, name).unwrap());
    if name == "plain" {
        kernel.borrow().loaded.verified.iter().for_each(say);
    }
    explaining_caches_nothing(&mut kernel.borrow_mut());
    let (mut report, mut too_short, mut again) = (Report::default(), BTreeSet::new(), 0);
    let mut waited = Duration::ZERO;
    let begun = Instant::now();
    let mut sampled = sampled();
    for case in all().into_iter().filter(|case| chosen(case) && sampled(case)) {
        let timed = is_timed(&case);
        let mut not_taken = 0;
        let mut outcome = run(&kernel, &case, timed, &mut not_taken);
        let failed = Instant::now();
        while timed && outcome.is_err() && waited + failed.elapsed() < PATIENCE {
            (again, not_taken) = (again + 1, 0);
            outcome = run(&kernel, &case, timed, &mut not_taken);
        }
        waited += failed.elapsed();
        let Case { category, variant, name, .. } = &case;
        match outcome {
            Ok(true) => *report.passed.entry((category, variant)).or_default() += 1,
            Ok(false) => report.not_applicable.push(format!("{category}: {name}")),
            Err(why) => report.failed.push(format!("{category}: {variant}: {name}: {why}")),
        }
        if not_taken > 0 {
            assert!(name.contains(TOO_SHORT.0) && not_taken == TOO_SHORT.1, "{name}: {not_taken}");
            too_short.insert(name.clone());
        }
    }
    say(format_args!(
        "{name} cases, in the kernel:\n{}\n{:>12}  {:.1}\n{:>12}  {again} attempts more, of cases \
         about time\n{:>12}  {} frames each of {too_short:?}",
        report.table(),
        "seconds",
        begun.elapsed().as_secs_f32(),
        "",
        "not run",
        TOO_SHORT.1
    ));
    assert!(
        report.failed.is_empty(),
        "{} cases do not hold:\n{}",
        report.failed.len(),
        report.failed.join("\n")
    );
    assert!(report.not_applicable.is_empty(), "not run: {:?}", report.not_applicable);
}
