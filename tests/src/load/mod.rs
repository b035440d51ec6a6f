//! A load of real HTTP clients that know what must not happen to them: an error, or another server
//! behind the same connection.
//!
//! The load runs on threads of its own inside the client's namespace. It is bounded by its plan and
//! ends with its handle.

mod clients;
mod connection;
mod control;
mod report;
mod stats;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::runtime::Builder;

use clients::Clients;
use control::Control;
pub use report::{BUCKET, Bucket, ErrorKind, Report, Snapshot, VersionSnapshot};
use stats::Stats;

use crate::netns::{Netns, NsHandle};

/// How long connections may take to end after [`Load::finish`].
const END: Duration = Duration::from_secs(8);

/// What to run.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where all clients connect to.
    pub target: SocketAddrV4,
    /// Client addresses, used in turn; empty: the kernel's choice.
    pub sources: Vec<Ipv4Addr>,
    /// The groups of clients, all running at the same time.
    pub groups: Vec<Group>,
    /// Worker threads, at least 1.
    pub threads: usize,
}

/// Clients of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Group {
    /// One request per connection; every second one asks the server to close (the server's FIN
    /// comes first), the others close themselves.
    Short {
        /// New connections per second; at most [`MOST_IN_FLIGHT`] are under way at once.
        per_second: u32,
        /// Stop after so many connections.
        limit: Option<u64>,
        /// Path of the request, `/` usually.
        path: String,
    },
    /// Connections that live on and make a request, pause, and so on.
    KeepAlive {
        /// Number of connections.
        connections: u32,
        /// Pause between two requests. With a long one these are idle connections.
        pause: Duration,
        /// A session ends after this time and a new one begins; `None`: it spans the whole run.
        life: Option<Duration>,
    },
    /// Downloads of a stream that sends a line every 100 ms.
    Stream {
        /// Number of connections.
        connections: u32,
        /// Length of a stream; a new connection follows. Ending earlier is an error.
        length: Duration,
    },
}

/// How many short connections may be under way at once.
pub const MOST_IN_FLIGHT: usize = 512;

/// A running load. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Load {
    stats: Arc<Stats>,
    control: Arc<Control>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts the clients inside a namespace.
    ///
    /// # Errors
    /// The runtime cannot be built.
    pub fn start(namespace: &Netns, plan: LoadPlan) -> Result<Self> {
        let stats = Arc::new(Stats::new(Instant::now()));
        let control = Arc::new(Control::new());
        let clients = Clients::new(plan, Arc::clone(&stats), Arc::clone(&control));
        let handle = namespace.handle();
        let thread =
            thread::Builder::new().name("load".into()).spawn(move || run(&handle, &clients))?;
        Ok(Self { stats, control, thread: Some(thread) })
    }

    /// When the load began: the zero of all its times.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.stats.started()
    }

    /// The figures of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// Waits (blocking) until the figures satisfy the condition. False: `deadline` came first.
    #[must_use]
    pub fn wait(&self, deadline: Duration, condition: impl Fn(&Snapshot) -> bool) -> bool {
        self.stats.wait(deadline, condition)
    }

    /// Waits until the figures satisfy the condition, without a deadline.
    pub async fn reached(&self, condition: impl Fn(&Snapshot) -> bool) {
        self.stats.reached(condition).await;
    }

    /// Long-lived connections to this version end as real clients' sessions do: each at its next
    /// pause, spread over `over` from now. Their clients begin new sessions.
    pub fn retire(&self, version: &str, over: Duration) {
        self.control.retire(version, over);
    }

    /// Ends all connections gracefully and returns the results.
    ///
    /// # Errors
    /// Connections did not end within 8 s, or the threads broke.
    pub fn finish(mut self) -> Result<Report> {
        self.control.stop();
        self.join()?;
        Ok(self.stats.report())
    }

    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("a load thread panicked")),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.control.abort();
        let _ = self.join();
    }
}

/// The load's own thread: moves itself and its workers into the namespace and runs the groups.
fn run(namespace: &NsHandle, clients: &Clients) -> Result<()> {
    namespace.join()?;
    let workers = namespace.clone();
    let runtime = Builder::new_multi_thread()
        .worker_threads(clients.threads())
        .thread_name("load-worker")
        .enable_all()
        // This thread has just done the same: if a worker cannot, its connections fail and are
        // counted, they do not go elsewhere.
        .on_thread_start(move || {
            if let Err(error) = workers.join() {
                eprintln!("load worker: {error:#}");
                std::process::abort();
            }
        })
        .build()
        .context("cannot build the load's runtime")?;
    let ended = runtime.block_on(async {
        tokio::select! {
            () = clients.run() => true,
            () = clients.control().aborted() => true,
            () = clients.control().overdue(END) => false,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if ended { Ok(()) } else { Err(anyhow!("connections still open {END:?} after the stop")) }
}
