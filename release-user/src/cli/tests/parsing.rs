//! What can be typed, and what cannot.

use crate::api::types::ErrorCode;
use crate::cli::args::{Cli, Command, Idle, Instance, Maps};
use crate::cli::output::error_text;
use crate::cli::values::{OnDeadline, Output};
use crate::cli::{usage_error, wants_json};
use crate::config::Protocol;
use clap::{CommandFactory as _, Parser as _};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("releasectl").chain(line.split_whitespace()))
}

fn command(line: &str) -> Command {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).command
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_and_examples() {
    fn walk(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            assert!(sub.get_about().is_some(), "{path}: no description");
            if sub.has_subcommands() {
                walk(sub, &path);
            } else {
                let after = sub.get_after_help().unwrap_or_default().to_string();
                assert!(
                    after.contains(&format!("Examples:\n  {path}"))
                        || after.contains(&format!("&& {path}")),
                    "{path}: {after}"
                );
            }
        }
    }
    walk(&Cli::command(), "releasectl");
}

#[test]
fn examples_can_be_typed() {
    fn walk(command: &clap::Command, seen: &mut usize) {
        for sub in command.get_subcommands() {
            let after = sub.get_after_help().unwrap_or_default().to_string();
            for line in after.lines().filter_map(|line| line.strip_prefix("  ")) {
                for part in line.split(" && ").map(|part| part.split(['|', '>']).next().unwrap()) {
                    if let Some(arguments) = part.trim().strip_prefix("releasectl ") {
                        command_or_panic(arguments);
                        *seen += 1;
                    }
                }
            }
            walk(sub, seen);
        }
    }
    fn command_or_panic(line: &str) {
        let _ = command(line);
    }
    let mut seen = 0;
    walk(&Cli::command(), &mut seen);
    assert!(seen > 25, "{seen}");
}

#[test]
fn places_and_their_overrides() {
    let line =
        "--config c.toml status --socket s --state-dir d --bpffs b --api-timeout 1m -vv -o json";
    let global = parse(line).unwrap().global;
    let paths = global.paths();
    assert_eq!(paths.config.as_deref(), Some(Path::new("c.toml")));
    assert_eq!(paths.socket, Path::new("s"));
    assert_eq!(paths.state_dir, Path::new("d"));
    assert_eq!(paths.bpffs, Path::new("b"));
    assert_eq!((global.api_timeout, global.verbose), (Duration::from_secs(60), 2));
    assert_eq!(global.output, Output::Json);

    let command = Cli::command();
    let places: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|argument| {
            let text = |value: &std::ffi::OsStr| value.to_str().unwrap().to_owned();
            let default = argument.get_default_values().first().map(|value| text(value));
            Some((text(argument.get_env()?), default.unwrap_or_default()))
        })
        .collect();
    let expected = [
        ("RELEASE_CONFIG", ""),
        ("RELEASE_SOCKET", "/run/release/release.sock"),
        ("RELEASE_STATE_DIR", "/var/lib/release"),
        ("RELEASE_BPFFS", "/sys/fs/bpf/release"),
    ];
    assert_eq!(places, expected.map(|(env, default)| (env.to_owned(), default.to_owned())));
}

#[test]
fn commands_and_their_arguments() {
    assert!(matches!(command("daemon"), Command::Daemon));
    assert!(matches!(command("check"), Command::Check { path: None }));
    let Command::Check { path } = command("check a/b.toml") else { panic!() };
    assert_eq!(path, Some(PathBuf::from("a/b.toml")));
    assert!(matches!(command("reload"), Command::Reload));
    assert!(matches!(command("detach"), Command::Detach));
    assert!(matches!(command("status"), Command::Status { service: None, watch: false }));
    let Command::Status { service, watch: true } = command("status web -w") else { panic!() };
    assert_eq!(service.as_deref(), Some("web"));
    assert!(matches!(command("events"), Command::Events { follow: false }));
    assert!(matches!(command("events -f"), Command::Events { follow: true }));
    assert!(matches!(command("instance list"), Command::Instance(Instance::List)));
    assert!(matches!(command("maps list"), Command::Maps(Maps::List)));
    assert!(matches!(command("maps check"), Command::Maps(Maps::Check)));
    let Command::Maps(Maps::Dump { map }) = command("maps dump BACKENDS") else { panic!() };
    assert_eq!(map, "BACKENDS");
    let Command::Undrain { service, target } = command("undrain web v1") else { panic!() };
    assert_eq!((&*service, &*target), ("web", "v1"));
}

