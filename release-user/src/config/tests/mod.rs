mod broken;
mod broken_fit;
mod broken_health;
mod broken_hooks;
mod broken_options;
mod broken_plan;
mod broken_reach;
mod broken_service;
mod files;
mod fuzz;
mod health;
mod options;
mod plans;
mod registration;

use super::{Config, InstanceWeight, LogLevel, Mode, WhenEmpty, WhenFull, XdpMode};
use crate::placement::RingSize;
use std::time::Duration;

/// The example of the contract, restricted to what this version supports.
const FULL: &str = r#"schema = 1

[daemon]
interfaces = ["eth0", "eth1"]
xdp_mode = "native"
flow_capacity = 2048
embryo_capacity = 1024
log = "debug"

[[service]]
name = "web"
frontends = ["192.0.2.10:80/tcp", "192.0.2.10:443/tcp"]
mode = "nat"
conversation = "flow"
idle_timeout = "1h 30m"
when_empty = "pass"
when_full = "drop"
drain = { settle = "2s", samples = 5, every = "250ms" }
ring_size = 4093

[[service.version]]
name = "v1"
weight = 100
meta = { database = "postgres://db" }
instances = ["10.0.0.11:8080", { id = "web-b", addr = "10.0.0.12:8080", weight = 2 }]

[[service.version]]
name = "v2"
weight = 0
instances = ["10.0.0.21:8080"]

[[service]]
name = "api"
frontends = ["192.0.2.11:80/tcp"]
[[service.version]]
name = "v1"
weight = 1
instances = ["10.0.1.11:8080"]
"#;

/// No more than what must be there.
const SMALL: &str = r#"schema = 1
[daemon]
interfaces = ["eth0"]
[[service]]
name = "web"
frontends = ["192.0.2.10:80/tcp"]
[[service.version]]
name = "v1"
weight = 1
instances = ["10.0.0.11:8080"]
[[service.version]]
name = "v2"
"#;

/// Every mode and conversation, with all keys that FULL has not.
const MODES: &str = r#"schema = 1
[daemon]
interfaces = ["lo"]
session_capacity = 1024
snat_capacity = 1024
fragment_capacity = 64
[[service]]
name = "a"
frontends = ["192.0.2.10:80/tcp", "[2001:db8::10]:80/udp"]
mode = "snat"
conversation = "client"
udp_timeout = "1m"
unreplied_timeout = "1m"
session_timeout = "1m"
limits = { max_flows = 2, new_flows_per_second = 1 }
drain = { sessions = "move" }
snat = { addresses = ["10.0.0.5", "fd00::5"], ports = "4000-5000" }
health = { http = "/healthz", interval = "5s", timeout = "1s", fall = 1, rise = 9, port = 81 }
passive = { syn_failures = 0.5, resets = 0.5, min = 20, every = "10s", back_after = "1m" }
on_down = "reset"
test_sources = { v1 = ["198.51.100.0/24", "2001:db8:1::/48"] }
test_frontends = { v1 = ["192.0.2.10:81/tcp"] }
version = [{ name = "v1", weight = 1, instances = ["10.0.0.1:1", "[fd00::1]:1"] }]
[[service]]
name = "b"
frontends = ["192.0.2.11:80/udp"]
mode = "gue"
conversation = "quic"
tunnel = { sources = ["10.254.0.0/16", "fd00:f::/64"], port = 1 }
quic = { server_id_length = 1, config_id = 6 }
version = [{ name = "v1", weight = 1, instances = [
    { addr = "10.0.0.2:80", server_id = "0a" }, { addr = "[fd00::2]:80", server_id = "0b" },
] }]
[[service]]
name = "c"
frontends = ["192.0.2.12:80/udp"]
mode = "local"
conversation = "datagram"
version = [{ name = "v1", weight = 1, instances = ["127.0.0.1:1"] }]
"#;

/// One service: its frontends stand in line 6, `options` from line 7, the instances of its version
/// v1 in line 11 if the options are one line; v2 has none.
fn service(frontends: &str, options: &str, instances: &str) -> String {
    format!(
        "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
         frontends = {frontends}\n{options}\n[[service.version]]\nname = \"v1\"\nweight = 1\n\
         instances = {instances}\n[[service.version]]\nname = \"v2\"\n"
    )
}

