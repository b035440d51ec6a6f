//! What the keys of the modes and conversations mean, and what is allowed but hardly meant.

use super::super::{
    Config, Conversation, Family, Mode, OnDrain, PortRange, Protocol, SessionTimeout, Sockets,
};
use super::{load, service};
use std::net::SocketAddr;
use std::time::Duration;

const MIXED: &str = r#"["192.0.2.10:80/tcp", "[2001:DB8::10]:80/udp"]"#;
const TWO: &str = r#"["10.0.0.11:80", "[fd00::11]:80"]"#;
const NO_TEXT: [&str; 0] = [];

fn web(frontends: &str, options: &str, instances: &str) -> super::super::Service {
    load(&service(frontends, options, instances)).service("web").unwrap().clone()
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn families_and_protocols() {
    let web = web(MIXED, "", TWO);
    let shown: Vec<String> = web.frontends().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.0.2.10:80/tcp", "[2001:db8::10]:80/udp"]);
    let [first, second] = web.frontends() else { panic!() };
    assert_eq!((first.family(), first.protocol()), (Family::V4, Protocol::Tcp));
    assert_eq!((second.family(), second.protocol()), (Family::V6, Protocol::Udp));
    assert_eq!(second.socket(), "[2001:db8::10]:80".parse::<SocketAddr>().unwrap());
    assert!(web.has_family(Family::V6) && web.has_protocol(Protocol::Udp));
    let (_, instance) = web.instance("[fd00::11]:80").unwrap();
    assert_eq!((instance.family(), instance.server_id()), (Family::V6, None));
    // The same address and port, by two protocols.
    let twice = r#"["192.0.2.10:80/tcp", "192.0.2.10:80/udp"]"#;
    load(&service(twice, "", r#"["10.0.0.11:80"]"#));
}

#[test]
fn who_is_told_of_alarms() {
    let text = "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\nalarms = { \
        webhook = \"http://10.0.0.9:8080/a\", token_file = \"/etc/t\", argv = [\"/bin/page\", \"me\"] }\n\
        [[service]]\nname = \"web\"\nfrontends = [\"192.0.2.10:80/tcp\"]\n\
        [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [\"10.0.0.1:80\"]\n";
    let config = load(text);
    let alarms = config.daemon().alarms().unwrap();
    let webhook = alarms.webhook().unwrap();
    assert_eq!(webhook.url, "http://10.0.0.9:8080/a");
    assert_eq!(webhook.token.as_deref(), Some(std::path::Path::new("/etc/t")));
    assert_eq!(alarms.argv().unwrap(), ["/bin/page", "me"]);
    let plain = load(&service(r#"["192.0.2.10:80/tcp"]"#, "", r#"["10.0.0.11:80"]"#));
    assert!(plain.daemon().alarms().is_none());
}

#[test]
fn where_sockets_are_asked_for() {
    let text = "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n\
        agent = { ca = \"/a/ca.pem\", certificate = \"/a/d.pem\", key = \"/a/d.key\" }\n\
        [[service]]\nname = \"web\"\nfrontends = [\"192.0.2.10:80/tcp\"]\nsockets = \"host\"\n\
        [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [\"10.0.0.1:80\",\n\
        { addr = \"10.0.0.2:80\", sockets = { netns = \"web2\" } }]\n\
        [[service.version]]\nname = \"v2\"\nsockets = { agent = \"10.0.0.3:7443\" }\n\
        instances = [\"10.0.0.3:80\", { addr = \"10.0.0.4:80\", sockets = \"none\" },\n\
        { addr = \"10.0.0.5:80\", sockets = { pid_file = \"/run/web.pid\" } }]\n";
    let config = load(text);
    assert_eq!(config.daemon().agent().unwrap().key().to_str(), Some("/a/d.key"));
    let of = |id: &str| config.service("web").unwrap().instance(id).unwrap().1.sockets().cloned();
    assert_eq!(of("10.0.0.1:80"), Some(Sockets::Host));
    assert_eq!(of("10.0.0.2:80"), Some(Sockets::Netns("web2".to_owned())));
    let agent = serde_json::to_string(&of("10.0.0.3:80")).unwrap();
    assert_eq!(agent, r#"{"agent":"10.0.0.3:7443"}"#);
    assert_eq!(serde_json::from_str::<Option<Sockets>>(&agent).unwrap(), of("10.0.0.3:80"));
    assert_eq!(of("10.0.0.4:80"), Some(Sockets::None));
    assert_eq!(of("10.0.0.5:80"), Some(Sockets::PidFile("/run/web.pid".into())));
    let plain = load(&service(r#"["192.0.2.10:80/tcp"]"#, "", r#"["10.0.0.11:80"]"#));
    assert_eq!(plain.service("web").unwrap().instance("10.0.0.11:80").unwrap().1.sockets(), None);
}

#[test]
fn capacities() {
    let text = service(r#"["192.0.2.10:80/tcp"]"#, "", r#"["10.0.0.11:80"]"#);
    let daemon = load(&text).daemon().clone();
    assert_eq!(daemon.session_capacity().get(), 65_536);
    assert_eq!(daemon.snat_capacity().get(), 65_536);
    assert_eq!(daemon.fragment_capacity().get(), 8192);
    let given = "\"eth0\"]\nsession_capacity = 1024\nsnat_capacity = 2048\nfragment_capacity = 64";
    let daemon = load(&text.replace("\"eth0\"]", given)).daemon().clone();
    assert_eq!(daemon.session_capacity().get(), 1024);
    assert_eq!(daemon.snat_capacity().get(), 2048);
    assert_eq!(daemon.fragment_capacity().get(), 64);
}

#[test]
fn time_and_quantity() {
    let service = web(MIXED, "", TWO);
    let seconds = |seconds| Duration::from_secs(seconds);
    assert_eq!(service.timeouts().idle().get(), seconds(7200));
    assert_eq!(service.timeouts().udp().get(), seconds(180));
    assert_eq!(service.timeouts().unreplied().get(), seconds(30));
    assert_eq!(service.limits(), Default::default());
    assert_eq!(service.session(), None);
    let service = web(
        MIXED,
        "idle_timeout = \"1h\"\nudp_timeout = \"1m\"\nunreplied_timeout = \"1s\"\n\
         limits = { max_flows = 1, new_flows_per_second = 50_000 }",
        TWO,
    );
    assert_eq!(service.idle_timeout().get(), seconds(3600));
    assert_eq!(service.timeouts().udp().get(), seconds(60));
    assert_eq!(service.timeouts().unreplied().get(), seconds(1));
    assert_eq!(service.limits().max_flows().unwrap().get(), 1);
    assert_eq!(service.limits().new_flows_per_second().unwrap().get(), 50_000);
}

#[test]
fn sessions() {
    let session = web(MIXED, r#"conversation = "client""#, TWO).session().unwrap();
    assert_eq!((session.timeout(), session.on_drain()), (SessionTimeout::DEFAULT, OnDrain::Hold));
    let given = "conversation = \"client\"\nsession_timeout = \"12d\"\ndrain.sessions = \"move\"";
    let service = web(MIXED, given, TWO);
    assert_eq!(service.conversation(), Conversation::Client);
    let session = service.session().unwrap();
    assert_eq!(session.timeout().get(), Duration::from_secs(12 * 86_400));
    assert_eq!(session.on_drain(), OnDrain::Move);
    assert_eq!(service.drain().samples(), 3);
}

#[test]
fn snat() {
    let given = "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\", \"fd00::5\", \"10.0.0.6\"] }";
    let service = web(MIXED, given, TWO);
    let snat = service.snat().unwrap();
    let of = |family| snat.addresses(family).map(|a| a.to_string()).collect::<Vec<_>>();
    assert_eq!(of(Family::V4), ["10.0.0.5", "10.0.0.6"]);
    assert_eq!(of(Family::V6), ["fd00::5"]);
    assert_eq!(
        (snat.ports(), snat.ports().to_string().as_str()),
        (PortRange::DEFAULT, "61000-65535")
    );
    let given = "mode = \"snat\"\nsnat = { addresses = [\"192.0.2.10\", \"fd00::5\"], ports = \"1024-1024\" }";
    let service = web(MIXED, given, TWO);
    let ports = service.snat().unwrap().ports();
    assert_eq!((ports.first(), ports.last(), ports.contains(1025)), (1024, 1024, false));
}

#[test]
fn tunnels() {
    let service = web(MIXED, r#"mode = "gue""#, r#"["[fd00::11]:80"]"#);
    assert_eq!(service.tunnel().unwrap().port(), Some(6080));
    assert_eq!(service.tunnel().unwrap().source(Family::V4), None);
    let given = "mode = \"ipip\"\ntunnel.sources = [\"fd00:f::/64\", \"10.254.0.0/16\"]";
    let service = web(MIXED, given, TWO);
    let tunnel = service.tunnel().unwrap();
    assert_eq!(tunnel.source(Family::V4).unwrap().to_string(), "10.254.0.0/16");
    assert_eq!(tunnel.source(Family::V6).unwrap().net().prefix_len(), 64);
    assert_eq!(tunnel.port(), None);
    assert!(service.snat().is_none() && service.quic().is_none());
    let service = web(MIXED, "mode = \"gue\"\ntunnel.port = 1", TWO);
    assert_eq!(service.tunnel().unwrap().port(), Some(1));
    for mode in ["nat", "dsr", "local"] {
        let service = web(MIXED, &format!("mode = \"{mode}\""), TWO);
        assert_eq!((service.mode().as_str(), service.tunnel()), (mode, None));
    }
}

#[test]
fn quic() {
    let udp = r#"["192.0.2.10:443/udp"]"#;
    let instance = |id| format!("[{{ addr = \"10.0.0.11:443\", server_id = \"{id}\" }}]");
    let service = web(udp, r#"conversation = "quic""#, &instance("0A0b0c0d"));
    let quic = service.quic().unwrap();
    assert_eq!((quic.server_id_length(), quic.config_id()), (4, 0));
    let (_, with_id) = service.instance("10.0.0.11:443").unwrap();
    let id = with_id.server_id().unwrap();
    assert_eq!((id.as_bytes(), id.to_string().as_str()), (&[10, 11, 12, 13][..], "0a0b0c0d"));
    let given = "conversation = \"quic\"\nquic = { server_id_length = 8, config_id = 6 }";
    let service = web(udp, given, &instance("0001020304050607"));
    assert_eq!(service.quic().unwrap().config_id(), 6);
}

#[test]
fn tests_for_versions() {
    let given = "test_sources = { v2 = [\"198.51.100.0/24\", \"2001:db8:1::/48\"], v1 = [\"198.51.100.7/32\"] }\n\
                 test_frontends = { v1 = [\"192.0.2.10:8081/tcp\"], v2 = [] }";
    let service = web(MIXED, given, TWO);
    let sources: Vec<_> =
        service.test_sources().map(|(name, net)| format!("{name} {net}")).collect();
    assert_eq!(sources, ["v1 198.51.100.7/32", "v2 198.51.100.0/24", "v2 2001:db8:1::/48"]);
    let frontends: Vec<_> =
        service.test_frontends().map(|(name, at)| format!("{name} {at}")).collect();
    assert_eq!(frontends, ["v1 192.0.2.10:8081/tcp"]);
    assert_eq!((service.frontends().len(), service.all_frontends().count()), (2, 3));
    let tested = |name| service.is_tested(service.version(name).unwrap().name());
    assert!(tested("v1") && tested("v2"));
    let service = web(MIXED, "test_sources = { v2 = [] }", TWO);
    assert!(!service.is_tested(service.version("v2").unwrap().name()));
}

/// An instance by two protocols is one; where ports stay, several services can have it.
#[test]
fn modes_in_short() {
    use Mode::*;
    let all = [Nat, Snat, Dsr, Ipip, Gue, Local];
    let of =
        |property: fn(Mode) -> bool| all.into_iter().filter(|m| property(*m)).collect::<Vec<_>>();
    assert_eq!(of(Mode::rewrites), [Nat, Snat, Local]);
    assert_eq!(of(Mode::is_tunnel), [Ipip, Gue]);
    assert_eq!(of(Mode::owns_instances), [Nat, Local]);
}

#[test]
fn hardly_meant() {
    let found = |frontends: &str, options: &str, instances: &str, interfaces: &str| {
        let text = service(frontends, options, instances).replace("[\"eth0\"]", interfaces);
        warnings(&load(&text))
    };
    let (tcp, one) = (r#"["192.0.2.10:80/tcp"]"#, r#"["10.0.0.11:80"]"#);
    assert_eq!(
        found(tcp, "", one, r#"["eth0", "lo"]"#),
        [
            "f.toml:2: daemon.interfaces: `lo` carries this host's traffic with itself only (only mode `local` has a use for it)"
        ]
    );
    let (local, loopback) = (r#"mode = "local""#, r#"["127.0.0.1:80"]"#);
    assert_eq!(found(tcp, local, loopback, r#"["lo"]"#), NO_TEXT);
    assert_eq!(
        found(tcp, local, loopback, r#"["lo", "eth0"]"#),
        [
            "f.toml:11: service[web].version[v1].instances[0]: 127.0.0.1:80: loopback address (the host's stack takes packets to it from `lo` only, not from `eth0`)"
        ]
    );
    assert_eq!(found(tcp, local, one, r#"["lo", "eth0"]"#), NO_TEXT);
    assert_eq!(
        found(tcp, "limits = { max_flows = 1048577 }", one, r#"["eth0"]"#),
        [
            "f.toml:7: service[web].limits.max_flows: more than daemon.flow_capacity, 1048576 (the table is full before the limit is reached)"
        ]
    );
    assert_eq!(
        found(tcp, "mode = \"ipip\"\ntunnel.sources = [\"fd00::/64\"]", one, r#"["eth0"]"#),
        [
            "f.toml:8: service[web].tunnel.sources[0]: fd00::/64: no instance is IPv6 (the outer packet has the instance's family; it has no effect)"
        ]
    );
    let tests = "test_sources = { v1 = [\"2001:db8::/32\"], v2 = [\"198.51.100.0/24\"] }\n\
                 test_frontends = { v2 = [\"192.0.2.10:81/tcp\"] }";
    assert_eq!(
        found(tcp, tests, one, r#"["eth0"]"#),
        [
            "f.toml:7: service[web].test_sources.v1[0]: 2001:db8::/32: no frontend is IPv6 (it has no effect)",
            "f.toml:7: service[web].test_sources.v2[0]: version `v2` has no instance for IPv4 clients (their new flows get when_empty: reject)",
            "f.toml:8: service[web].test_frontends.v2[0]: version `v2` has no instance for IPv4 clients (their new flows get when_empty: reject)",
        ]
    );
    let v4_only = "[\"10.0.0.11:80\", \"[fd00::11]:80\"]\n[[service.version]]\nname = \"v3\"\nweight = 7\ninstances = [\"10.0.0.13:80\"]";
    assert_eq!(
        found(MIXED, "", v4_only, r#"["eth0"]"#),
        [
            "f.toml:12: service[web].version[v3].weight: weight 7 but no IPv6 instances (its share of new IPv6 flows gets when_empty: reject)"
        ]
    );
}

#[test]
fn serialized_as_they_are_written() {
    let given = "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\", \"fd00::5\"] }\n\
                 limits = { max_flows = 7 }\ntest_sources = { v2 = [\"2001:db8::/32\"] }";
    let json = serde_json::to_value(web(MIXED, given, TWO)).unwrap();
    assert_eq!(json["frontends"][1], "[2001:db8::10]:80/udp");
    assert_eq!(json["udp_timeout"], "3m");
    assert_eq!(json["snat"]["ports"], "61000-65535");
    assert_eq!(json["snat"]["addresses"][1], "fd00::5");
    assert_eq!(json["limits"], serde_json::json!({ "max_flows": 7 }));
    assert_eq!(json["test_sources"]["v2"][0], "2001:db8::/32");
    assert!(json.get("tunnel").is_none() && json.get("session").is_none());
}
