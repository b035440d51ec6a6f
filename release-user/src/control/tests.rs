//! Commands and reconciliation on plain values.

use std::collections::BTreeMap;

use super::commands::{Target, drain, shift, undrain};
use super::plan::{Desired, Reaches};
use super::reconcile::reconcile;
use super::state::{DrainState, ServiceState, State};
use crate::api::types::ErrorCode;
use crate::config::{Config, Protocol};

fn config(versions: &[(&str, u32, &[&str])]) -> Config {
    let mut text = "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
                    frontends = [\"192.0.2.10:80/tcp\"]\n"
        .to_owned();
    for (name, weight, instances) in versions {
        let quoted: Vec<String> = instances.iter().map(|i| format!("{i:?}")).collect();
        text += &format!(
            "[[service.version]]\nname = {name:?}\nweight = {weight}\ninstances = [{}]\n",
            quoted.join(", ")
        );
    }
    Config::from_str(&text, "test.toml").unwrap()
}

fn two_versions() -> Config {
    config(&[("v1", 100, &["10.0.0.1:80", "10.0.0.2:80"]), ("v2", 0, &["10.0.0.3:80"])])
}

fn started() -> (State, Config) {
    let config = two_versions();
    (reconcile(&State::default(), &config, 1).unwrap().0, config)
}

fn web(state: &mut State) -> &mut ServiceState {
    state.service_mut("web").unwrap()
}

fn weights(pairs: &[(&str, u32)]) -> BTreeMap<String, u32> {
    pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

fn a_drain() -> DrainState {
    DrainState {
        weight_before: 0,
        since: "2026-01-01T00:00:00Z".to_owned(),
        since_boot_ms: 0,
        deadline_s: None,
        force: None,
    }
}

#[test]
fn first_configuration_gives_ids_and_weights() {
    let (mut state, _) = started();
    let service = web(&mut state);
    assert_eq!(service.generation, 1);
    assert_eq!(service.weights(), weights(&[("v1", 100), ("v2", 0)]));
    let mut ids: Vec<u32> = service.instances().map(|(_, i)| i.backend).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    assert_ne!(service.versions[0].ring, service.versions[1].ring);
}

#[test]
fn the_same_configuration_changes_nothing() {
    let (state, config) = started();
    let (again, changes) = reconcile(&state, &config, 2).unwrap();
    assert_eq!(again, state);
    assert!(changes.is_empty());
}

/// State owns the weights: a reload never resets a shift or a drain.
#[test]
fn a_reload_keeps_weights_and_drains() {
    let (mut state, config) = started();
    shift(web(&mut state), &weights(&[("v1", 0), ("v2", 5)]), false).unwrap();
    let target = Target::Version("v1".to_owned());
    drain(web(&mut state), &target, &a_drain(), false).unwrap();
    let (again, _) = reconcile(&state, &config, 1).unwrap();
    assert_eq!(again, state);
}

#[test]
fn a_removed_instance_is_kept_as_orphan_and_off_the_ring() {
    let (state, _) = started();
    let fewer = config(&[("v1", 100, &["10.0.0.1:80"]), ("v2", 0, &["10.0.0.3:80"])]);
    let (mut next, changes) = reconcile(&state, &fewer, 1).unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    let service = web(&mut next);
    assert_eq!(service.generation, 2);
    let orphan = service.versions[0].instances.iter().find(|i| i.orphaned).unwrap();
    assert_eq!((orphan.id.as_str(), orphan.closed_at), ("10.0.0.2:80", 2));
    let desired = Desired::of(&next, &fewer);
    let ring =
        desired.services[&0].rings.values().find(|r| r.members.len() == 1 && r.members[0].id == 1);
    assert!(ring.is_some(), "off the ring");
    assert!(desired.owners.len() == 3, "replies still find their way");
}

/// An in-place upgrade gives the same address a new id; the old one keeps its flows.
#[test]
fn an_address_that_moves_gets_a_new_id() {
    let (state, _) = started();
    let moved = config(&[("v1", 100, &["10.0.0.1:80"]), ("v2", 0, &["10.0.0.2:80"])]);
    let (next, _) = reconcile(&state, &moved, 1).unwrap();
    let ids: Vec<(String, u32, bool)> = next
        .instances()
        .filter(|(_, _, i)| i.id == "10.0.0.2:80")
        .map(|(_, v, i)| (v.name.clone(), i.backend, i.orphaned))
        .collect();
    assert_eq!(ids, [("v1".to_owned(), 2, true), ("v2".to_owned(), 4, false)]);
    let desired = Desired::of(&next, &moved);
    let address = "10.0.0.2:80".parse().unwrap();
    assert_eq!(desired.owners[&(address, Protocol::Tcp)].backend, 4);
}

#[test]
fn a_removed_service_keeps_its_frontends_for_replies_only() {
    let (state, _) = started();
    let none = Config::from_str("schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n", "t").unwrap();
    let (next, _) = reconcile(&state, &none, 1).unwrap();
    assert!(next.services[0].removed);
    let desired = Desired::of(&next, &none);
    let plan = &desired.services[&0];
    assert_eq!(plan.frontends.len(), 1);
    assert_eq!(plan.frontends[0].reaches, Reaches::Gone);
    assert!(plan.versions.iter().all(|version| version.bound == 0));
}

#[test]
fn shifting_all_weight_away_is_a_conflict() {
    let (mut state, _) = started();
    let before = state.clone();
    let error = shift(web(&mut state), &weights(&[("v1", 0)]), false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(state, before, "nothing changed");
    assert!(shift(web(&mut state), &weights(&[("v1", 0)]), true).unwrap());
    assert_eq!(web(&mut state).generation, 2);
}

#[test]
fn an_unknown_version_is_a_usage_error_and_changes_nothing() {
    let (mut state, _) = started();
    let before = state.clone();
    let error = shift(web(&mut state), &weights(&[("v2", 10), ("v9", 1)]), false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Usage);
    assert!(error.message.contains("v9"));
    assert!(error.hint.unwrap().contains("v1, v2"));
    assert_eq!(state, before);
}

#[test]
fn a_shift_to_the_same_weights_keeps_the_generation() {
    let (mut state, _) = started();
    assert!(!shift(web(&mut state), &weights(&[("v1", 100)]), false).unwrap());
    assert_eq!(web(&mut state).generation, 1);
}

#[test]
fn drain_and_undrain_return_to_the_weight_before() {
    let (mut state, _) = started();
    shift(web(&mut state), &weights(&[("v2", 50)]), false).unwrap();
    let target = Target::Version("v1".to_owned());
    assert!(drain(web(&mut state), &target, &a_drain(), false).unwrap());
    assert_eq!(web(&mut state).version("v1").unwrap().closed_at, 3);
    // Again: nothing but perhaps a new deadline.
    assert!(!drain(web(&mut state), &target, &a_drain(), false).unwrap());
    assert!(undrain(web(&mut state), &target).unwrap());
    assert_eq!(web(&mut state).weights(), weights(&[("v1", 100), ("v2", 50)]));
}

#[test]
fn draining_the_last_serving_version_is_a_conflict() {
    let (mut state, _) = started();
    let target = Target::Version("v1".to_owned());
    let error = drain(web(&mut state), &target, &a_drain(), false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
}

#[test]
fn draining_the_last_instance_of_a_version_with_weight_is_a_conflict() {
    let (mut state, _) = started();
    shift(web(&mut state), &weights(&[("v2", 50)]), false).unwrap();
    let target = Target::find(web(&mut state), "10.0.0.3:80").unwrap();
    let error = drain(web(&mut state), &target, &a_drain(), false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    // One of two is fine, and its ring loses it.
    let target = Target::find(web(&mut state), "10.0.0.1:80").unwrap();
    assert!(drain(web(&mut state), &target, &a_drain(), false).unwrap());
    let instance = &web(&mut state).versions[0].instances[0];
    assert!(!instance.in_ring());
    assert_eq!(instance.closed_at, 3);
}

/// Undraining a version whose drain began at weight 0 leaves it there.
#[test]
fn undrain_of_a_standby_version_gives_it_no_weight() {
    let (mut state, _) = started();
    let target = Target::Version("v2".to_owned());
    drain(web(&mut state), &target, &a_drain(), false).unwrap();
    undrain(web(&mut state), &target).unwrap();
    assert_eq!(web(&mut state).version("v2").unwrap().weight, 0);
}

/// A frontend that was taken away is kept for its flows, and there is room for eight in all.
#[test]
fn too_many_frontends_of_before_are_a_conflict() {
    let with_frontends = |ports: std::ops::Range<u16>| {
        let list: Vec<String> = ports.map(|p| format!("\"192.0.2.10:{p}/tcp\"")).collect();
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [{}]\n[[service.version]]\nname = \"v1\"\nweight = 1\n\
             instances = [\"10.0.0.1:80\"]\n",
            list.join(", ")
        );
        Config::from_str(&text, "t").unwrap()
    };
    let (state, _) = reconcile(&State::default(), &with_frontends(80..86), 1).unwrap();
    let (state, _) = reconcile(&state, &with_frontends(84..88), 1).unwrap();
    assert_eq!(state.services[0].frontends.len(), 8);
    assert_eq!(state.services[0].frontends[4].unwrap().socket().port(), 84, "each keeps its place");
    let error = reconcile(&state, &with_frontends(88..90), 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("10 IPv4 frontends"), "{error}");
}

#[test]
fn undrain_gives_no_weight_to_a_version_without_instances() {
    let (mut state, _) = started();
    let version = Target::Version("v1".to_owned());
    let ids: Vec<String> =
        web(&mut state).version("v1").unwrap().instances.iter().map(|i| i.id.clone()).collect();
    shift(web(&mut state), &weights(&[("v2", 1)]), false).unwrap();
    drain(web(&mut state), &version, &a_drain(), false).unwrap();
    for id in &ids {
        let instance = Target::Instance("v1".to_owned(), id.clone());
        drain(web(&mut state), &instance, &a_drain(), false).unwrap();
    }
    let before = state.clone();
    let error = undrain(web(&mut state), &version).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(state, before);
    undrain(web(&mut state), &Target::Instance("v1".to_owned(), ids[0].clone())).unwrap();
    assert!(undrain(web(&mut state), &version).unwrap());
    assert!(web(&mut state).version("v1").unwrap().serves(None));
}

/// A reload must not take away the last instance of a version that has weight, nor the last version.
#[test]
fn a_reload_that_leaves_nothing_to_serve_is_a_conflict() {
    let (state, _) = started();
    let empty = config(&[("v1", 100, &["10.0.0.1:80"]), ("v2", 0, &["10.0.0.3:80"])]);
    assert!(reconcile(&state, &empty, 1).is_ok(), "one of two may go");
    let (mut drained, _) = started();
    let target = Target::find(web(&mut drained), "10.0.0.1:80").unwrap();
    drain(web(&mut drained), &target, &a_drain(), false).unwrap();
    let error = reconcile(&drained, &empty, 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("web/v1"), "{error}");
    let only_v2 = config(&[("v2", 1, &["10.0.0.3:80"])]);
    let error = reconcile(&state, &only_v2, 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "v2 has no weight in the state");
}

/// A reply is looked for among one service's frontends, so an address changes its service only when
/// its flows of before have ended.
#[test]
fn an_address_that_moves_to_another_service_is_a_conflict() {
    let two = |first: &str, second: &str| {
        let service = |name: &str, port: u16, instance: &str| {
            format!(
                "[[service]]\nname = {name:?}\nfrontends = [\"192.0.2.10:{port}/tcp\"]\n\
                 [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [{instance}]\n"
            )
        };
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n{}{}",
            service("a", 80, first),
            service("b", 81, second)
        );
        Config::from_str(&text, "t").unwrap()
    };
    let before = two("\"10.0.0.1:80\", \"10.0.0.2:80\"", "\"10.0.0.3:80\"");
    let (state, _) = reconcile(&State::default(), &before, 1).unwrap();
    let after = two("\"10.0.0.1:80\"", "\"10.0.0.3:80\", \"10.0.0.2:80\"");
    let error = reconcile(&state, &after, 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("10.0.0.2:80"), "{error}");
}

/// What is unknown of a socket stays unknown under a new id.
#[test]
fn a_new_id_of_a_known_address_keeps_its_epoch() {
    let (state, _) = started();
    let moved = config(&[("v1", 100, &["10.0.0.1:80"]), ("v2", 0, &["10.0.0.2:80"])]);
    let (next, _) = reconcile(&state, &moved, 5).unwrap();
    let epochs: Vec<u32> = next
        .instances()
        .filter(|(_, _, i)| i.id == "10.0.0.2:80")
        .map(|(_, _, i)| i.epoch)
        .collect();
    assert_eq!(epochs, [1, 1]);
}
