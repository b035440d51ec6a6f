//! Can a service be released by a plan?

use super::address::{Family, Protocol};
use super::error::Invalid;
use super::service::Service;
use crate::release::plan::{OnDeadline, Plan, Step, Strategy, Threshold};
use crate::sockets::namespace_of;

impl Service {
    /// Everything in a plan that cannot work for this service, as far as its configuration tells.
    /// Whatever is the default plan of a service has none.
    pub fn misfits(&self, plan: &Plan) -> Vec<Invalid> {
        let mut misfits = Misfits { plan, found: Vec::new() };
        misfits.instances(self);
        for (index, step) in plan.steps.iter().enumerate() {
            misfits.step(self, index, step);
        }
        misfits.analysis(self);
        if plan.drain.on_deadline == OnDeadline::Force {
            misfits.force(self);
        }
        misfits.found
    }
}

struct Misfits<'a> {
    plan: &'a Plan,
    found: Vec<Invalid>,
}

impl Misfits<'_> {
    fn add(&mut self, key: &str, why: &str, hint: &str) {
        let what = format!("plan {}: {key}: {why}", self.plan.name);
        self.found.push(Invalid::new(what).hint(hint));
    }

    fn instances(&mut self, service: &Service) {
        // How many there will be, only those who register know.
        if !service.registration().is_nobody() {
            return;
        }
        let counts = || service.versions().iter().map(|version| version.instances().len());
        match (self.plan.strategy, self.plan.ready.threshold) {
            (Strategy::InPlace { batch, min_serving }, _) => {
                let (all, wanted) =
                    (counts().sum::<usize>(), u64::from(batch) + u64::from(min_serving));
                if (all as u64) < wanted {
                    let why = format!(
                        "{min_serving} must serve while {batch} are upgraded, and there are {all} \
                         instances in all"
                    );
                    self.add("min_serving", &why, "batch and min_serving are too many together");
                }
            }
            (Strategy::SideBySide, Threshold::Count(wanted)) => {
                let most = counts().max().unwrap_or(0);
                if (most as u64) < u64::from(wanted) {
                    let why = format!("no version has {wanted} instances, the largest has {most}");
                    self.add("ready.threshold", &why, "the release would never be ready");
                }
            }
            (Strategy::SideBySide, Threshold::Percent(_)) => {}
        }
    }

    fn step(&mut self, service: &Service, index: usize, step: &Step) {
        match step {
            Step::Test { sources, .. } => {
                if !sources.iter().any(|source| service.has_family(source.family())) {
                    let family =
                        if service.has_family(Family::V4) { Family::V4 } else { Family::V6 };
                    let why = format!("all frontends are {family}, and no source is");
                    self.add(&format!("steps[{index}].test"), &why, "nobody would test");
                }
            }
            Step::Warmup { .. } => {
                if !service.has_protocol(Protocol::Tcp) {
                    let key = format!("steps[{index}].warmup");
                    self.add(&key, "no frontend is TCP", "warm-up is TCP connections");
                }
            }
            Step::Weight { .. } | Step::Pause | Step::Approve { .. } => {}
        }
    }

    fn analysis(&mut self, service: &Service) {
        let analysis = &self.plan.analysis;
        if analysis.has_thresholds() {
            let mode = service.mode();
            if !service.has_protocol(Protocol::Tcp) {
                self.add(
                    "analysis",
                    "no frontend is TCP",
                    "what is judged is TCP's handshakes, segments and resets",
                );
            } else if mode.is_one_way() {
                let why = format!("mode `{mode}`: the instances' replies do not pass here");
                self.add("analysis", &why, "who does not see them cannot judge them");
            }
        }
        if analysis.min_flows > 0 && !service.conversation().tracks_flows() {
            let why = format!("conversation `{}` has no flows", service.conversation());
            self.add("analysis.min_flows", &why, "every judgement would lack some");
        }
    }

    /// As for `drain --on-deadline force`.
    fn force(&mut self, service: &Service) {
        let key = "drain.on_deadline";
        if !service.has_protocol(Protocol::Tcp) {
            let hint = "datagrams have no connections, their flows end by their timeout";
            self.add(key, "no frontend is TCP: there is nothing to force", hint);
            return;
        }
        let mode = service.mode();
        let here = |version: &super::Version| {
            let mut places = version.instances().iter().map(super::Instance::sockets);
            places.all(|sockets| sockets.and_then(namespace_of).is_some())
        };
        if mode.is_one_way() && !service.versions().iter().any(here) {
            let why = format!(
                "in mode `{mode}` connections are ended by the instances' kernel, and no version \
                 has all its sockets on this host"
            );
            self.add(key, &why, "if they are, name their namespace by `sockets`");
        }
    }
}
