//! The kernel is asked in namespaces that are not ours.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use release_tests::cases::say;
use release_tests::netns::{Netns, Receiving, VethEnd, veth};
use release_tests::scenario::{DEADLINE, eventually};
use release_user::config::Protocol;
use release_user::net::namespace::Namespace;
use release_user::sockets::{DestroyError, Question, State, Summary, Target, ask, destroy};

const SERVER: &str = "10.7.0.1";

/// A client and a server, each in a namespace of its own, with a wire between them.
struct Pair {
    client: Netns,
    server: Netns,
}

impl Pair {
    fn new() -> Self {
        let (client, server) = (Netns::new("rt-sc").unwrap(), Netns::new("rt-ss").unwrap());
        let end = |namespace, address| VethEnd {
            namespace,
            device: "eth0",
            address,
            receiving: Receiving::FromXdp,
        };
        veth(end(&client, "10.7.0.2/24"), end(&server, "10.7.0.1/24")).unwrap();
        Self { client, server }
    }

    fn there(&self) -> Namespace {
        Namespace::Named(self.server.name().to_owned())
    }

    fn listen(&self, address: &str) -> TcpListener {
        self.server.listen(address.parse::<SocketAddr>().unwrap()).unwrap()
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), port)
}

fn about(port: u16) -> Question {
    let target = Target { address: at(port), protocol: Protocol::Tcp };
    Question { own: vec![at(port).ip()], targets: vec![target] }
}

fn words(namespace: &Namespace, port: u16) -> String {
    ask(namespace, &about(port)).as_ref().map_or_else(ToString::to_string, Summary::in_words)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn sockets_of_another_namespace_by_name_and_by_process() {
    let pair = Pair::new();
    let listener = pair.listen("[::]:8080");
    let _client = pair.client.connect(at(8080), DEADLINE).unwrap();
    // A process there, and the file that says which.
    let mut command = pair.server.command("sleep");
    let process = pair.server.spawn("sleep", command.arg("60")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.pid");
    fs::write(&file, format!("{}\n", process.pid())).unwrap();
    for namespace in [pair.there(), Namespace::PidFile(file.clone())] {
        eventually(DEADLINE, "in the accept queue", || {
            words(&namespace, 8080) == "1 socket remains: 1 in accept queue"
        });
    }
    let _server = listener.accept().unwrap();
    assert_eq!(words(&pair.there(), 8080), "1 socket remains: 1 ESTABLISHED");
    // The address belongs to nobody here, and to somebody else at the client's.
    let elsewhere = Namespace::Named(pair.client.name().to_owned());
    for namespace in [Namespace::Own, elsewhere] {
        let said = words(&namespace, 8080);
        assert_eq!(said, "10.7.0.1 is no address there");
    }
    // Gone: nothing is known, rather than nothing found.
    process.kill().unwrap();
    let said = words(&Namespace::PidFile(file), 8080);
    assert!(said.contains("No such file"), "{said}");
    let gone = pair.there();
    drop(pair);
    let said = words(&gone, 8080);
    assert!(said.starts_with("/run/netns/rt-ss-") && said.contains("No such file"), "{said}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_handshake_that_nobody_ends_is_a_socket() {
    let pair = Pair::new();
    let _listener = pair.listen("10.7.0.1:8080");
    pair.client.block("input", "tcp sport 8080").unwrap();
    let error = pair.client.connect(at(8080), Duration::from_millis(200)).unwrap_err();
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(kind, Some(ErrorKind::TimedOut));
    let summary = ask(&pair.there(), &about(8080)).unwrap();
    assert_eq!(summary.in_words(), "1 socket remains: 1 SYN_RECV");
    assert_eq!(summary.peers[0].state, Some(State::SynRecv));
    assert_eq!(summary.peers[0].remote.ip().to_string(), "10.7.0.2");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_socket_is_ended_and_no_other() {
    let pair = Pair::new();
    for bound in ["10.7.0.1:8080", "[::]:8081"] {
        let listener = pair.listen(bound);
        let port = listener.local_addr().unwrap().port();
        let connect = || pair.client.connect(at(port), DEADLINE).unwrap();
        let (mut doomed, spared) = (connect(), connect());
        let mut servers: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
        assert_eq!(words(&pair.there(), port), "2 sockets remain: 2 ESTABLISHED");
        let remote = doomed.local_addr().unwrap();
        let end = || destroy(&pair.there(), Protocol::Tcp, at(port), remote);
        match end() {
            Err(error @ DestroyError::Unsupported) => {
                return say(format_args!("one_socket_is_ended: {error}"));
            }
            result => result.unwrap(),
        }
        assert_eq!(words(&pair.there(), port), "1 socket remains: 1 ESTABLISHED");
        doomed.set_read_timeout(Some(DEADLINE)).unwrap();
        let error = doomed.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let server = servers.iter_mut().find(|(_, peer)| peer.port() == remote.port()).unwrap();
        let error = server.0.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        // Asked again, the kernel would find the listener at these ends: it must live on.
        assert!(matches!(end(), Err(DestroyError::NoSuchSocket)));
        let _another = connect();
        assert!(words(&pair.there(), port).starts_with("2 sockets remain"));
        drop(spared);
    }
}
