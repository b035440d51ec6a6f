//! Registrations on plain values.

use std::collections::BTreeMap;

use super::commands::{Target, drain, shift, undrain};
use super::leave::{Absence, absent, deregister, find, lose, present};
use super::plan::Desired;
use super::reconcile::reconcile;
use super::register::{Entry, Registration, Watch, register};
use super::retire::{Retirement, retire};
use super::state::{DrainState, InstanceState, ServiceState, State};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Endpoint, InstanceId, InstanceWeight, Name};

/// Service `web` whose v1 serves from 10.0.0.1:80 and, if told, v2 from more.
fn config(registration: &str, v2: &str) -> Config {
    let text = format!(
        "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
         frontends = [\"192.0.2.10:80/tcp\"]\n{registration}\n\
         [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [\"10.0.0.1:80\"]\n\
         [[service.version]]\nname = \"v2\"\ninstances = [{v2}]\n\
         [[service]]\nname = \"other\"\nfrontends = [\"192.0.2.11:80/tcp\"]\n\
         version = [{{ name = \"v1\", weight = 1, instances = [\"10.0.0.9:80\"] }}]\n"
    );
    Config::from_str(&text, "t").unwrap()
}

const OPEN: &str = "registration = \"open\"";

fn entry(version: &str, id: &str, addr: &str) -> Entry {
    Entry {
        service: "web".to_owned(),
        version: version.to_owned(),
        id: InstanceId::from(Name::new(id).unwrap()),
        addr: Endpoint::parse(addr).unwrap(),
        weight: InstanceWeight::DEFAULT,
        registration: Registration { at: "now".to_owned(), ..Registration::default() },
    }
}

fn with_process(pid: u32) -> Entry {
    let mut entry = entry("v2", "a", "10.0.0.2:80");
    entry.registration.watch = Some(Watch { pid, born: 5 });
    entry
}

/// A state and the configuration it came from.
struct Rig(State, Config);

impl Rig {
    fn new(registration: &str) -> Self {
        let config = config(registration, "");
        Self(reconcile(&State::default(), &config, 1).unwrap().0, config)
    }

    fn register(&mut self, entry: &Entry) -> Result<bool, ApiError> {
        let (next, changed) = register(&self.0, &self.1, 1, entry)?;
        *self.web() = next;
        Ok(changed)
    }

    fn web(&mut self) -> &mut ServiceState {
        self.0.service_mut("web").unwrap()
    }

    fn instance(&mut self, id: &str) -> InstanceState {
        find(self.web(), id).unwrap().1.clone()
    }

    fn refused(&mut self, entry: &Entry) -> (ErrorCode, String) {
        let before = self.0.clone();
        let error = self.register(entry).unwrap_err();
        assert_eq!(self.0, before);
        (error.code, error.message)
    }
}

#[test]
fn it_serves_at_once_and_renews_without_change() {
    let mut rig = Rig::new(OPEN);
    assert!(rig.register(&entry("v2", "a", "10.0.0.2:80")).unwrap());
    assert_eq!(rig.web().generation, 2);
    let weights = BTreeMap::from([("v2".to_owned(), 1)]);
    assert!(shift(rig.web(), &weights, false).unwrap());
    let ring = rig.web().version("v2").unwrap().ring;
    let desired = Desired::of(&rig.0, &rig.1);
    assert_eq!(desired.services[&0].rings[&ring].members.len(), 1);
    let before = rig.0.clone();
    let mut later = entry("v2", "a", "10.0.0.2:80");
    later.registration.at = "later".to_owned();
    assert!(!rig.register(&later).unwrap());
    assert_eq!(rig.0, before);
    // What it says of itself is no matter of placement; its weight is.
    later.registration.meta.insert("build".to_owned(), "7".to_owned());
    assert!(rig.register(&later).unwrap());
    assert_eq!(rig.web().generation, 3);
    later.weight = InstanceWeight::new(2).unwrap();
    assert!(rig.register(&later).unwrap());
    assert_eq!((rig.web().generation, rig.instance("a").weight), (4, 2));
    assert_eq!(rig.instance("a").registered.unwrap().at, "now");
}

#[test]
fn nobody_registers_where_it_is_not_said() {
    for (registration, version, allowed) in [
        ("", "v2", false),
        (OPEN, "v2", true),
        (OPEN, "v3", true),
        ("registration = [\"v2\"]", "v2", true),
        ("registration = [\"v2\"]", "v1", false),
        ("registration = [\"v2\"]", "v3", false),
    ] {
        let mut rig = Rig::new(registration);
        let entry = entry(version, "a", "10.0.0.2:80");
        if allowed {
            assert!(rig.register(&entry).unwrap(), "{registration} {version}");
        } else {
            let (code, said) = rig.refused(&entry);
            assert_eq!(code, ErrorCode::Conflict);
            assert!(said.contains("nobody may register"), "{said}");
        }
    }
}

#[test]
fn a_clash_names_both_places() {
    let mut rig = Rig::new(OPEN);
    rig.register(&entry("v2", "a", "10.0.0.2:80")).unwrap();
    let places = |rest: &str| format!("there is already web/{rest}");
    for (version, id, addr, expected) in [
        ("v2", "a", "10.0.0.3:80", places("v2/a at 10.0.0.2:80, registered")),
        ("v1", "a", "10.0.0.2:80", places("v2/a at 10.0.0.2:80, registered")),
        ("v2", "b", "10.0.0.2:80", places("v2/a at 10.0.0.2:80, registered")),
        ("v1", "b", "10.0.0.1:80", places("v1/10.0.0.1:80 at 10.0.0.1:80, in the configuration")),
        ("v2", "b", "10.0.0.9:80", "services web and other both have it".to_owned()),
        ("v2", "b", "192.0.2.11:80", "is a frontend of other".to_owned()),
    ] {
        let (code, said) = rig.refused(&entry(version, id, addr));
        assert_eq!(code, ErrorCode::Conflict, "{said}");
        assert!(said.contains(&expected), "{said}");
    }
    for (version, id, addr) in
        [("v2", "v1", "10.0.0.3:80"), ("v3", "v3", "10.0.0.3:80"), ("v2", "b", "[fd00::1]:80")]
    {
        assert_eq!(rig.refused(&entry(version, id, addr)).0, ErrorCode::Usage, "{id} {addr}");
    }
}

/// A version that only those who registered know.
#[test]
fn a_version_comes_and_goes_with_its_instances() {
    let mut rig = Rig::new(OPEN);
    let weights = BTreeMap::from([("v3".to_owned(), 1)]);
    let error = shift(rig.web(), &weights, false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("unregistered versions cannot be released"), "{error}");
    rig.register(&entry("v3", "c", "10.0.0.3:80")).unwrap();
    assert!(shift(rig.web(), &weights, false).unwrap());
    assert_eq!(rig.web().versions.len(), 3);
    let (kept, changes) = reconcile(&rig.0, &rig.1, 1).unwrap();
    assert_eq!((&kept, changes.len()), (&rig.0, 0));
    // It stays as long as it has weight, lest a process that is started anew lose it.
    let backend = rig.instance("c").backend;
    assert!(lose(rig.web(), backend));
    assert!(!rig.web().version("v3").unwrap().is_passing());
    shift(rig.web(), &BTreeMap::from([("v3".to_owned(), 0)]), false).unwrap();
    assert!(rig.web().version("v3").unwrap().is_passing());
    let error = shift(rig.web(), &weights, false).unwrap_err();
    assert!(error.message.contains("unregistered versions cannot be released"), "{error}");
}

/// Nobody has registered for a version of the configuration, either.
#[test]
fn unregistered_versions_cannot_be_released() {
    let mut rig = Rig::new("registration = [\"v2\"]");
    let weights = BTreeMap::from([("v2".to_owned(), 1)]);
    let error = shift(rig.web(), &weights, false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("unregistered versions cannot be released"), "{error}");
    let hint = "releasectl instance register web v2 ADDRESS";
    assert_eq!(error.hint.as_deref(), Some(hint));
    // There is nobody to be waited for.
    let mut closed = Rig::new("");
    let error = shift(closed.web(), &weights, false).unwrap_err();
    assert!(error.message.contains("has no instance"), "{error}");
}

#[test]
fn a_reload_keeps_who_registered_and_refuses_clashes() {
    let mut rig = Rig::new(OPEN);
    rig.register(&entry("v2", "a", "10.0.0.2:80")).unwrap();
    let (again, changes) = reconcile(&rig.0, &rig.1, 1).unwrap();
    assert_eq!((&again, changes.len()), (&rig.0, 0));
    for v2 in ["\"10.0.0.2:80\"", "{ id = \"a\", addr = \"10.0.0.3:80\" }"] {
        let error = reconcile(&rig.0, &config(OPEN, v2), 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        let both = error.message.contains("web/v2/a at 10.0.0.2:80, registered")
            && error.message.contains("in the configuration");
        assert!(both, "{error}");
    }
    // The very same, now configured.
    let same = config(OPEN, "{ id = \"a\", addr = \"10.0.0.2:80\" }");
    let (next, _) = reconcile(&rig.0, &same, 1).unwrap();
    let (_, instance) = find(next.service("web").unwrap(), "a").unwrap();
    assert_eq!((instance.backend, &instance.registered), (rig.instance("a").backend, &None));
    // Who may not register any more is taken out as a removed instance is.
    let (next, changes) = reconcile(&rig.0, &config("", ""), 1).unwrap();
    assert!(find(next.service("web").unwrap(), "a").unwrap().1.orphaned);
    assert_eq!(changes, ["instance web/v2/a removed, kept until its flows end"]);
}

#[test]
fn who_deregisters_is_off_the_ring_and_kept_for_its_flows() {
    let mut rig = Rig::new(OPEN);
    rig.register(&entry("v2", "a", "10.0.0.2:80")).unwrap();
    shift(rig.web(), &BTreeMap::from([("v2".to_owned(), 1)]), false).unwrap();
    let error = deregister(rig.web(), "a", false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "the last that serves");
    assert!(deregister(rig.web(), "a", true).unwrap());
    assert!(!deregister(rig.web(), "a", false).unwrap(), "it is");
    let instance = rig.instance("a");
    assert_eq!((instance.in_ring(), instance.orphaned, instance.closed_at), (false, true, 4));
    let error = deregister(rig.web(), "10.0.0.1:80", true).unwrap_err();
    assert!(error.message.contains("is in the configuration"), "{error}");
    assert_eq!(deregister(rig.web(), "b", true).unwrap_err().code, ErrorCode::Usage);
    // Back in time, it is the same one; in another version, another.
    assert!(rig.register(&entry("v2", "a", "10.0.0.2:80")).unwrap());
    assert!(rig.instance("a").in_ring() && rig.instance("a").backend == instance.backend);
    deregister(rig.web(), "a", true).unwrap();
    assert!(rig.register(&entry("v3", "a", "10.0.0.2:80")).unwrap());
    assert_ne!(rig.instance("a").backend, instance.backend);
}

#[test]
fn offline_ends_with_another_process_and_not_with_a_renewal() {
    let mut rig = Rig::new(OPEN);
    rig.register(&with_process(1)).unwrap();
    let plain = DrainState::default();
    assert!(absent(rig.web(), "a", Absence::Offline, &plain, false).unwrap());
    let generation = rig.web().generation;
    assert!(!absent(rig.web(), "a", Absence::Offline, &plain, false).unwrap());
    assert!(!rig.register(&with_process(1)).unwrap());
    assert_eq!((rig.web().generation, rig.instance("a").in_ring()), (generation, false));
    let error = present(rig.web(), "a").unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(rig.register(&with_process(2)).unwrap());
    assert!(rig.instance("a").in_ring() && rig.instance("a").absence.is_none());
    // Likewise if its end was seen in between, or an operator takes it back.
    absent(rig.web(), "a", Absence::Offline, &plain, false).unwrap();
    let backend = rig.instance("a").backend;
    assert!(lose(rig.web(), backend) && !lose(rig.web(), backend));
    assert!(!absent(rig.web(), "a", Absence::Offline, &plain, false).unwrap(), "it is");
    assert!(rig.register(&with_process(3)).unwrap());
    assert!(rig.instance("a").in_ring());
    absent(rig.web(), "a", Absence::Offline, &plain, false).unwrap();
    undrain(rig.web(), &Target::Instance("v2".to_owned(), "a".to_owned())).unwrap();
    assert!(rig.instance("a").in_ring() && rig.instance("a").absence.is_none());
}

#[test]
fn maintenance_outlasts_the_process() {
    let mut rig = Rig::new(OPEN);
    rig.register(&with_process(1)).unwrap();
    let plain = DrainState::default();
    assert!(absent(rig.web(), "a", Absence::Maint, &plain, false).unwrap());
    let backend = rig.instance("a").backend;
    lose(rig.web(), backend);
    rig.register(&with_process(2)).unwrap();
    let instance = rig.instance("a");
    assert_eq!((instance.in_ring(), instance.absence), (false, Some(Absence::Maint)));
    assert!(present(rig.web(), "a").unwrap() && !present(rig.web(), "a").unwrap());
    assert!(rig.instance("a").in_ring());
    // So does an operator's drain.
    drain(rig.web(), &Target::Instance("v2".to_owned(), "a".to_owned()), &plain, false).unwrap();
    lose(rig.web(), backend);
    rig.register(&with_process(3)).unwrap();
    assert!(rig.instance("a").drain.is_some() && rig.instance("a").absence.is_none());
    // One of the configuration can be worked on, too.
    let error = absent(rig.web(), "10.0.0.1:80", Absence::Maint, &plain, false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "the last that serves");
    assert!(absent(rig.web(), "10.0.0.1:80", Absence::Maint, &plain, true).unwrap());
}

#[test]
fn a_retired_version_takes_nobody() {
    let mut rig = Rig::new(OPEN);
    let by = Retirement { at: "now".to_owned(), receipt: Some(1), lost: Vec::new() };
    retire(rig.web(), &Target::Version("v2".to_owned()), &by).unwrap();
    let (code, said) = rig.refused(&entry("v2", "a", "10.0.0.2:80"));
    assert_eq!(code, ErrorCode::Conflict);
    assert!(said.contains("is retired"), "{said}");
}

#[test]
fn versions_are_limited() {
    let mut rig = Rig::new(OPEN);
    for number in 3..=16 {
        let (id, addr) = (format!("i{number}"), format!("10.0.1.{number}:80"));
        rig.register(&entry(&format!("v{number}"), &id, &addr)).unwrap();
    }
    let (code, said) = rig.refused(&entry("v17", "more", "10.0.1.17:80"));
    assert_eq!(code, ErrorCode::Conflict);
    assert!(said.contains("17 versions"), "{said}");
}

/// States written before anybody could register are read as they are, and written as they were.
#[test]
fn older_states_are_read() {
    let rig = Rig::new("");
    let text = serde_json::to_string(&rig.0.services[0]).unwrap();
    assert!(!text.contains("regist") && !text.contains("absence"), "{text}");
    let back: ServiceState = serde_json::from_str(&text).unwrap();
    assert_eq!(back, rig.0.services[0]);
}
