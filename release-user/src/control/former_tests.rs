//! Ways to instances that were taken off their rings, for mid-flow packets alone.

use release_common::abi::{SplitEntry, VERSION_RINGS};
use release_common::placement::{FlowHash, next_trial, version_of};

use super::commands::{Target, drain, undrain};
use super::encode;
use super::health::{self, Down, Finder};
use super::plan::{Desired, RingIds, RingPlan, ServicePlan};
use super::plan_tests::{MIXED, TWO, a_drain, config, first};
use super::reconcile::reconcile;
use super::retire::{Retirement, retire};
use super::state::State;
use crate::config::Config;

const TCP: &str = r#"["192.0.2.10:80/tcp"]"#;
const THREE: &str = r#"["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]"#;
const OTHER: &str = r#"["10.0.0.9:80"]"#;

fn plan(state: &State, config: &Config) -> ServicePlan {
    Desired::of(state, config).services[&0].clone()
}

fn drain_alone(state: &mut State, version: &str, id: &str) {
    let target = Target::Instance(version.to_owned(), id.to_owned());
    assert!(drain(&mut state.services[0], &target, &a_drain(), true).unwrap());
}

/// The ring that a version's lost instances are still in, if there is one.
fn former(plan: &ServicePlan, version: usize) -> Option<&RingPlan> {
    let version = &plan.versions[version];
    let id = version.former.v4?;
    assert_eq!(Some(id), version.rings.v4.map(|ring| ring + VERSION_RINGS));
    Some(&plan.rings[&id])
}

/// The usual case costs nothing.
#[test]
fn none_where_no_instance_is_off_its_ring() {
    let config = config(MIXED, "", TWO, OTHER);
    let mut state = first(&config);
    let target = Target::Version("v1".to_owned());
    for weight in ["in service", "drained as a whole"] {
        let plan = plan(&state, &config);
        assert!(plan.versions.iter().all(|v| v.former == RingIds::default()), "{weight}");
        assert!(plan.rings.keys().all(|ring| *ring < VERSION_RINGS), "{weight}");
        let split = encode::split(&plan);
        assert!(split.entries[2..].iter().all(|entry| *entry == SplitEntry::UNUSED), "{weight}");
        assert_eq!((split.count, split.occupied), (2, [0b11, 0b01]), "{weight}");
        drain(&mut state.services[0], &target, &a_drain(), true).unwrap();
    }
}

/// The ring of before, to the slot; asked last, and no way for new flows.
#[test]
fn one_drained_alone_is_found_where_it_was() {
    let config = config(TCP, "", THREE, OTHER);
    let mut state = first(&config);
    let before = plan(&state, &config);
    drain_alone(&mut state, "v1", "10.0.0.2:80");
    let after = plan(&state, &config);
    let ring = after.versions[0].rings.v4.unwrap();
    assert_eq!(after.rings[&ring].members.len(), 2);
    assert_eq!(former(&after, 0).unwrap().build(), before.rings[&ring].build());
    assert_eq!(former(&after, 1), None);
    let split = encode::split(&after);
    assert_eq!((split.count, split.occupied), (2, [0b111, 0]));
    assert_eq!(split.entries[2].rings, [ring + VERSION_RINGS, 0]);
    let mut hash = FlowHash::of_client(release_common::abi::Be32::default(), 0);
    for _ in 0..1000 {
        hash = hash.next();
        assert_eq!(version_of(&split, hash), Some(0));
        assert_eq!(next_trial(&split, 0, hash, 0b11), Some(2));
    }
    // Nor where no version takes any.
    let target = Target::Version("v1".to_owned());
    drain(&mut state.services[0], &target, &a_drain(), true).unwrap();
    let closed = encode::split(&plan(&state, &config));
    assert_eq!((version_of(&closed, hash), closed.occupied[0]), (None, 0b111));

    undrain(&mut state.services[0], &target).unwrap();
    let target = Target::Instance("v1".to_owned(), "10.0.0.2:80".to_owned());
    undrain(&mut state.services[0], &target).unwrap();
    assert_eq!(former(&plan(&state, &config), 0), None);
}

#[test]
fn one_that_is_down_is_kept() {
    let config = config(TCP, "", THREE, OTHER);
    let mut state = first(&config);
    let (by, why, since) = (Finder::Check, String::new(), String::new());
    let down = Down { by, why, since, since_boot_ms: 0 };
    health::set(&mut state.services[0], 2, Some(down)).unwrap();
    assert_eq!(former(&plan(&state, &config), 0).unwrap().members.len(), 3);
    health::set(&mut state.services[0], 2, None).unwrap();
    assert_eq!(former(&plan(&state, &config), 0), None);
}

