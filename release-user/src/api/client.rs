//! Asks the daemon over its socket. Every request has a connection of its own.

use super::release::{
    OrderRequest, ReleaseId, ReleaseLine, ReleaseQuery, ReleaseShow, StartRelease, Started,
};
use super::types::{
    ApiError, DeregisterRequest, Deregistered, DrainRequest, ErrorCode, EventLine, ExplainQuery,
    Explanation, FlowLine, FlowQuery, IdleReport, InForce, InstanceLine, MaintRequest, Offline,
    OfflineRequest, Receipt, ReceiptQuery, RegisterRequest, Registered, Reloaded, RetireRequest,
    Retired, ShiftRequest, Status, TargetQuery,
};
use super::{ErrorBody, VersionInfo};
use crate::release::sample::Sample;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Why there is no answer that can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there.
    #[error(transparent)]
    NotRunning(ApiError),
    /// A daemon may be there, but no answer came: no permission, too late, connection broken.
    #[error(transparent)]
    NoAnswer(ApiError),
    /// The daemon's own word, or an answer that makes no sense.
    #[error(transparent)]
    Answer(ApiError),
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning(error)
            | ClientError::NoAnswer(error)
            | ClientError::Answer(error) => error,
        }
    }
}

/// What the client's methods return.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A daemon's socket, and how long to wait for an answer.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Does not connect yet. `timeout` bounds each request as a whole.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self { socket: socket.into(), timeout }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Services, versions, instances, flows; all, or one service.
    ///
    /// # Errors
    /// No answer, or the daemon's error; so with all methods.
    pub async fn status(&self, service: Option<&str>) -> Result<Status> {
        self.get("status", &[("service", service)]).await
    }

    /// Flows.
    pub async fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowLine>> {
        let oldest = query.oldest.map(|count| count.to_string());
        self.get(
            "flows",
            &[
                ("service", query.service.as_deref()),
                ("version", query.version.as_deref()),
                ("instance", query.instance.as_deref()),
                ("state", query.state.as_deref()),
                ("oldest", oldest.as_deref()),
            ],
        )
        .await
    }

    /// Instances.
    pub async fn instances(&self) -> Result<Vec<InstanceLine>> {
        self.get("instances", &[]).await
    }

    /// The verdict with its evidence.
    pub async fn idle(&self, target: &TargetQuery) -> Result<IdleReport> {
        let TargetQuery { service, target } = target;
        self.get("idle", &[("service", Some(service)), ("target", Some(target))]).await
    }

    /// Where a packet would go.
    pub async fn explain(&self, query: &ExplainQuery) -> Result<Explanation> {
        let ExplainQuery { proto, src, dst } = query;
        self.get("explain", &[("proto", Some(proto)), ("src", Some(src)), ("dst", Some(dst))]).await
    }

    /// The daemon's version.
    pub async fn version(&self) -> Result<VersionInfo> {
        self.get("version", &[]).await
    }

    /// Changes weights.
    pub async fn shift(&self, request: &ShiftRequest) -> Result<InForce> {
        self.post("shift", request).await
    }

    /// Takes a version or instance out of new flows.
    pub async fn drain(&self, request: &DrainRequest) -> Result<InForce> {
        self.post("drain", request).await
    }

    /// Puts it back.
    pub async fn undrain(&self, request: &DrainRequest) -> Result<InForce> {
        self.post("undrain", request).await
    }

    /// Writes a receipt; refused unless the verdict is `idle`.
    pub async fn receipt(&self, target: &TargetQuery) -> Result<Receipt> {
        self.post("receipt", target).await
    }

    /// Retires a version, or gives an instance free that was removed.
    pub async fn retire(&self, request: &RetireRequest) -> Result<Retired> {
        self.post("retire", request).await
    }

    /// Begins a release, or says what it would do.
    pub async fn start_release(&self, request: &StartRelease) -> Result<Started> {
        self.post("release/start", request).await
    }

    /// Releases under way, or all.
    pub async fn releases(&self, query: &ReleaseQuery) -> Result<Vec<ReleaseLine>> {
        let all = query.all.then_some("true");
        self.get("releases", &[("service", query.service.as_deref()), ("all", all)]).await
    }

    /// One release with all that happened, but for the first `skip` lines: by its number, or the
    /// newest of a service.
    pub async fn release(&self, release: &str, skip: usize) -> Result<ReleaseShow> {
        let skip = skip.to_string();
        self.get("release", &[("release", Some(release)), ("skip", Some(&skip))]).await
    }

    /// What was measured of both versions during a release, the first first.
    pub async fn release_samples(&self, release: &str) -> Result<Vec<Sample>> {
        self.get("release/samples", &[("release", Some(release))]).await
    }

    /// Pauses a release, gives it up, and so on.
    pub async fn order_release(&self, request: &OrderRequest) -> Result<ReleaseLine> {
        self.post("release/order", request).await
    }

    /// Goes back from a promoted release.
    pub async fn roll_back(&self, which: &ReleaseId) -> Result<Started> {
        self.post("release/rollback", which).await
    }

    /// Registers an instance, or renews what it registered.
    pub async fn register(&self, request: &RegisterRequest) -> Result<Registered> {
        self.post("register", request).await
    }

    /// Takes a registered instance out, and forgets it once it is idle.
    pub async fn deregister(&self, request: &DeregisterRequest) -> Result<Deregistered> {
        self.post("deregister", request).await
    }

    /// An instance asks to go offline: no new flows.
    pub async fn offline(&self, request: &OfflineRequest) -> Result<Offline> {
        self.post("offline", request).await
    }

    /// Begins or ends maintenance of an instance.
    pub async fn maint(&self, request: &MaintRequest) -> Result<InForce> {
        self.post("maint", request).await
    }

    /// Receipts written so far, newest first.
    pub async fn receipts(&self, query: &ReceiptQuery) -> Result<Vec<Receipt>> {
        let id = query.id.map(|id| id.to_string());
        let target = query.target.as_deref();
        let parts = [("service", Some(&*query.service)), ("target", target), ("id", id.as_deref())];
        self.get("receipts", &parts).await
    }

    /// Reads the configuration again.
    pub async fn reload(&self) -> Result<Reloaded> {
        self.post("reload", &()).await
    }

    /// Takes the data plane down and ends the daemon.
    pub async fn detach(&self) -> Result<()> {
        self.post::<serde_json::Value>("detach", &()).await.map(drop)
    }

    /// The last events, and, with `follow`, those to come. The timeout bounds the beginning only.
    pub async fn events(&self, follow: bool) -> Result<Events> {
        let query = [("follow", follow.then_some("true"))];
        let request = Request::get(path("events", &query)).body(Full::default());
        let response = self.in_time(self.ask(request)).await?;
        Ok(Events { body: response.into_body(), buffer: Vec::new() })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        endpoint: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T> {
        let request = Request::get(path(endpoint, query)).body(Full::default());
        self.in_time(async { parse(&body(self.ask(request).await?).await?) }).await
    }

    async fn post<T: DeserializeOwned>(&self, endpoint: &str, body: &impl Serialize) -> Result<T> {
        let json = serde_json::to_vec(body).map_err(|error| odd(&error))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path(endpoint, &[]))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(json));
        self.in_time(async { parse(&self::body(self.ask(request).await?).await?) }).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            let after = humantime::format_duration(self.timeout);
            let error = internal(format!("daemon: no answer within {after}"));
            Err(ClientError::NoAnswer(error.hint(
                "what was asked may still be done, and can be asked again; longer: --api-timeout",
            )))
        })
    }

    /// Sends a request and takes the answer, if it is a good one.
    async fn ask(
        &self,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Response<Incoming>> {
        let mut request = request.map_err(|error| odd(&error))?;
        // HTTP/1.1 demands the header; the name means nothing here.
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Ends with the response's body or, if that is dropped, at once.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("API connection: {error}");
            }
        });
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = body(response).await?;
        Err(ClientError::Answer(match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(ErrorBody { error }) => error,
            Err(_) => internal(format!("daemon: HTTP status {status}")),
        }))
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let path = self.socket.display();
        let message = internal(format!("daemon: not reachable at {path}: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(
                message.hint("start it: releasectl daemon, or see systemctl status releasectl"),
            ),
            io::ErrorKind::PermissionDenied => {
                ClientError::NoAnswer(message.hint("only root and the daemon's own user may ask"))
            }
            _ => ClientError::NoAnswer(message.hint("is the daemon overloaded or stopped?")),
        }
    }
}

