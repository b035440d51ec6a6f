//! The behaviour of each kind of client.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant, MissedTickBehavior, timeout};

use super::connection::{Connection, Failure, Identity, PATIENCE, failure};
use super::control::Control;
use super::report::ErrorKind;
use super::stats::Stats;
use super::{Group, LoadPlan, MOST_IN_FLIGHT};

/// Pause of a client before its next session.
const BETWEEN_SESSIONS: Duration = Duration::from_millis(100);

/// All clients of a load; cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: LoadPlan,
    stats: Arc<Stats>,
    control: Arc<Control>,
    sources: AtomicU64,
}

impl Clients {
    pub fn new(plan: LoadPlan, stats: Arc<Stats>, control: Arc<Control>) -> Self {
        Self(Arc::new(Shared { plan, stats, control, sources: AtomicU64::new(0) }))
    }

    pub fn threads(&self) -> usize {
        self.0.plan.threads.max(1)
    }

    pub fn control(&self) -> &Control {
        &self.0.control
    }

    /// Runs all groups until they have ended.
    pub async fn run(&self) {
        let mut tasks = JoinSet::new();
        let mut number = 0;
        for group in &self.0.plan.groups {
            match group.clone() {
                Group::Short { per_second, limit, path } => {
                    let clients = self.clone();
                    tasks.spawn(async move { clients.short(per_second, limit, &path).await });
                }
                Group::KeepAlive { connections, pause, life } => {
                    for _ in 0..connections {
                        number += 1;
                        tasks.spawn(self.clone().keep_alive(number, pause, life));
                    }
                }
                Group::Stream { connections, length } => {
                    for _ in 0..connections {
                        number += 1;
                        tasks.spawn(self.clone().streams(number, length));
                    }
                }
            }
        }
        tasks.join_all().await;
    }

    async fn short(&self, per_second: u32, limit: Option<u64>, path: &str) {
        let slots = Arc::new(Semaphore::new(MOST_IN_FLIGHT));
        let mut ticks = time::interval(Duration::from_secs(1) / per_second.max(1));
        // Timers are coarse: at high rates several are due at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tasks = JoinSet::new();
        for number in 0..limit.unwrap_or(u64::MAX) {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.control.stopped() => break,
            }
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let (clients, path) = (self.clone(), path.to_owned());
            tasks.spawn(async move {
                clients.note(clients.one_request(&path, number % 2 == 1).await);
                drop(slot);
            });
            while tasks.try_join_next().is_some() {}
        }
        tasks.join_all().await;
    }

    async fn one_request(&self, path: &str, server_closes: bool) -> Result<(), Failure> {
        let mut connection = self.open("short").await?;
        connection.exchange(path, server_closes).await?;
        connection.close().await;
        Ok(())
    }

    async fn keep_alive(self, number: u64, pause: Duration, life: Option<Duration>) {
        self.begin(number, pause.min(Duration::from_secs(1))).await;
        while !self.0.control.stopping() {
            self.note(self.keep_alive_session(number, pause, life).await);
            self.between_sessions().await;
        }
    }

    async fn keep_alive_session(
        &self,
        number: u64,
        pause: Duration,
        life: Option<Duration>,
    ) -> Result<(), Failure> {
        let mut connection = self.open("keep-alive").await?;
        let Identity { version, .. } = connection.exchange("/", false).await?;
        let over = self.session_over(&version, number, life);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = &mut over => break,
                failure = connection.broken() => return Err(failure),
                () = time::sleep(pause) => {}
            }
            connection.exchange("/", false).await?;
        }
        connection.close().await;
        Ok(())
    }

    async fn streams(self, number: u64, length: Duration) {
        self.begin(number, Duration::from_millis(500)).await;
        while !self.0.control.stopping() {
            self.note(self.stream_session(number, length).await);
            self.between_sessions().await;
        }
    }

    async fn stream_session(&self, number: u64, length: Duration) -> Result<(), Failure> {
        let mut connection = self.open("stream").await?;
        let path = format!("/stream?seconds={}", length.as_secs());
        let (response, identity) = connection.get(&path, false).await?;
        let mut body = response.into_body();
        let mut lines = Lines::new(&identity);
        {
            let over = self.session_over(&identity.version, number, None);
            tokio::pin!(over);
            loop {
                let chunk = tokio::select! {
                    biased;
                    () = &mut over => break,
                    chunk = next_chunk(connection.label(), &mut body) => chunk?,
                };
                let Some(chunk) = chunk else { break };
                lines.feed(&chunk).map_err(|problem| {
                    let message = format!("{}: {problem}", connection.label());
                    Failure::new(ErrorKind::Protocol, message)
                })?;
            }
        }
        drop(body);
        self.0.stats.answered();
        connection.close().await;
        Ok(())
    }

    async fn open(&self, kind: &str) -> Result<Connection, Failure> {
        let Shared { plan, stats, sources, .. } = &*self.0;
        Connection::open(stats, kind, next_source(&plan.sources, sources), plan.target).await
    }

    fn note(&self, result: Result<(), Failure>) {
        if let Err(Failure { kind, message }) = result {
            self.0.stats.error(kind, &message);
        }
    }

    /// Not all at the same moment.
    async fn begin(&self, number: u64, spread: Duration) {
        tokio::select! {
            () = time::sleep(spread.mul_f64(place(number))) => {}
            () = self.0.control.stopped() => {}
        }
    }

    async fn between_sessions(&self) {
        tokio::select! {
            () = time::sleep(BETWEEN_SESSIONS) => {}
            () = self.0.control.stopped() => {}
        }
    }

    /// Resolves when the session's life is over, its version is retired or the load stops.
    async fn session_over(&self, version: &str, number: u64, life: Option<Duration>) {
        let place = place(number);
        let end = life.map(|life| Instant::now() + life.mul_f64(0.75 + place / 2.0));
        let life_over = async {
            match end {
                Some(end) => time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.0.control.session_over(version, place) => {}
            () = life_over => {}
        }
    }
}

