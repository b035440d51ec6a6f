//! Instances that checks found down: they get no new flows until they are found up. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::commands::commit;
use super::state::{Clients, ServiceState, VersionState, clients_in_words};
use crate::api::types::ApiError;
use crate::config::Service;

/// Who found an instance down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finder {
    /// Its active check.
    Check,
    /// What the packet path has seen of it.
    Traffic,
}

impl Finder {
    /// Whether the service has this way of finding out at all.
    pub fn is_configured(self, service: &Service) -> bool {
        match self {
            Self::Check => service.health().is_some(),
            Self::Traffic => service.passive().is_some(),
        }
    }
}

/// An instance is down. It is kept with the state, so that a daemon that is started again sends
/// nothing to it before its first check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Who found out.
    pub by: Finder,
    /// Why, in words.
    pub why: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The same on the monotonic clock, in milliseconds since boot.
    pub since_boot_ms: u64,
}

impl Down {
    /// For how long. `now`: time since boot; after a reboot it starts anew.
    pub fn lasted(&self, now: Duration) -> Duration {
        let since = Duration::from_millis(self.since_boot_ms);
        // Of another boot, whose clock stood further: nobody knows.
        now.checked_sub(since).unwrap_or(now)
    }
}

/// Takes an instance off its ring, or puts it back. Nobody is asked whether something is left that
/// serves: the world did this, not the operator, and new flows that nobody serves get
/// `when_empty`'s answer. Returns whether anything changed.
///
/// # Errors
/// None at present.
pub fn set(service: &mut ServiceState, backend: u32, down: Option<Down>) -> Result<bool, ApiError> {
    let mut next = service.clone();
    let generation = service.generation + 1;
    let instances = next.versions.iter_mut().flat_map(|version| &mut version.instances);
    for instance in instances.filter(|instance| instance.backend == backend && !instance.orphaned) {
        // The reason it went down for stands, whatever is found later.
        if instance.down.is_some() != down.is_some() {
            if instance.in_ring() {
                instance.closed_at = generation;
            }
            instance.down.clone_from(&down);
        }
    }
    commit(service, next, true)
}

/// Whether health is why these clients' new flows would find no instance of this version.
fn is_bereft(version: &VersionState, clients: Clients) -> bool {
    let open = version.open() && !version.removed;
    let mut fitting =
        version.instances.iter().filter(|i| clients.is_none_or(|family| family == i.family()));
    open && !version.can_serve(clients)
        && fitting.any(|instance| instance.down.is_some() && !instance.is_taken_out())
}

/// Versions whose new flows find nobody since their instances are down, with that in words.
pub fn bereft(service: &ServiceState) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for version in &service.versions {
        if let Some(clients) = service.clients().find(|clients| is_bereft(version, *clients)) {
            let text = format!(
                "{}: no {}instance left, those it has are down: its new flows get when_empty: {}",
                version.name,
                clients_in_words(clients),
                service.settings.when_empty
            );
            found.push((version.name.clone(), text));
        }
    }
    found
}

/// Whether a version would have nobody left without an instance of it.
pub fn would_bereave(service: &ServiceState, backend: u32) -> bool {
    let version =
        service.versions.iter().find(|v| v.instances.iter().any(|i| i.backend == backend));
    let Some(version) = version else { return false };
    let mut without = version.clone();
    without.instances.retain(|instance| instance.backend != backend);
    service.clients().any(|clients| version.can_serve(clients) && !without.can_serve(clients))
}

#[cfg(test)]
mod tests {
    use release_common::abi::VERSION_RINGS;

    use super::super::commands::{Target, drain, shift, undrain};
    use super::super::plan::Desired;
    use super::super::reconcile::reconcile;
    use super::super::state::{DrainState, State};
    use super::*;
    use crate::api::types::ErrorCode;
    use crate::config::Config;

    const CHECKED: &str = "health = { tcp = true }";

    fn config(options: &str) -> Config {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [\"192.0.2.10:80/tcp\"]\n{options}\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\n\
             instances = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
             [[service.version]]\nname = \"v2\"\ninstances = [\"10.0.0.3:80\"]\n"
        );
        Config::from_str(&text, "t").unwrap()
    }

    fn started(options: &str) -> ServiceState {
        reconcile(&State::default(), &config(options), 1).unwrap().0.services.remove(0)
    }

    fn down(by: Finder) -> Option<Down> {
        Some(Down { by, why: "connect".into(), since: "now".into(), since_boot_ms: 5000 })
    }

    fn members(service: &ServiceState, config: &Config) -> Vec<u32> {
        let state = State { services: vec![service.clone()] };
        let rings = &Desired::of(&state, config).services[&0].rings;
        let versions = rings.range(..VERSION_RINGS);
        versions.flat_map(|(_, ring)| ring.members.iter().map(|member| member.id)).collect()
    }

