//! Every way to get a file wrong, with the message that says so.

use super::broken_service::SERVICE;
use super::{Config, SMALL};

/// What it shows; what is replaced in [`SMALL`] (nothing: appended), by what; how each message
/// begins that must follow.
pub(super) type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

const FILE_AND_DAEMON: &[Case] = &[
    // Syntax.
    ("no TOML", "[daemon]", "[daemon", &["f.toml:2: not TOML: "]),
    (
        "key twice",
        "name = \"web\"",
        "name = \"web\"\nname = \"web\"",
        &["f.toml:6: not TOML: duplicate key"],
    ),
    ("cut off", "\"v2\"\n", "\"v2", &["f.toml:12: not TOML: "]),
    ("open at the end", "", "x = [\n", &["f.toml:13: not TOML: "]),
    // Shape.
    ("no schema", "schema = 1\n", "\n", &["f.toml:1: schema: missing (schema = 1)"]),
    (
        "schema of tomorrow",
        "schema = 1",
        "schema = 2",
        &["f.toml:1: schema: schema 2 is not supported by this version (supported: 1)"],
    ),
    (
        "unknown section",
        "[daemon]",
        "[deamon]",
        &["f.toml:1: daemon: missing", "f.toml:2: deamon: unknown key (did you mean `daemon`?)"],
    ),
    (
        "services",
        "[[service]]",
        "[[services]]",
        &[
            "f.toml:4: services: unknown key (did you mean `service`?)",
            "f.toml:7: service: a single table (write [[service]])",
        ],
    ),
    (
        "one service",
        "[[service]]",
        "[service]",
        &["f.toml:4: service: a single table (write [[service]])"],
    ),
    (
        "daemon is no table",
        "[daemon]\ninterfaces = [\"eth0\"]",
        "daemon = 1",
        &["f.toml:2: daemon: expected a table, found an integer"],
    ),
    (
        "one version",
        "[[service.version]]\nname = \"v2\"",
        "[service.mirror]\nmax = 1",
        &["f.toml:11: service[web].mirror: unknown key (known: name, frontends"],
    ),
    // [daemon].
    (
        "alarms to nobody",
        "[\"eth0\"]",
        "[\"eth0\"]\nalarms = {}",
        &["f.toml:4: daemon.alarms: empty (`webhook`, `argv` or both)"],
    ),
    (
        "alarms by mistake",
        "[\"eth0\"]",
        "[\"eth0\"]\nalarms = { webhok = \"http://10.0.0.9/\", argv = [\"page\"], token_file = \"t\" }",
        &[
            "f.toml:4: daemon.alarms.webhok: unknown key (did you mean `webhook`?)",
            "f.toml:4: daemon.alarms.argv: \"page\" is not an absolute path (no shell looks for it)",
            "f.toml:4: daemon.alarms.token_file: \"t\" is not an absolute path",
        ],
    ),
    (
        "a webhook of another kind",
        "[\"eth0\"]",
        "[\"eth0\"]\nalarms = { webhook = \"https://10.0.0.9/\" }",
        &[
            "f.toml:4: daemon.alarms.webhook: \"https://10.0.0.9/\" is not an http:// address (TLS is",
        ],
    ),
    (
        "a token for nobody",
        "[\"eth0\"]",
        "[\"eth0\"]\nalarms = { argv = [\"/bin/page\"], token_file = \"/t\" }",
        &["f.toml:4: daemon.alarms: `token_file` without `webhook`"],
    ),
    (
        "mistyped key",
        "interfaces",
        "interface",
        &[
            "f.toml:2: daemon.interfaces: missing",
            "f.toml:3: daemon.interface: unknown key (did you mean `interfaces`?)",
        ],
    ),
    (
        "interface alone",
        "[\"eth0\"]",
        "\"eth0\"",
        &["f.toml:3: daemon.interfaces: expected an array, found a string"],
    ),
    (
        "no interface",
        "[\"eth0\"]",
        "[]",
        &["f.toml:3: daemon.interfaces: empty (name at least one interface)"],
    ),
    (
        "interface twice",
        "[\"eth0\"]",
        "[\"eth0\", \"eth0\"]",
        &["f.toml:3: daemon.interfaces: `eth0` stands twice"],
    ),
    (
        "interface name",
        "[\"eth0\"]",
        "[\"a/b\", \"\", \"sixteen_bytes.00\"]",
        &[
            "f.toml:3: daemon.interfaces[0]: \"a/b\" is not an interface name",
            "f.toml:3: daemon.interfaces[1]: \"\" is not",
            "f.toml:3: daemon.interfaces[2]: \"sixteen_bytes.00\" is not",
        ],
    ),
    (
        "xdp_mode",
        "[\"eth0\"]",
        "[\"eth0\"]\nxdp_mode = \"nativ\"",
        &["f.toml:4: daemon.xdp_mode: unknown value \"nativ\" (did you mean `native`?)"],
    ),
    (
        "log",
        "[\"eth0\"]",
        "[\"eth0\"]\nlog = \"loud\"",
        &[
            "f.toml:4: daemon.log: unknown value \"loud\" (supported: `off`, `error`, `warn`, `info`, `debug`, `trace`)",
        ],
    ),
    (
        "capacities",
        "[\"eth0\"]",
        "[\"eth0\"]\nflow_capacity = 1023\nembryo_capacity = 4194305\nsession_capacity = 1\nsnat_capacity = 1048577\nfragment_capacity = 63",
        &[
            "f.toml:4: daemon.flow_capacity: 1023 is out of range (1024 to 16777216)",
            "f.toml:5: daemon.embryo_capacity: 4194305 is out of range (1024 to 4194304)",
            "f.toml:6: daemon.session_capacity: 1 is out of range (1024 to 4194304)",
            "f.toml:7: daemon.snat_capacity: 1048577 is out of range (1024 to 1048576)",
            "f.toml:8: daemon.fragment_capacity: 63 is out of range (64 to 262144)",
        ],
    ),
    (
        "capacity as text",
        "[\"eth0\"]",
        "[\"eth0\"]\nflow_capacity = \"1M\"",
        &["f.toml:4: daemon.flow_capacity: expected an integer, found a string"],
    ),
];

