//! Keys that do not fit each other, with the message that says so.

use super::broken_health::HEALTH;
use super::broken_reach::REACH;
use super::{Config, service};

/// What it shows; the service's frontends, its line 7 and its instances; how each message begins
/// that must follow.
pub(super) type Case = (&'static str, [&'static str; 3], &'static [&'static str]);

pub(super) const T: &str = r#"["192.0.2.10:80/tcp"]"#;
pub(super) const U: &str = r#"["192.0.2.10:80/udp"]"#;
pub(super) const BOTH: &str = r#"["192.0.2.10:80/tcp", "[2001:db8::10]:80/tcp"]"#;
pub(super) const I: &str = r#"["10.0.0.11:80"]"#;
pub(super) const II: &str = r#"["10.0.0.11:80", "[fd00::11]:80"]"#;

const SOCKETS: &[Case] = &[
    (
        "an unknown place",
        [T, r#"sockets = "hots""#, I],
        &["f.toml:7: service[web].sockets: unknown value \"hots\" (`host`, `none`, { netns ="],
    ),
    (
        "no certificates",
        [T, r#"sockets = { agent = "10.0.0.11:7443" }"#, I],
        &[
            "f.toml:7: service[web].sockets: [daemon] has no `agent`, the certificates for asking one (agent = {",
        ],
    ),
    (
        "two places",
        [T, r#"sockets = { netns = "a", pid_file = "/run/a.pid" }"#, I],
        &["f.toml:7: service[web].sockets: a second place, service[web].sockets.pid_file (sockets"],
    ),
    (
        "no place",
        [T, "sockets = {}", I],
        &["f.toml:7: service[web].sockets: empty (`netns`, `pid_file` or `agent`)"],
    ),
    (
        "paths and names",
        [
            T,
            r#"sockets = { netns = ".." }"#,
            r#"[{ addr = "10.0.0.11:80", sockets = { pid_file = "web.pid" } }, { addr = "10.0.0.12:80", sockets = { netns = "a/b" } }, { addr = "10.0.0.13:80", sockets = { agent = "web1:7443" } }, { addr = "10.0.0.14:80", sockets = { nets = "a" } }]"#,
        ],
        &[
            "f.toml:7: service[web].sockets.netns: \"..\" is not a name (one of `ip netns list`)",
            "f.toml:11: service[web].version[v1].instances[0].sockets.pid_file: \"web.pid\" is not an absolute path",
            "f.toml:11: service[web].version[v1].instances[1].sockets.netns: \"a/b\" is not a name",
            "f.toml:11: service[web].version[v1].instances[2].sockets.agent: \"web1:7443\" is not an address",
            "f.toml:11: service[web].version[v1].instances[3].sockets.nets: unknown key (did you mean `netns`?)",
        ],
    ),
];

const TIME_AND_QUANTITY: &[Case] = &[
    (
        "timeouts out of range",
        [U, r#"udp_timeout = "0s""#, I],
        &["f.toml:7: service[web].udp_timeout: 0s is out of range (1s to 12days)"],
    ),
    (
        "unreplied out of range",
        [U, r#"unreplied_timeout = "61m""#, I],
        &["f.toml:7: service[web].unreplied_timeout: 1h 1m is out of range (1s to 1h)"],
    ),
    (
        "session out of range",
        [T, r#"session_timeout = "13d""#, I],
        &["f.toml:7: service[web].session_timeout: 13days is out of range (1s to 12days)"],
    ),
    (
        "probes out of range",
        [T, r#"probes = { after = "0s", tries = 0, enabled = "yes" }"#, I],
        &[
            "f.toml:7: service[web].probes.enabled: expected true or false, found a string",
            "f.toml:7: service[web].probes.after: 0s is out of range (1ms to 1h)",
            "f.toml:7: service[web].probes.tries: 0 is out of range (1 to 100)",
        ],
    ),
    (
        "probes of UDP",
        [U, "probes = { tries = 2 }", I],
        &["f.toml:7: service[web].probes: no frontend is TCP (UDP flows end by udp_timeout)"],
    ),
    (
        "what becomes of connections without data",
        [T, r#"keepalive_only = { after = "8days", action = "kill" }"#, I],
        &[
            "f.toml:7: service[web].keepalive_only.after: 8days is out of range (1s to 7days)",
            "f.toml:7: service[web].keepalive_only.action: unknown value \"kill\"",
        ],
    ),
    (
        "TCP timeout of UDP",
        [U, r#"idle_timeout = "1h""#, I],
        &["f.toml:7: service[web].idle_timeout: no frontend is TCP (UDP flows have udp_timeout)"],
    ),
    (
        "UDP timeout of TCP",
        [T, r#"udp_timeout = "1m""#, I],
        &[
            "f.toml:7: service[web].udp_timeout: no frontend is UDP (TCP connections have idle_timeout)",
        ],
    ),
    (
        "unreplied timeout of TCP",
        [T, r#"unreplied_timeout = "1m""#, I],
        &["f.toml:7: service[web].unreplied_timeout: no frontend is UDP"],
    ),
    (
        "sessions of flows",
        [T, "session_timeout = \"1m\"\ndrain.sessions = \"move\"", I],
        &[
            "f.toml:7: service[web].session_timeout: conversation `flow` has no sessions (only `client`)",
            "f.toml:8: service[web].drain.sessions: conversation `flow` has no sessions (only `client`)",
        ],
    ),
    (
        "word for sessions",
        [T, "conversation = \"client\"\ndrain.sessions = \"moev\"", I],
        &["f.toml:8: service[web].drain.sessions: unknown value \"moev\" (did you mean `move`?)"],
    ),
    (
        "limits",
        [T, "limits = { max_flows = 0, new_flows_per_second = -1, max_flow = 1 }", I],
        &[
            "f.toml:7: service[web].limits.max_flows: 0 is out of range (1 to 4294967295)",
            "f.toml:7: service[web].limits.new_flows_per_second: -1 is out of range (1 to 4294967295)",
            "f.toml:7: service[web].limits.max_flow: unknown key (did you mean `max_flows`?)",
        ],
    ),
    (
        "datagrams have no flows",
        [
            U,
            "conversation = \"datagram\"\nudp_timeout = \"1m\"\nunreplied_timeout = \"1m\"\nidle_timeout = \"1m\"\nlimits = { new_flows_per_second = 1 }",
            I,
        ],
        &[
            "f.toml:8: service[web].udp_timeout: conversation `datagram` has no flows",
            "f.toml:9: service[web].unreplied_timeout: conversation `datagram` has no flows",
            "f.toml:10: service[web].idle_timeout: conversation `datagram` has no flows",
            "f.toml:11: service[web].limits: conversation `datagram` has no flows (each datagram is placed by itself",
        ],
    ),
    (
        "datagrams over TCP",
        [T, r#"conversation = "datagram""#, I],
        &[
            "f.toml:6: service[web].frontends[0]: conversation `datagram` is a matter of UDP (give TCP",
        ],
    ),
    (
        "datagrams without state",
        [U, "conversation = \"datagram\"\nmode = \"snat\"\nsnat.addresses = [\"10.0.0.5\"]", I],
        &["f.toml:7: service[web].conversation: not with mode `snat` (a reply finds its client"],
    ),
    (
        "datagrams to two frontends",
        [
            r#"["192.0.2.10:80/udp", "[2001:db8::10]:80/udp", "192.0.2.10:81/udp"]"#,
            r#"conversation = "datagram""#,
            II,
        ],
        &[
            "f.toml:6: service[web].frontends[2]: a second IPv4 frontend (conversation `datagram` keeps no state",
        ],
    ),
];

const FORWARDING: &[Case] = &[
    (
        "no snat",
        [T, r#"mode = "snat""#, I],
        &["f.toml:4: service[web].snat: missing (snat = { addresses = [\"10.0.0.5\"] }"],
    ),
    (
        "snat of another mode",
        [T, r#"snat.addresses = ["10.0.0.5"]"#, I],
        &["f.toml:7: service[web].snat: mode `nat` keeps the client's address (only `snat`)"],
    ),
    (
        "snat addresses",
        [
            T,
            r#"mode = "snat"
snat.addresses = ["10.0.0.5:1", "127.0.0.1", "fe80::1", "10.0.0.5", 5, "::ffff:10.0.0.5", "fe80::1%1"]"#,
            I,
        ],
        &[
            "f.toml:8: service[web].snat.addresses[0]: \"10.0.0.5:1\" is not an address (IPv4 or IPv6 address without a port",
            "f.toml:8: service[web].snat.addresses[1]: 127.0.0.1: loopback address (a reply to it",
            "f.toml:8: service[web].snat.addresses[2]: fe80::1: link-local address",
            "f.toml:8: service[web].snat.addresses[4]: expected a string",
            "f.toml:8: service[web].snat.addresses[5]: ::ffff:10.0.0.5: IPv4-mapped address",
            "f.toml:8: service[web].snat.addresses[6]: \"fe80::1%1\": zone ids",
        ],
    ),
    (
        "snat without addresses",
        [T, "mode = \"snat\"\nsnat = { ports = \"1-2\", port = 1 }", I],
        &[
            "f.toml:8: service[web].snat.addresses: missing (addresses = [\"10.0.0.5\"])",
            "f.toml:8: service[web].snat.ports: 1 is out of range (1024 to 65535)",
            "f.toml:8: service[web].snat.port: unknown key (did you mean `ports`?)",
        ],
    ),
    (
        "no snat address at all",
        [T, "mode = \"snat\"\nsnat.addresses = []", I],
        &["f.toml:8: service[web].snat.addresses: empty (1 to 16)"],
    ),
    (
        "snat ports",
        [T, "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\"], ports = \"5000-4000\" }", I],
        &["f.toml:8: service[web].snat.ports: \"5000-4000\" ends before it begins"],
    ),
    (
        "snat ports above",
        [T, "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\"], ports = \"60000-65536\" }", I],
        &["f.toml:8: service[web].snat.ports: 65536 is out of range (1024 to 65535)"],
    ),
    (
        "one snat port",
        [T, "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\"], ports = \"60000\" }", I],
        &["f.toml:8: service[web].snat.ports: \"60000\" is not a range of ports (first and last"],
    ),
    (
        "snat families",
        [BOTH, "mode = \"snat\"\nsnat.addresses = [\"10.0.0.5\", \"10.0.0.5\"]", II],
        &[
            "f.toml:8: service[web].snat.addresses[1]: address 10.0.0.5 is there already: service[web].snat.addresses[0] at f.toml:8",
            "f.toml:8: service[web].snat.addresses: no IPv6 address, which [2001:db8::10]:80/tcp needs",
        ],
    ),
    (
        "snat of no family",
        [T, "mode = \"snat\"\nsnat.addresses = [\"10.0.0.5\", \"fd00::5\"]", I],
        &[
            "f.toml:8: service[web].snat.addresses[1]: fd00::5: no frontend is IPv6 (it would never be used)",
        ],
    ),
    (
        "nine snat addresses",
        [
            T,
            r#"mode = "snat"
snat.addresses = ["10.9.0.1","10.9.0.2","10.9.0.3","10.9.0.4","10.9.0.5","10.9.0.6","10.9.0.7","10.9.0.8","10.9.0.9"]"#,
            I,
        ],
        &["f.toml:8: service[web].snat.addresses[8]: 9 IPv4 addresses (at most 8 a family)"],
    ),
    (
        "snat ports that are taken",
        [
            r#"["192.0.2.10:61000/tcp"]"#,
            "mode = \"snat\"\nsnat.addresses = [\"192.0.2.10\", \"10.0.0.11\"]",
            r#"["10.0.0.11:65535"]"#,
        ],
        &[
            "f.toml:8: service[web].snat.addresses[0]: 192.0.2.10:61000 is a frontend: service[web].frontends[0] at f.toml:6 (its port must not be one of snat's, 61000-65535)",
            "f.toml:8: service[web].snat.addresses[1]: 10.0.0.11:65535 is an instance: service[web].version[v1].instances[0] at f.toml:12",
        ],
    ),
    (
        "tunnel of another mode",
        [T, r#"tunnel = { sources = [] }"#, I],
        &["f.toml:7: service[web].tunnel: mode `nat` has no tunnel (only `ipip` and `gue`)"],
    ),
    (
        "port of ipip",
        [T, "mode = \"ipip\"\ntunnel = { port = 1 }", I],
        &["f.toml:8: service[web].tunnel.port: mode `ipip` has no outer port (only `gue`)"],
    ),
    (
        "tunnel",
        [
            T,
            r#"mode = "gue"
tunnel = { sources = ["10.254.0.1/16", "10.254.0.0", "0.0.0.0/1", "224.0.0.0/8", "fe80::/16", "::/16", "127.0.0.0/8", "x", "::ffff:0:0/96"], port = 65536 }"#,
            I,
        ],
        &[
            "f.toml:8: service[web].tunnel.sources[0]: \"10.254.0.1/16\" has bits behind its length (the prefix is \"10.254.0.0/16\")",
            "f.toml:8: service[web].tunnel.sources[1]: \"10.254.0.0\" is not a prefix (for this address alone: \"10.254.0.0/32\")",
            "f.toml:8: service[web].tunnel.sources[2]: 0.0.0.0/1 is too wide (/8 or longer)",
            "f.toml:8: service[web].tunnel.sources[3]: 224.0.0.0/8: multicast address",
            "f.toml:8: service[web].tunnel.sources[4]: fe80::/16: link-local address",
            "f.toml:8: service[web].tunnel.sources[5]: ::/16: unspecified address",
            "f.toml:8: service[web].tunnel.sources[6]: 127.0.0.0/8: loopback addresses",
            "f.toml:8: service[web].tunnel.sources[7]: \"x\" is not a prefix (such as",
            "f.toml:8: service[web].tunnel.sources[8]: ::ffff:0.0.0.0/96: IPv4-mapped addresses",
            "f.toml:8: service[web].tunnel.port: 65536 is out of range (1 to 65535)",
        ],
    ),
    (
        "two tunnel sources",
        [T, "mode = \"ipip\"\ntunnel.sources = [\"10.1.0.0/16\", \"10.2.0.0/16\"]", I],
        &[
            "f.toml:8: service[web].tunnel.sources[1]: a prefix of IPv4 sources is there already: service[web].tunnel.sources[0] at f.toml:8 (one a family)",
        ],
    ),
    (
        "quic of another conversation",
        [U, "quic = {}", r#"[{ addr = "10.0.0.11:80", server_id = "0a" }]"#],
        &[
            "f.toml:7: service[web].quic: conversation `flow` does not read connection ids (only `quic`)",
            "f.toml:11: service[web].version[v1].instances[0].server_id: conversation `flow` does not read",
        ],
    ),
    (
        "quic over TCP",
        [T, r#"conversation = "quic""#, r#"[{ addr = "10.0.0.11:80", server_id = "01020304" }]"#],
        &["f.toml:6: service[web].frontends[0]: conversation `quic` is a matter of UDP"],
    ),
    (
        "quic",
        [U, "conversation = \"quic\"\nquic = { server_id_length = 9, config_id = 7 }", I],
        &[
            "f.toml:8: service[web].quic.server_id_length: 9 is out of range (1 to 8)",
            "f.toml:8: service[web].quic.config_id: 7 is reserved (it marks connection ids that name no instance",
        ],
    ),
    (
        "quic config_id",
        [U, "conversation = \"quic\"\nquic = { config_id = 8 }", I],
        &["f.toml:8: service[web].quic.config_id: 8 is out of range (0 to 6)"],
    ),
    (
        "server ids",
        [
            U,
            r#"conversation = "quic""#,
            r#"["10.0.0.1:80", { addr = "10.0.0.2:80", server_id = "0a0b" }, { addr = "10.0.0.3:80", server_id = "0A0b0c0d" }, { addr = "10.0.0.4:80", server_id = "0a0b0c0d" }]"#,
        ],
        &[
            "f.toml:11: service[web].version[v1].instances[0].server_id: missing (4 bytes as hexadecimal digits, which",
            "f.toml:11: service[web].version[v1].instances[1].server_id: 2 bytes (server_id_length is 4)",
            "f.toml:11: service[web].version[v1].instances[3].server_id: server id 0a0b0c0d is there already: service[web].version[v1].instances[2].server_id at f.toml:11",
        ],
    ),
    (
        "no hexadecimal",
        [
            U,
            r#"conversation = "quic""#,
            r#"[{ addr = "10.0.0.2:80", server_id = "0a0" }, { addr = "10.0.0.3:80", server_id = "xx" }, { addr = "10.0.0.4:80", server_id = "" }, { addr = "10.0.0.5:80", server_id = "000000000000000000" }]"#,
        ],
        &[
            "f.toml:11: service[web].version[v1].instances[0].server_id: \"0a0\" is not a server id (1 to 8 bytes",
            "f.toml:11: service[web].version[v1].instances[1].server_id: \"xx\" is not a server id",
            "f.toml:11: service[web].version[v1].instances[2].server_id: \"\" is not a server id",
            "f.toml:11: service[web].version[v1].instances[3].server_id: \"000000000000000000\" is not",
        ],
    ),
];

#[test]
fn messages() {
    for (what, [frontends, options, instances], expected) in
        TIME_AND_QUANTITY.iter().chain(SOCKETS).chain(FORWARDING).chain(REACH).chain(HEALTH)
    {
        let text = service(frontends, options, instances);
        let found: Vec<String> = match Config::from_str(&text, "f.toml") {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        };
        let fits = found.len() == expected.len()
            && expected.iter().all(|start| found.iter().any(|message| message.starts_with(start)));
        assert!(fits, "{what}: expected {expected:#?}, found {found:#?}");
    }
}
