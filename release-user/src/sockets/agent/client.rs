//! The daemon's side: asks agents, and believes only what is fresh.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Answer, LONGEST_ANSWER, PATH, Query, Refusal, SCHEMA};
use crate::sockets::{Question, Summary};

/// Time for a question as a whole; an answer that takes longer would be too old.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// Nobody is there.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// One of the two does not accept the other's certificate.
    #[error("no trust: {0}")]
    Untrusted(String),
    /// No answer in time.
    #[error("no answer within {PATIENCE:?}")]
    TooLate,
    /// The agent's own word.
    #[error("{0}")]
    Refused(String),
    /// What came makes no sense.
    #[error("answer not understood: {0}")]
    Odd(String),
    /// The answer is not to this question, or from another time.
    #[error("stale answer: {0}")]
    Stale(&'static str),
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The sockets.
    pub summary: Summary,
    /// Time since the question was sent: the answer is no older.
    pub age: Duration,
    /// The host's name.
    pub agent: String,
}

/// An agent's last answer.
struct Last {
    boot_id: String,
    /// Its host's clock then, in nanoseconds.
    clock: u64,
    /// When it came.
    at: Instant,
}

/// Asks agents.
pub struct AgentClient {
    tls: TlsConnector,
    last: Mutex<HashMap<SocketAddr, Last>>,
}

impl AgentClient {
    /// With these certificates.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls: TlsConnector::from(tls), last: Mutex::default() }
    }

    /// Asks the agent at `address`, whose certificate must be for that IP address.
    ///
    /// # Errors
    /// Whenever the answer would not be the whole truth of this moment.
    pub async fn ask(&self, address: SocketAddr, question: &Question) -> Result<Told, AgentError> {
        let sent = Instant::now();
        let nonce = nonce();
        let work = self.exchange(address, nonce, question);
        let answer =
            tokio::time::timeout(PATIENCE, work).await.map_err(|_| AgentError::TooLate)??;
        self.is_fresh(address, nonce, sent, &answer)?;
        Ok(Told { summary: answer.summary, age: sent.elapsed(), agent: answer.agent })
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        nonce: u64,
        question: &Question,
    ) -> Result<Answer, AgentError> {
        let query = Query { schema: SCHEMA, nonce, question: question.clone() };
        let body = serde_json::to_vec(&query).map_err(odd)?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| AgentError::Unreachable(error.to_string()))?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = self.tls.connect(name, stream).await.map_err(|error| broken(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
        // Ends with the answer; what breaks it is heard there.
        let connection = tokio::spawn(connection);
        let request = Request::post(PATH)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body))
            .map_err(odd)?;
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            // In TLS 1.3 a client hears only now that its certificate was refused.
            Err(error) => return Err(cause(connection.await, error)),
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(odd)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(odd);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(Refusal { error }) => Err(AgentError::Refused(error)),
            Err(_) => Err(AgentError::Odd(format!("HTTP status {status}"))),
        }
    }

    /// The answer is to this question, and from after it was sent: since its last answer at least
    /// as much time has passed on the host's clock as on ours.
    fn is_fresh(
        &self,
        from: SocketAddr,
        nonce: u64,
        sent: Instant,
        answer: &Answer,
    ) -> Result<(), AgentError> {
        /// Clocks are slewed by 500 ppm at most; they tick alike otherwise.
        const SLEW: i128 = 1000;
        const LEAST: i128 = 1_000_000;
        if answer.schema != SCHEMA {
            return Err(AgentError::Odd(format!("schema {}", answer.schema)));
        }
        if answer.nonce != nonce {
            return Err(AgentError::Stale("it is to another question"));
        }
        let (boot_id, clock) = (answer.boot_id.clone(), answer.monotonic_ns);
        let now = Last { boot_id, clock, at: Instant::now() };
        let mut all = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // What is wrong with one answer is the measure of the next.
        let Some(last) = all.insert(from, now) else { return Ok(()) };
        if last.boot_id != answer.boot_id {
            return Err(AgentError::Stale("its host was booted since the last one"));
        }
        // Negative if two questions crossed.
        let ours = match sent.checked_duration_since(last.at) {
            Some(passed) => passed.as_nanos() as i128,
            None => -(last.at.duration_since(sent).as_nanos() as i128),
        };
        let theirs = i128::from(clock) - i128::from(last.clock);
        if theirs + ours.abs() / SLEW + LEAST < ours {
            return Err(AgentError::Stale("its host's clock is behind, or stands still"));
        }
        Ok(())
    }
}

/// A number that no earlier question had, and no stranger guesses.
fn nonce() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(Instant::now())
}

fn odd(error: impl ToString) -> AgentError {
    AgentError::Odd(error.to_string())
}

/// What ended the connection, where it is known better than by who waited for the answer.
fn cause(
    ended: Result<Result<(), hyper::Error>, tokio::task::JoinError>,
    error: hyper::Error,
) -> AgentError {
    let error = match ended {
        Ok(Err(error)) => error,
        _ => error,
    };
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return broken(error);
        }
        source = error.source();
    }
    AgentError::Unreachable(error.to_string())
}

fn broken(error: &io::Error) -> AgentError {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(error) => AgentError::Untrusted(error.to_string()),
        None => AgentError::Unreachable(error.to_string()),
    }
}
