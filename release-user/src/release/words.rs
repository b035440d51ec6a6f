//! Releases in words: what is wanted, and what a release would do.

use std::time::Duration;

use super::machine::{Command, Event, Judgement, Release};
use super::phase::{Part, Phase, Point, Want};
use super::plan::{Action, Hook, OnDeadline, Strategy};

/// More stages than any plan has.
const MOST_STAGES: usize = 20_000;

/// One state of a release that goes well, and what is done in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The state's word.
    pub state: &'static str,
    /// What is done, a line each; empty: nothing but waiting for somebody.
    pub does: Vec<String>,
}

impl Release {
    /// The plan's hook at a point.
    #[must_use]
    pub fn hook(&self, point: Point) -> Option<&Hook> {
        let hooks = &self.plan.hooks;
        let hook = match point {
            Point::Start => &hooks.start,
            Point::PreDrain => &hooks.pre_drain,
            Point::Upgrade => &hooks.upgrade,
            Point::Probe => &hooks.probe,
            Point::Test => &hooks.test,
            Point::PreStep => &hooks.pre_step,
            Point::Promote => &hooks.promote,
            Point::Stop => &hooks.stop,
            Point::PostRelease => &hooks.post_release,
            Point::Abort => &hooks.abort,
            Point::Event => &hooks.event,
        };
        hook.as_ref()
    }

    /// What a release like this does where all goes well, from here on.
    #[must_use]
    pub fn outline(&self) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        let mut now = self.clone();
        while !now.phase.is_over() && stages.len() < MOST_STAGES {
            let wants = now.wants();
            let does = wants.iter().filter_map(|want| now.in_words(want)).collect();
            stages.push(Stage { state: now.state(), does });
            let phase = now.phase.clone();
            while now.phase == phase {
                match now.after(&good(&now)) {
                    Ok(next) => now = next,
                    Err(_) => return stages,
                }
            }
        }
        stages
    }

    /// What is wanted, in words; `None`: nothing is to be done for it.
    #[must_use]
    pub fn in_words(&self, want: &Want) -> Option<String> {
        Some(match want {
            Want::Hook { point, each, .. } => {
                let hook = self.hook(*point)?;
                let of = each.map(|part| format!(" for each of {}", self.part_in_words(part)));
                format!("hook {}{}: {}", point.name(), of.unwrap_or_default(), hook_in_words(hook))
            }
            Want::Ready(count) => format!(
                "wait until {count} of {} instances of {} are live, at most {}{}",
                self.instances.len(),
                self.to,
                span(self.plan.ready.timeout),
                self.probe_in_words()
            ),
            Want::Test(sources) if sources.is_empty() => "end of the test".to_owned(),
            Want::Test(sources) => {
                let list: Vec<String> = sources.iter().map(ToString::to_string).collect();
                format!("clients from {}, and nobody else, reach {}", list.join(", "), self.to)
            }
            Want::Testing(time) => format!("test for {}", span(*time)),
            Want::Warmup { requests, path, concurrency } => {
                let what = path.as_ref().map_or("connections".to_owned(), |p| format!("GET {p}"));
                format!("warm-up: {requests} × {what} to each instance, {concurrency} at a time")
            }
            Want::Shift(percent) if self.from == self.to => format!("{percent} %"),
            Want::Shift(percent) => format!("{} gets {percent} % of new flows", self.to),
            Want::Hold(time) if self.plan.analysis.has_thresholds() => {
                let every = span(self.plan.analysis.every);
                format!("hold for {}, judged every {every}", span(*time))
            }
            Want::Hold(time) => format!("hold for {}", span(*time)),
            Want::Judge => return None,
            Want::Approve(webhook) => format!("wait until {} says 2xx", webhook.url),
            Want::Drain(part) => format!("no new flows for {}", self.part_in_words(*part)),
            Want::Idle(part) => {
                let drain = &self.plan.drain;
                let limit = match (drain.deadline, drain.on_deadline) {
                    (Some(limit), OnDeadline::Hold) => {
                        format!(", held and alarm after {}", span(limit))
                    }
                    (Some(limit), OnDeadline::Force) => {
                        let rate = drain.force_rate;
                        format!(", ended by force after {}, {rate} a second", span(limit))
                    }
                    (None, _) => String::new(),
                };
                format!("wait for the receipt of {}{limit}", self.part_in_words(*part))
            }
            Want::Healthy(_) => {
                let limit = span(self.plan.ready.timeout);
                format!("wait until they are live, at most {limit}{}", self.probe_in_words())
            }
            Want::Admit(batch) => {
                format!("new flows for {} again", self.part_in_words(Part::Batch(*batch)))
            }
            Want::Window(time) if time.is_zero() => return None,
            Want::Window(time) => {
                format!("{} is kept for {}: a rollback finds it", self.from, span(*time))
            }
            Want::Retire(_) => format!("{} is retired", self.from),
        })
    }

    fn probe_in_words(&self) -> String {
        let hook = self.hook(Point::Probe).map(hook_in_words);
        hook.map(|hook| format!("; hook probe: {hook}")).unwrap_or_default()
    }

    fn part_in_words(&self, part: Part) -> String {
        match part {
            Part::Old => self.from.clone(),
            Part::New => self.to.clone(),
            Part::Batch(number) => self.batch(number).join(", "),
        }
    }

    /// `shifting 2/4`, `draining 1/3`: the state, and how far it is among its like.
    #[must_use]
    pub fn state_in_words(&self) -> String {
        match self.progress().filter(|_| !self.phase.waits()) {
            Some((number, of)) => format!("{} {number}/{of}", self.state()),
            None => self.state().to_owned(),
        }
    }

    /// How far it is among its steps or batches: which one, from 1, of how many.
    #[must_use]
    pub fn progress(&self) -> Option<(usize, usize)> {
        let batches = |batch: usize| match self.plan.strategy {
            Strategy::InPlace { batch: size, .. } => {
                Some((batch + 1, self.instances.len().div_ceil((size as usize).max(1))))
            }
            Strategy::SideBySide => None,
        };
        match self.phase.under_way() {
            Phase::Step(index) => Some((index + 1, self.plan.steps.len())),
            Phase::PreDrain(Part::Batch(batch))
            | Phase::Draining(Part::Batch(batch))
            | Phase::Held(Part::Batch(batch))
            | Phase::Forcing(Part::Batch(batch))
            | Phase::Upgrading(batch, _)
            | Phase::Probing(batch, _)
            | Phase::Admitting(batch, _) => batches(*batch),
            _ => None,
        }
    }
}

