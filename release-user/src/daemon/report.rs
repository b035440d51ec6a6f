//! Status, flows and instances, from state, walk and counters.

use std::time::Duration;

use release_common::abi::{Embryo, Flow, IPPROTO_UDP};
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::core::{Daemon, lock, looking};
use crate::api::types::{
    ApiError, DataPlaneStatus, ErrorCode, FlowCounts, FlowLine, FlowQuery, InstanceLine,
    InstanceStatus, InterfaceStatus, RefusedCounts, SCHEMA, ServiceStatus, Status, VersionStatus,
};
use crate::config::Protocol;
use crate::control::commands::service_mut;
use crate::control::health::bereft;
use crate::control::leave::Absence;
use crate::control::state::{InstanceState, ServiceState, State, VersionState};
use crate::kernel::Tuple;
use crate::net::netlink::Attached;
use crate::probe::watch::Liveness;
use crate::verdict::walk::{Totals, Walk};

/// Parts in ten of the flow table from which the alarm is raised.
const ALARM_TENTHS: i64 = 8;

/// Whether the flow table is so full that the operator must know.
pub fn nearly_full(entries: i64, capacity: i64) -> bool {
    entries * 10 >= capacity * ALARM_TENTHS
}

impl Daemon {
    /// Everything, or one service.
    ///
    /// # Errors
    /// Usage for an unknown service, or the kernel's.
    pub async fn status_of(&self, service: Option<&str>) -> Result<Status, ApiError> {
        let (mut state, interfaces) = {
            let core = self.core.lock().await;
            (core.state.clone(), core.interface_status())
        };
        if let Some(name) = service {
            let found = service_mut(&mut state, name)?.clone();
            state.services = vec![found];
        }
        let walk = self.walk()?;
        let now = self.jiffies()?;
        let meta = self.reader.meta()?;
        let entries = self.reader.fullest_table()?.max(0);
        let alarm = nearly_full(entries, i64::from(meta.flow_capacity)).then(|| {
            format!(
                "flow table {entries} of {}: new flows are refused when full",
                meta.flow_capacity
            )
        });
        let services = state
            .services
            .iter()
            .map(|service| self.service_status(service, &walk, now))
            .collect::<Result<_, _>>()?;
        Ok(Status {
            schema: SCHEMA,
            data_plane: DataPlaneStatus {
                interfaces,
                flow_entries: entries as u64,
                flow_capacity: u64::from(meta.flow_capacity),
                embryos: walk.embryos,
                alarm,
                evidence_epoch: meta.evidence_epoch,
                warnings: self.warnings_of(None),
            },
            services,
        })
    }

    fn service_status(
        &self,
        service: &ServiceState,
        walk: &Walk,
        now: u64,
    ) -> Result<ServiceStatus, ApiError> {
        let all: Vec<u32> = service.instances().map(|(_, i)| i.backend).collect();
        let placed_in_all = self.rate(&all).placed;
        let mut versions = Vec::new();
        for version in &service.versions {
            let backends: Vec<u32> = version.instances.iter().map(|i| i.backend).collect();
            let rate = self.rate(&backends);
            let tally = walk.tally(&backends);
            let flows = tally.flows;
            let instances = version
                .instances
                .iter()
                .map(|instance| self.instance_status(&service.name, version, instance, walk, now))
                .collect::<Result<Vec<_>, ApiError>>()?;
            versions.push(VersionStatus {
                name: version.name.clone(),
                weight: version.weight,
                weight_actual: if placed_in_all == 0 {
                    0.0
                } else {
                    rate.placed as f64 / placed_in_all as f64
                },
                state: version_state(version, flows, self.is_idle(&service.name, &version.name))
                    .to_owned(),
                flows,
                sessions_held: tally.sessions,
                new_flows_per_second: rate.opened_per_second,
                first_flow_at: version.first_flow_at.clone(),
                measured: (&self.measured(&backends)?).into(),
                instances,
            });
        }
        let refused = self.reader.service_counters(service.id)?;
        let remembers = service.settings.session.is_some();
        let mut warnings = self.warnings_of(Some(&service.name));
        warnings.extend(bereft(service).into_iter().map(|(_, text)| text));
        Ok(ServiceStatus {
            name: service.name.clone(),
            generation: service.generation,
            mode: service.settings.mode.to_string(),
            conversation: service.settings.conversation.to_string(),
            frontends: service.all_frontends().map(|frontend| frontend.to_string()).collect(),
            refused: RefusedCounts {
                empty: refused.empty,
                full: refused.full,
                max_flows: refused.max_flows,
                rate: refused.rate,
                ports: refused.ports,
            },
            sessions: remembers
                .then(|| walk.remembered.get(&service.id).copied().unwrap_or_default()),
            drift: lock(&self.drifts).of(&service.name),
            warnings,
            release: self.release_of(&service.name)?,
            versions,
        })
    }

