//! Frontends that lead nowhere and addresses that two claim: cases for `broken_options`.

use super::broken_options::{BOTH, Case, I, II, T};
use super::{Config, service};

pub(super) const REACH: &[Case] = &[
    (
        "nine frontends of a family",
        [
            r#"["[2001:db8::1]:1/tcp", "192.0.2.10:1/tcp", "192.0.2.10:2/tcp", "192.0.2.10:3/tcp", "192.0.2.10:4/tcp", "192.0.2.10:5/tcp", "192.0.2.10:6/tcp", "192.0.2.10:7/tcp", "192.0.2.10:8/tcp"]"#,
            r#"test_frontends.v1 = ["192.0.2.10:9/tcp"]"#,
            II,
        ],
        &[
            "f.toml:7: service[web].test_frontends.v1[0]: 9 IPv4 frontends (at most 8 a family, those for tests included)",
        ],
    ),
    (
        "instance of another family",
        [T, "", II],
        &[
            "f.toml:11: service[web].version[v1].instances[1]: [fd00::11]:80: no frontend is IPv6 (mode `nat` keeps the address family; `ipip` and `gue` can change it)",
        ],
    ),
    (
        "frontend without an instance of its family",
        [BOTH, "mode = \"dsr\"", I],
        &[
            "f.toml:6: service[web].frontends[1]: [2001:db8::10]:80/tcp: no instance is IPv6 (mode `dsr` keeps",
        ],
    ),
    (
        "no weight for a family",
        [
            BOTH,
            "",
            "[\"10.0.0.11:80\"]\n[[service.version]]\nname = \"v3\"\ninstances = [\"[fd00::1]:80\"]",
        ],
        &[
            "f.toml:4: service[web].version: no version with weight has an IPv6 instance (no new flow to [2001:db8::10]:80/tcp could be served)",
        ],
    ),
    (
        "ports that would have to be rewritten",
        [
            r#"["192.0.2.10:80/tcp", "192.0.2.10:443/tcp"]"#,
            r#"mode = "ipip""#,
            r#"["10.0.0.11:80", "[fd00::11]:8080"]"#,
        ],
        &[
            "f.toml:6: service[web].frontends[1]: 192.0.2.10:443/tcp: another port than 192.0.2.10:80/tcp (mode `ipip` does not rewrite ports, so all frontends",
            "f.toml:11: service[web].version[v1].instances[1]: [fd00::11]:8080: another port than frontend 192.0.2.10:80/tcp (mode `ipip` does not rewrite ports)",
        ],
    ),
    (
        "loopback instance",
        [T, "mode = \"snat\"\nsnat.addresses = [\"10.0.0.5\"]", r#"["127.0.0.1:80"]"#],
        &[
            "f.toml:12: service[web].version[v1].instances[0]: 127.0.0.1:80: loopback address (only instances of mode `local` are on this host)",
        ],
    ),
    (
        "tests for nobody",
        [
            T,
            "test_sources = { v3 = [\"198.51.100.0/24\"] }\ntest_frontends = { w = [\"192.0.2.10:81/tcp\"] }",
            I,
        ],
        &[
            "f.toml:7: service[web].test_sources.v3: there is no version `v3` (did you mean `v1`?)",
            "f.toml:8: service[web].test_frontends.w: there is no version `w` (it has v1, v2)",
        ],
    ),
    (
        "test sources",
        [
            T,
            "test_sources = { v1 = [\"198.51.100.0/24\", \"198.51.100.7/24\"], v2 = [\"198.51.100.7\", 5] }",
            I,
        ],
        &[
            "f.toml:7: service[web].test_sources.v1[1]: \"198.51.100.7/24\" has bits behind its length (the prefix is \"198.51.100.0/24\")",
            "f.toml:7: service[web].test_sources.v2[0]: \"198.51.100.7\" is not a prefix (for this address alone: \"198.51.100.7/32\")",
            "f.toml:7: service[web].test_sources.v2[1]: expected a string",
        ],
    ),
    (
        "test source of two versions",
        [T, "test_sources = { v1 = [\"198.51.100.0/24\"], v2 = [\"198.51.100.0/24\"] }", I],
        &[
            "f.toml:7: service[web].test_sources.v2[0]: test source 198.51.100.0/24 is there already: service[web].test_sources.v1[0] at f.toml:7 (a client can be sent to one version)",
        ],
    ),
    (
        "test sources of no table",
        [T, "test_sources = [\"198.51.100.0/24\"]", I],
        &["f.toml:7: service[web].test_sources: expected a table, found an array"],
    ),
    (
        "test sources of no name",
        [T, "test_sources = { \"v 1\" = [] }", I],
        &["f.toml:7: service[web].test_sources: \"v 1\" is not a name"],
    ),
    (
        "test frontend that is one",
        [T, "test_frontends = { v1 = [\"192.0.2.10:80/tcp\", \"192.0.2.10:80/udp\"] }", I],
        &[
            "f.toml:7: service[web].test_frontends.v1[0]: frontend 192.0.2.10:80/tcp is there already: service[web].frontends[0] at f.toml:6",
        ],
    ),
];

/// A second service, after that of [`service`]; its instances begin at line 20.
const SECOND: &str = "[[service]]\nname = \"api\"\nfrontends = [\"192.0.2.11:80/tcp\"]\n\
                      mode = \"MODE\"\n[[service.version]]\nname = \"v1\"\nweight = 1\n\
                      instances = [\"10.0.0.11:80\"]\n";

/// Where the sender of a reply tells its service, an instance is in one only.
#[test]
fn instances_in_two_services() {
    let load = |first: &str, second: &str, protocol: &str| {
        let text = service(
            &format!("[\"192.0.2.10:80/{protocol}\"]"),
            &format!("mode = \"{first}\""),
            r#"["10.0.0.11:80"]"#,
        ) + &SECOND.replace("MODE", second);
        Config::from_str(&text, "f.toml").map(|_| ()).map_err(|errors| errors.to_string())
    };
    for (first, second) in [("nat", "nat"), ("nat", "dsr"), ("ipip", "local")] {
        let error = load(first, second, "tcp").unwrap_err();
        let start = "f.toml:21: service[api].version[v1].instances[0]: instance 10.0.0.11:80 is \
                     there already: service[web].version[v1].instances[0] at f.toml:11 (it can be \
                     on one version of one service: modes `nat` and `local`";
        assert!(error.starts_with(start), "{error}");
        load(first, second, "udp").unwrap();
    }
    for (first, second) in [("dsr", "dsr"), ("ipip", "gue"), ("gue", "dsr")] {
        load(first, second, "tcp").unwrap();
    }
}
