//! Looking at the host: what a service needs of it and does not find is said in the log, as an
//! event, and by `status`. Nothing is refused for it: the host may change, and traffic goes on.

mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use self::rules::forwards_v6;
use self::rules::{Host, find};
use super::core::{Daemon, lock};
use crate::api::types::{ApiError, ErrorCode};
use crate::control::state::ServiceState;
use crate::net::neighbours::{self, Neighbour, Place};
use crate::net::{ethtool, route, sysctl};

/// Something of the host that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The service that suffers; `None`: all.
    pub service: Option<String>,
    /// One line for people.
    pub text: String,
}

/// What was found at the last look.
#[derive(Default)]
pub struct Found {
    warnings: Vec<Warning>,
    /// Neighbours that the packet path must know: it cannot ask for them itself.
    needed: Vec<Place>,
}

impl Daemon {
    /// Looks at the host. Says what is new, and what is over; has stale and missing neighbours
    /// asked.
    ///
    /// # Errors
    /// Netlink's, or that of reading a kernel setting.
    pub async fn look_at_host(&self) -> Result<(), ApiError> {
        let (services, mut host, managed) = {
            let core = self.core.lock().await;
            if core.down {
                return Ok(());
            }
            let interfaces = core.interface_status();
            let host = Host {
                interfaces: core.interfaces.clone(),
                managed: interfaces
                    .iter()
                    .map(|found| (found.name.clone(), found.mode == "generic"))
                    .collect(),
                ..Host::default()
            };
            (core.state.services.clone(), host, core.maps.devices())
        };
        read(&mut host, &services).await.map_err(failed)?;
        let needed = needed(&services, &host);
        let silent = |state: Option<&Neighbour>| {
            matches!(state, None | Some(Neighbour::Stale | Neighbour::Silent))
        };
        let mut ask: Vec<Place> =
            needed.iter().filter(|place| silent(host.neighbours.get(place))).copied().collect();
        // What XDP sends to is not used in the kernel's eyes: it would let it go.
        let stale = host
            .neighbours
            .iter()
            .filter(|((index, _), state)| **state == Neighbour::Stale && managed.contains(index));
        ask.extend(stale.map(|(place, _)| *place));
        neighbours::ask(&ask).await.map_err(failed)?;
        self.publish_warnings(find(&services, &host), needed);
        Ok(())
    }

    /// Has neighbours asked that the packet path needs and the kernel has forgotten.
    ///
    /// # Errors
    /// Netlink's.
    pub async fn ask_for_lost(&self) -> Result<(), ApiError> {
        let needed = lock(&self.warnings).needed.clone();
        if needed.is_empty() {
            return Ok(());
        }
        let known = neighbours::all().await.map_err(failed)?;
        let lost: Vec<Place> =
            needed.into_iter().filter(|place| !known.contains_key(place)).collect();
        neighbours::ask(&lost).await.map_err(failed)
    }

    fn publish_warnings(&self, now: Vec<Warning>, needed: Vec<Place>) {
        let found = Found { warnings: now.clone(), needed };
        let before = std::mem::replace(&mut *lock(&self.warnings), found).warnings;
        for warning in now.iter().filter(|warning| !before.contains(warning)) {
            let service = warning.service.as_deref();
            self.events.publish("warning", service, None, warning.text.clone());
        }
        for over in before.iter().filter(|warning| !now.contains(warning)) {
            let text = format!("over: {}", over.text);
            self.events.publish("warning-cleared", over.service.as_deref(), None, text);
        }
    }

    /// What was found at the last look, of a service or (`None`) of all.
    pub fn warnings_of(&self, service: Option<&str>) -> Vec<String> {
        let found = lock(&self.warnings);
        let about = found.warnings.iter().filter(|w| w.service.as_deref() == service);
        about.map(|warning| warning.text.clone()).collect()
    }
}

/// Reads what the rules ask about.
async fn read(host: &mut Host, services: &[ServiceState]) -> std::io::Result<()> {
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for service in services {
        addresses.extend(service.all_frontends().map(|at| at.socket().ip()));
        addresses.extend(service.instances().map(|(_, instance)| instance.addr.ip()));
        if let Some(snat) = &service.settings.snat {
            addresses.extend(
                crate::config::Family::ALL.map(|f| snat.addresses(f)).into_iter().flatten(),
            );
            host.ports = Some(sysctl::OwnPorts::of_host()?);
        }
    }
    host.ways = route::ways(addresses).await?;
    host.neighbours = neighbours::all().await?;
    let there: Vec<String> = host
        .managed
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| host.interfaces.iter().any(|found| found.name == *name))
        .collect();
    host.settings = sysctl::missing(&there, forwards_v6(services))?;
    for (name, generic) in &host.managed {
        if *generic {
            host.merging.insert(name.clone(), ethtool::merging(name));
        }
    }
    Ok(())
}

/// Neighbours that must be known ahead: in one-way modes a packet without one is lost, or goes the
/// slow way.
fn needed(services: &[ServiceState], host: &Host) -> Vec<Place> {
    let one_way = services.iter().filter(|service| service.settings.mode.is_one_way());
    let places: BTreeSet<Place> = one_way
        .flat_map(|service| service.instances())
        .filter_map(|(_, instance)| host.neighbour_of(instance.addr.ip()))
        .collect();
    places.into_iter().collect()
}

fn failed(error: std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("host: {error}"))
}