    fn rate(&self, backends: &[u32]) -> super::rates::Rate {
        lock(&self.rates).of(backends)
    }

    fn instance_status(
        &self,
        service: &str,
        version: &VersionState,
        instance: &InstanceState,
        walk: &Walk,
        now: u64,
    ) -> Result<InstanceStatus, ApiError> {
        let tally = walk.tally(&[instance.backend]);
        let totals = Totals::read(&self.reader, &[instance.backend])?;
        let idle = version.retired.is_some()
            || self.is_idle(service, &version.name)
            || self.is_idle(service, &instance.id);
        let mut counters = totals.counters;
        counters.evicted = totals.evicted(tally.flows.embryonic);
        Ok(InstanceStatus {
            id: instance.id.clone(),
            addr: instance.addr.to_string(),
            state: instance_state(version, instance, tally.flows, idle).to_owned(),
            healthy: self.health_of(service, &instance.id).filter(|_| !instance.orphaned),
            why_down: instance.down.as_ref().map(|down| down.why.clone()),
            orphaned: instance.orphaned,
            source: if instance.registered.is_some() { "registered" } else { "configured" }
                .to_owned(),
            registration: self.renewals.status(instance),
            flows: tally.flows,
            counters,
            last_packet_age_ms: (totals.last_packet > 0)
                .then(|| self.clock.age64(totals.last_packet, now).as_millis() as u64),
        })
    }

    /// All instances.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn instance_lines(&self) -> Result<Vec<InstanceLine>, ApiError> {
        let status = self.status_of(None).await?;
        let mut lines = Vec::new();
        for service in status.services {
            for version in service.versions {
                for instance in version.instances {
                    lines.push(InstanceLine {
                        service: service.name.clone(),
                        version: version.name.clone(),
                        instance,
                    });
                }
            }
        }
        Ok(lines)
    }

    /// Flows and embryos that fit the query, oldest first.
    ///
    /// # Errors
    /// Usage for an unknown service, or the kernel's.
    pub async fn flow_lines(&self, query: &FlowQuery) -> Result<Vec<FlowLine>, ApiError> {
        let mut state = self.state().await;
        if let Some(service) = &query.service {
            service_mut(&mut state, service)?;
        }
        known_names(&state, query)?;
        let now = self.jiffies()?;
        let describe = Describer { state: &state, query, now, daemon: self };
        let mut lines = Vec::new();
        looking(|| {
            self.reader.walk_embryos(|key, embryo| lines.extend(describe.embryo(key, embryo)))?;
            self.reader.walk_flows(|key, flow| lines.extend(describe.flow(key, flow)))
        })?;
        lines.sort_by(|a, b| b.age_s.total_cmp(&a.age_s));
        if let Some(oldest) = query.oldest {
            lines.truncate(oldest);
        }
        Ok(lines)
    }
}

/// A filter that names nothing is a mistake, not an empty answer.
fn known_names(state: &State, query: &FlowQuery) -> Result<(), ApiError> {
    let here = |service: &&ServiceState| query.service.as_ref().is_none_or(|n| *n == service.name);
    let services: Vec<&ServiceState> = state.services.iter().filter(here).collect();
    let missing = |what: &str, name: &str| {
        Err(ApiError::new(ErrorCode::Usage, format!("{what} {name}: no such {what}")))
    };
    if let Some(name) = &query.version
        && !services.iter().any(|service| service.version(name).is_some())
    {
        return missing("version", name);
    }
    if let Some(id) = &query.instance
        && !services.iter().any(|service| service.instances().any(|(_, i)| i.id == *id))
    {
        return missing("instance", id);
    }
    Ok(())
}

/// State of a version; `idle` is said only if the last verdict was.
fn version_state(version: &VersionState, flows: FlowCounts, idle: bool) -> &'static str {
    let empty = flows.active + flows.embryonic == 0;
    if version.retired.is_some() {
        return "retired";
    }
    match (version.weight, version.drain.is_some()) {
        (1.., _) => "active",
        (0, true) if idle && empty => "idle",
        (0, false) if empty => "standby",
        // Test clients reach it whatever its weight.
        (0, false) if version.open() => "active",
        (0, _) => "draining",
    }
}

/// The word for an instance that is more than drained.
pub fn absence_word(instance: &InstanceState) -> Option<&'static str> {
    instance.absence.map(|absence| match absence {
        Absence::Maint => "maint",
        Absence::Offline => "offline",
    })
}

