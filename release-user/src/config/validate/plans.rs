//! Plans: is each possible in itself, and is there the one that a service names?

use super::super::MAX_PLANS;
use super::super::error::{Invalid, Place};
use super::super::raw::{DraftHooks, DraftPlan, DraftService};
use super::super::reader::At;
use super::super::service::Service;
use super::super::suggest::did_you_mean;
use super::super::types::Name;
use super::Found;
use super::claims::claim;
use crate::release::plan::{Analysis, Hooks, Plan, Ready, Step, Strategy};
use std::collections::HashMap;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(600);

/// The plans of all files.
#[derive(Default)]
pub(super) struct Plans {
    places: HashMap<Name, Place>,
    /// Those without fault.
    pub sound: Vec<Plan>,
}

impl Plans {
    /// Checks the plans together.
    pub fn new(drafts: Vec<At<DraftPlan>>, found: &mut Found) -> Self {
        super::total(found, "plans", drafts.iter().map(|draft| &draft.place), MAX_PLANS);
        let mut plans = Self::default();
        for At { place, value: draft } in drafts {
            let before = found.errors.len();
            if let Some(name) = &draft.name
                && let Some(taken) = claim(&mut plans.places, name.value.clone(), &name.place)
            {
                found.error(&name.place, taken.of(&format!("a plan `{}`", name.value)));
            }
            // What values mean together can be judged only where each is right by itself.
            if !draft.clean {
                continue;
            }
            check(&draft, &place, found);
            if found.errors.len() == before {
                plans.sound.extend(finished(draft));
            }
        }
        plans
    }

    /// Is there the plan that a service names?
    pub fn known(&self, service: &DraftService, found: &mut Found) {
        let Some(plan) = service.plan.as_ref().filter(|at| !self.places.contains_key(&at.value))
        else {
            return;
        };
        let mut known: Vec<&str> = self.places.keys().map(Name::as_str).collect();
        known.sort_unstable();
        let all = || match known.as_slice() {
            [] => "add a [[plan]]".to_owned(),
            _ => format!("there is {}", known.join(", ")),
        };
        let hint = did_you_mean(plan.value.as_str(), &known).unwrap_or_else(all);
        let what = format!("there is no plan `{}`", plan.value);
        found.error(&plan.place, Invalid::new(what).hint(hint));
    }

    /// Is it one that the service can have?
    pub fn fits(&self, service: &Service, place: &Place, found: &mut Found) {
        let name = service.plan().map(Name::as_str);
        for plan in self.sound.iter().filter(|plan| Some(plan.name.as_str()) == name) {
            for invalid in service.misfits(plan) {
                found.error(place, invalid);
            }
        }
    }
}

fn check(plan: &DraftPlan, place: &Place, found: &mut Found) {
    match plan.strategy.as_ref().map(|at| at.value) {
        Some(Strategy::SideBySide) => side_by_side(plan, found),
        Some(Strategy::InPlace { .. }) => in_place(plan, place, found),
        None => {}
    }
}

fn in_place(plan: &DraftPlan, place: &Place, found: &mut Found) {
    let not = |what: &str| Invalid::new(format!("strategy `in-place` {what}"));
    if let Some(step) = plan.steps.first() {
        let hint = "there is one version: instances are drained, upgraded, probed and admitted";
        found.error(&step.place, not("has no steps").hint(hint));
    }
    if let Some(analysis) = &plan.analysis {
        let hint = "there is no second version to judge";
        found.error(&analysis.place, not("has no analysis").hint(hint));
    }
    if let Some(threshold) = &plan.ready.threshold {
        let hint = "every upgraded instance must be live before the next batch";
        found.error(&threshold.place, not("has no threshold").hint(hint));
    }
    if let Some(window) = &plan.rollback_window {
        let hint = "no old version is kept to go back to";
        found.error(&window.place, not("has no rollback window").hint(hint));
    }
    for key in ["start", "stop"] {
        never_run(
            &plan.hooks,
            key,
            not("starts and stops no instances").hint("`upgrade` does"),
            found,
        );
    }
    for key in ["test", "pre_step"] {
        never_run(&plan.hooks, key, not("has no steps"), found);
    }
    never_run(&plan.hooks, "promote", not("has no version to promote"), found);
    if !plan.hooks.contains_key("upgrade") {
        let hint = "instances are drained and admitted again as they are";
        found.warn(&place.key("hooks.upgrade"), Invalid::new("missing").hint(hint));
    }
}