/// Events as they come in.
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next one; `None` once the daemon has ended the list.
    ///
    /// # Errors
    /// The connection broke, or a line is no event.
    pub async fn next(&mut self) -> Result<Option<EventLine>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return parse(&line).map(Some);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}

async fn body(response: Response<Incoming>) -> Result<Bytes> {
    Ok(response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| odd(&error))
}

fn internal(message: String) -> ApiError {
    ApiError::new(ErrorCode::Internal, message)
}

fn broken(error: &hyper::Error) -> ClientError {
    ClientError::NoAnswer(
        internal(format!("daemon: connection broke: {error}"))
            .hint("what was asked may be done or not; it can be asked again"),
    )
}

fn odd(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Answer(
        internal(format!("daemon: talk not understood: {error}"))
            .hint("releasectl and the daemon may be of different versions"),
    )
}

/// Path and query, percent-encoded (RFC 3986 section 2.1).
fn path(endpoint: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut path = format!("/v1/{endpoint}");
    let given = query.iter().filter_map(|(key, value)| Some((key, (*value)?)));
    for (index, (key, value)) in given.enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(key);
        path.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    path.push(char::from(byte));
                }
                // Writing to a String cannot fail.
                _ => drop(write!(path, "%{byte:02X}")),
            }
        }
    }
    path
}