fn load(text: &str) -> Config {
    Config::from_str(text, "f.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn everything_given() {
    let config = load(FULL);
    let daemon = config.daemon();
    let names: Vec<_> = daemon.interfaces().iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert_eq!(daemon.xdp_mode(), XdpMode::Native);
    assert_eq!((daemon.flow_capacity().get(), daemon.embryo_capacity().get()), (2048, 1024));
    assert_eq!(daemon.log(), LogLevel::Debug);

    let names: Vec<_> = config.services().iter().map(|s| s.name().as_str()).collect();
    assert_eq!(names, ["web", "api"]);
    let web = config.service("web").unwrap();
    assert_eq!(web.frontends()[1].to_string(), "192.0.2.10:443/tcp");
    assert_eq!(web.idle_timeout().get(), Duration::from_secs(5400));
    assert_eq!((web.when_empty(), web.when_full()), (WhenEmpty::Pass, WhenFull::Drop));
    assert_eq!(web.drain().settle(), Duration::from_secs(2));
    assert_eq!((web.drain().samples(), web.drain().every()), (5, Duration::from_millis(250)));
    assert_eq!(web.ring_size().get(), 4093);

    let v1 = web.version("v1").unwrap();
    assert_eq!(v1.weight().get(), 100);
    assert_eq!(v1.meta()["database"], "postgres://db");
    let ids: Vec<_> = v1.instances().iter().map(|i| i.id().as_str()).collect();
    assert_eq!(ids, ["10.0.0.11:8080", "web-b"]);
    let (version, instance) = web.instance("web-b").unwrap();
    assert_eq!(version.name().as_str(), "v1");
    assert_eq!(instance.addr(), "10.0.0.12:8080".parse().unwrap());
    assert_eq!(instance.weight().get(), 2);
    assert!(web.instance("v1").is_none() && web.version("v3").is_none());
    assert_eq!(config.warnings(), []);
}

#[test]
fn every_mode() {
    assert_eq!(load(MODES).warnings(), []);
}

#[test]
fn defaults() {
    let config = load(SMALL);
    let daemon = config.daemon();
    assert_eq!((daemon.xdp_mode(), daemon.log()), (XdpMode::Auto, LogLevel::Off));
    assert_eq!((daemon.flow_capacity().get(), daemon.embryo_capacity().get()), (1_048_576, 65_536));
    let web = config.service("web").unwrap();
    assert_eq!((web.mode(), web.idle_timeout().get()), (Mode::Nat, Duration::from_secs(7200)));
    assert_eq!((web.when_empty(), web.when_full()), (WhenEmpty::Reject, WhenFull::Reject));
    assert_eq!(web.drain().settle(), Duration::from_secs(1));
    assert_eq!((web.drain().samples(), web.drain().every()), (3, Duration::from_millis(100)));
    assert_eq!(web.ring_size(), RingSize::DEFAULT);
    let v2 = web.version("v2").unwrap();
    assert_eq!((v2.weight().get(), v2.instances().len(), v2.meta().len()), (0, 0, 0));
    assert_eq!(web.versions()[0].instances()[0].weight(), InstanceWeight::DEFAULT);
    assert_eq!(config.warnings(), []);
}

#[test]
fn limits_are_included() {
    for (from, to) in [
        ("weight = 1\n", "weight = 1000000\n"),
        ("weight = 1\n", "weight = 0x10\n"),
        ("[\"10.0.0.11:8080\"]", "[{ addr = \"10.0.0.11:65535\", weight = 1000 }]"),
        ("interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\nflow_capacity = 16_777_216"),
        ("interfaces = [\"eth0\"]", "interfaces = [\"fifteen_bytes.0\"]\nembryo_capacity = 1024"),
        ("name = \"web\"", "name = \"web\"\nring_size = 1048573\nidle_timeout = \"12d\""),
        ("name = \"web\"", "name = \"web\"\ndrain = { settle = \"1ms\", samples = 1 }"),
        ("\"web\"", &format!("\"{}\"", "x".repeat(63))),
    ] {
        assert!(SMALL.contains(from), "{from}");
        load(&SMALL.replacen(from, to, 1));
    }
}

#[test]
fn warnings() {
    let text = FULL
        .replace("weight = 0\ninstances = [\"10.0.0.21:8080\"]", "weight = 7")
        .replace("ring_size = 4093", "ring_size = 251");
    let config = load(&text);
    let warnings: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["f.toml:27: service[web].version[v2].weight: weight 7 but no instances \
         (its share of new flows gets when_empty: pass)",]
    );
    let many = (1..=3).map(|n| format!("\"10.0.0.{n}:80\"")).collect::<Vec<_>>().join(",");
    let text = SMALL
        .replace("\"10.0.0.11:8080\"", &many)
        .replace("name = \"web\"", "name = \"web\"\nring_size = 251");
    let config = load(&text);
    assert_eq!(config.warnings()[0].key(), "service[web].ring_size");
    let config = load("schema = 1\ndaemon.interfaces = [\"eth0\"]");
    assert_eq!(config.warnings()[0].what(), "no service is configured");
}

#[test]
fn serialized_as_it_is_written() {
    let json = serde_json::to_value(load(FULL)).unwrap();
    let web = &json["services"][0];
    assert_eq!(json["daemon"]["xdp_mode"], "native");
    assert_eq!(web["frontends"][0], "192.0.2.10:80/tcp");
    assert_eq!(web["idle_timeout"], "1h 30m");
    assert_eq!(web["drain"]["every"], "250ms");
    assert_eq!(web["versions"][0]["instances"][1]["addr"], "10.0.0.12:8080");
    // It may hold secrets.
    assert!(web["versions"][0].get("meta").is_none());
}

/// What the documents show must work.
#[test]
fn documented_examples() {
    let example = include_str!("../../../../examples/release.toml");
    assert_eq!(load(example).warnings(), []);
    let reference = include_str!("../../../../docs/configuration.md");
    let mut blocks = reference.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let (whole, _) = blocks.next().unwrap();
    assert_eq!(load(whole).warnings(), []);
}
