//! Instances on other hosts: `releasectl agent` tells of their sockets.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use release_tests::certificates::Authority;
use release_tests::command::sibling_binary;
use release_tests::conditions::{refuse_sock_diag, shift_clocks};
use release_tests::process::Process;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::sockets::abort;
use release_tests::topology::{FRONTEND, Mode, Topology, TopologySpec};

use crate::common::{config, item, shift_away};

/// Where the first backend's agent is.
const AGENT: &str = "10.2.1.2:7443";
const HOST: &str = "10.2.1.2";

/// Starts an agent at the first backend and waits until it listens.
fn start(topology: &Topology, ca: &Path, files: &[PathBuf; 2]) -> Process {
    start_under(topology, ca, files, |_| ())
}

/// As [`start`], under conditions.
fn start_under(
    topology: &Topology,
    ca: &Path,
    [certificate, key]: &[PathBuf; 2],
    conditions: impl FnOnce(&mut Command),
) -> Process {
    let namespace = &topology.backends[0].namespace;
    let mut command = namespace.command(sibling_binary("releasectl", "RELEASECTL_BIN").unwrap());
    command.args(["agent", "--listen", AGENT, "--ca"]).arg(ca);
    command.arg("--certificate").arg(certificate).arg("--key").arg(key);
    conditions(&mut command);
    let process = namespace.spawn("releasectl agent", &mut command).unwrap();
    let agent: SocketAddr = AGENT.parse().unwrap();
    eventually(DEADLINE, "the agent", || topology.lb.namespace.connect(agent, DEADLINE).is_ok());
    process
}

/// The configuration that asks the agent, with the daemon's certificate.
fn asking(topology: &Topology, ca: &Authority) -> String {
    let [certificate, key] = ca.sign("daemon").unwrap();
    let agent = format!(
        "agent = {{ ca = {:?}, certificate = {certificate:?}, key = {key:?} }}",
        ca.certificate()
    );
    let config = config(topology, &format!("{{ agent = {AGENT:?} }}"));
    config.replace("[daemon]\n", &format!("[daemon]\n{agent}\n"))
}

