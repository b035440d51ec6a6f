//! Beginning a release: everything that can be known to go wrong is refused before.

use std::time::Duration;

use super::super::core::Daemon;
use super::super::{clock, events};
use crate::api::release::{OrderRequest, StageLine, StartRelease, Started};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Prefix, Service};
use crate::control::commands::service_mut;
use crate::control::state::{ServiceState, VersionState};
use crate::release::journal::{BeginError, Entry};
use crate::release::machine::{Command, Release};
use crate::release::phase::Phase;
use crate::release::plan::{Plan, Step, Strategy};
use crate::release::words::Stage;

impl Daemon {
    /// Begins a release, or says what it would do.
    ///
    /// # Errors
    /// Usage for what is not there or does not fit, conflict for what cannot be now.
    pub async fn begin_release(&self, request: StartRelease) -> Result<Started, ApiError> {
        let dry_run = request.dry_run;
        let release = {
            let mut core = self.core.lock().await;
            core.up()?;
            let config = std::sync::Arc::clone(&core.config);
            prepare(service_mut(&mut core.state, &request.service)?, &config, request)?
        };
        let outline = release.outline();
        let release = if dry_run {
            self.nothing_under_way(&release.service)?;
            release
        } else {
            self.begin(release, None)?
        };
        self.started(&release, outline, dry_run)
    }

    fn started(
        &self,
        release: &Release,
        outline: Vec<Stage>,
        dry_run: bool,
    ) -> Result<Started, ApiError> {
        let line = |Stage { state, does }| StageLine { state: state.to_owned(), does };
        let outline = outline.into_iter().map(line).collect();
        Ok(Started { release: self.release_line(release)?, dry_run, outline })
    }

    fn nothing_under_way(&self, service: &str) -> Result<(), ApiError> {
        match self.under_way(service)? {
            Some(release) => Err(under_way(service, release.id)),
            None => Ok(()),
        }
    }

    /// Writes a release down, and has it carried out.
    fn begin(&self, release: Release, back: Option<u64>) -> Result<Release, ApiError> {
        let Release { from, to, instances, plan, .. } = &release;
        let what = match back {
            Some(id) => format!("rollback of release {id}: "),
            None => String::new(),
        };
        let entry = Entry {
            at: events::now(),
            state: release.state().to_owned(),
            kind: "started".to_owned(),
            text: if from == to {
                format!("{what}{from} in place, plan {}, {}", plan.name, instances.join(", "))
            } else {
                format!("{what}{from} → {to}, plan {}, {}", plan.name, instances.join(", "))
            },
            data: serde_json::json!({ "back": back }),
        };
        let service = release.service.clone();
        let begun = self.journal().begin_release(release, &entry).map_err(|error| match error {
            BeginError::UnderWay(id) => under_way(&service, id),
            BeginError::Store(error) => error.into(),
        })?;
        let name = format!("release {}", begun.id);
        self.events.publish("release", Some(&service), Some(&name), entry.text);
        self.releases.carry(begun.clone());
        Ok(begun)
    }

    /// Goes back from a promoted release: by another one, in the other direction.
    ///
    /// # Errors
    /// Conflict if its old version is not there any more.
    pub async fn go_back(&self, name: &str) -> Result<Started, ApiError> {
        let release = self.find_release(name, false)?;
        if release.plan.strategy != Strategy::SideBySide {
            let text = format!("release {}: in place there is nothing to go back to", release.id);
            return Err(ApiError::new(ErrorCode::Conflict, text)
                .hint("start a release that upgrades to what was before"));
        }
        let back = {
            let mut core = self.core.lock().await;
            core.up()?;
            back(service_mut(&mut core.state, &release.service)?, &release)?
        };
        // Reversed and not gone back: a daemon was killed in between.
        if release.phase != Phase::Reversed {
            let request =
                OrderRequest { release: release.id.to_string(), command: Command::Reverse };
            self.order(request).await.map_err(|error| match release.phase.is_over() {
                true => error,
                false => error.hint("before the promotion: releasectl release abort"),
            })?;
        }
        let outline = back.outline();
        let begun = self.begin(back, Some(release.id))?;
        self.started(&begun, outline, false)
    }
}

