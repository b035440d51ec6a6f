//! Who may register, and what that changes.

use super::super::{Config, Endpoint, Registrants};
use super::{SMALL, load, service};

const T: &str = r#"["192.0.2.10:80/tcp"]"#;

fn web(options: &str) -> super::super::Service {
    load(&service(T, options, r#"["10.0.0.11:80"]"#)).service("web").unwrap().clone()
}

fn why(text: &str) -> Vec<String> {
    let errors = Config::from_str(text, "f.toml").expect_err("refused");
    errors.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn nobody_unless_it_is_said() {
    let admitted = |options: &str| {
        let registration = web(options).registration().clone();
        ["v1", "v2", "v3"].map(|version| registration.admit(version))
    };
    assert_eq!(admitted(""), [false; 3]);
    assert_eq!(admitted("registration = \"open\""), [true; 3]);
    assert_eq!(admitted("registration = [\"v2\"]"), [false, true, false]);
    assert_eq!(web("").registration(), &Registrants::Nobody);
}

#[test]
fn what_is_refused() {
    let refused = |options: &str| why(&service(T, options, r#"["10.0.0.11:80"]"#));
    for (options, expected) in [
        (
            "registration = \"opne\"",
            "f.toml:7: service[web].registration: unknown value \"opne\" (`\"open\"`, or an array of versions)",
        ),
        ("registration = []", "f.toml:7: service[web].registration: empty (1 to 16)"),
        (
            "registration = 5",
            "f.toml:7: service[web].registration: expected an array, found an integer",
        ),
        (
            "registration = [\"v3\"]",
            "f.toml:7: service[web].registration[0]: there is no version `v3` (did you mean `v1`?)",
        ),
        (
            "registration = [\"v2\", \"v2\"]",
            "f.toml:7: service[web].registration[1]: `v2` is there already: \
             service[web].registration[0] at f.toml:7",
        ),
    ] {
        assert_eq!(refused(options), [expected], "{options}");
    }
    let quic = r#"[{ addr = "10.0.0.11:80", server_id = "0a0b0c0d" }]"#;
    let options = "conversation = \"quic\"\nregistration = \"open\"";
    let said = why(&service(r#"["192.0.2.10:80/udp"]"#, options, quic));
    let expected = "f.toml:8: service[web].registration: not with conversation `quic` (an instance \
                    that registers has no server id)";
    assert_eq!(said, [expected]);
}

/// Weight may wait for those who will register, without a warning; but some there must be.
#[test]
fn a_version_may_begin_without_instances() {
    let empty = SMALL.replace("instances = [\"10.0.0.11:8080\"]", "");
    let with = |registration: &str| {
        empty.replace("name = \"web\"\n", &format!("name = \"web\"\n{registration}\n"))
    };
    assert!(why(&empty)[0].contains("all weight is on versions without instances"));
    assert!(why(&with("registration = [\"v2\"]"))[0].contains("all weight is on versions"));
    for registration in ["registration = \"open\"", "registration = [\"v1\"]"] {
        assert_eq!(load(&with(registration)).warnings(), []);
        let both = "[\"192.0.2.10:80/tcp\", \"[2001:db8::10]:80/tcp\"]";
        let text = with(registration).replace("[\"192.0.2.10:80/tcp\"]", both);
        assert_eq!(load(&text).warnings(), []);
    }
    let zero = with("registration = \"open\"").replace("weight = 1", "weight = 0");
    assert!(why(&zero)[0].contains("all initial weights are 0"));
}

/// An address is judged as one of the configuration is.
#[test]
fn addresses_are_judged_alike() {
    let at = |addr: &str| Endpoint::parse(addr).unwrap();
    let config = load(&service(
        r#"["192.0.2.10:80/tcp", "192.0.2.11:80/tcp"]"#,
        "mode = \"snat\"\nsnat = { addresses = [\"10.0.0.5\"] }",
        r#"["10.0.0.11:80"]"#,
    ));
    let said = |config: &Config, addr: &str| {
        let judged = config.admits(config.service("web").unwrap(), at(addr));
        judged.map_or_else(|invalid| invalid.to_string(), |()| "admitted".to_owned())
    };
    for (addr, expected) in [
        ("10.0.0.12:8080", "admitted"),
        ("127.0.0.1:80", "127.0.0.1:80: loopback address"),
        ("[fd00::1]:80", "[fd00::1]:80: no frontend is IPv6"),
        ("192.0.2.11:80", "192.0.2.11:80: is a frontend of web: 192.0.2.11:80/tcp"),
        ("10.0.0.5:61000", "10.0.0.5:61000: is a source of snat of web"),
        ("10.0.0.5:80", "admitted"),
    ] {
        assert!(said(&config, addr).starts_with(expected), "{addr}: {}", said(&config, addr));
    }
    let direct = load(&service(T, "mode = \"dsr\"", r#"["10.0.0.11:80"]"#));
    assert!(said(&direct, "10.0.0.12:81").starts_with("10.0.0.12:81: another port than frontend"));
    let tunnel = load(&service(T, "mode = \"gue\"", r#"["10.0.0.11:80"]"#));
    assert_eq!(said(&tunnel, "[fd00::1]:80"), "admitted");
}

#[test]
fn sockets_are_those_of_the_version_or_else_the_service() {
    let text = service(T, "sockets = \"host\"\nregistration = \"open\"", "[]\nsockets = \"none\"");
    let config = load(&text);
    let sockets =
        |version| serde_json::to_string(&config.service("web").unwrap().sockets_of(version));
    assert_eq!(sockets("v1").unwrap(), "\"none\"");
    assert_eq!(sockets("v2").unwrap(), "\"host\"");
    assert_eq!(sockets("v9").unwrap(), "\"host\"");
}