/// As the VIP is on every backend.
fn listen(topology: &Topology) -> TcpListener {
    topology.backends[0].namespace.listen(FRONTEND).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_way_modes_are_idle_by_the_agents_word() {
    let ca = Authority::new().unwrap();
    for mode in [Mode::Dsr, Mode::Ipip, Mode::Gue] {
        let topology = Topology::new(&TopologySpec { mode, ..TopologySpec::small() }).unwrap();
        let lb = &topology.lb;
        lb.write_config(&asking(&topology, &ca)).unwrap();
        let _daemon = lb.start_daemon().unwrap();
        let agent = start(&topology, &ca.certificate(), &ca.sign(HOST).unwrap());
        let listener = listen(&topology);
        let pair = topology.pair(&listener).unwrap();
        shift_away(lb);
        lb.becomes("v1", "busy", "1 socket remains: 1 ESTABLISHED");
        drop(pair);
        // The server's FIN does not pass here: the table alone would wait for `idle_timeout`.
        let said = lb.becomes("v1", "idle", "");
        assert!(item(&said, "both-directions").1.ends_with("; answered by the sockets"));
        assert!(item(&said, "flow-table").1.ends_with("; over, by the sockets"));
        // Nobody there to say so any more.
        agent.terminate(DEADLINE).unwrap();
        let said = lb.becomes("v1", "busy", "1 active flow");
        assert!(said.is("busy", "sockets: agent 10.2.1.2:7443: not reachable"), "{said:?}");
        let _agent = start(&topology, &ca.certificate(), &ca.sign(HOST).unwrap());
        lb.becomes("v1", "idle", "");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reset_lost_on_the_way_is_busy_by_the_agents_word() {
    let ca = Authority::new().unwrap();
    let topology =
        Topology::new(&TopologySpec { mode: Mode::Dsr, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    lb.write_config(&asking(&topology, &ca)).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let agent = start(&topology, &ca.certificate(), &ca.sign(HOST).unwrap());
    let listener = listen(&topology);
    let client = topology.client.connect(SocketAddr::V4(FRONTEND), DEADLINE).unwrap();
    shift_away(lb);
    topology.backends[0].namespace.block("input", "tcp flags & rst == rst").unwrap();
    abort(client).unwrap();
    lb.becomes("v1", "busy", "1 socket remains: 1 in accept queue (the flow table shows none)");
    topology.backends[0].namespace.unblock().unwrap();
    drop(listener.accept().unwrap());
    lb.becomes("v1", "idle", "");
    agent.terminate(DEADLINE).unwrap();
    let said = lb.becomes("v1", "unknown", "sockets: agent 10.2.1.2:7443: not reachable");
    assert!(said.is("unknown", "only the clients' half of its flows passes here"), "{said:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_agent_that_cannot_be_trusted_or_does_not_answer_is_unknown() {
    let (ca, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let topology =
        Topology::new(&TopologySpec { mode: Mode::Dsr, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    lb.write_config(&asking(&topology, &ca)).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let _listener = listen(&topology);
    shift_away(lb);
    // Its certificate is another CA's; it demands another CA's; it is for another address.
    let cases = [
        (ca.certificate(), other.sign(HOST).unwrap(), "no trust: invalid peer certificate"),
        (other.certificate(), ca.sign(HOST).unwrap(), "no trust: received fatal alert"),
        (ca.certificate(), ca.sign("10.2.2.2").unwrap(), "no trust: invalid peer certificate"),
    ];
    for (trusted, files, why) in cases {
        let agent = start(&topology, &trusted, &files);
        lb.becomes("v1", "unknown", &format!("sockets: agent 10.2.1.2:7443: {why}"));
        agent.terminate(DEADLINE).unwrap();
    }
    let agent = start(&topology, &ca.certificate(), &ca.sign(HOST).unwrap());
    lb.becomes("v1", "idle", "");
    // It takes new certificates without a restart, and keeps the old ones if those are no good.
    let ours = ca.sign(HOST).unwrap();
    std::fs::write(&ours[0], "junk").unwrap();
    agent.signal(Signal::SIGHUP).unwrap();
    lb.becomes("v1", "idle", "");
    let [certificate, key] = other.sign(HOST).unwrap();
    std::fs::copy(certificate, &ours[0]).unwrap();
    std::fs::copy(key, &ours[1]).unwrap();
    agent.signal(Signal::SIGHUP).unwrap();
    lb.becomes("v1", "unknown", "no trust: invalid peer certificate");
    ca.sign(HOST).unwrap();
    agent.signal(Signal::SIGHUP).unwrap();
    lb.becomes("v1", "idle", "");
    // It hangs.
    agent.signal(Signal::SIGSTOP).unwrap();
    lb.becomes("v1", "unknown", "sockets: agent 10.2.1.2:7443: no answer within 2s");
    agent.signal(Signal::SIGCONT).unwrap();
    lb.becomes("v1", "idle", "");
}

/// The clock of its host has gone back, as that of one that was restored from a copy; its kernel
/// tells nothing.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_agent_whose_answer_is_stale_or_whose_kernel_refuses_is_unknown() {
    let ca = Authority::new().unwrap();
    let topology =
        Topology::new(&TopologySpec { mode: Mode::Dsr, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    lb.write_config(&asking(&topology, &ca)).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let _listener = listen(&topology);
    let files = ca.sign(HOST).unwrap();
    shift_away(lb);
    let mut agent = start(&topology, &ca.certificate(), &files);
    lb.becomes("v1", "idle", "");
    agent.terminate(DEADLINE).unwrap();
    agent = start_under(&topology, &ca.certificate(), &files, |agent| shift_clocks(agent, -60));
    // Once: the next answer is compared with this one.
    let said = lb.verdict("v1").unwrap();
    let why = "sockets: agent 10.2.1.2:7443: stale answer: its host's clock is behind";
    assert!(said.is("unknown", why), "{said:?}");
    lb.becomes("v1", "idle", "");
    agent.terminate(DEADLINE).unwrap();
    let _agent = start_under(&topology, &ca.certificate(), &files, refuse_sock_diag);
    let why = "sockets: agent 10.2.1.2:7443: sock_diag: netlink socket: EPERM";
    let said = lb.becomes("v1", "unknown", why);
    assert!(said.is("unknown", "only the clients' half of its flows passes here"), "{said:?}");
}

/// Bad files are errors that name them: at the agent's start, at the daemon's, at a reload.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn files_that_are_no_good_are_named() {
    let ca = Authority::new().unwrap();
    let topology =
        Topology::new(&TopologySpec { mode: Mode::Dsr, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    let good = asking(&topology, &ca);
    lb.write_config(&good).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    lb.write_config(&good.replace("daemon.key", "gone.key")).unwrap();
    let refused = lb.refused(&["reload"]).unwrap();
    assert!(refused.says(2, &["daemon.agent: ", "/gone.key: No such file"]), "{refused:?}");
    let [certificate, _] = ca.sign(HOST).unwrap();
    let [ca, certificate] = [ca.certificate(), certificate].map(|p| p.display().to_string());
    let arguments = |listen, key| {
        ["agent", "--listen", listen, "--ca", &ca, "--certificate", &certificate, "--key", key]
            .map(str::to_owned)
    };
    let refused = |arguments: [String; 9]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        lb.refused(&arguments).unwrap()
    };
    let said = refused(arguments("127.0.0.1:0", "/no/such.key"));
    assert!(said.says(2, &["agent: /no/such.key: No such file"]), "{said:?}");
    let key = Path::new(&certificate).with_extension("key").display().to_string();
    let said = refused(arguments("203.0.113.7:7443", &key));
    assert!(said.says(1, &["agent: cannot listen on 203.0.113.7:7443"]), "{said:?}");
}
