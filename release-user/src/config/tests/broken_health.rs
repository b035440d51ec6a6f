//! Broken health checks, for the table test in `broken_options`.

use super::broken_options::{Case, I, T, U};

pub(super) const HEALTH: &[Case] = &[
    (
        "nothing to ask",
        [T, "health = { interval = \"5s\" }", I],
        &["f.toml:7: service[web].health: nothing to ask (http = \"/PATH\", tcp = true or exec ="],
    ),
    (
        "two checks",
        [T, "health = { http = \"/\", exec = [\"/bin/true\"] }", I],
        &[
            "f.toml:7: service[web].health: a second check, service[web].health.exec (keep `http`, `tcp` or `exec`)",
        ],
    ),
    (
        "no check at all",
        [T, "health = { tcp = false }", I],
        &["f.toml:7: service[web].health.tcp: false (without checks, leave `health` out)"],
    ),
    (
        "no path",
        [T, "health = { http = \"healthz\" }", I],
        &["f.toml:7: service[web].health.http: \"healthz\" is not a path (such as \"/healthz\""],
    ),
    (
        "a space in a path",
        [T, "health = { http = \"/a b\" }", I],
        &["f.toml:7: service[web].health.http: \"/a b\" is not a path"],
    ),
    (
        "programs",
        [T, "health = { exec = [] }", I],
        &["f.toml:7: service[web].health.exec: empty (the program, and its arguments)"],
    ),
    (
        "relative program",
        [T, "health = { exec = [\"check\"] }", I],
        &["f.toml:7: service[web].health.exec: \"check\" is not an absolute path"],
    ),
    (
        "numbers out of range",
        [
            T,
            "health = { tcp = true, interval = \"0s\", timeout = \"0s\", fall = 0, rise = 101, port = 0, raise = 1 }",
            I,
        ],
        &[
            "f.toml:7: service[web].health.port: 0 is out of range (1 to 65535)",
            "f.toml:7: service[web].health.interval: 0s is out of range (100ms to 1h)",
            "f.toml:7: service[web].health.timeout: 0s is out of range (100ms to 1h)",
            "f.toml:7: service[web].health.fall: 0 is out of range (1 to 100)",
            "f.toml:7: service[web].health.rise: 101 is out of range (1 to 100)",
            "f.toml:7: service[web].health.raise: unknown key (did you mean `rise`?)",
        ],
    ),
    (
        "a timeout beyond the next check",
        [T, "health = { tcp = true, timeout = \"3s\" }", I],
        &["f.toml:7: service[web].health: timeout 3s is longer than interval (at most 2s)"],
    ),
    (
        "connections where there are datagrams",
        [U, "health = { tcp = true }", I],
        &[
            "f.toml:7: service[web].health: no frontend is TCP: nothing says that an instance accepts connections (`port`, where it does; or `exec`)",
        ],
    ),
    (
        "nothing to judge by",
        [T, "passive = { min = 5 }", I],
        &["f.toml:7: service[web].passive: nothing to judge by (`syn_failures`, `resets` or both)"],
    ),
    (
        "shares",
        [
            T,
            "passive = { syn_failures = 0, resets = 1.5, min = 0, every = \"61s\", back_after = \"0s\" }",
            I,
        ],
        &[
            "f.toml:7: service[web].passive.syn_failures: 0 is out of range (more than 0, up to 1)",
            "f.toml:7: service[web].passive.resets: 1.5 is out of range (more than 0, up to 1)",
            "f.toml:7: service[web].passive.min: 0 is out of range (1 to 1000000)",
            "f.toml:7: service[web].passive.every: 1m 1s is out of range (1s to 1m)",
            "f.toml:7: service[web].passive.back_after: 0s is out of range (100ms to 1h)",
        ],
    ),
    (
        "a percentage for a share",
        [T, "passive = { resets = \"50%\" }", I],
        &["f.toml:7: service[web].passive.resets: expected a number, found a string"],
    ),
    (
        "traffic that is not seen",
        [T, "mode = \"dsr\"\npassive = { resets = 0.5 }", I],
        &[
            "f.toml:8: service[web].passive: mode `dsr`: the instances' replies do not pass here (`health` asks them)",
        ],
    ),
    (
        "traffic without answers",
        [U, "passive = { resets = 0.5 }", I],
        &["f.toml:7: service[web].passive: no frontend is TCP (datagrams are neither refused"],
    ),
    (
        "traffic without flows",
        [U, "conversation = \"datagram\"\npassive = { resets = 0.5 }", I],
        &["f.toml:8: service[web].passive: conversation `datagram` has no flows"],
    ),
    (
        "down, and nobody finds out",
        [T, "on_down = \"keep\"", I],
        &[
            "f.toml:7: service[web].on_down: nobody finds out that an instance is down (`health`, `passive` or both)",
        ],
    ),
    (
        "an unknown end",
        [T, "health = { tcp = true }\non_down = \"rest\"", I],
        &["f.toml:8: service[web].on_down: unknown value \"rest\" (did you mean `reset`?)"],
    ),
    (
        "datagrams cannot be reset",
        [U, "health = { tcp = true, port = 81 }\non_down = \"reset\"", I],
        &["f.toml:8: service[web].on_down: no connections to end (UDP flows end by their timeout)"],
    ),
    (
        "nobody to reset for",
        [T, "mode = \"dsr\"\nhealth = { tcp = true }\non_down = \"reset\"", I],
        &[
            "f.toml:9: service[web].on_down: mode `dsr`: only the clients' half passes here, and not all instances have their sockets on this host (if",
        ],
    ),
];
