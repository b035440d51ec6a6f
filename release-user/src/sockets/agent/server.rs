//! The agent's side: read-only, bounded in everything that a client decides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Answer, LONGEST_QUERY, PATH, Query, Refusal, SCHEMA, boot_id, monotonic};
use crate::config::Prefix;
use crate::net::namespace::Namespace;
use crate::sockets::{Question, Target, ask};

/// Connections at once; others wait to be accepted.
const CONNECTIONS: usize = 64;
/// Time for a connection as a whole, handshake, question and answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Targets of a question at most.
const MOST_TARGETS: usize = 64;

/// What may be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// One address and port.
    Socket(SocketAddr),
    /// All ports of some addresses.
    Prefix(Prefix),
}

impl Allowed {
    /// Reads `10.0.0.11:80`, `[fd00::11]:80`, `10.0.0.0/24` or `fd00::/64`.
    ///
    /// # Errors
    /// When it is something else, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        Prefix::parse(text).map(Self::Prefix).map_err(|error| format!("{error}, or an IP:PORT"))
    }

    fn covers(&self, at: SocketAddr) -> bool {
        match self {
            Self::Socket(socket) => (socket.ip(), socket.port()) == (at.ip(), at.port()),
            Self::Prefix(prefix) => prefix.contains(at.ip()),
        }
    }
}

/// What an agent answers for.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Where sockets are looked for.
    pub namespace: Namespace,
    /// What may be asked about; everything if empty.
    pub allowed: Vec<Allowed>,
}

/// Serves until `shutdown` completes, then lets questions in progress be answered. `certificates`
/// may change at any time: connections begun later use the new ones.
pub async fn serve(
    listener: TcpListener,
    certificates: watch::Receiver<Arc<ServerConfig>>,
    scope: Scope,
    shutdown: impl Future<Output = ()>,
) {
    let (scope, room) = (Arc::new(scope), Arc::new(Semaphore::new(CONNECTIONS)));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        // A place first: who has none is not accepted.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let tls = TlsAcceptor::from(Arc::clone(&certificates.borrow()));
                let scope = Arc::clone(&scope);
                connections.spawn(async move {
                    let _place = place;
                    match tokio::time::timeout(PATIENCE, connection(stream, tls, scope)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => log::warn!("{peer}: {error}"),
                        Err(_) => log::warn!("{peer}: not done within {PATIENCE:?}"),
                    }
                });
            }
            // Out of descriptors, or the client has gone: others are waiting.
            Err(error) => {
                log::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    connections.join_all().await;
}

/// One question on one connection.
async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    scope: Arc<Scope>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = tls.accept(stream).await?;
    let service = service_fn(move |request| {
        let scope = Arc::clone(&scope);
        async move { Ok::<_, Infallible>(respond(request, &scope).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn respond(request: Request<Incoming>, scope: &Scope) -> Response<Full<Bytes>> {
    match answer(request, scope).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err((status, error)) => {
            log::debug!("refused: {error}");
            json(status, &Refusal { error })
        }
    }
}

type Refused = (StatusCode, String);

async fn answer(request: Request<Incoming>, scope: &Scope) -> Result<Answer, Refused> {
    if request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, format!("{}: no such path", request.uri().path())));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only POST".to_owned()));
    }
    let body = Limited::new(request.into_body(), LONGEST_QUERY).collect().await;
    let body = body.map_err(|error| (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
    let query: Query = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("question: {error}")))?;
    if query.schema != SCHEMA {
        let error = format!("question of schema {}: this agent knows {SCHEMA}", query.schema);
        return Err((StatusCode::BAD_REQUEST, error));
    }
    admit(&query.question, scope)?;
    let internal = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, error);
    let boot_id = boot_id().map_err(|error| internal(format!("boot id: {error}")))?;
    // From before: what the answer says is no older.
    let monotonic_ns = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
    let namespace = scope.namespace.clone();
    let summary = tokio::task::spawn_blocking(move || ask(&namespace, &query.question))
        .await
        .map_err(|error| internal(error.to_string()))?
        .map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    let agent = nix::sys::utsname::uname()
        .map(|name| name.nodename().to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(Answer { schema: SCHEMA, nonce: query.nonce, agent, boot_id, monotonic_ns, summary })
}

fn admit(question: &Question, scope: &Scope) -> Result<(), Refused> {
    let Question { own, targets } = question;
    if targets.is_empty() || targets.len().max(own.len()) > MOST_TARGETS {
        let error = format!("{} targets: 1 to {MOST_TARGETS}", targets.len());
        return Err((StatusCode::BAD_REQUEST, error));
    }
    let covered = |target: &&Target| scope.allowed.iter().any(|a| a.covers(target.address));
    match targets.iter().find(|target| !scope.allowed.is_empty() && !covered(target)) {
        None => Ok(()),
        Some(target) => {
            let error = format!("{target} is not among what this agent may answer for (--allow)");
            Err((StatusCode::FORBIDDEN, error))
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // These types have string keys only, so there is nothing that JSON cannot say.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
