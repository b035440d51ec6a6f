//! Drafts of all files → configuration: what no single value can tell.

mod claims;
mod finish;
mod health;
mod options;
mod plans;
mod reach;
mod registration;
mod tests_for;

use self::claims::Claims;
use self::plans::Plans;
use super::error::{ConfigError, Invalid, Place};
use super::raw::{Draft, DraftService};
use super::reader::At;
use super::service::Service;
use super::settings::Daemon;
use super::{MAX_INSTANCES, MAX_SERVICES, MAX_TEST_SOURCES, MAX_VERSIONS_IN_ALL};
use crate::release::plan::Plan;

/// What the drafts amount to. Errors and warnings are in the order in which they were found.
pub(super) struct Outcome {
    pub daemon: Option<Daemon>,
    /// Those that are whole; some may be missing if there are errors.
    pub services: Vec<Service>,
    /// Likewise.
    pub plans: Vec<Plan>,
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<ConfigError>,
}

/// Checks all drafts together.
pub(super) fn validate(drafts: Vec<Draft>) -> Outcome {
    let mut found = Found::default();
    let mut daemon: Option<At<Daemon>> = None;
    let (mut services, mut plans) = (Vec::new(), Vec::new());
    for draft in drafts {
        match (draft.daemon, &daemon) {
            (Some(second), Some(first)) => {
                let what = format!("stands in two files, already at {}", first.place.line_only());
                found.error(&second.place, Invalid::new(what).hint("keep one of them"));
            }
            (Some(first), None) => daemon = Some(first),
            (None, _) => {}
        }
        services.extend(draft.services);
        plans.extend(draft.plans);
    }
    totals(&services, &mut found);
    let mut claims = Claims::default();
    for service in &services {
        claims.service(&service.value, &mut found);
    }
    claims.across(&mut found);
    // What values mean together can be judged only where each is right by itself.
    for service in services.iter().filter(|service| service.value.clean) {
        options::check(service, &mut found);
        health::check(&service.value, &mut found);
        tests_for::check(&service.value, &mut found);
        registration::check(&service.value, &mut found);
        reach::check(service, &mut found);
    }
    let plans = Plans::new(plans, &mut found);
    if let Some(daemon) = &daemon {
        against_daemon(daemon, &services, &mut found);
    }
    let mut whole = Vec::new();
    for At { value: draft, .. } in services {
        plans.known(&draft, &mut found);
        let plan = draft.plan.as_ref().map(|at| at.place.clone());
        let Some(service) = finish::service(draft) else { continue };
        if let Some(place) = plan {
            plans.fits(&service, &place, &mut found);
        }
        whole.push(service);
    }
    let Found { errors, warnings } = found;
    let daemon = daemon.map(|at| at.value);
    Outcome { daemon, services: whole, plans: plans.sound, errors, warnings }
}

impl Place {
    /// The place as a person would name it inside a sentence.
    fn line_only(&self) -> String {
        Self { key: String::new(), ..self.clone() }.to_string()
    }

    fn in_words(&self) -> String {
        format!("{} at {}", self.key, self.line_only())
    }

    /// A key of the table that stands here.
    fn key(&self, key: &str) -> Self {
        Self { key: format!("{}.{key}", self.key), ..self.clone() }
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Found {
    fn error(&mut self, place: &Place, invalid: Invalid) {
        self.errors.push(ConfigError::new(place.clone(), invalid));
    }

    fn warn(&mut self, place: &Place, invalid: Invalid) {
        self.warnings.push(ConfigError::new(place.clone(), invalid));
    }
}

fn totals(services: &[At<DraftService>], found: &mut Found) {
    let versions = || services.iter().flat_map(|service| &service.value.versions);
    let instances = versions().flat_map(|version| &version.value.instances);
    let sources = services.iter().flat_map(|service| &service.value.test_sources);
    let sources = sources.flat_map(|(_, list)| &list.value);
    total(found, "services", services.iter().map(|service| &service.place), MAX_SERVICES);
    total(found, "versions", versions().map(|version| &version.place), MAX_VERSIONS_IN_ALL);
    total(found, "instances", instances.map(|instance| &instance.place), MAX_INSTANCES);
    total(found, "test sources", sources.map(|source| &source.place), MAX_TEST_SOURCES);
}

fn total<'a>(found: &mut Found, what: &str, places: impl Iterator<Item = &'a Place>, most: usize) {
    let places: Vec<_> = places.collect();
    if let Some(extra) = places.get(most) {
        let what = format!("{} {what} in all", places.len());
        found.error(extra, Invalid::new(what).hint(format!("at most {most}")));
    }
}

/// What a service says and `[daemon]` gives no effect.
fn against_daemon(daemon: &At<Daemon>, services: &[At<DraftService>], found: &mut Found) {
    use super::settings::Mode;
    let others = daemon.value.interfaces.iter().find(|interface| !interface.is_loopback());
    let on_loopback = daemon.value.interfaces.iter().any(|interface| interface.is_loopback());
    let local = |service: &At<DraftService>| service.value.mode() == Mode::Local;
    if on_loopback && !services.iter().any(local) {
        let what = Invalid::new("`lo` carries this host's traffic with itself only");
        found
            .warn(&daemon.place.key("interfaces"), what.hint("only mode `local` has a use for it"));
    }
    for service in services {
        for sockets in service.value.sockets() {
            let asks = matches!(sockets.value, super::evidence::Sockets::Agent(_));
            if asks && daemon.value.agent.is_none() {
                let hint = "agent = { ca = \"/PATH\", certificate = \"/PATH\", key = \"/PATH\" } in \
                            [daemon]";
                let what = Invalid::new("[daemon] has no `agent`, the certificates for asking one");
                found.error(&sockets.place, what.hint(hint));
            }
        }
        let addrs = service.value.instances().filter_map(|instance| instance.value.addr.as_ref());
        for addr in addrs.filter(|addr| addr.value.is_loopback()) {
            if let Some(interface) = others.filter(|_| local(service)) {
                let what = format!("{}: loopback address", addr.value);
                let hint = format!(
                    "the host's stack takes packets to it from `lo` only, not from `{interface}`"
                );
                found.warn(&addr.place, Invalid::new(what).hint(hint));
            }
        }
        let capacity = daemon.value.flow_capacity;
        if let Some(limits) = &service.value.limits
            && limits.value.max_flows.is_some_and(|most| most.get() > capacity.get())
        {
            let what = format!("more than daemon.flow_capacity, {capacity}");
            let hint = "the table is full before the limit is reached";
            found.warn(&limits.place.key("max_flows"), Invalid::new(what).hint(hint));
        }
    }
}
