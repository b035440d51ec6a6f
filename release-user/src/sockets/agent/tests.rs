//! Agent and client on loopback, with certificates made for the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use super::client::{AgentClient, AgentError};
use super::server::{Allowed, Scope, serve};
use super::*;
use crate::config::{Credentials, Protocol};
use crate::sockets::Target;

/// A CA and what it has signed, as files.
struct Ca {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for a name or an IP address.
    fn sign(&self, name: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (pem, key_file) =
            (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&pem, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Credentials::new(self.path("ca.pem"), pem, key_file)
    }
}

/// An agent that ends with its guard.
struct Agent {
    address: SocketAddr,
    certificates: watch::Sender<Arc<rustls::ServerConfig>>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn start(files: &Credentials, allowed: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (certificates, watched) = watch::channel(tls::server(files).unwrap());
        let allowed = allowed.iter().map(|text| Allowed::parse(text).unwrap()).collect();
        let scope = Scope { allowed, ..Scope::default() };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(serve(listener, watched, scope, shutdown));
        Self { address, certificates, stop: Some(stop), task }
    }
}

fn client(files: &Credentials) -> AgentClient {
    AgentClient::new(tls::client(files).unwrap())
}

fn about(address: SocketAddr) -> Question {
    let target = Target { address, protocol: Protocol::Tcp };
    Question { own: vec![address.ip()], targets: vec![target] }
}

#[tokio::test]
async fn an_agent_tells_what_its_kernel_says() {
    let ca = Ca::new();
    let mut agent = Agent::start(&ca.sign("127.0.0.1"), &[]).await;
    let client = client(&ca.sign("daemon"));
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let told = client.ask(agent.address, &about(at)).await.unwrap();
    assert_eq!(told.summary.remaining(), 0);
    assert!(told.summary.serves());
    assert!(!told.agent.is_empty());
    let _held = std::net::TcpStream::connect(at).unwrap();
    let told = client.ask(agent.address, &about(at)).await.unwrap();
    assert_eq!(told.summary.in_words(), "1 socket remains: 1 in accept queue");
    assert!(told.age < client::PATIENCE);
    // What the kernel cannot answer for is no answer.
    let error = client.ask(agent.address, &about("203.0.113.7:80".parse().unwrap())).await;
    assert_eq!(
        error.unwrap_err(),
        AgentError::Refused("203.0.113.7 is no address there".to_owned())
    );
    agent.stop.take().unwrap().send(()).unwrap();
    agent.task.await.unwrap();
    let error = client.ask(agent.address, &about(at)).await.unwrap_err();
    assert!(matches!(error, AgentError::Unreachable(_)), "{error}");
}

/// Certificates of the agent, certificates of the client → the error.
#[tokio::test]
async fn strangers_get_and_give_no_answer() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let stolen = Credentials::new(
        ours.path("ca.pem"),
        theirs.sign("daemon").certificate().to_owned(),
        theirs.path("daemon.key"),
    );
    let cases = [
        ("agent of another CA", theirs.sign("127.0.0.1"), ours.sign("daemon"), "UnknownIssuer"),
        ("agent of another address", ours.sign("127.0.0.9"), ours.sign("daemon"), "127.0.0.9"),
        ("client of another CA", ours.sign("127.0.0.1"), stolen, "UnknownCA"),
    ];
    for (name, agents, clients, part) in cases {
        let agent = Agent::start(&agents, &[]).await;
        let error = client(&clients).ask(agent.address, &about(agent.address)).await.unwrap_err();
        assert!(matches!(error, AgentError::Untrusted(_)), "{name}: {error}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new();
    let agent = Agent::start(&ca.sign("127.0.0.1"), &[]).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let error = AgentClient::new(Arc::new(config)).ask(agent.address, &about(agent.address)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, AgentError::Untrusted(_)), "{error}");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn only_what_is_allowed_is_answered() {
    let ca = Ca::new();
    let agent = Agent::start(&ca.sign("127.0.0.1"), &["127.0.0.1:80", "127.0.1.0/24"]).await;
    let client = client(&ca.sign("daemon"));
    for (address, allowed) in [
        ("127.0.0.1:80", true),
        ("127.0.1.9:4711", true),
        ("127.0.0.1:81", false),
        ("127.0.0.2:80", false),
    ] {
        let told = client.ask(agent.address, &about(address.parse().unwrap())).await;
        assert_eq!(told.is_ok(), allowed, "{address}: {told:?}");
    }
    for wrong in ["127.0.0.1", "web:80", "10.0.0.1/24", ""] {
        assert!(Allowed::parse(wrong).is_err(), "{wrong}");
    }
}

/// What comes back to bytes sent by a client that is let in.
async fn raw(agent: &Agent, files: &Credentials, bytes: &[u8]) -> String {
    let tls = tokio_rustls::TlsConnector::from(tls::client(files).unwrap());
    let name = rustls::pki_types::ServerName::IpAddress(agent.address.ip().into());
    let stream = TcpStream::connect(agent.address).await.unwrap();
    let mut stream = tls.connect(name, stream).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bad_questions_get_bad_answers() {
    let ca = Ca::new();
    let (agent, files) = (Agent::start(&ca.sign("127.0.0.1"), &[]).await, ca.sign("daemon"));
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let query = |targets: usize| {
        let mut question = about(agent.address);
        question.targets = vec![question.targets[0]; targets];
        serde_json::to_string(&Query { schema: 1, nonce: 1, question }).unwrap()
    };
    for (text, status) in [
        (post(PATH, &query(1)), "200 OK"),
        (post(PATH, &query(0)), "400 Bad"),
        (post(PATH, &query(65)), "400 Bad"),
        (post(PATH, "{}"), "400 Bad"),
        (post(PATH, &query(1).replace("\"schema\":1", "\"schema\":2")), "400 Bad"),
        (post(PATH, &query(1).replace("\"nonce\"", "\"x\":1,\"nonce\"")), "400 Bad"),
        (post(PATH, &"x".repeat(LONGEST_QUERY + 1)), "413 Payload"),
        (post("/v1/destroy", &query(1)), "404 Not"),
        (format!("GET {PATH} HTTP/1.1\r\nhost: a\r\n\r\n"), "405 Method"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), "4"),
    ] {
        let answer = raw(&agent, &files, text.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
}

/// An agent that gives the same clock and boot whatever the time is.
async fn forger(files: &Credentials, clocks: Vec<(&'static str, u64, u64)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = TlsAcceptor::from(tls::server(files).unwrap());
    tokio::spawn(async move {
        for (boot_id, monotonic_ns, other) in clocks {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tls.accept(stream).await.unwrap();
            let mut text = Vec::new();
            while !text.ends_with(b"}") {
                stream.read_buf(&mut text).await.unwrap();
            }
            let text = String::from_utf8(text).unwrap();
            let query: Query =
                serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            let answer = Answer {
                schema: SCHEMA,
                nonce: query.nonce.wrapping_add(other),
                agent: "forger".to_owned(),
                boot_id: boot_id.to_owned(),
                monotonic_ns,
                summary: Summary::default(),
            };
            let body = serde_json::to_string(&answer).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn answers_from_another_time_are_stale() {
    const SECOND: u64 = 1_000_000_000;
    let ca = Ca::new();
    let answers = vec![
        ("a", 100 * SECOND, 1),
        ("a", 100 * SECOND, 0),
        ("a", 100 * SECOND, 0),
        ("a", 110 * SECOND, 0),
        ("a", 105 * SECOND, 0),
        ("a", 120 * SECOND, 0),
        ("b", 200 * SECOND, 0),
        ("b", 210 * SECOND, 0),
    ];
    let address = forger(&ca.sign("127.0.0.1"), answers).await;
    let client = client(&ca.sign("daemon"));
    for expected in [
        Some("another question"),
        None,
        Some("stands still"),
        None,
        Some("behind"),
        None,
        Some("booted"),
        None,
    ] {
        let told = client.ask(address, &about(address)).await;
        match expected {
            None => assert!(told.is_ok(), "{told:?}"),
            Some(part) => {
                let error = told.unwrap_err();
                assert!(matches!(error, AgentError::Stale(why) if why.contains(part)), "{error}");
            }
        }
        // The host's clock must go on as ours does: let ours.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn silence_is_no_answer() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = client(&ca.sign("daemon")).ask(address, &about(address)).await.unwrap_err();
    assert_eq!(error, AgentError::TooLate);
    assert_eq!(error.to_string(), "no answer within 2s");
}

#[tokio::test]
async fn new_certificates_are_shown_from_then_on() {
    let (old, new) = (Ca::new(), Ca::new());
    let agent = Agent::start(&old.sign("127.0.0.1"), &[]).await;
    let (before, after) = (client(&old.sign("daemon")), client(&new.sign("daemon")));
    assert!(before.ask(agent.address, &about(agent.address)).await.is_ok());
    assert!(after.ask(agent.address, &about(agent.address)).await.is_err());
    agent.certificates.send_replace(tls::server(&new.sign("127.0.0.1")).unwrap());
    assert!(before.ask(agent.address, &about(agent.address)).await.is_err());
    assert!(after.ask(agent.address, &about(agent.address)).await.is_ok());
}

#[test]
fn what_is_wrong_with_a_file_names_it() {
    let ca = Ca::new();
    let good = ca.sign("daemon");
    let other = ca.sign("other");
    std::fs::write(ca.path("junk.pem"), "junk").unwrap();
    let gone = Path::new("/no/such/file.pem").to_owned();
    let junk = ca.path("junk.pem");
    let with = |ca: &Path, certificate: &Path, key: &Path| {
        let files = Credentials::new(ca.to_owned(), certificate.to_owned(), key.to_owned());
        let error = tls::client(&files).unwrap_err().to_string();
        assert_eq!(tls::server(&files).unwrap_err().to_string(), error);
        error
    };
    let (roots, chain, key) = (good.ca(), good.certificate(), good.key());
    for (error, file, part) in [
        (with(&gone, chain, key), &gone, "No such file"),
        (with(roots, &gone, key), &gone, "No such file"),
        (with(roots, chain, &gone), &gone, "No such file"),
        (with(&junk, chain, key), &junk, "holds no certificate in PEM"),
        (with(roots, &junk, key), &junk, "holds no certificate in PEM"),
        (with(roots, chain, &junk), &junk, "holds no private key in PEM"),
        (with(roots, chain, other.key()), &other.key().to_owned(), "does not fit"),
    ] {
        assert!(error.starts_with(&format!("{}: ", file.display())), "{error}");
        assert!(error.contains(part), "{error}");
    }
}
