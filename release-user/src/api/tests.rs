//! Server and client over a real socket.

use super::client::{Client, ClientError};
use super::fake::{Fake, event};
use super::server::{bind, serve, serve_users};
use super::types::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(20);

/// A served fake, until it is dropped.
pub(crate) struct Served {
    pub fake: Arc<Fake>,
    pub client: Client,
    pub socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<anyhow::Result<()>>,
    _folder: TempDir,
}

impl Served {
    pub fn new(fake: Fake) -> Self {
        Self::to_users(fake, None)
    }

    fn to_users(fake: Fake, users: Option<Vec<u32>>) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("run/release.sock");
        let listener = bind(&socket).unwrap();
        let fake = Arc::new(fake);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let api = Arc::clone(&fake);
        let server = tokio::spawn(async move {
            match users {
                Some(users) => serve_users(listener, api, stopped, users).await,
                None => serve(listener, api, stopped).await,
            }
        });
        let client = Client::new(&socket, LIMIT);
        Self { fake, client, socket, stop: Some(stop), server, _folder: folder }
    }

    /// Stops the server and waits until it has.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(LIMIT, self.server).await.unwrap().unwrap().unwrap();
    }

    /// What the server says to bytes as they are.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn target() -> TargetQuery {
    TargetQuery { service: "web".into(), target: "v1".into() }
}

fn shift(weights: &[(&str, u32)]) -> ShiftRequest {
    ShiftRequest {
        service: "web".into(),
        weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
        allow_empty: false,
    }
}

fn same<T: serde::Serialize>(left: &T, right: &T) {
    assert_eq!(serde_json::to_value(left).unwrap(), serde_json::to_value(right).unwrap());
}

#[tokio::test]
async fn every_endpoint_answers() {
    let served = Served::new(Fake::new());
    let client = &served.client;
    same(&client.status(Some("web")).await.unwrap(), &super::fake::status());
    assert_eq!(client.instances().await.unwrap()[0].instance.id, "web-b");
    same(&client.idle(&target()).await.unwrap(), &super::fake::report(Verdict::Idle));
    let receipt = client.receipt(&target()).await.unwrap();
    assert_eq!((receipt.id, receipt.counters.len()), (3, 1));
    let in_force = client.shift(&shift(&[("v1", 0), ("v2", 100)])).await.unwrap();
    assert_eq!(in_force.weights, BTreeMap::from([("v1".into(), 0), ("v2".into(), 100)]));
    let drain = DrainRequest {
        service: "web".into(),
        target: "v1".into(),
        deadline_s: Some(1.5),
        force_per_second: None,
        allow_empty: true,
    };
    assert_eq!(client.drain(&drain).await.unwrap().generation, 8);
    assert!(!client.undrain(&drain).await.unwrap().changed);
    let query = ExplainQuery {
        proto: "tcp".into(),
        src: "198.51.100.7:40000".into(),
        dst: "192.0.2.10:80".into(),
    };
    assert_eq!(client.explain(&query).await.unwrap().decision, "placement");
    let register = RegisterRequest {
        service: "web".into(),
        version: "v2".into(),
        addr: "10.0.0.3:80".into(),
        id: Some("a".into()),
        weight: 1,
        meta: BTreeMap::new(),
        lease_s: Some(30.0),
        watch_pid: None,
        pid_namespace: None,
    };
    let registered = client.register(&register).await.unwrap();
    assert_eq!((&*registered.id, registered.lease_s, registered.changed), ("a", Some(30.0), false));
    let (service, id) = (String::from("web"), String::from("a"));
    let ask = OfflineRequest { service, id, deadline_s: None, allow_empty: false };
    assert!(client.offline(&ask).await.unwrap().shutdown);
    let OfflineRequest { service, id, .. } = ask;
    let leave = DeregisterRequest { service, id, force: true, allow_empty: false };
    assert_eq!(client.deregister(&leave).await.unwrap().lost.len(), 1);
    let DeregisterRequest { service, id, .. } = leave;
    let maint = MaintRequest { service, id, on: true, allow_empty: false };
    assert!(client.maint(&maint).await.unwrap().changed);
    assert_eq!(client.reload().await.unwrap().changes.len(), 1);
    assert_eq!(client.version().await.unwrap().version, env!("CARGO_PKG_VERSION"));
    client.detach().await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn parameters_arrive_as_they_were_given() {
    let served = Served::new(Fake::new());
    let query = FlowQuery {
        service: Some("web & söhne?=#%+".into()),
        version: None,
        instance: Some("[2001:db8::1]:80".into()),
        state: Some(String::new()),
        oldest: Some(7),
    };
    assert_eq!(served.client.flows(&query).await.unwrap().len(), 1);
    let asked = served.fake.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked, format!("flows {}", serde_json::to_string(&query).unwrap()));
    served.stop().await;
}

#[tokio::test]
async fn errors_keep_code_and_hint() {
    let served = Served::new(Fake::with_verdicts(&[Verdict::Unknown]));
    let error = ApiError::from(served.client.status(Some("wbe")).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Usage);
    assert_eq!(error.message, "service \"wbe\": unknown");
    assert_eq!(error.hint.as_deref(), Some("services: web"));
    let error = ApiError::from(served.client.shift(&shift(&[("v1", 0)])).await.unwrap_err());
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::Conflict, Some("--allow-empty")));
    let error = ApiError::from(served.client.receipt(&target()).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Unknown);
    served.stop().await;
}

