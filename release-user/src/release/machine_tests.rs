use proptest::collection::vec;
use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use proptest::strategy::Strategy as Generator;

use super::super::plan::{Analysis, Drain, Hooks, Ready, Threshold, Webhook};
use super::super::words::good;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn plan(strategy: Strategy, steps: Vec<Step>, on_deadline: OnDeadline) -> Plan {
    Plan {
        name: "gray".to_owned(),
        strategy,
        ready: Ready { threshold: Threshold::Percent(80), timeout: MINUTE },
        steps,
        analysis: Analysis::default(),
        drain: Drain { deadline: Some(MINUTE), on_deadline, force_rate: 100 },
        hooks: Hooks::default(),
        rollback_window: MINUTE,
    }
}

fn release(plan: Plan) -> Release {
    let to = if plan.strategy == Strategy::SideBySide { "v2" } else { "v1" };
    Release {
        id: 1,
        service: "web".to_owned(),
        from: "v1".to_owned(),
        to: to.to_owned(),
        instances: (1..=5).map(|number| format!("i{number}")).collect(),
        plan,
        data: serde_json::Value::Null,
        phase: Phase::Pending,
        done: 0,
        round: 0,
        since_boot_ms: 0,
    }
}

/// One of a service, for tests elsewhere.
pub(crate) fn a_release(service: &str) -> Release {
    let plan = plan(Strategy::SideBySide, Vec::new(), OnDeadline::Hold);
    Release { id: 0, service: service.to_owned(), ..release(plan) }
}

const IN_PLACE: Strategy = Strategy::InPlace { batch: 2, min_serving: 3 };

fn all_steps() -> Vec<Step> {
    let webhook = Webhook { url: "http://10.0.0.9/ok".to_owned(), token: None };
    vec![
        Step::Test { sources: Vec::new(), duration: MINUTE },
        Step::Warmup { requests: 10, path: None, concurrency: 2 },
        Step::Weight { percent: 10, hold: MINUTE },
        Step::Pause,
        Step::Approve { webhook, timeout: MINUTE },
        Step::Weight { percent: 50, hold: MINUTE },
    ]
}

/// The states on the way where all goes well, each once.
fn way(mut release: Release) -> Vec<&'static str> {
    let mut states = vec![release.state()];
    while !release.phase.is_over() {
        release = release.after(&good(&release)).unwrap();
        if states.last() != Some(&release.state()) {
            states.push(release.state());
        }
        assert!(states.len() < 50, "{states:?}");
    }
    states
}

#[test]
fn a_good_release_goes_all_the_way() {
    let side = release(plan(Strategy::SideBySide, all_steps(), OnDeadline::Hold));
    assert_eq!(
        way(side),
        [
            "pending",
            "staging",
            "testing",
            "shifting",
            "paused",
            "testing",
            "shifting",
            "promoting",
            "promoted",
            "draining",
            "idle",
            "stopping",
            "post-release",
            "succeeded"
        ]
    );
    let batch = ["promoted", "draining", "upgrading", "probing", "admitting"];
    let mut wanted = vec!["pending"];
    // Five instances, two at a time.
    (0..3).for_each(|_| wanted.extend(batch));
    wanted.extend(["post-release", "succeeded"]);
    assert_eq!(way(release(plan(IN_PLACE, Vec::new(), OnDeadline::Hold))), wanted);
}

/// Follows the good way to the first state of that name.
fn at(plan: Plan, state: &str) -> Release {
    let mut release = release(plan);
    while release.state() != state {
        release = release.after(&good(&release)).unwrap();
    }
    release
}