/// A client's place among all others, between 0 and 1: evenly spread without being in order.
fn place(number: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    // The top 32 bits are exact in an f64.
    let top = u32::try_from(number.wrapping_mul(GOLDEN) >> 32).unwrap_or(u32::MAX);
    f64::from(top) / f64::from(u32::MAX)
}

fn next_source(sources: &[Ipv4Addr], counter: &AtomicU64) -> Option<Ipv4Addr> {
    let length = u64::try_from(sources.len()).ok().filter(|length| *length > 0)?;
    let index = counter.fetch_add(1, Ordering::Relaxed) % length;
    usize::try_from(index).ok().map(|index| sources[index])
}

/// The next bytes of a stream; `None` at its proper end.
async fn next_chunk(label: &str, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    match timeout(PATIENCE, body.frame()).await {
        Err(_) => Err(Failure::new(ErrorKind::Timeout, format!("{label}: stream is silent"))),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(failure(label, &error)),
        Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
    }
}

/// Checks the lines of a stream: one sender, no gap.
#[derive(Debug)]
struct Lines {
    prefix: String,
    next: u64,
    rest: String,
}

impl Lines {
    fn new(identity: &Identity) -> Self {
        let prefix = format!("{} {}", identity.version, identity.instance);
        Self { prefix, next: 0, rest: String::new() }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), String> {
        self.rest.push_str(&String::from_utf8_lossy(chunk));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let expected = format!("{} {}", self.prefix, self.next);
            if line != expected {
                return Err(format!("line {line:?} of a stream where {expected:?} was due"));
            }
            self.next += 1;
            self.rest = rest.to_owned();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_checked_across_chunks() {
        let mut lines = Lines { prefix: "v1 a".into(), next: 0, rest: String::new() };
        lines.feed(b"v1 a 0\nv1 ").unwrap();
        lines.feed(b"a 1\n").unwrap();
        assert!(lines.feed(b"v1 a 3\n").is_err());
        let mut lines = Lines { prefix: "v1 a".into(), next: 0, rest: String::new() };
        assert!(lines.feed(b"v2 b 0\n").is_err());
    }

    #[test]
    fn places_are_spread() {
        let mut places: Vec<f64> = (1..=20).map(place).collect();
        places.sort_by(f64::total_cmp);
        let widest = places.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(widest < 0.15, "{places:?}");
    }

    #[test]
    fn sources_take_turns() {
        let counter = AtomicU64::new(0);
        let sources = [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 3)];
        let taken: Vec<_> = (0..3).map(|_| next_source(&sources, &counter)).collect();
        assert_eq!(taken, [Some(sources[0]), Some(sources[1]), Some(sources[0])]);
        assert_eq!(next_source(&[], &counter), None);
    }
}
