//! A small real HTTP/1.1 server that says in every answer who it is.
//!
//! Headers: `x-version`, `x-instance`, `x-connection` (number of the connection in this process).
//! Paths: `/` and `/healthz` at once · `/slow?ms=500` after a while · `/bytes?n=100000` a large
//! body · `/stream?seconds=30` one line per 100 ms: version, instance, sequence number. Idle
//! keep-alive connections are kept for ever. Over UDP, see [`udp`]. A signal ends the process as it
//! ends any other.

pub mod udp;

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Stdio, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::command::sibling_binary;
use crate::netns::Netns;
use crate::process::Process;

/// Time between two lines of a stream.
pub const STREAM_INTERVAL: Duration = Duration::from_millis(100);

/// Bound on what one request may ask for, so that a mistake in a test stays small.
const LARGEST_BODY: usize = 16 << 20;
const LONGEST: Duration = Duration::from_secs(600);
const BACKLOG: u32 = 4096;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who a server is and where it listens.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// Where to listen for connections.
    pub tcp: Vec<SocketAddr>,
    /// Where to take datagrams.
    pub udp: Vec<SocketAddr>,
    /// Stamped as `x-version`.
    pub version: String,
    /// Stamped as `x-instance`.
    pub id: String,
}

/// Starts the `release-server` binary in a namespace and waits until it listens.
///
/// # Errors
/// The binary is not built, or it is not ready within 5 s (its error goes to our stderr).
pub fn start(namespace: &Netns, spec: &ServerSpec) -> Result<Process> {
    let mut command = namespace.command(sibling_binary("release-server", "RELEASE_SERVER_BIN")?);
    for (option, addresses) in [("--listen", &spec.tcp), ("--udp", &spec.udp)] {
        for address in addresses {
            command.args([option, &address.to_string()]);
        }
    }
    command
        .args(["--version", &spec.version])
        .args(["--id", &spec.id])
        // Its end tells the server that we are gone, whatever killed us.
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped());
    namespace.spawn_ready(format!("server {}", spec.id), &mut command, Duration::from_secs(5))
}

/// Listens everywhere, prints `ready ID` and serves for ever.
///
/// # Errors
/// An address cannot be listened on.
pub async fn serve(spec: ServerSpec) -> Result<Infallible> {
    let spec = Arc::new(spec);
    let mut listeners = Vec::new();
    for address in &spec.tcp {
        listeners.push(listen(*address)?);
    }
    for address in &spec.udp {
        tokio::spawn(udp::serve(udp::bind(*address).await?, Arc::clone(&spec)));
    }
    println!("ready {}", spec.id);
    io::stdout().flush()?;

    let connections = Arc::new(AtomicU64::new(0));
    for listener in listeners {
        tokio::spawn(accept(listener, Arc::clone(&spec), Arc::clone(&connections)));
    }
    std::future::pending().await
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server must not wait for the connections of its predecessor.
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

async fn accept(listener: TcpListener, spec: Arc<ServerSpec>, connections: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::spawn(connection_task(Arc::clone(&spec), number, stream));
            }
            // Out of descriptors, or the client has gone: others are waiting.
            Err(error) => {
                eprintln!("{}: accept: {error}", spec.id);
                time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Ends this process when its standard input ends: its starter is gone, whatever killed it.
pub fn exit_when_stdin_closes() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        exit(0);
    });
}

async fn connection_task(spec: Arc<ServerSpec>, connection: u64, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let spec = Arc::clone(&spec);
        async move { Ok::<_, Infallible>(answer(&spec, connection, &request).await) }
    });
    // Clients that go away in the middle are their own business, and counted there.
    let _ = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(spec: &ServerSpec, connection: u64, request: &Request<Incoming>) -> Response<Body> {
    let argument = |name| number(request.uri().query(), name);
    let mut response = match request.uri().path() {
        "/" => Response::new(text(format!("{} {}\n", spec.version, spec.id))),
        "/healthz" => Response::new(text("ok\n".to_owned())),
        "/slow" => {
            let wait = Duration::from_millis(argument("ms").unwrap_or(500)).min(LONGEST);
            time::sleep(wait).await;
            Response::new(text(format!("{} after {wait:?}\n", spec.version)))
        }
        "/bytes" => {
            let wanted = argument("n").and_then(|n| usize::try_from(n).ok()).unwrap_or(100_000);
            Response::new(text("x".repeat(wanted.min(LARGEST_BODY))))
        }
        "/stream" => {
            let length = Duration::from_secs(argument("seconds").unwrap_or(30)).min(LONGEST);
            Response::new(lines(spec, length))
        }
        path => {
            let mut response = Response::new(text(format!("no {path} here\n")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [("x-version", &spec.version), ("x-instance", &spec.id)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert("x-connection", HeaderValue::from(connection));
    response
}

fn text(content: String) -> Body {
    Full::new(Bytes::from(content)).boxed_unsync()
}

/// A chunk per interval until the length is over: `v1 v1-1 17\n`.
fn lines(spec: &ServerSpec, length: Duration) -> Body {
    let prefix = format!("{} {}", spec.version, spec.id);
    let end = Instant::now() + length;
    let mut ticks = time::interval(STREAM_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let chunks = stream::unfold((ticks, 0u64), move |(mut ticks, sequence)| {
        let prefix = prefix.clone();
        async move {
            let now = ticks.tick().await;
            let chunk = Bytes::from(format!("{prefix} {sequence}\n"));
            (now < end).then(|| (Ok(Frame::data(chunk)), (ticks, sequence + 1)))
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// The number that a query gives to a name: `number("ms=5&x=1", "ms")` is 5.
fn number(query: Option<&str>, name: &str) -> Option<u64> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_numbers() {
        assert_eq!(number(Some("ms=5"), "ms"), Some(5));
        assert_eq!(number(Some("a=1&ms=7"), "ms"), Some(7));
        assert_eq!(number(Some("ms=x"), "ms"), None);
        assert_eq!(number(Some("ms"), "ms"), None);
        assert_eq!(number(None, "ms"), None);
    }
}
