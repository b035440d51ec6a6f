//! What is wrong is refused with its place and the documented exit code, and changes nothing.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use release_tests::command::{self, sibling_binary};
use release_tests::scenario::{DEADLINE, Refused, eventually};
use release_tests::topology::{Balancer, FRONTEND, SERVICE, Topology, TopologySpec};
use serde_json::Value;

/// A start of the daemon that must fail.
fn start(lb: &Balancer) -> Result<Refused> {
    lb.refused(&["daemon"])
}

/// `releasectl` with other places than the balancer's.
fn elsewhere(lb: &Balancer, folder: &Path, bpffs: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = lb.namespace.command(sibling_binary("releasectl", "RELEASECTL_BIN")?);
    command
        .arg("--config")
        .arg(lb.config_path())
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg("--socket")
        .arg(folder.join("release.sock"))
        .arg("--bpffs")
        .arg(bpffs)
        .args(arguments);
    Ok(command)
}

fn ended(command: &mut Command) -> Result<Refused> {
    let output = command::output(command)?;
    let code = output.status.code().context("ended by a signal")?;
    Ok(Refused { code, error: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// Nothing of a start that failed is there: no pin, no state, no program, no setting.
fn untouched(lb: &Balancer) -> Result<()> {
    let pins = fs::read_dir(lb.bpffs()).into_iter().flatten().count();
    anyhow::ensure!(pins == 0, "{pins} pins");
    anyhow::ensure!(!lb.state_dir().join("state.db").exists(), "state was made");
    anyhow::ensure!(!lb.socket_path().exists(), "the socket was made");
    anyhow::ensure!(!lb.namespace.ip("link")?.contains("xdp"), "a program was attached");
    let setting = "/proc/sys/net/ipv4/conf/back1/accept_local";
    let setting = lb.namespace.enter(|| fs::read_to_string(setting))??;
    anyhow::ensure!(setting.trim() == "0", "accept_local is {setting}");
    Ok(())
}

/// A configuration with one mistake: the text to replace, what stands there then, and what the
/// error must name.
type Mistake = (&'static str, &'static str, &'static [&'static str]);

const OTHER: &str = "\n[[service]]\nname = \"other\"\nfrontends = [\"10.1.0.101:80/tcp\"]\n\
     [[service.version]]\nname = \"a\"\nweight = 1\ninstances = [\"10.9.0.1:80\"]\n";

const MISTAKES: &[Mistake] = &[
    ("mode = \"nat\"", "mode = \"nat\"\ncolour = 1", &["colour", "unknown key", ":10"]),
    ("weight = 100", "wieght = 100", &["wieght", "`weight`", "service[web].version[v1]"]),
    ("interfaces", "interface", &["interface", "`interfaces`", "daemon"]),
    ("mode = \"nat\"", "mode = \"nut\"", &["service[web].mode", "nut", "`nat`"]),
    ("mode = \"nat\"", "mode = \"dsr\"", &["10.2.1.2:8080: another port", "mode `dsr`"]),
    ("name = \"v2\"", "name = \"v1\"", &["a version `v1` is there already", "service[web]"]),
    ("id = \"v2-1\"", "id = \"v1-1\"", &["an instance `v1-1` is there already"]),
    ("10.2.2.2:8080", "10.2.1.2:8080", &["instance 10.2.1.2:8080 is there already"]),
    ("name = \"other\"", "name = \"web\"", &["a service `web` is there already"]),
    ("10.9.0.1:80", "10.2.1.2:8080", &["service[other]", "10.2.1.2:8080 is there already"]),
    ("10.1.0.101:80", "10.1.0.100:80", &["frontend 10.1.0.100:80/tcp is there already"]),
    ("10.9.0.1:80", "10.1.0.100:80", &["10.1.0.100:80 is also a frontend"]),
    ("weight = 100", "weight = -1", &["service[web].version[v1].weight", "-1"]),
    ("weight = 100", "weight = 0", &["service[web].version", "all initial weights are 0"]),
    ("schema = 1", "schema = 2", &["schema"]),
    ("schema = 1", "schema = [", &["release.toml:"]),
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_wrong_configuration_is_refused_with_its_key() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let good = topology.config(&[("v1", 100)]) + OTHER;
    // Before there is a daemon: nothing comes into being.
    for (from, to, parts) in MISTAKES {
        assert!(good.contains(from), "{from}");
        lb.write_config(&good.replacen(from, to, 1)).unwrap();
        let refused = lb.refused(&["check"]).unwrap();
        assert!(refused.says(2, parts), "{to}: {refused:?}");
        assert!(refused.error.contains("release.toml"), "{refused:?}");
        let refused = start(lb).unwrap();
        assert!(refused.says(2, parts), "{to}: {refused:?}");
    }
    untouched(lb).unwrap();
    // With one: it goes on as it was.
    lb.write_config(&good).unwrap();
    assert!(lb.releasectl_ok(&["check"]).unwrap().contains("valid: 2 services"));
    let _daemon = lb.start_daemon().unwrap();
    let before = lb.frozen().unwrap();
    for (from, to, parts) in MISTAKES {
        lb.write_config(&good.replacen(from, to, 1)).unwrap();
        let refused = lb.refused(&["reload"]).unwrap();
        assert!(refused.says(2, parts), "{to}: {refused:?}");
    }
    lb.write_config(&good.replace("\"client0\"", "\"client0\", \"nowhere0\"")).unwrap();
    let refused = lb.refused(&["reload"]).unwrap();
    assert!(refused.says(2, &["interface nowhere0: no such interface"]), "{refused:?}");
    assert_eq!(lb.frozen().unwrap(), before);
    lb.write_config(&good).unwrap();
    assert_eq!(lb.releasectl_ok(&["reload"]).unwrap(), "reloaded: nothing changed\n");
    assert_eq!(lb.frozen().unwrap(), before);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_start_that_cannot_succeed_changes_nothing() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let good = topology.config(&[("v1", 100)]);

    lb.write_config(&good.replace("\"client0\"", "\"client7\"")).unwrap();
    let refused = start(lb).unwrap();
    assert!(refused.says(2, &["interface client7: no such interface", "client0"]), "{refused:?}");
    untouched(lb).unwrap();
    lb.write_config(&good).unwrap();

    // No bpffs. (An old kernel can only be had in a virtual machine.)
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("pins");
    let refused = ended(&mut elsewhere(lb, folder.path(), &plain, &["daemon"]).unwrap()).unwrap();
    let parts = ["no BPF file system is mounted there", "mount -t bpf", plain.to_str().unwrap()];
    assert!(refused.says(2, &parts), "{refused:?}");
    assert!(!plain.exists() && !folder.path().join("state").exists());

    // No root. Whoever may read the configuration gets that far.
    for path in [lb.config_path().parent().unwrap(), &lb.config_path()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = |arguments: &[&str]| {
        let releasectl = lb.releasectl_command(arguments).unwrap();
        let mut command = lb.namespace.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        ended(command.arg(releasectl.get_program()).args(releasectl.get_args())).unwrap()
    };
    assert_eq!(nobody(&["check"]).code, 0);
    let refused = nobody(&["daemon"]);
    assert!(refused.says(2, &["daemon: needs root", "CAP_BPF"]), "{refused:?}");
    untouched(lb).unwrap();

    // Nobody there to ask.
    for arguments in [&["status"][..], &["shift", SERVICE, "v1=1"], &["reload"], &["flows"]] {
        let refused = lb.refused(arguments).unwrap();
        assert!(refused.says(1, &["daemon: not reachable at", "releasectl daemon"]), "{refused:?}");
    }
    let refused = lb.refused(&["maps", "list"]).unwrap();
    assert!(refused.says(8, &[lb.bpffs().to_str().unwrap(), "releasectl daemon"]), "{refused:?}");
    untouched(lb).unwrap();

    let _daemon = lb.start_daemon().unwrap();
    let refused = nobody(&["status"]);
    assert!(refused.says(1, &["Permission denied", "only root"]), "{refused:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_program_of_somebody_else_is_left_alone() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    lb.write_config(&topology.config(&[("v1", 100)])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let theirs = lb.bpffs().join("theirs");
    let mut daemon = elsewhere(lb, folder.path(), &theirs, &["daemon"]).unwrap();
    let other = lb.namespace.spawn("other daemon", &mut daemon).unwrap();
    let socket = folder.path().join("release.sock");
    let interfaces = 1 + topology.backends.len();
    eventually(DEADLINE, "the other daemon", || {
        socket.exists()
            && lb.namespace.ip("link").unwrap().matches("prog/xdp").count() == interfaces
    });
    let before = lb.namespace.ip("link").unwrap();
    let refused = start(lb).unwrap();
    let parts = ["interface client0", "release_xdp", "is attached to it", "xdp off"];
    assert!(refused.says(8, &parts), "{refused:?}");
    assert_eq!(lb.namespace.ip("link").unwrap(), before);
    assert_eq!(fs::read_dir(lb.bpffs()).unwrap().count(), 1);
    assert!(!lb.state_dir().join("state.db").exists());
    // With the other daemon dead its programs still work, and are not ours either.
    other.kill().unwrap();
    assert!(start(lb).unwrap().says(8, &parts));
    command::run(&mut elsewhere(lb, folder.path(), &theirs, &["detach"]).unwrap()).unwrap();
    assert!(!theirs.exists() && !lb.namespace.ip("link").unwrap().contains("xdp"));
    let _daemon = lb.start_daemon().unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_second_daemon_is_refused_whatever_it_shares() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held = topology.hold().unwrap();
    let before = lb.frozen().unwrap();
    let refused = start(lb).unwrap();
    assert!(refused.says(8, &["another daemon is running on it", "--state-dir"]), "{refused:?}");
    // Only the pins in common.
    let folder = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| {
        ended(&mut elsewhere(lb, folder.path(), lb.bpffs(), arguments).unwrap()).unwrap()
    };
    let pinned = ["another daemon's data plane is pinned there", lb.bpffs().to_str().unwrap()];
    let refused = with(&["daemon"]);
    assert!(refused.says(8, &pinned), "{refused:?}");
    let refused = with(&["detach"]);
    assert!(refused.says(8, &pinned), "{refused:?}");
    assert_eq!(lb.frozen().unwrap(), before);
    held.ask("/").unwrap();
    // With the first one dead, its data plane is still not that of another state.
    daemon.kill().unwrap();
    let refused = with(&["daemon"]);
    assert!(refused.says(8, &["is not that of the data plane pinned in"]), "{refused:?}");
    held.ask("/").unwrap();
    let _daemon = lb.start_daemon().unwrap();
    assert_eq!(
        lb.frozen().unwrap()["services"][0]["generation"],
        before["services"][0]["generation"]
    );
    held.ask("/").unwrap();
}

/// Arguments of a command that must fail, its exit code and what its error names.
type Wrong = (&'static [&'static str], i32, &'static [&'static str]);

const WRONG: &[Wrong] = &[
    (&["status", "wbe"], 2, &["service wbe: no such service", "web"]),
    (&["flows", "wbe"], 2, &["service wbe: no such service"]),
    (&["shift", "wbe", "v1=1"], 2, &["service wbe: no such service"]),
    (&["shift", SERVICE, "v3=1"], 2, &["version v3: no such version", "v1, v2"]),
    (&["shift", SERVICE, "v2=50", "v3=1"], 2, &["version v3"]),
    (&["shift", SERVICE, "v1=-1"], 2, &["v1=-1"]),
    (&["shift", SERVICE, "v1=1000001"], 2, &["1000001"]),
    (&["shift", SERVICE, "v1"], 2, &["v1"]),
    (&["shift", SERVICE, "v1=1", "v1=2"], 2, &["version v1: named twice"]),
    (&["shift", SERVICE], 2, &["VERSION=WEIGHT"]),
    (&["shift", SERVICE, "v1=0"], 8, &["service web: no version would be left", "--allow-empty"]),
    (&["shift", SERVICE, "v1=0", "v2=0"], 8, &["service web: no version would be left"]),
    (&["drain", SERVICE, "v1"], 8, &["service web: no version would be left", "--allow-empty"]),
    (&["drain", SERVICE, "v1-1"], 8, &["instance v1-1: is the last serving one of version v1"]),
    (&["drain", SERVICE, "v9"], 2, &["target v9: no such version or instance", "v1-1"]),
    (&["undrain", SERVICE, "v9"], 2, &["target v9"]),
    (&["idle", "check", SERVICE, "v9"], 2, &["target v9"]),
    (&["idle", "check", "wbe", "v1"], 2, &["service wbe"]),
    (&["idle", "wait", SERVICE, "v1", "--timeout", "-3s"], 2, &["--timeout", "-3s"]),
    (&["idle", "receipt", SERVICE, "v9"], 2, &["target v9"]),
    (&["maps", "dump", "NOTHING"], 2, &["map NOTHING: no such map", "BACKENDS"]),
    (&["explain", "sctp", "10.1.0.2:1", "10.1.0.100:80"], 2, &["sctp"]),
    (&["explain", "tcp", "10.1.0.2", "10.1.0.100:80"], 2, &["10.1.0.2"]),
    (&["explain", "tcp", "[::1]:1", "10.1.0.100:80"], 2, &["[::1]:1", "another address family"]),
    (&["sift", SERVICE, "v1=1"], 2, &["sift"]),
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn wrong_commands_change_nothing() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let before = lb.frozen().unwrap();
    for (arguments, code, parts) in WRONG {
        let refused = lb.refused(arguments).unwrap();
        assert!(refused.says(*code, parts), "{arguments:?}: {refused:?}");
    }
    assert_eq!(lb.frozen().unwrap(), before);
    // The same for programs.
    let output = lb.releasectl(&["drain", SERVICE, "v1", "-o", "json"]).unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &error["error"]["code"]), (Some(8), &"conflict".into()));
    assert!(error["error"]["hint"].as_str().unwrap().contains("--allow-empty"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_empty_service_answers_as_it_was_told_to() {
    let topology = Topology::new(&TopologySpec::small()).unwrap();
    let lb = &topology.lb;
    let config = topology.config(&[("v1", 100)]);
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    let mut held = topology.hold().unwrap();
    let connect = |deadline| {
        let start = Instant::now();
        let result = topology.client.connect(SocketAddr::V4(FRONTEND), deadline);
        let error = result.err().and_then(|error| error.downcast::<std::io::Error>().ok());
        (error.map(|error| error.kind()), start.elapsed())
    };
    lb.releasectl_ok(&["drain", SERVICE, "v1", "--allow-empty", "--no-wait"]).unwrap();
    let (error, took) = connect(DEADLINE);
    assert_eq!(error, Some(ErrorKind::ConnectionRefused));
    assert!(took < Duration::from_millis(500), "{took:?}");
    // Who is connected stays so.
    held.ask("/").unwrap();
    // In silence, after a reload that says so; weights are state, so it is still empty.
    let mode = "mode = \"nat\"\n";
    lb.write_config(&config.replace(mode, "mode = \"nat\"\nwhen_empty = \"drop\"\n")).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    assert_eq!(connect(Duration::from_millis(400)).0, Some(ErrorKind::TimedOut));
    // The host's own stack: it has the address, and nobody listens there.
    lb.write_config(&config.replace(mode, "mode = \"nat\"\nwhen_empty = \"pass\"\n")).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
    assert_eq!(connect(DEADLINE).0, Some(ErrorKind::ConnectionRefused));
    let own = lb.namespace.listen(FRONTEND).unwrap();
    assert_eq!(connect(DEADLINE).0, None);
    drop(own);
    lb.releasectl_ok(&["undrain", SERVICE, "v1"]).unwrap();
    assert_eq!(topology.hold().unwrap().first.version, "v1");
    held.ask("/").unwrap();
}