/// The event that takes a release on where all goes well.
pub(super) fn good(release: &Release) -> Event {
    match (&release.phase, release.wanted()) {
        (Phase::Paused { .. }, _) => Event::Command(Command::Resume),
        (_, Some(Want::Idle(_))) => Event::Idle { receipts: vec![0], forced: false },
        (_, Some(Want::Judge)) => Event::Judged(Judgement::Pass),
        _ => Event::Done,
    }
}

fn hook_in_words(hook: &Hook) -> String {
    match &hook.action {
        Action::Exec(argv) => argv.join(" "),
        Action::Unit(unit) => format!("unit {unit}"),
    }
}

/// The last line that says something.
#[must_use]
pub fn one_line(output: &str) -> &str {
    output.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

fn span(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::a_release;

    #[test]
    fn an_outline_names_each_state_with_what_is_done() {
        let stages = a_release("web").outline();
        let states: Vec<&str> = stages.iter().map(|stage| stage.state).collect();
        let all = [
            "pending",
            "staging",
            "promoting",
            "promoted",
            "draining",
            "idle",
            "stopping",
            "post-release",
        ];
        assert_eq!(states, all);
        let lines: Vec<String> = stages.into_iter().flat_map(|stage| stage.does).collect();
        assert_eq!(
            lines,
            [
                "wait until 4 of 5 instances of v2 are live, at most 1m",
                "v2 gets 100 % of new flows",
                "no new flows for v1",
                "wait for the receipt of v1, held and alarm after 1m",
                "v1 is kept for 1m: a rollback finds it",
                "v1 is retired",
            ]
        );
    }
}
