//! Services of both families: what must not be taken from the clients of one.

use super::commands::{Target, drain, shift};
use super::plan_tests::{MIXED, TWO, a_drain, config, first};
use super::reconcile::reconcile;
use super::state::ServiceState;
use crate::api::types::ErrorCode;
use crate::config::Config;
use std::collections::BTreeMap;

fn weights(v1: u32, v2: u32) -> BTreeMap<String, u32> {
    BTreeMap::from([("v1".to_owned(), v1), ("v2".to_owned(), v2)])
}

fn instance(version: &str, id: &str) -> Target {
    Target::Instance(version.to_owned(), id.to_owned())
}

/// A version that lacks a family cannot take over.
#[test]
fn a_shift_leaves_no_family_alone() {
    let config = config(MIXED, "", TWO, r#"["10.0.0.2:80"]"#);
    let mut state = first(&config);
    let before = state.clone();
    let error = shift(&mut state.services[0], &weights(0, 1), false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(error.message, "version v2: has no instance to take new IPv6 flows");
    assert_eq!(state, before);
    // Where packets travel in tunnels, any instance serves any client.
    let tunnel = self::config(MIXED, "mode = \"gue\"", TWO, r#"["10.0.0.2:80"]"#);
    let mut state = first(&tunnel);
    assert!(shift(&mut state.services[0], &weights(0, 1), false).unwrap());
}

#[test]
fn a_drain_leaves_no_family_alone() {
    let config = config(MIXED, "", TWO, r#"["10.0.0.2:80", "[fd00::2]:80"]"#);
    let mut state = first(&config);
    let service = &mut state.services[0];
    let error = drain(service, &instance("v1", "[fd00::1]:80"), &a_drain(), false).unwrap_err();
    assert_eq!(
        error.message,
        "instance [fd00::1]:80: is the last serving one of version v1, which has weight, for IPv6 \
         clients"
    );
    // Another family's instance is no matter, and --allow-empty is the operator's word.
    let target = Target::find(service, "[fd00::1]:80").unwrap();
    assert!(drain(service, &target, &a_drain(), true).unwrap());
    let error = drain(service, &Target::Version("v1".to_owned()), &a_drain(), false).unwrap_err();
    assert_eq!(error.message, "service web: no version would be left to serve new IPv4 flows");
}

#[test]
fn a_reload_leaves_no_family_alone() {
    let state = first(&config(MIXED, "", r#"["10.0.0.1:80", "[fd00::1]:80"]"#, "[]"));
    // v1 loses its IPv6 instance to v2, which has no weight in the state.
    let text = "schema = 1\ndaemon.interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
                frontends = [\"192.0.2.10:80/tcp\", \"[2001:db8::10]:80/udp\"]\n\
                version = [{ name = \"v1\", weight = 1, instances = [\"10.0.0.1:80\"] },\n\
                { name = \"v2\", weight = 1, instances = [\"[fd00::1]:80\"] }]\n";
    let error = reconcile(&state, &Config::from_str(text, "t").unwrap(), 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("without an IPv6 instance to serve"), "{error}");
    // A family that is taken away altogether needs nobody.
    let v4 = config(r#"["192.0.2.10:80/tcp"]"#, "", r#"["10.0.0.1:80"]"#, "[]");
    let (next, _) = reconcile(&state, &v4, 1).unwrap();
    assert_eq!(next.services[0].families, []);
    assert_eq!(next.services[0].frontends6.len(), 1, "its flows of before go on");
}

/// Flows go on as they began: what they depend on changes only when they have ended.
#[test]
fn a_mode_waits_for_the_flows_of_before() {
    let frontends = r#"["192.0.2.10:80/udp"]"#;
    let one = r#"["10.0.0.1:80"]"#;
    let state = first(&config(frontends, "", one, "[]"));
    for (options, word) in [
        ("mode = \"dsr\"", "mode is nat and would be dsr"),
        ("conversation = \"datagram\"", "conversation is flow and would be datagram"),
    ] {
        let other = config(frontends, options, one, "[]");
        let error = reconcile(&state, &other, 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.message.contains(word), "{error}");
    }
    // Other settings take effect at once, and place nothing anew.
    let options = "conversation = \"client\"\nudp_timeout = \"1m\"\nwhen_empty = \"drop\"";
    let (next, changes) = reconcile(&state, &config(frontends, options, one, "[]"), 1).unwrap();
    assert_eq!((next.services[0].generation, changes.len()), (1, 0));
    assert_eq!(next.services[0].settings.timeouts.udp().get().as_secs(), 60);
}

/// One address, by two protocols: an instance of each of two services.
#[test]
fn protocols_are_claimed_apart() {
    let service = |name: &str, protocol: &str, mode: &str| {
        format!(
            "[[service]]\nname = {name:?}\nmode = {mode:?}\n\
             frontends = [\"192.0.2.10:80/{protocol}\"]\n\
             version = [{{ name = \"v1\", weight = 1, instances = [\"10.0.0.1:80\"] }}]\n"
        )
    };
    let all = |services: &[String]| {
        let text = format!("schema = 1\ndaemon.interfaces = [\"eth0\"]\n{}", services.concat());
        Config::from_str(&text, "t").unwrap()
    };
    let (tcp, udp) = (service("a", "tcp", "nat"), service("b", "udp", "nat"));
    let both = all(&[tcp.clone(), udp]);
    let state = first(&both);
    assert_eq!(super::plan::Desired::of(&state, &both).owners.len(), 2);
    // The same protocol: a reply could be either's.
    let error =
        reconcile(&state, &all(&[tcp, service("c", "udp", "nat").replace(".10:", ".11:")]), 1);
    assert!(error.unwrap_err().message.contains("services c and b both have it"));
    // Where the sender does not tell, it may be shared.
    let shared = all(&[service("a", "tcp", "dsr"), service("b", "udp", "dsr")]);
    let swapped = shared.services().len();
    assert_eq!(swapped, 2);
    reconcile(&first(&shared), &all(&[service("c", "tcp", "dsr")]), 1).unwrap();
}

/// What a version that knew IPv4 and TCP only has written.
#[test]
fn a_state_of_before_is_read() {
    let text = r#"{"name":"web","id":0,"generation":3,
        "frontends":["192.0.2.10:80",null,"192.0.2.10:81"],"removed":false,"versions":[
        {"name":"v1","ring":1,"weight":0,"closed_at":3,"drain":null,"first_flow_at":null,
         "removed":false,"instances":[{"id":"10.0.0.1:80","addr":"10.0.0.1:80","weight":1,
         "backend":1,"epoch":1,"drain":null,"orphaned":false,"closed_at":0}]}]}"#;
    let service: ServiceState = serde_json::from_str(text).unwrap();
    let shown: Vec<_> = service.frontends.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.0.2.10:80/tcp", "192.0.2.10:81/tcp"]);
    assert_eq!(service.frontends[1], None);
    assert_eq!(service.settings, Default::default());
    let version = &service.versions[0];
    assert_eq!((version.ring6, version.tested, version.open()), (None, false, false));
    assert_eq!(version.instances[0].addr, "10.0.0.1:80".parse().unwrap());
    let bad = text.replace("192.0.2.10:81", "192.0.2.10");
    assert!(serde_json::from_str::<ServiceState>(&bad).is_err());
}