fn under_way(service: &str, id: u64) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("service {service}: release {id} is under way"))
        .hint(format!("releasectl release show {id}"))
}

/// The release that a request asks for.
fn prepare(
    state: &ServiceState,
    config: &Config,
    request: StartRelease,
) -> Result<Release, ApiError> {
    let StartRelease { service: name, from, to, plan, instances, data, .. } = request;
    let gone = || ApiError::new(ErrorCode::Conflict, format!("service {name}: was removed"));
    let service = config.service(&name).filter(|_| !state.removed).ok_or_else(gone)?;
    let plan = find_plan(config, service, plan.as_deref())?;
    fits(service, plan)?;
    let from = serving(state, from.as_deref())?;
    let to = target(state, plan, from, to.as_deref())?;
    let instances = chosen(state, to, plan, instances)?;
    for step in &plan.steps {
        if let Step::Test { sources, .. } = step {
            sources_are_free(service, &to.name, sources)?;
        }
    }
    let (from, to) = (from.name.clone(), to.name.clone());
    Ok(new(name, from, to, instances, plan.clone(), data))
}

fn new(
    service: String,
    from: String,
    to: String,
    instances: Vec<String>,
    plan: Plan,
    data: serde_json::Value,
) -> Release {
    Release {
        id: 0,
        service,
        from,
        to,
        instances,
        plan,
        data,
        phase: Phase::Pending,
        done: 0,
        round: 0,
        since_boot_ms: clock::since_boot_ms(),
    }
}

fn find_plan<'a>(
    config: &'a Config,
    service: &Service,
    name: Option<&str>,
) -> Result<&'a Plan, ApiError> {
    let name = name.or_else(|| service.plan().map(|name| name.as_str()));
    let known: Vec<&str> = config.plans().iter().map(|plan| plan.name.as_str()).collect();
    let known = match known.is_empty() {
        true => "the configuration has no [[plan]]".to_owned(),
        false => format!("there are {}", known.join(", ")),
    };
    let Some(name) = name else {
        let text = format!("service {}: names no plan", service.name());
        return Err(ApiError::new(ErrorCode::Usage, text).hint(format!("--plan NAME; {known}")));
    };
    config.plan(name).ok_or_else(|| {
        ApiError::new(ErrorCode::Usage, format!("plan {name}: no such plan")).hint(known)
    })
}

fn fits(service: &Service, plan: &Plan) -> Result<(), ApiError> {
    let misfits = service.misfits(plan);
    if misfits.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = misfits.iter().map(ToString::to_string).collect();
    let text = format!("service {}: {}", service.name(), all.join("; "));
    Err(ApiError::new(ErrorCode::Usage, text))
}

/// The version that serves, which must be the one that was named.
fn serving<'a>(state: &'a ServiceState, name: Option<&str>) -> Result<&'a VersionState, ApiError> {
    let weights = || {
        let list: Vec<String> =
            state.weights().iter().map(|(name, weight)| format!("{name} {weight}")).collect();
        format!("the weights are {}", list.join(", "))
    };
    let Some(name) = name else {
        return state.serving().ok_or_else(|| {
            let text = format!("service {}: not one version serves alone", state.name);
            ApiError::new(ErrorCode::Conflict, text).hint(format!("--from VERSION; {}", weights()))
        });
    };
    let version = version(state, name)?;
    if version.weight == 0 {
        let text = format!("version {name}: does not serve");
        return Err(ApiError::new(ErrorCode::Conflict, text).hint(weights()));
    }
    Ok(version)
}

fn version<'a>(state: &'a ServiceState, name: &str) -> Result<&'a VersionState, ApiError> {
    let known = || state.versions.iter().filter(|version| !version.removed);
    known().find(|version| version.name == name).ok_or_else(|| {
        let list: Vec<&str> = known().map(|version| version.name.as_str()).collect();
        let text = format!("version {name}: no such version of service {}", state.name);
        ApiError::new(ErrorCode::Usage, text).hint(format!("it has {}", list.join(", ")))
    })
}