/// State of an instance, likewise.
fn instance_state(
    version: &VersionState,
    instance: &InstanceState,
    flows: FlowCounts,
    idle: bool,
) -> &'static str {
    if let Some(word) = absence_word(instance) {
        return word;
    }
    let draining = instance.is_taken_out() || version.drain.is_some();
    if instance.down.is_some() && !draining {
        return "down";
    }
    let left = !version.open() && flows.active + flows.embryonic > 0;
    match (draining, idle && flows.active + flows.embryonic == 0) {
        (true, true) => "idle",
        (true, false) => "draining",
        (false, _) if left => "draining",
        (false, _) => "active",
    }
}

/// Turns entries into lines.
struct Describer<'a> {
    state: &'a State,
    query: &'a FlowQuery,
    now: u64,
    daemon: &'a Daemon,
}

impl Describer<'_> {
    fn flow(&self, key: &Tuple, flow: &Flow) -> Option<FlowLine> {
        let word = FlowWord(flow.state);
        let state = match word.phase() {
            Phase::Live if word.half_closed() => "half-closed",
            // In one-way modes an answer would not be seen.
            Phase::Live if key.proto == IPPROTO_UDP && !word.replied() && !word.one_way() => {
                "unreplied"
            }
            Phase::Live => "established",
            Phase::ClosedFin | Phase::ClosedRst | Phase::Dead => "closed",
        };
        let clock = self.daemon.clock;
        let mut line = self.line(key, flow.backend, flow.generation, state)?;
        line.age_s = clock.age_of_opening(flow.opened_at, self.now).as_secs_f64();
        line.last_packet_age_ms = millis(clock.age(flow.last_packet, self.now));
        line.last_data_age_ms = millis(clock.age(flow.last_data, self.now));
        let (client, server) = lock(&self.daemon.prober).ends(key, word);
        line.client_end = client.as_str().to_owned();
        line.server_end = server.as_str().to_owned();
        Some(line)
    }

    fn embryo(&self, key: &Tuple, embryo: &Embryo) -> Option<FlowLine> {
        let state = match EmbryoWord(embryo.state).phase() {
            EmbryoPhase::Trial => "trial",
            EmbryoPhase::Syn | EmbryoPhase::SynAck => "embryonic",
            EmbryoPhase::Ended => return None,
        };
        let mut line = self.line(key, embryo.backend, embryo.generation, state)?;
        let age = self.daemon.clock.age(embryo.created, self.now);
        line.age_s = age.as_secs_f64();
        line.last_packet_age_ms = millis(age);
        line.last_data_age_ms = millis(age);
        Some(line)
    }

    fn line(&self, key: &Tuple, backend: u32, generation: u32, state: &str) -> Option<FlowLine> {
        let (service, version, instance) =
            self.state.instances().find(|(_, _, instance)| instance.backend == backend)?;
        let fits = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        let query = self.query;
        if !fits(&query.service, &service.name)
            || !fits(&query.version, &version.name)
            || !fits(&query.instance, &instance.id)
            || !fits(&query.state, state)
        {
            return None;
        }
        let protocol = if key.proto == IPPROTO_UDP { Protocol::Udp } else { Protocol::Tcp };
        Some(FlowLine {
            client: key.client.to_string(),
            frontend: key.frontend.to_string(),
            protocol: protocol.to_string(),
            service: service.name.clone(),
            version: version.name.clone(),
            instance: instance.id.clone(),
            state: state.to_owned(),
            generation,
            age_s: 0.0,
            last_packet_age_ms: 0,
            last_data_age_ms: 0,
            client_end: Liveness::default().as_str().to_owned(),
            server_end: Liveness::default().as_str().to_owned(),
        })
    }
}

fn millis(age: Duration) -> u64 {
    age.as_millis() as u64
}

impl super::core::Core {
    /// The configured interfaces and how the program runs on them.
    pub fn interface_status(&self) -> Vec<InterfaceStatus> {
        let attached = self.attached();
        self.config
            .daemon()
            .interfaces()
            .iter()
            .map(|name| {
                let found = self.interfaces.iter().find(|i| i.name == name.as_str());
                let mode = match found {
                    None => "absent",
                    Some(interface) if !attached.contains(&interface.index) => "detached",
                    Some(interface) => match interface.xdp {
                        Some((Attached::Native, _)) => "native",
                        Some((Attached::Generic, _)) => "generic",
                        None => "detached",
                    },
                };
                InterfaceStatus { name: name.as_str().to_owned(), mode: mode.to_owned() }
            })
            .collect()
    }

    /// Interfaces that are there but lack the program.
    pub fn detached(&self) -> Vec<String> {
        self.interface_status()
            .into_iter()
            .filter(|interface| interface.mode == "detached")
            .map(|interface| interface.name)
            .collect()
    }
}