    #[test]
    fn down_is_off_the_ring_until_it_is_up() {
        let mut service = started(CHECKED);
        assert!(set(&mut service, 1, down(Finder::Check)).unwrap());
        assert_eq!((service.generation, service.versions[0].instances[0].closed_at), (2, 2));
        assert_eq!(members(&service, &config(CHECKED)), [2, 3]);
        let again = Down { why: "other".into(), ..down(Finder::Check).unwrap() };
        assert!(!set(&mut service, 1, Some(again)).unwrap(), "it is");
        // A state that was stored is the same again.
        let text = serde_json::to_string(&service).unwrap();
        assert_eq!(serde_json::from_str::<ServiceState>(&text).unwrap(), service);
        assert!(set(&mut service, 1, None).unwrap());
        assert_eq!(members(&service, &config(CHECKED)), [1, 2, 3]);
    }

    #[test]
    fn all_may_be_down_and_none_of_them_gets_weight_then() {
        let mut service = started(CHECKED);
        for backend in [1, 2, 3] {
            set(&mut service, backend, down(Finder::Check)).unwrap();
        }
        assert!(members(&service, &config(CHECKED)).is_empty());
        assert!(is_bereft(&service.versions[0], None));
        assert!(!is_bereft(&service.versions[1], None), "without weight nobody misses it");
        let weights = [("v2".to_owned(), 1)].into();
        let error = shift(&mut service, &weights, false).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        set(&mut service, 1, None).unwrap();
        assert!(!is_bereft(&service.versions[0], None));
    }

    /// Off the ring since it went down, whoever keeps it off.
    #[test]
    fn a_drain_of_one_that_is_down_keeps_when_it_was_closed() {
        let mut service = started(CHECKED);
        let target = Target::find(&service, "10.0.0.1:80").unwrap();
        set(&mut service, 1, down(Finder::Check)).unwrap();
        drain(&mut service, &target, &DrainState::default(), false).unwrap();
        let closed = |service: &ServiceState| service.versions[0].instances[0].closed_at;
        assert_eq!((closed(&service), service.generation), (2, 3));
        set(&mut service, 1, None).unwrap();
        assert_eq!(closed(&service), 2);
        assert!(!service.versions[0].instances[0].in_ring());
        undrain(&mut service, &target).unwrap();
        set(&mut service, 1, down(Finder::Check)).unwrap();
        assert_eq!(closed(&service), 6);
    }

    #[test]
    fn a_reload_forgets_what_nobody_will_take_back() {
        let both = "health = { tcp = true }\npassive = { resets = 0.5 }";
        let after = |by, options: &str| {
            let mut state = State { services: vec![started(both)] };
            set(&mut state.services[0], 1, down(by)).unwrap();
            let (next, _) = reconcile(&state, &config(options), 1).unwrap();
            let service = &next.services[0];
            (service.versions[0].instances[0].down.is_some(), service.generation)
        };
        assert_eq!(after(Finder::Check, both), (true, 2));
        assert_eq!(after(Finder::Check, "passive = { resets = 0.5 }"), (false, 3));
        assert_eq!(after(Finder::Traffic, "passive = { resets = 0.5 }"), (true, 2));
        assert_eq!(after(Finder::Traffic, CHECKED), (false, 3));
    }

    #[test]
    fn time_goes_on_over_restarts_and_begins_anew_with_the_machine() {
        let down = down(Finder::Traffic).unwrap();
        assert_eq!(down.lasted(Duration::from_secs(7)), Duration::from_secs(2));
        assert_eq!(down.lasted(Duration::from_secs(3)), Duration::from_secs(3));
    }

    fn families(frontends: &str, instances: &str) -> ServiceState {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [{frontends}]\n{CHECKED}\n[[service.version]]\n\
             name = \"v1\"\nweight = 1\ninstances = [{instances}]\n"
        );
        let config = Config::from_str(&text, "t").unwrap();
        reconcile(&State::default(), &config, 1).unwrap().0.services.remove(0)
    }

    #[test]
    fn the_last_one_is_spared_for_each_kind_of_clients() {
        let both = "\"192.0.2.10:80/tcp\", \"[2001:db8::10]:80/tcp\"";
        let three = "\"10.0.0.1:80\", \"10.0.0.2:80\", \"[fd00::1]:80\"";
        let mut service = families(both, three);
        let spared = |service: &ServiceState| [1, 2, 3].map(|one| would_bereave(service, one));
        assert_eq!(spared(&service), [false, false, true]);
        set(&mut service, 1, down(Finder::Check)).unwrap();
        assert_eq!(spared(&service), [false, true, true]);
        assert_eq!(bereft(&service), []);
        set(&mut service, 3, down(Finder::Check)).unwrap();
        let said = "v1: no IPv6 instance left, those it has are down: its new flows get \
                    when_empty: reject";
        assert_eq!(bereft(&service), [("v1".to_owned(), said.to_owned())]);
    }
}
