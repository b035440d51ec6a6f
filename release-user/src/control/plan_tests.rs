//! What the data plane is told, for every mode and conversation.

use super::commands::{Target, drain, shift, undrain};
use super::plan::{Desired, Reaches, ServicePlan};
use super::reconcile::reconcile;
use super::state::{DrainState, State};
use crate::config::{Config, Family, OnDrain, Protocol};
use std::collections::BTreeMap;

pub(super) const MIXED: &str = r#"["192.0.2.10:80/tcp", "[2001:db8::10]:80/udp"]"#;
pub(super) const TWO: &str = r#"["10.0.0.1:80", "[fd00::1]:80"]"#;

/// One service `web`: options, and instances of v1 (weight 1) and v2 (weight 0).
pub(super) fn config(frontends: &str, options: &str, v1: &str, v2: &str) -> Config {
    let text = format!(
        "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
         frontends = {frontends}\n{options}\n[[service.version]]\nname = \"v1\"\nweight = 1\n\
         instances = {v1}\n[[service.version]]\nname = \"v2\"\ninstances = {v2}\n"
    );
    Config::from_str(&text, "t").unwrap_or_else(|errors| panic!("{errors}"))
}

pub(super) fn first(config: &Config) -> State {
    reconcile(&State::default(), config, 1).unwrap().0
}

fn plan(state: &State, config: &Config) -> ServicePlan {
    Desired::of(state, config).services[&0].clone()
}

pub(super) fn a_drain() -> DrainState {
    DrainState {
        weight_before: 0,
        since: "2026-01-01T00:00:00Z".to_owned(),
        since_boot_ms: 0,
        deadline_s: None,
        force: None,
    }
}

fn members(plan: &ServicePlan, ring: Option<u32>) -> Vec<String> {
    let ring = &plan.rings[&ring.unwrap()];
    ring.members.iter().map(|member| member.addr.to_string()).collect()
}