#[test]
fn flows_has_a_version_of_its_own() {
    let line = "flows web --version v1 --instance 10.0.0.1:80 --state half-closed --oldest 5";
    let Command::Flows(flows) = command(line) else { panic!() };
    assert_eq!(flows.version.as_deref(), Some("v1"));
    assert_eq!(flows.instance.as_deref(), Some("10.0.0.1:80"));
    assert_eq!((flows.state.as_deref(), flows.oldest), (Some("half-closed"), Some(5)));
    assert_eq!(parse("--version").unwrap_err().exit_code(), 0);
    assert_eq!(parse("-V").unwrap_err().exit_code(), 0);
}

#[test]
fn shift_drain_idle_explain() {
    let Command::Shift { service, weights, allow_empty: true } =
        command("shift web v1=0 v2=1000000 --allow-empty")
    else {
        panic!()
    };
    let weights: Vec<(&str, u32)> =
        weights.iter().map(|weight| (weight.version.as_str(), weight.weight.get())).collect();
    assert_eq!((&*service, &weights[..]), ("web", &[("v1", 0), ("v2", 1_000_000)][..]));

    let Command::Drain(drain) = command("drain web v1 --deadline 1h30m --on-deadline hold") else {
        panic!()
    };
    assert_eq!(drain.deadline, Some(Duration::from_secs(5400)));
    assert!(drain.on_deadline == OnDeadline::Hold && !drain.no_wait && !drain.allow_empty);
    let Command::Drain(drain) = command("drain web v1 --no-wait --allow-empty") else { panic!() };
    assert!(drain.deadline.is_none() && drain.no_wait && drain.allow_empty);

    let Command::Idle(Idle::Check(target)) = command("idle check web v1 --explain") else {
        panic!()
    };
    assert!(target.service == "web" && target.target == "v1" && target.explain);
    let Command::Idle(Idle::Wait { timeout, target }) = command("idle wait web v1 --timeout 0s")
    else {
        panic!()
    };
    assert!(timeout == Some(Duration::ZERO) && !target.explain);
    assert!(matches!(command("idle receipt web v1"), Command::Idle(Idle::Receipt(_))));

    let Command::Explain { proto: Protocol::Udp, src, dst } =
        command("explain UDP 198.51.100.7:40000 [2001:db8::1]:80")
    else {
        panic!()
    };
    assert_eq!((src.port(), dst.is_ipv6()), (40000, true));
}