#[test]
fn the_deadline_holds_or_forces() {
    for (on_deadline, state) in [(OnDeadline::Hold, "held"), (OnDeadline::Force, "forcing")] {
        let mut release = at(plan(Strategy::SideBySide, Vec::new(), on_deadline), "draining");
        release = release.after(&Event::Done).unwrap();
        assert_eq!(release.limit(), Some(MINUTE));
        release = release.after(&Event::TimeUp).unwrap();
        assert_eq!(release.state(), state);
        while release.wanted() != Some(Want::Idle(Part::Old)) {
            release = release.after(&Event::Done).unwrap();
        }
        release = release.after(&Event::Idle { receipts: vec![9], forced: true }).unwrap();
        let Phase::Idle(proof) = release.phase else { panic!("{release:?}") };
        assert_eq!((proof.receipts(), proof.is_forced()), (&[9][..], true));
    }
}

#[test]
fn judgements_decide() {
    let steps = vec![Step::Weight { percent: 10, hold: MINUTE }];
    let mut holding = at(plan(Strategy::SideBySide, steps, OnDeadline::Hold), "shifting");
    while !matches!(holding.wanted(), Some(Want::Hold(_))) {
        holding = holding.after(&Event::Done).unwrap();
    }
    let judged = |release: &Release, judgement| release.after(&Event::Judged(judgement)).unwrap();
    let little = Judgement::Inconclusive("3 flows of 100".to_owned());
    assert_eq!(judged(&holding, little.clone()), holding, "it may come yet");
    assert_eq!(judged(&holding, Judgement::Pass), holding);
    let bad = judged(&holding, Judgement::Fail("5 % reset".to_owned()));
    assert_eq!(bad.wants()[0], Want::Shift(0));
    let end = holding.after(&Event::Done).unwrap();
    assert!(end.after(&Event::Done).is_err(), "nobody has judged it");
    assert_eq!(judged(&end, Judgement::Pass).state(), "promoting");
    let paused = judged(&end, little);
    assert_eq!(paused.state(), "paused");
    // The step again, with its hold.
    let again = paused.after(&Event::Command(Command::Resume)).unwrap();
    assert_eq!((again.state(), again.done), ("shifting", 0));
}

/// Giving it up may fail, too; then somebody can leave it at that.
#[test]
fn what_cannot_be_given_up_can_be_left() {
    let staging = at(plan(Strategy::SideBySide, Vec::new(), OnDeadline::Hold), "staging");
    let abort = || Event::Command(Command::Abort("why".to_owned()));
    let aborting = staging.after(&abort()).unwrap();
    aborting.after(&abort()).unwrap_err();
    let stuck = aborting.after(&Event::Failed("no such version".to_owned())).unwrap();
    assert_eq!(stuck.state(), "paused");
    assert_eq!(stuck.after(&abort()).unwrap().state(), "rolled-back");
}

/// However a test is left, its clients reach the new version no more by rule.
#[test]
fn a_test_that_is_left_is_ended() {
    let testing = at(plan(Strategy::SideBySide, all_steps(), OnDeadline::Hold), "testing");
    for command in [Command::Promote, Command::Abort("why".to_owned())] {
        let left = testing.after(&Event::Command(command)).unwrap();
        assert!(left.wants().contains(&Want::Test(Vec::new())), "{left:?}");
    }
}

#[test]
fn a_batch_that_was_not_upgraded_is_put_back() {
    let command = |release: &Release| {
        release.after(&Event::Command(Command::Abort("changed my mind".to_owned())))
    };
    let draining = at(plan(IN_PLACE, Vec::new(), OnDeadline::Hold), "draining");
    let aborting = command(&draining).unwrap();
    assert_eq!(aborting.wanted(), Some(Want::Admit(0)));
    // One whose upgrade failed is left out of service.
    let upgrading = at(plan(IN_PLACE, Vec::new(), OnDeadline::Hold), "upgrading");
    command(&upgrading).unwrap_err();
    let failed = upgrading.after(&Event::Failed("exit code 1".to_owned())).unwrap();
    assert_eq!(failed.state(), "paused");
    let aborting = command(&failed).unwrap();
    assert!(!aborting.wants().iter().any(|want| matches!(want, Want::Admit(_))));
}

