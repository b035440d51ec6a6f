//! What `health`, `passive` and `on_down` mean.

use super::super::{OnDown, Service};
use super::{load, service};
use crate::health::{Check, Passive, Plan, Share};
use std::time::Duration;

const T: &str = r#"["192.0.2.10:80/tcp"]"#;
const U: &str = r#"["192.0.2.10:80/udp"]"#;
const I: &str = r#"["10.0.0.11:80"]"#;

fn web(frontends: &str, options: &str) -> Service {
    load(&service(frontends, options, I)).service("web").unwrap().clone()
}

#[test]
fn without_them_nobody_is_checked() {
    let service = web(T, "");
    assert_eq!(
        (service.health(), service.passive(), service.on_down()),
        (None, None, OnDown::Keep)
    );
    let json = serde_json::to_value(&service).unwrap();
    assert!(json.get("health").is_none() && json.get("passive").is_none());
}

#[test]
fn active() {
    let plan = |frontends: &str, given: &str| {
        web(frontends, &format!("health = {given}")).health().cloned().unwrap()
    };
    let seconds = Duration::from_secs;
    let defaults = Plan {
        check: Check::Tcp,
        port: None,
        interval: seconds(2),
        timeout: seconds(1),
        fall: 3,
        rise: 2,
    };
    assert_eq!(plan(T, "{ tcp = true }"), defaults);
    let given = r#"{ http = "/a?b=%20", interval = "10s", timeout = "10s", fall = 1, rise = 100 }"#;
    let http = Check::Http("/a?b=%20".to_owned());
    let (interval, timeout) = (seconds(10), seconds(10));
    assert_eq!(
        plan(T, given),
        Plan { check: http, interval, timeout, fall: 1, rise: 100, port: None }
    );
    let short = plan(T, r#"{ tcp = true, interval = "300ms" }"#);
    assert_eq!(short.timeout, Duration::from_millis(300), "never beyond the next check");
    assert_eq!(plan(U, "{ tcp = true, port = 81 }").port, Some(81));
    let exec = plan(U, r#"{ exec = ["/bin/sh", "-c", "exit 0"] }"#);
    assert!(matches!(exec.check, Check::Exec(argv) if argv.len() == 3));
}

#[test]
fn passive() {
    let given = web(T, "passive = { syn_failures = 1, every = \"1m\" }").passive().unwrap();
    assert_eq!(
        given,
        Passive {
            syn_failures: Share::new(1.0),
            resets: None,
            min: 20,
            every: Duration::from_secs(60),
            back_after: Duration::from_secs(30),
        }
    );
}

#[test]
fn flows_of_an_instance_that_is_down() {
    let reset = web(T, "passive = { resets = 0.5 }\non_down = \"reset\"");
    assert_eq!(reset.on_down(), OnDown::Reset);
    // Where only half of the packets pass, the instances' kernel is to do it.
    let here = "mode = \"dsr\"\nsockets = \"host\"\nhealth = { tcp = true }\non_down = \"reset\"";
    assert_eq!(web(T, here).on_down(), OnDown::Reset);
}

#[test]
fn serialized_as_they_are_written() {
    let given = "health = { exec = [\"/a\", \"b\"], port = 81 }\npassive = { resets = 0.25 }";
    let json = serde_json::to_value(web(T, given)).unwrap();
    let health = serde_json::json!({
        "exec": ["/a", "b"], "port": 81, "interval": "2s", "timeout": "1s", "fall": 3, "rise": 2,
    });
    assert_eq!(json["health"], health);
    let passive =
        serde_json::json!({ "resets": 0.25, "min": 20, "every": "10s", "back_after": "30s" });
    assert_eq!((&json["passive"], &json["on_down"]), (&passive, &"keep".into()));
}