#[test]
fn bad_input_exits_2_and_says_why() {
    for (line, part) in [
        ("", "Usage"),
        ("statsu", "similar subcommand exists: 'status'"),
        ("release", "Usage"),
        ("release start", "<SERVICE>"),
        ("release start web --weight 5", "unexpected argument '--weight'"),
        ("release wait web --timeout 5", "(as in 500ms, 30s, 5m, 1h 30m)"),
        ("release abort", "<RELEASE>"),
        ("instance register", "required arguments"),
        ("instance register web v2 10.0.0.3", "invalid socket address"),
        ("instance register web v/2 10.0.0.3:80", "\"v/2\" is not a name"),
        ("instance register web v2 10.0.0.3:80 --weight 0", "0 is not in 1..=1000"),
        ("instance register web v2 10.0.0.3:80 --meta build", "there is no `=` behind a key"),
        ("instance register web v2 10.0.0.3:80 --lease 0s", "no time at all"),
        ("instance maint web a maybe", "possible values: on, off"),
        ("instance offline web a --no-wait --timeout 1s", "cannot be used with"),
        ("run --service web --version v2 --addr 10.0.0.3:80", "<CMD>"),
        ("run --service web --version v2 --addr 10.0.0.3:80 web", "unexpected argument 'web'"),
        (
            "run --service web --version v2 --addr 10.0.0.3:80 --on-timeout stop -- web",
            "--drain-timeout <DURATION>",
        ),
        ("status a b", "unexpected argument 'b'"),
        ("status -o yaml", "possible values: text, json, jsonl"),
        ("status --api-timeout 0s", "no time at all (as in 10s)"),
        ("status --api-timeout soon", "(as in 500ms, 30s, 5m, 1h 30m)"),
        ("shift", "required arguments"),
        ("shift web", "required arguments"),
        ("shift web v1", "there is no `=` (VERSION=WEIGHT, as in v2=10)"),
        ("shift web v1=", "\"\" is no whole number (0 to 1000000)"),
        ("shift web v1=-3", "-3 is negative (0 to 1000000)"),
        ("shift web v1=1000001", "1000001 is out of range (0 to 1000000)"),
        ("shift web v1=99999999999999999999", "is no whole number"),
        ("shift web v1=0.5", "\"0.5\" is no whole number (0 to 1000000)"),
        ("shift web =5", "\"\" is not a name"),
        ("shift web v/1=5", "\"v/1\" is not a name"),
        ("drain web", "<TARGET>"),
        ("drain web v1 --deadline 5", "(as in 500ms, 30s, 5m, 1h 30m)"),
        ("drain web v1 --deadline -5s", "(as in 500ms, 30s, 5m, 1h 30m)"),
        ("drain web v1 --deadline 5lightyears", "unknown time unit"),
        ("drain web v1 --deadline 11years", "more than ten years"),
        ("drain web v1 --deadline 5s --on-deadline force --force-rate 0", "0 is not in 1.."),
        ("drain web v1 --deadline 5s --on-deadline never", "unknown (hold or force)"),
        ("drain web v1 --on-deadline hold", "--deadline <DURATION>"),
        ("idle", "Usage"),
        ("idle check web", "<TARGET>"),
        ("idle check web v1 --timeout 5s", "unexpected argument '--timeout'"),
        ("idle wait web v1 --timeout", "--timeout <DURATION>"),
        ("flows --state open", "possible values: embryonic"),
        ("flows --oldest 0", "0 is not in 1.."),
        ("flows --oldest -3", "-3 is not in 1.."),
        ("flows --oldest many", "invalid digit"),
        ("maps dump", "<MAP>"),
        ("explain sctp 1.2.3.4:5 1.2.3.4:6", "unknown protocol \"sctp\""),
        ("explain tpc 1.2.3.4:5 1.2.3.4:6", "did you mean `tcp`?"),
        ("explain tcp 1.2.3.4 1.2.3.4:6", "invalid socket address"),
        ("explain tcp 1.2.3.4:5 1.2.3.4:66666", "invalid socket address"),
        ("undrain web", "<TARGET>"),
    ] {
        let error = parse(line).expect_err(line);
        let text = error.to_string();
        assert!(text.contains(part), "{line}: {text}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn usage_errors_can_be_json() {
    let error = usage_error(&parse("shift web v1=-3 -o json").unwrap_err());
    assert_eq!(error.code, ErrorCode::Usage);
    assert_eq!(
        error_text(&error, Output::Json),
        "{\"error\":{\"code\":\"usage\",\"message\":\"invalid value 'v1=-3' for \
         '<VERSION=WEIGHT>...': -3 is negative (0 to 1000000)\",\"hint\":\"see --help\"}}\n"
    );
    let missing = usage_error(&parse("shift web").unwrap_err()).message;
    assert!(missing.ends_with("were not provided: <VERSION=WEIGHT>..."), "{missing}");
    for (line, json) in [
        ("status", false),
        ("-o json x", true),
        ("x -ojson", true),
        ("x -o=jsonl", true),
        ("x --output json", true),
        ("x --output=jsonl", true),
        ("x --output text json", false),
        ("x -o", false),
        ("x -- -o json", false),
    ] {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        assert_eq!(wants_json(&arguments), json, "{line}");
    }
}