fn events() -> impl Generator<Value = Event> {
    let text = || Just("why".to_owned());
    prop_oneof![
        8 => Just(Event::Done),
        2 => text().prop_map(Event::Failed),
        1 => text().prop_map(Event::Unclear),
        2 => Just(Event::TimeUp),
        4 => (vec(1..1000u64, 0..3), any::<bool>())
            .prop_map(|(receipts, forced)| Event::Idle { receipts, forced }),
        4 => Just(Event::Judged(Judgement::Pass)),
        1 => text().prop_map(|why| Event::Judged(Judgement::Fail(why))),
        1 => text().prop_map(|why| Event::Judged(Judgement::Inconclusive(why))),
        1 => Just(Event::Void),
        1 => Just(Event::Command(Command::Pause)),
        3 => Just(Event::Command(Command::Resume)),
        1 => Just(Event::Command(Command::Promote)),
        1 => text().prop_map(|why| Event::Command(Command::Abort(why))),
        1 => Just(Event::Command(Command::Reverse)),
    ]
}

fn plans() -> impl Generator<Value = Plan> {
    let steps = || vec(select(all_steps()), 0..5);
    let on_deadline = || prop_oneof![Just(OnDeadline::Hold), Just(OnDeadline::Force)];
    prop_oneof![
        (steps(), on_deadline()).prop_map(|(steps, on)| plan(Strategy::SideBySide, steps, on)),
        on_deadline().prop_map(|on| plan(IN_PLACE, Vec::new(), on)),
    ]
}

/// The proof that a want stands on, and whether it needs one.
fn stands_on(want: &Want) -> (Option<Proof>, bool) {
    match want {
        Want::Hook { point: Point::Stop | Point::Upgrade, proof, .. } => (proof.clone(), true),
        Want::Hook { proof, .. } => (proof.clone(), false),
        Want::Retire(proof) => (Some(proof.clone()), true),
        _ => (None, false),
    }
}

/// Whether the new version has all new flows.
fn is_promoted(release: &Release) -> bool {
    release.plan.strategy == Strategy::SideBySide
        && matches!(
            release.phase.under_way(),
            Phase::PreDrain(_)
                | Phase::Draining(_)
                | Phase::Held(_)
                | Phase::Forcing(_)
                | Phase::Idle(_)
                | Phase::Stopping(_)
                | Phase::PostRelease(_)
        )
}

proptest! {
    /// Whatever happens, in whatever order.
    #[test]
    fn nothing_is_stopped_or_upgraded_without_a_receipt(
        plan in plans(),
        events in vec(events(), 0..200),
    ) {
        let mut release = release(plan);
        let mut written: Vec<Vec<u64>> = Vec::new();
        for event in &events {
            let before = release.clone();
            let Ok(next) = release.after(event) else { continue };
            if let Event::Idle { receipts, .. } = event {
                prop_assert!(matches!(before.wanted(), Some(Want::Idle(_))));
                prop_assert!(!receipts.is_empty());
                written.push(receipts.clone());
            }
            prop_assert!(!before.phase.is_over(), "over is over: {before:?} {event:?}");
            if is_promoted(&before) {
                let aborting = matches!(next.phase, Phase::Aborting { .. });
                prop_assert!(!aborting, "{before:?} {event:?}");
            }
            for want in next.wants() {
                let (proof, needed) = stands_on(&want);
                prop_assert!(proof.is_some() || !needed, "{want:?}");
                if let Some(proof) = proof {
                    let last = written.last().map(Vec::as_slice);
                    prop_assert_eq!(Some(proof.receipts()), last, "{:?}", want);
                }
            }
            if let Phase::Succeeded(proof) = &next.phase {
                prop_assert!(written.iter().any(|receipts| receipts == proof.receipts()));
            }
            // A daemon that is killed now goes on just there.
            let stored = serde_json::to_string(&next).unwrap();
            let loaded: Release = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&loaded, &next);
            release = next;
        }
        // From wherever it got to, there is a way out.
        let mut left = 200;
        while !release.phase.is_over() {
            release = release.after(&good(&release)).unwrap();
            left -= 1;
            prop_assert!(left > 0, "{release:?}");
        }
    }
}
