//! One client connection that checks who answers.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::report::ErrorKind;
use super::stats::{Open, Stats};
use crate::sockets::choose_port_late;

/// How long the last bytes of a connection may take before its socket is simply closed.
const CLOSE: Duration = Duration::from_secs(1);

/// How long a client waits for a connection, an answer or a line of a stream.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection is given up.
#[derive(Debug)]
pub struct Failure {
    pub kind: ErrorKind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Who answers on a connection. One connection must never see two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub version: String,
    pub instance: String,
    connection: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} connection {}", self.version, self.instance, self.connection)
    }
}

/// The task that moves the connection's bytes; it ends with the connection.
#[derive(Debug)]
struct Driver(JoinHandle<hyper::Result<()>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An HTTP/1.1 connection, and whose it turned out to be.
#[derive(Debug)]
pub struct Connection {
    stats: Arc<Stats>,
    /// `client KIND 10.1.0.2:40000`, for messages.
    label: String,
    sender: SendRequest<Empty<Bytes>>,
    driver: Driver,
    /// When it began: just before its SYN.
    begun: Instant,
    owner: Option<(Identity, Open)>,
}

impl Connection {
    pub async fn open(
        stats: &Arc<Stats>,
        kind: &str,
        source: Option<Ipv4Addr>,
        target: SocketAddrV4,
    ) -> Result<Self, Failure> {
        let refused = |error: io::Error| {
            Failure::new(ErrorKind::Connect, format!("{kind} to {target}: {error}"))
        };
        let socket = socket(source).map_err(refused)?;
        let begun = Instant::now();
        let stream = timeout(PATIENCE, socket.connect(SocketAddr::V4(target)))
            .await
            .map_err(|_| Failure::new(ErrorKind::Timeout, format!("{kind}: connect")))?
            .map_err(refused)?;
        let label = match stream.local_addr() {
            Ok(local) => format!("{kind} {local}"),
            Err(_) => kind.to_owned(),
        };
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| failure(&label, &error))?;
        let driver = Driver(tokio::spawn(connection));
        Ok(Self { stats: Arc::clone(stats), label, sender, driver, begun, owner: None })
    }

    /// Asks, and checks who answers. The body is still to come.
    pub async fn get(
        &mut self,
        path: &str,
        last: bool,
    ) -> Result<(Response<Incoming>, Identity), Failure> {
        let mut request = Request::get(path).header(HOST, "test");
        if last {
            request = request.header(CONNECTION, "close");
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| Failure::new(ErrorKind::Protocol, error.to_string()))?;
        let answer = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answer = timeout(PATIENCE, answer)
            .await
            .map_err(|_| Failure::new(ErrorKind::Timeout, format!("{}: {path}", self.label)))?;
        let response = match answer {
            Ok(response) => response,
            // Not sent at all: the reason is the driver's to tell.
            Err(error) if error.is_canceled() || error.is_closed() => {
                return Err(self.broken().await);
            }
            Err(error) => return Err(failure(&self.label, &error)),
        };
        let identity = self.check(response.headers())?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let message = format!("{}: {status} for {path}", self.label);
            return Err(Failure::new(ErrorKind::Status, message));
        }
        Ok((response, identity))
    }

    /// A whole exchange: asks, checks, reads the body.
    pub async fn exchange(&mut self, path: &str, last: bool) -> Result<Identity, Failure> {
        let (response, identity) = self.get(path, last).await?;
        timeout(PATIENCE, response.into_body().collect())
            .await
            .map_err(|_| Failure::new(ErrorKind::Timeout, format!("{}: body", self.label)))?
            .map_err(|error| failure(&self.label, &error))?;
        self.stats.answered();
        Ok(identity)
    }

    /// Resolves when the server ends a connection on which nothing is asked.
    pub async fn broken(&mut self) -> Failure {
        match (&mut self.driver.0).await {
            Ok(Err(error)) => failure(&self.label, &error),
            _ => Failure::new(
                ErrorKind::Closed,
                format!("{}: the server closed an idle connection", self.label),
            ),
        }
    }

    /// Closes the connection. Its close is written down once the socket is closed.
    pub async fn close(self) {
        let Self { sender, mut driver, owner, .. } = self;
        drop(sender);
        if timeout(CLOSE, &mut driver.0).await.is_err() {
            driver.0.abort();
            let _ = (&mut driver.0).await;
        }
        drop(owner);
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    fn check(&mut self, headers: &HeaderMap) -> Result<Identity, Failure> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(version), Some(instance), Some(connection)) =
            (header("x-version"), header("x-instance"), header("x-connection"))
        else {
            let message = format!("{}: an answer without our headers", self.label);
            return Err(Failure::new(ErrorKind::Protocol, message));
        };
        let identity = Identity {
            version: version.to_owned(),
            instance: instance.to_owned(),
            connection: connection.to_owned(),
        };
        match &mut self.owner {
            None => {
                let open = self.stats.opened(self.begun, version, instance);
                self.owner = Some((identity.clone(), open));
            }
            Some((owner, _)) if *owner != identity => {
                self.stats.moved(&format!("{}: {owner} → {identity}", self.label));
                *owner = identity.clone();
            }
            Some(_) => {}
        }
        Ok(identity)
    }
}

fn socket(source: Option<Ipv4Addr>) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        choose_port_late(&socket)?;
        socket.bind(SocketAddrV4::new(source, 0).into())?;
    }
    Ok(socket)
}

/// Finds out what an error of the HTTP library means for the client.
pub fn failure(label: &str, error: &hyper::Error) -> Failure {
    let mut kind = if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        ErrorKind::Closed
    } else {
        ErrorKind::Protocol
    };
    let mut message = format!("{label}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            kind = match cause.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ErrorKind::Reset,
                io::ErrorKind::TimedOut => ErrorKind::Timeout,
                io::ErrorKind::UnexpectedEof => ErrorKind::Closed,
                _ => kind,
            };
        }
        source = cause.source();
    }
    Failure { kind, message }
}