/// As long as it may have flows: what gives its id free ends it.
#[test]
fn an_orphan_is_kept_until_it_is_given_free() {
    let fewer = config(TCP, "", r#"["10.0.0.1:80", "10.0.0.3:80"]"#, OTHER);
    let state = first(&config(TCP, "", THREE, OTHER));
    let (mut next, _) = reconcile(&state, &fewer, 1).unwrap();
    assert_eq!(former(&plan(&next, &fewer), 0).unwrap().members.len(), 3);
    let target = Target::Instance("v1".to_owned(), "10.0.0.2:80".to_owned());
    let by = Retirement { at: String::new(), receipt: Some(1), lost: Vec::new() };
    assert!(retire(&mut next.services[0], &target, &by).unwrap());
    assert_eq!(former(&plan(&next, &fewer), 0), None);
    // A version that is gone has nothing but orphans.
    let text = "schema = 1\ndaemon.interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
                frontends = [\"192.0.2.10:80/tcp\"]\n\
                version = [{ name = \"v2\", weight = 1, instances = [\"10.0.0.9:80\"] }]\n";
    let without = Config::from_str(text, "t").unwrap();
    let mut open = state.clone();
    open.services[0].versions[1].weight = 1;
    let (gone, _) = reconcile(&open, &without, 1).unwrap();
    let plan = plan(&gone, &without);
    assert_eq!(former(&plan, 1).unwrap().members.len(), 3);
    assert_eq!(encode::split(&plan).occupied, [0b101, 0]);
}

/// A ring of a family is there for instances of it.
#[test]
fn each_family_for_itself() {
    let config = config(MIXED, "", TWO, OTHER);
    let mut state = first(&config);
    drain_alone(&mut state, "v1", "[fd00::1]:80");
    let plan = plan(&state, &config);
    let RingIds { v4, v6 } = plan.versions[0].rings;
    let kept = RingIds { v4: None, v6: v6.map(|ring| ring + VERSION_RINGS) };
    assert_eq!((plan.versions[0].former, v4.is_some()), (kept, true));
    let split = encode::split(&plan);
    assert_eq!(split.occupied, [0b011, 0b100], "the last of its family");
    assert_eq!(split.entries[2].rings, [0, kept.v6.unwrap()]);
}

#[test]
fn none_where_nobody_is_asked() {
    let udp = TCP.replace("tcp", "udp");
    for (frontends, options) in [
        (udp.as_str(), ""),
        (TCP, "mode = \"snat\"\nsnat.addresses = [\"10.0.0.5\"]"),
        (TCP, "mode = \"dsr\""),
        (TCP, "mode = \"ipip\""),
    ] {
        let config = config(frontends, options, THREE, OTHER);
        let mut state = first(&config);
        drain_alone(&mut state, "v1", "10.0.0.2:80");
        assert_eq!(former(&plan(&state, &config), 0), None, "{frontends} {options}");
    }
}

/// What does not fit is left out, the last version's first.
#[test]
fn places_go_round_in_order() {
    for (versions, places) in [(14, [Some(14), Some(15)]), (15, [Some(15), None]), (16, [None; 2])]
    {
        let version = |number: u32| {
            format!(
                "[[service.version]]\nname = \"v{number}\"\nweight = 1\n\
                 instances = [\"10.0.{number}.1:80\", \"10.0.{number}.2:80\"]\n"
            )
        };
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = {TCP}\n{}",
            (0..versions).map(version).collect::<String>()
        );
        let config = Config::from_str(&text, "t").unwrap();
        let mut state = first(&config);
        for number in [7, 3] {
            drain_alone(&mut state, &format!("v{number}"), &format!("10.0.{number}.1:80"));
        }
        let plan = plan(&state, &config);
        let split = encode::split(&plan);
        for (version, place) in [3, 7].into_iter().zip(places) {
            let ring = plan.versions[version].former.v4.unwrap();
            let found = split.entries.iter().position(|entry| entry.rings[0] == ring);
            assert_eq!(found, place, "v{version} of {versions}");
        }
        let both = versions + places.iter().flatten().count() as u32;
        assert_eq!(split.occupied, [(1 << both) - 1, 0], "{versions}");
    }
}