fn target<'a>(
    state: &'a ServiceState,
    plan: &Plan,
    from: &'a VersionState,
    to: Option<&str>,
) -> Result<&'a VersionState, ApiError> {
    if plan.strategy != Strategy::SideBySide {
        return match to {
            Some(to) if to != from.name => {
                let text =
                    format!("plan {}: upgrades in place, there is no other version", plan.name);
                Err(ApiError::new(ErrorCode::Usage, text).hint("leave --to out"))
            }
            _ => Ok(from),
        };
    }
    let Some(to) = to else {
        let text = format!("plan {}: takes a new version", plan.name);
        return Err(ApiError::new(ErrorCode::Usage, text).hint("--to VERSION"));
    };
    let to = version(state, to)?;
    let conflict =
        |why: &str| Err(ApiError::new(ErrorCode::Conflict, format!("version {}: {why}", to.name)));
    if to.name == from.name {
        return conflict("serves already");
    }
    if to.weight > 0 {
        return conflict("has weight already; shift it to 0 first");
    }
    if to.retired.is_some() {
        return conflict("is retired, its instances may be gone; undrain takes it back");
    }
    if !to.instances.iter().any(|instance| !instance.orphaned) {
        return conflict("has no instance: configure or register one first");
    }
    Ok(to)
}

fn chosen(
    state: &ServiceState,
    version: &VersionState,
    plan: &Plan,
    named: Vec<String>,
) -> Result<Vec<String>, ApiError> {
    let here = || version.instances.iter().filter(|instance| !instance.orphaned);
    let all: Vec<String> = here().map(|instance| instance.id.clone()).collect();
    let mut chosen = all.clone();
    if !named.is_empty() {
        chosen.retain(|id| named.contains(id));
        if let Some(unknown) = named.iter().find(|id| !all.contains(id)) {
            let text =
                format!("instance {unknown}: no such instance of {}/{}", state.name, version.name);
            return Err(
                ApiError::new(ErrorCode::Usage, text).hint(format!("it has {}", all.join(", ")))
            );
        }
        if plan.strategy == Strategy::SideBySide && chosen.len() < all.len() {
            let text = format!("version {}: all its instances would get flows", version.name);
            return Err(
                ApiError::new(ErrorCode::Usage, text).hint("side by side, leave --instance out")
            );
        }
    }
    if let Strategy::InPlace { batch, min_serving } = plan.strategy {
        let serving = here().filter(|instance| instance.in_ring()).count() as u64;
        let needed = u64::from(batch) + u64::from(min_serving);
        if serving < needed {
            let text = format!(
                "version {}: {serving} instances serve; {min_serving} must while {batch} are \
                 upgraded",
                version.name
            );
            return Err(ApiError::new(ErrorCode::Conflict, text));
        }
    }
    Ok(chosen)
}

/// Refuses test sources that the configuration leads to another version: the longest prefix wins,
/// and of two alike the configuration's.
pub(super) fn sources_are_free(
    service: &Service,
    to: &str,
    sources: &[Prefix],
) -> Result<(), ApiError> {
    for source in sources {
        let mut others = service.test_sources().filter(|(name, _)| name.as_str() != to);
        if let Some((other, _)) = others.find(|(_, prefix)| prefix == source) {
            let text = format!("test source {source}: test_sources leads it to version {other}");
            return Err(ApiError::new(ErrorCode::Conflict, text));
        }
    }
    Ok(())
}

/// The release that goes back from one.
fn back(state: &ServiceState, release: &Release) -> Result<Release, ApiError> {
    let old = version(state, &release.from)?;
    if old.retired.is_some() {
        let text = format!("version {}: is retired, its servers may be stopped", old.name);
        return Err(ApiError::new(ErrorCode::Conflict, text).hint(format!(
            "bring it up, `releasectl undrain {} {}`, and start a release back to it",
            state.name, old.name
        )));
    }
    let mut plan = release.plan.clone();
    // It is up and was looked at long ago.
    plan.steps.clear();
    plan.hooks.start = None;
    plan.ready.timeout = plan.ready.timeout.min(Duration::from_secs(60));
    let ids = old.instances.iter().filter(|i| !i.orphaned).map(|i| i.id.clone()).collect();
    let (service, data) = (release.service.clone(), release.data.clone());
    Ok(new(service, release.to.clone(), release.from.clone(), ids, plan, data))
}