/// Where a packet keeps its family, a version has a ring of each; where it can change, one.
#[test]
fn rings_by_family() {
    let udp = MIXED.replace("tcp", "udp");
    for (options, apart) in [
        ("", true),
        ("mode = \"snat\"\nsnat.addresses = [\"10.0.0.5\", \"fd00::5\"]", true),
        ("mode = \"dsr\"", true),
        ("mode = \"local\"", true),
        ("mode = \"ipip\"", false),
        ("mode = \"gue\"", false),
    ] {
        let config = config(&udp, options, TWO, r#"["10.0.0.2:80"]"#);
        let plan = plan(&first(&config), &config);
        let [v1, v2] = &plan.versions[..] else { panic!() };
        assert_eq!(plan.rings.len(), if apart { 4 } else { 2 }, "{options}");
        assert_eq!(v1.rings.v4 != v1.rings.v6, apart, "{options}");
        let v4 = members(&plan, v1.rings.of(Family::V4));
        let v6 = members(&plan, v1.rings.of(Family::V6));
        if apart {
            assert_eq!((v4, v6), (vec!["10.0.0.1:80".into()], vec!["[fd00::1]:80".into()]));
        } else {
            assert_eq!(v4, ["10.0.0.1:80", "[fd00::1]:80"]);
        }
        assert!(plan.occupied(v2, Family::V4));
        assert_eq!(plan.occupied(v2, Family::V6), !apart, "{options}");
    }
    // A family without a frontend has no ring.
    let config = config(r#"["[2001:db8::10]:80/tcp"]"#, "", r#"["[fd00::1]:80"]"#, "[]");
    let plan = plan(&first(&config), &config);
    assert_eq!(plan.versions[0].rings.v4, None);
    assert_eq!((plan.rings.len(), plan.occupied(&plan.versions[0], Family::V6)), (2, true));
}

#[test]
fn settings_are_handed_on_and_kept() {
    let udp = r#"["192.0.2.10:443/udp"]"#;
    let options = "mode = \"gue\"\nconversation = \"quic\"\nunreplied_timeout = \"5s\"\n\
                   limits = { max_flows = 7 }\nwhen_full = \"drop\"\n\
                   tunnel = { sources = [\"10.254.0.0/16\"] }\nquic = { server_id_length = 1 }";
    let instance = r#"[{ addr = "10.0.0.1:443", server_id = "0a" }]"#;
    let config = config(udp, options, instance, "[]");
    let state = first(&config);
    let before = plan(&state, &config);
    let settings = &before.settings;
    assert_eq!((settings.mode.as_str(), settings.conversation.as_str()), ("gue", "quic"));
    assert_eq!(settings.timeouts.unreplied().get().as_secs(), 5);
    assert_eq!(settings.limits.max_flows().unwrap().get(), 7);
    assert_eq!(settings.tunnel.as_ref().unwrap().port(), Some(6080));
    assert_eq!(settings.quic.unwrap().server_id_length(), 1);
    assert_eq!(before.versions[0].instances[0].server_id.unwrap().as_bytes(), [10]);
    assert_eq!(before.frontends[0].reaches, Reaches::Split);
    // Its flows of before are carried to their end as they began, even after a restart.
    let none = Config::from_str("schema = 1\ndaemon.interfaces = [\"eth0\"]", "t").unwrap();
    let (gone, _) = reconcile(&state, &none, 1).unwrap();
    let text = serde_json::to_string(&gone.services[0]).unwrap();
    let read = State { services: vec![serde_json::from_str(&text).unwrap()] };
    assert_eq!(read, gone);
    let after = plan(&read, &none);
    assert_eq!(after.settings, before.settings);
    assert_eq!(after.versions[0].instances[0].server_id, before.versions[0].instances[0].server_id);
    assert_eq!(after.frontends[0].reaches, Reaches::Gone);
}

#[test]
fn every_setting_survives_the_store() {
    for options in [
        "conversation = \"client\"\nsession_timeout = \"90m\"\ndrain.sessions = \"move\"",
        "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\", \"fd00::5\"], ports = \"2000-3000\" }",
        "mode = \"ipip\"\ntunnel.sources = [\"fd00:f::/64\"]",
    ] {
        let state = first(&config(MIXED, options, TWO, "[]"));
        let text = serde_json::to_string(&state.services[0]).unwrap();
        let read: super::state::ServiceState = serde_json::from_str(&text).unwrap();
        assert_eq!(read, state.services[0], "{text}");
    }
}

const TESTS: &str = "test_sources = { v2 = [\"198.51.100.0/24\", \"2001:db8:1::/48\"] }\n\
                     test_frontends = { v2 = [\"192.0.2.10:81/tcp\"] }";

/// Rules lead to a version whatever its weight, unless it is drained.
#[test]
fn tests_are_suspended_while_their_version_is_drained() {
    let config = config(MIXED, TESTS, TWO, r#"["10.0.0.2:80", "[fd00::2]:80"]"#);
    let mut state = first(&config);
    let with_rules = plan(&state, &config);
    let v2 = with_rules.versions[1].clone();
    assert_eq!((v2.number, v2.bound), (v2.rings.v4.unwrap(), 1 << 32));
    let rules: Vec<_> =
        with_rules.rules.iter().map(|r| (r.prefix.to_string(), r.version, r.ring)).collect();
    assert_eq!(
        rules,
        [
            ("198.51.100.0/24".to_owned(), v2.number, v2.rings.v4.unwrap()),
            ("2001:db8:1::/48".to_owned(), v2.number, v2.rings.v6.unwrap()),
        ]
    );
    let reaches = |plan: &ServicePlan| {
        let test = plan.frontends.iter().find(|f| f.at.socket().port() == 81);
        test.unwrap().reaches
    };
    assert_eq!(reaches(&with_rules), Reaches::Version(v2.number));
    assert!(state.services[0].version("v2").unwrap().open());

    let target = Target::Version("v2".to_owned());
    assert!(drain(&mut state.services[0], &target, &a_drain(), false).unwrap());
    let version = state.services[0].version("v2").unwrap();
    assert_eq!((version.open(), version.closed_at), (false, 2));
    let drained = plan(&state, &config);
    assert_eq!((drained.rules.len(), reaches(&drained)), (0, Reaches::Nobody));
    // A reload leaves it drained.
    let (again, _) = reconcile(&state, &config, 1).unwrap();
    assert_eq!(again, state);
    assert!(undrain(&mut state.services[0], &target).unwrap());
    assert_eq!(plan(&state, &config).rules, with_rules.rules);
    // Weight that comes and goes is another matter: it stays open to its tests.
    let weights = |weight| BTreeMap::from([("v2".to_owned(), weight)]);
    shift(&mut state.services[0], &weights(5), false).unwrap();
    shift(&mut state.services[0], &weights(0), false).unwrap();
    assert!(state.services[0].version("v2").unwrap().open());
    assert_eq!(plan(&state, &config).rules, with_rules.rules);
}

/// Taking the tests out of the configuration closes a version of weight 0.
#[test]
fn tests_that_are_taken_out_close_their_version() {
    let v2 = r#"["10.0.0.2:80", "[fd00::2]:80"]"#;
    let state = first(&config(MIXED, TESTS, TWO, v2));
    let without = config(MIXED, "", TWO, v2);
    let (next, _) = reconcile(&state, &without, 1).unwrap();
    let version = next.services[0].version("v2").unwrap();
    assert_eq!((version.open(), version.closed_at, next.services[0].generation), (false, 2, 2));
    let plan = plan(&next, &without);
    assert!(plan.rules.is_empty());
    // The frontend is kept, in its place, for flows of before.
    let kept = plan.frontends.iter().find(|f| f.at.socket().port() == 81).unwrap();
    assert_eq!((kept.reaches, kept.place), (Reaches::Gone, 1));
    assert_eq!(plan.frontends.iter().filter(|f| f.place == 0).count(), 2, "one of each family");
}

/// Whether a remembered client may stay.
#[test]
fn accepting() {
    let options = "conversation = \"client\"\ndrain.sessions = \"move\"";
    let config =
        config(MIXED, options, r#"["10.0.0.1:80", "10.0.0.3:80", "[fd00::1]:80"]"#, TWO_OTHERS);
    let mut state = first(&config);
    let accepting = |state: &State| -> Vec<Vec<bool>> {
        let plan = plan(state, &config);
        assert_eq!(plan.settings.session.unwrap().on_drain(), OnDrain::Move);
        let of = |instances: &[super::plan::InstancePlan]| {
            instances.iter().map(|instance| instance.accepting).collect()
        };
        plan.versions.iter().map(|version| of(&version.instances)).collect()
    };
    assert_eq!(accepting(&state), [vec![true; 3], vec![false; 2]], "no weight");
    let service = &mut state.services[0];
    shift(service, &BTreeMap::from([("v2".to_owned(), 1)]), false).unwrap();
    let instance = Target::Instance("v1".to_owned(), "10.0.0.3:80".to_owned());
    drain(service, &instance, &a_drain(), false).unwrap();
    assert_eq!(accepting(&state), [vec![true, false, true], vec![true; 2]]);
    drain(&mut state.services[0], &Target::Version("v1".to_owned()), &a_drain(), false).unwrap();
    assert_eq!(accepting(&state), [vec![false; 3], vec![true; 2]]);
}
const TWO_OTHERS: &str = r#"["10.0.0.2:80", "[fd00::2]:80"]"#;

/// A reply's sender tells its service in `nat` and `local`, by every protocol that it serves.
#[test]
fn owners() {
    let both = r#"["192.0.2.10:80/tcp", "192.0.2.10:80/udp", "[2001:db8::10]:80/tcp"]"#;
    for (options, count) in [
        ("", 4),
        ("mode = \"local\"", 4),
        ("mode = \"dsr\"", 0),
        ("mode = \"snat\"\nsnat.addresses = [\"10.0.0.5\", \"fd00::5\"]", 0),
    ] {
        let config = config(both, options, TWO, "[]");
        let desired = Desired::of(&first(&config), &config);
        assert_eq!(desired.owners.len(), count, "{options}");
        let key = ("[fd00::1]:80".parse().unwrap(), Protocol::Udp);
        assert_eq!(desired.owners.get(&key).map(|owner| owner.backend), (count > 0).then_some(2));
        assert_eq!(desired.services[&0].protocols().count(), 2);
    }
}

/// A server id goes with the configured instance, not with one that is kept for its flows.
#[test]
fn a_server_id_that_moves() {
    let udp = r#"["192.0.2.10:443/udp"]"#;
    let instance = |addr| format!("[{{ addr = \"{addr}\", server_id = \"0a0b0c0d\" }}]");
    let quic = "conversation = \"quic\"";
    let state = first(&config(udp, quic, &instance("10.0.0.1:443"), "[]"));
    let moved = config(udp, quic, &instance("10.0.0.2:443"), "[]");
    let (next, _) = reconcile(&state, &moved, 1).unwrap();
    let plan = plan(&next, &moved);
    let ids: Vec<_> = plan.versions[0]
        .instances
        .iter()
        .map(|i| (i.addr.to_string(), i.server_id.is_some()))
        .collect();
    assert_eq!(ids, [("10.0.0.2:443".to_owned(), true), ("10.0.0.1:443".to_owned(), false)]);
}