#[tokio::test]
async fn bad_requests_are_usage_errors() {
    let served = Served::new(Fake::new());
    let json = "Host: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\n{json}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (request, status) in [
        (post("/v1/shift", "{"), 400),
        (post("/v1/shift", "{}"), 422),
        (post("/v1/shift", r#"{"service":"web","weights":{"v1":-1}}"#), 422),
        (post("/v1/drain", r#"{"service":7}"#), 422),
        (post("/v1/status", "{}"), 405),
        (post("/v1/nothing", "{}"), 404),
        (get("/v1/shift"), 405),
        (get("/v1/idle?service=web"), 400),
        (get("/v1/flows?oldest=-1"), 400),
        (get("/v1/events?follow=maybe"), 400),
        (get("/"), 404),
        ("POST /v1/reload HTTP/1.0\r\n\r\n".to_owned(), 200),
        (post("/v1/shift", "").replace("application/json", "text/plain"), 415),
    ] {
        let answer = served.raw(&request).await;
        assert!(answer.split(' ').nth(1) == Some(&status.to_string()), "{request}\n{answer}");
        if status != 200 {
            assert!(answer.contains(r#"{"error":{"code":"usage","message":""#), "{answer}");
        }
    }
    assert_eq!(*served.fake.asked.lock().unwrap(), [""; 0]);
    served.stop().await;
}

#[tokio::test]
async fn strangers_are_refused() {
    let served = Served::to_users(Fake::new(), Some(vec![u32::MAX - 1]));
    let error = ApiError::from(served.client.detach().await.unwrap_err());
    assert!(error.message.contains("is not allowed here"), "{error}");
    assert_eq!(error.hint.as_deref(), Some("only root and the daemon's own user are"));
    assert!(served.fake.asked.lock().unwrap().is_empty());
    let answer = served.raw("GET /v1/version HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 403 "), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone() {
    let served = Served::new(Fake::new());
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&served.socket), 0o600);
    let folder = served.socket.parent().unwrap();
    assert_eq!(mode(folder), 0o755);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "nothing else is left there");
    served.stop().await;
}

#[tokio::test]
async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let served = Served::new(Fake::new());
    let error = bind(&served.socket).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.ends_with("another daemon is running"), "{error}");
    served.client.version().await.unwrap();

    let folder = TempDir::new().unwrap();
    let stale = folder.path().join("s.sock");
    drop(bind(&stale).unwrap());
    assert!(stale.exists());
    let client = Client::new(&stale, LIMIT);
    assert!(matches!(client.version().await, Err(ClientError::NotRunning(_))));
    let listener = bind(&stale).unwrap();
    let server = tokio::spawn(serve(listener, Arc::new(Fake::new()), std::future::pending()));
    client.version().await.unwrap();
    server.abort();

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(bind(&file).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let error = bind(&file.join("x.sock")).unwrap_err();
    assert!(error.message.contains("cannot create its folder"), "{error}");
    served.stop().await;
}

#[tokio::test]
async fn no_daemon_is_said_so() {
    let client = Client::new("/nonexistent/release.sock", LIMIT);
    let error = ApiError::from(client.status(None).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(
        error.message.starts_with("daemon: not reachable at /nonexistent/release.sock: "),
        "{error}"
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("start it: releasectl daemon, or see systemctl status releasectl")
    );
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("s.sock");
    let _silent = bind(&socket).unwrap();
    let client = Client::new(&socket, Duration::from_millis(50));
    let Err(ClientError::NoAnswer(error)) = client.status(None).await else { panic!() };
    assert_eq!(error.message, "daemon: no answer within 50ms");
    assert!(matches!(client.events(true).await, Err(ClientError::NoAnswer(_))));
}

#[tokio::test]
async fn what_is_no_answer_is_said_so() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "talk not understood"),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", "HTTP status 500"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "connection broke"),
        ("garbage", "connection broke"),
        ("", "connection broke"),
    ] {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("s.sock");
        let listener = bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = Client::new(&socket, LIMIT).status(None).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{answer:?}: {error}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_change_outlives_its_client() {
    let mut fake = Fake::new();
    fake.slow = Duration::from_millis(200);
    let served = Served::new(fake);
    let hasty = Client::new(&served.socket, Duration::from_millis(50));
    assert!(matches!(hasty.shift(&shift(&[("v1", 1)])).await, Err(ClientError::NoAnswer(_))));
    let fake = Arc::clone(&served.fake);
    // The end waits for it, although the client is gone.
    served.stop().await;
    assert_eq!(fake.done.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn events_known_and_to_come() {
    let served = Served::new(Fake::new());
    let mut events = served.client.events(false).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().seq, 1);
    assert_eq!(events.next().await.unwrap().unwrap().seq, 2);
    assert!(events.next().await.unwrap().is_none());

    let mut events = served.client.events(true).await.unwrap();
    // Number 2 comes again: it is both among the known and in the channel.
    for seq in 2..=4 {
        served.fake.events.send(event(seq)).unwrap();
    }
    for seq in 1..=4 {
        let next = tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((next.seq, next.message), (seq, format!("event {seq}")));
    }
    // The server's end is not held up by those who follow.
    let begin = std::time::Instant::now();
    served.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(events.next().await.unwrap().is_none());
}