#[test]
fn messages() {
    for (what, from, to, expected) in FILE_AND_DAEMON.iter().chain(SERVICE) {
        assert!(SMALL.contains(from), "{what}: nothing to replace");
        let text =
            if from.is_empty() { format!("{SMALL}{to}") } else { SMALL.replacen(from, to, 1) };
        let found: Vec<String> = match Config::from_str(&text, "f.toml") {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        };
        let fits = found.len() == expected.len()
            && expected.iter().all(|start| found.iter().any(|message| message.starts_with(start)));
        assert!(fits, "{what}: expected {expected:#?}, found {found:#?}");
    }
}

#[test]
fn in_the_order_of_lines() {
    for (what, from, to, _) in FILE_AND_DAEMON.iter().chain(SERVICE) {
        let text =
            if from.is_empty() { format!("{SMALL}{to}") } else { SMALL.replacen(from, to, 1) };
        if let Err(errors) = Config::from_str(&text, "f.toml") {
            assert!(errors.iter().map(|error| error.line()).is_sorted(), "{what}: {errors}");
        }
    }
}

#[test]
fn too_many() {
    let services = |count: usize| -> String {
        let service = |n: usize| {
            let (high, low) = (n / 250, n % 250 + 1);
            format!(
                "[[service]]\nname = \"s{n}\"\nfrontends = [\"192.0.{high}.{low}:80/tcp\"]\n\
                 version = [{{ name = \"v1\", weight = 1, instances = [\"10.0.{high}.{low}:80\"] }}]\n"
            )
        };
        let head = "schema = 1\ndaemon.interfaces = [\"eth0\"]\n".to_owned();
        (0..count).map(service).fold(head, |text, service| text + &service)
    };
    assert_eq!(super::load(&services(4096)).services().len(), 4096);
    let errors = Config::from_str(&services(4097), "f.toml").unwrap_err();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "f.toml:16387: service[s4096]: 4097 services in all (at most 4096)",
            "f.toml:16390: service[s4096].version[v1].instances[0]: 4097 instances in all (at most 4096)",
        ]
    );

    let standby: String = (1..=3).map(|n| format!(", {{ name = \"w{n}\" }}")).collect();
    let text = services(4096).replace(" }]\n", &format!(" }}{standby}]\n"));
    super::load(&text);
    let text = text.replacen(", { name = \"w3\" }", ", { name = \"w3\" }, { name = \"w4\" }", 1);
    let errors = Config::from_str(&text, "f.toml").unwrap_err();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["f.toml:16386: service[s4095].version[w3]: 16385 versions in all (at most 16384)"]
    );

    let versions: String =
        (3..=17).map(|n| format!("[[service.version]]\nname = \"v{n}\"\n")).collect();
    let errors = Config::from_str(&format!("{SMALL}{versions}"), "f.toml").unwrap_err();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["f.toml:7: service[web].version: 17 of them (1 to 16)"]);
}
