//! Broken services, versions and instances, for the table test in `broken`.

use super::broken::Case;

pub(super) const SERVICE: &[Case] = &[
    // [[service]].
    ("no name", "name = \"web\"\n", "\n", &["f.toml:4: service[0].name: missing (name = \"web\")"]),
    (
        "name",
        "\"web\"",
        "\"we b\"",
        &[
            "f.toml:5: service[0].name: \"we b\" is not a name (1 to 63 letters, digits, `.`, `_` or `-`)",
        ],
    ),
    (
        "no frontends",
        "frontends = [\"192.0.2.10:80/tcp\"]\n",
        "\n",
        &["f.toml:4: service[web].frontends: missing"],
    ),
    (
        "empty frontends",
        "[\"192.0.2.10:80/tcp\"]",
        "[]",
        &["f.toml:6: service[web].frontends: empty (1 to 16)"],
    ),
    (
        "seventeen frontends",
        "[\"192.0.2.10:80/tcp\"]",
        "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
        &["f.toml:6: service[web].frontends: 17 of them (1 to 16)"],
    ),
    (
        "frontends",
        "[\"192.0.2.10:80/tcp\"]",
        "[\"192.0.2.10:80\", \"192.0.2.10:80/sctp\", \"192.0.2.10:80/TCP\", \"2001:db8::1:80/tcp\", \"web:80/tcp\", \"192.0.2.10:0/tcp\", 80, \"192.0.2.10:80/tpc\"]",
        &[
            "f.toml:6: service[web].frontends[0]: \"192.0.2.10:80\" names no protocol (such as",
            "f.toml:6: service[web].frontends[1]: unknown protocol \"sctp\" (did you mean `tcp`?)",
            "f.toml:6: service[web].frontends[2]: unknown protocol \"TCP\" (supported: `tcp`, `udp`)",
            "f.toml:6: service[web].frontends[3]: \"2001:db8::1:80\" is not an address (IPv6 needs brackets and a port: \"[2001:db8::1]:80\")",
            "f.toml:6: service[web].frontends[4]: \"web:80\" is not an address (address and port, such as",
            "f.toml:6: service[web].frontends[5]: 192.0.2.10:0: port 0",
            "f.toml:6: service[web].frontends[6]: expected a string, found an integer",
            "f.toml:6: service[web].frontends[7]: unknown protocol \"tpc\" (did you mean `tcp`?)",
        ],
    ),
    (
        "addresses",
        "[\"192.0.2.10:80/tcp\"]",
        "[\n\"0.0.0.0:1/tcp\",\n\"127.0.0.1:1/tcp\",\n\"224.0.0.1:1/tcp\",\n\"255.255.255.255:1/tcp\"]",
        &[
            "f.toml:7: service[web].frontends[0]: 0.0.0.0:1: unspecified address",
            "f.toml:8: service[web].frontends[1]: 127.0.0.1:1: loopback address",
            "f.toml:9: service[web].frontends[2]: 224.0.0.1:1: multicast address",
            "f.toml:10: service[web].frontends[3]: 255.255.255.255:1: broadcast address",
        ],
    ),
    (
        "IPv6 addresses",
        "[\"192.0.2.10:80/tcp\"]",
        "[\n\"[::]:1/tcp\",\n\"[::1]:1/tcp\",\n\"[ff02::1]:1/tcp\",\n\"[fe80::1]:1/udp\",\n\"[fe80::1%eth0]:1/tcp\",\n\"[::ffff:192.0.2.1]:1/tcp\",\n\"[2001:db8::1]:0/tcp\"]",
        &[
            "f.toml:7: service[web].frontends[0]: [::]:1: unspecified address",
            "f.toml:8: service[web].frontends[1]: [::1]:1: loopback address (only this host itself",
            "f.toml:9: service[web].frontends[2]: [ff02::1]:1: multicast address",
            "f.toml:10: service[web].frontends[3]: [fe80::1]:1: link-local address (it means something on one link only",
            "f.toml:11: service[web].frontends[4]: \"[fe80::1%eth0]:1\": zone ids are not supported",
            "f.toml:12: service[web].frontends[5]: [::ffff:192.0.2.1]:1: IPv4-mapped address (no packet carries it; write 192.0.2.1)",
            "f.toml:13: service[web].frontends[6]: [2001:db8::1]:0: port 0",
        ],
    ),
    (
        "keys of tomorrow",
        "name = \"web\"",
        "name = \"web\"\nmirror = \"v2\"",
        &["f.toml:6: service[web].mirror: unknown key"],
    ),
    (
        "choices",
        "name = \"web\"",
        "name = \"web\"\nmode = \"nta\"\nconversation = \"udp\"\nwhen_empty = \"rejct\"\nwhen_full = \"pass\"",
        &[
            "f.toml:6: service[web].mode: unknown value \"nta\" (did you mean `nat`?)",
            "f.toml:7: service[web].conversation: unknown value \"udp\" (supported: `flow`, `client`, `datagram`, `quic`)",
            "f.toml:8: service[web].when_empty: unknown value \"rejct\" (did you mean `reject`?)",
            "f.toml:9: service[web].when_full: unknown value \"pass\" (supported: `reject`, `drop`)",
        ],
    ),
    (
        "timeouts",
        "name = \"web\"",
        "name = \"web\"\nidle_timeout = \"999ms\"",
        &["f.toml:6: service[web].idle_timeout: 999ms is out of range (1s to 12days)"],
    ),
    (
        "number for a duration",
        "name = \"web\"",
        "name = \"web\"\nidle_timeout = 60",
        &["f.toml:6: service[web].idle_timeout: expected a duration in quotes, found an integer"],
    ),
    (
        "bad duration",
        "name = \"web\"",
        "name = \"web\"\nidle_timeout = \"2 weks\"",
        &["f.toml:6: service[web].idle_timeout: \"2 weks\" is not a duration (a number and a unit"],
    ),
    (
        "drain",
        "name = \"web\"",
        "name = \"web\"\ndrain = { settle = \"0s\", samples = 0, every = \"2h\", settel = 1 }",
        &[
            "f.toml:6: service[web].drain.settle: 0s is out of range (1ms to 1h)",
            "f.toml:6: service[web].drain.samples: 0 is out of range (1 to 1000)",
            "f.toml:6: service[web].drain.every: 2h is out of range (1ms to 1h)",
            "f.toml:6: service[web].drain.settel: unknown key (did you mean `settle`?)",
        ],
    ),
    (
        "ring_size",
        "name = \"web\"",
        "name = \"web\"\nring_size = 65536",
        &[
            "f.toml:6: service[web].ring_size: 65536 is not a prime from 251 to 1048573 (the nearest is 65537)",
        ],
    ),
    (
        "ring_size below",
        "name = \"web\"",
        "name = \"web\"\nring_size = -1",
        &[
            "f.toml:6: service[web].ring_size: -1 is not a prime from 251 to 1048573 (the nearest is 251)",
        ],
    ),
    (
        "service twice",
        "",
        "[[service]]\nname = \"web\"\nfrontends = [\"192.0.2.11:80/tcp\"]\nversion = [{ name = \"v1\", weight = 1, instances = [\"10.0.1.1:80\"] }]",
        &[
            "f.toml:14: service[web].name: a service `web` is there already: service[web].name at f.toml:5",
        ],
    ),
    (
        "frontend twice",
        "",
        "[[service]]\nname = \"api\"\nfrontends = [\"192.0.2.10:80/tcp\"]\nversion = [{ name = \"v1\", weight = 1, instances = [\"10.0.1.1:80\"] }]",
        &[
            "f.toml:15: service[api].frontends[0]: frontend 192.0.2.10:80/tcp is there already: service[web].frontends[0] at f.toml:6",
        ],
    ),
    (
        "frontend twice in one",
        "80/tcp\"]",
        "80/tcp\", \"192.0.2.10:80/tcp\"]",
        &[
            "f.toml:6: service[web].frontends[1]: frontend 192.0.2.10:80/tcp is there already: service[web].frontends[0] at f.toml:6",
        ],
    ),
    (
        "instance in two services",
        "",
        "[[service]]\nname = \"api\"\nfrontends = [\"192.0.2.11:80/tcp\"]\nversion = [{ name = \"v1\", weight = 1, instances = [\"10.0.0.11:8080\"] }]",
        &[
            "f.toml:16: service[api].version[v1].instances[0]: instance 10.0.0.11:8080 is there already: service[web].version[v1].instances[0] at f.toml:10 (it can be on one version of one service: modes `nat` and `local` tell by the sender which service a reply belongs to)",
        ],
    ),
    (
        "instance is a frontend",
        "\"10.0.0.11:8080\"",
        "\"192.0.2.10:80\"",
        &[
            "f.toml:10: service[web].version[v1].instances[0]: 192.0.2.10:80 is also a frontend: service[web].frontends[0] at f.toml:6",
        ],
    ),
    (
        "no version",
        "[[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [\"10.0.0.11:8080\"]\n[[service.version]]\nname = \"v2\"\n",
        "",
        &["f.toml:4: service[web].version: missing (add a [[service.version]])"],
    ),
    // [[service.version]].
    (
        "version twice",
        "\"v2\"",
        "\"v1\"",
        &[
            "f.toml:12: service[web].version[v1].name: a version `v1` is there already: service[web].version[v1].name at f.toml:8",
        ],
    ),
    (
        "version key",
        "weight = 1",
        "wieght = 1",
        &["f.toml:9: service[web].version[v1].wieght: unknown key (did you mean `weight`?)"],
    ),
    (
        "negative weight",
        "weight = 1",
        "weight = -1",
        &["f.toml:9: service[web].version[v1].weight: -1 is negative (0 to 1000000)"],
    ),
    (
        "heavy",
        "weight = 1",
        "weight = 1000001",
        &["f.toml:9: service[web].version[v1].weight: 1000001 is out of range (0 to 1000000)"],
    ),
    (
        "very heavy",
        "weight = 1",
        "weight = 99999999999999999999",
        &["f.toml:9: service[web].version[v1].weight: 99999999999999999999 is out of range"],
    ),
    (
        "half a weight",
        "weight = 1",
        "weight = 0.5",
        &["f.toml:9: service[web].version[v1].weight: expected an integer, found a float"],
    ),
    (
        "no weight at all",
        "weight = 1",
        "weight = 0",
        &[
            "f.toml:4: service[web].version: all initial weights are 0 (give at least one version a weight)",
        ],
    ),
    (
        "weight on nothing",
        "instances = [\"10.0.0.11:8080\"]",
        "instances = []",
        &["f.toml:4: service[web].version: all weight is on versions without instances"],
    ),
    (
        "meta",
        "weight = 1",
        "weight = 1\nmeta = { port = 80, \"a b\" = true }",
        &[
            "f.toml:10: service[web].version[v1].meta.port: expected a string, found an integer",
            "f.toml:10: service[web].version[v1].meta.\"a b\": expected a string, found a boolean",
        ],
    ),
    // Instances.
    (
        "instances",
        "[\"10.0.0.11:8080\"]",
        "[\n8080,\n\"10.0.0.11\",\n{ id = \"a\" },\n{ adr = \"10.0.0.11:80\" },\n{ addr = \"127.0.0.1:80\", weight = 0, id = \"10.0.0.1:1\" },\n{ addr = \"10.0.0.12:80\", weight = 1001 }]",
        &[
            "f.toml:11: service[web].version[v1].instances[0]: neither an address nor a table (such as",
            "f.toml:12: service[web].version[v1].instances[1]: \"10.0.0.11\" is not an address",
            "f.toml:13: service[web].version[v1].instances[2].addr: missing (addr = ",
            "f.toml:14: service[web].version[v1].instances[3].addr: missing",
            "f.toml:14: service[web].version[v1].instances[3].adr: unknown key (did you mean `addr`?)",
            "f.toml:15: service[web].version[v1].instances[4].id: \"10.0.0.1:1\" is not a name",
            "f.toml:15: service[web].version[v1].instances[4].addr: 127.0.0.1:80: loopback address",
            "f.toml:15: service[web].version[v1].instances[4].weight: 0 is out of range (1 to 1000)",
            "f.toml:16: service[web].version[v1].instances[5].weight: 1001 is out of range (1 to 1000)",
        ],
    ),
    (
        "instance on two versions",
        "name = \"v2\"",
        "name = \"v2\"\ninstances = [\"10.0.0.11:8080\"]",
        &[
            "f.toml:13: service[web].version[v2].instances[0]: instance 10.0.0.11:8080 is there already: service[web].version[v1].instances[0] at f.toml:10",
        ],
    ),
    (
        "id twice",
        "[\"10.0.0.11:8080\"]",
        "[{ id = \"a\", addr = \"10.0.0.1:1\" }, { id = \"a\", addr = \"10.0.0.2:1\" }]",
        &[
            "f.toml:10: service[web].version[v1].instances[1].id: an instance `a` is there already: service[web].version[v1].instances[0].id at f.toml:10",
        ],
    ),
    (
        "id is a version",
        "\"10.0.0.11:8080\"",
        "{ id = \"v2\", addr = \"10.0.0.1:1\" }",
        &[
            "f.toml:10: service[web].version[v1].instances[0].id: `v2` is also a version: service[web].version[v2].name at f.toml:12",
        ],
    ),
    // Far apart, all reported.
    (
        "several at once",
        "",
        "[[service]]\nname = \"web\"\nfrontend = 1\n[[service.version]]\nweight = -1\ninstances = [\"10.0.0.11:8080\"]",
        &[
            "f.toml:13: service[web].frontends: missing",
            "f.toml:14: service[web].name: a service `web` is there already",
            "f.toml:15: service[web].frontend: unknown key (did you mean `frontends`?)",
            "f.toml:16: service[web].version[0].name: missing",
            "f.toml:17: service[web].version[0].weight: -1 is negative",
            "f.toml:18: service[web].version[0].instances[0]: instance 10.0.0.11:8080 is there already",
        ],
    ),
];