fn side_by_side(plan: &DraftPlan, found: &mut Found) {
    for key in [&plan.batch, &plan.min_serving].into_iter().flatten() {
        let what = Invalid::new("strategy `side-by-side` takes all instances of a version at once");
        found.error(&key.place, what.hint("only `in-place`"));
    }
    let upgrade = Invalid::new("strategy `side-by-side` upgrades no instances");
    let hint = "`start` brings up the new version's, `stop` stops the old one's";
    never_run(&plan.hooks, "upgrade", upgrade.hint(hint), found);
    let has = |fits: fn(&Step) -> bool| plan.steps.iter().any(|step| fits(&step.value));
    if !has(|step| matches!(step, Step::Test { .. })) {
        never_run(&plan.hooks, "test", Invalid::new("there is no test step"), found);
    }
    if !has(|step| *step != Step::Pause) {
        let none = Invalid::new("there is no step to run it before").hint("a pause is none");
        never_run(&plan.hooks, "pre_step", none, found);
    }
    let weights = steps(plan, found);
    let Some(analysis) = &plan.analysis else { return };
    let Some((_, shortest)) = weights.iter().copied().min_by_key(|(_, hold)| *hold) else {
        let hint = "it judges what the new version does while a weight is held";
        found.error(&analysis.place, Invalid::new("there is no weight step").hint(hint));
        return;
    };
    if let Some(every) = &analysis.value.every
        && every.value > shortest
    {
        let what = format!("longer than a hold, {}", humantime::format_duration(shortest));
        let hint = "it would not be judged meanwhile";
        found.error(&every.place, Invalid::new(what).hint(hint));
    }
}

/// The steps in their order. Returns the weights and how long each is held.
fn steps(plan: &DraftPlan, found: &mut Found) -> Vec<(u32, Duration)> {
    let mut weights: Vec<(u32, Duration)> = Vec::new();
    let mut last: Option<&Place> = None;
    for step in &plan.steps {
        match step.value {
            Step::Weight { percent, hold } => {
                if let (Some((before, _)), Some(place)) = (weights.last(), last)
                    && percent <= *before
                {
                    let what = format!("{percent} is not more than {before}: {}", place.in_words());
                    let hint = "weights rise from step to step; the last one, 100, is `promote`";
                    found.error(&step.place, Invalid::new(what).hint(hint));
                }
                weights.push((percent, hold));
                last = Some(&step.place);
            }
            Step::Test { .. } | Step::Warmup { .. } => {
                if let Some(place) = last {
                    let what = format!("behind a weight: {}", place.in_words());
                    let hint = "by then the new version serves everybody";
                    found.error(&step.place, Invalid::new(what).hint(hint));
                }
            }
            Step::Pause | Step::Approve { .. } => {}
        }
    }
    weights
}

fn never_run(hooks: &DraftHooks, key: &str, why: Invalid, found: &mut Found) {
    if let Some(hook) = hooks.get(key) {
        found.error(&hook.place, why);
    }
}

/// A draft without fault → the plan.
fn finished(draft: DraftPlan) -> Option<Plan> {
    let (strategy, window) = match draft.strategy?.value {
        Strategy::SideBySide => (Strategy::SideBySide, WINDOW),
        Strategy::InPlace { batch, min_serving } => {
            let batch = draft.batch.map_or(batch, |at| at.value);
            let min_serving = draft.min_serving.map_or(min_serving, |at| at.value);
            (Strategy::InPlace { batch, min_serving }, Duration::ZERO)
        }
    };
    let default = Ready::default();
    let mut hooks = draft.hooks;
    let mut hook = |key| hooks.remove(key).map(|at| at.value);
    Some(Plan {
        name: draft.name?.value.to_string(),
        strategy,
        ready: Ready {
            threshold: draft.ready.threshold.map_or(default.threshold, |at| at.value),
            timeout: draft.ready.timeout.map_or(default.timeout, |at| at.value),
        },
        steps: draft.steps.into_iter().map(|step| step.value).collect(),
        analysis: draft.analysis.map_or_else(Analysis::default, |at| at.value.analysis),
        drain: draft.drain,
        hooks: Hooks {
            start: hook("start"),
            pre_drain: hook("pre_drain"),
            upgrade: hook("upgrade"),
            probe: hook("probe"),
            test: hook("test"),
            pre_step: hook("pre_step"),
            promote: hook("promote"),
            stop: hook("stop"),
            post_release: hook("post_release"),
            abort: hook("abort"),
            event: hook("event"),
        },
        rollback_window: draft.rollback_window.map_or(window, |at| at.value),
    })
}
