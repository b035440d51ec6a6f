//! `run`: a server as a registered instance. Supervisors stop a server by SIGTERM; here that drains
//! it first.

use super::args::{OnTimeout, Run};
use super::instance::registered_text;
use super::leave::{Leave, Leaving};
use super::output::to_stderr;
use super::values::by_key;
use super::{Context, Ended, FORCED};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ApiError, ErrorCode, OfflineRequest, RegisterRequest, Registered};
use crate::net::namespace::pid_namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sd_notify::NotifyState;
use std::cell::Cell;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{sleep, timeout};

/// Pause between two attempts at what is not there yet.
const AGAIN: Duration = Duration::from_secs(1);
/// The same for a server that is starting.
const READY_AGAIN: Duration = Duration::from_millis(50);
/// How long a server that was never registered may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How often the supervisor is told that the drain goes on, and how long that is good for.
const ALIVE: Duration = Duration::from_secs(10);
const ALIVE_FOR: Duration = Duration::from_secs(30);

pub(super) async fn run(context: &mut Context, arguments: Run) -> Ended {
    let mut server = Server::start(&arguments.command)?;
    say(&format!("started {}", server.name()));
    let id = arguments.id.as_ref().map_or_else(|| arguments.addr.to_string(), ToString::to_string);
    let mut known = Known::No;
    let why = match begin(context, &mut server, &arguments, &id, &mut known).await {
        Ok(()) => match server.meanwhile(std::future::pending::<()>()).await {
            Ok(()) => return Err(internal("nothing ended".to_owned())),
            Err(why) => why,
        },
        Err(Failed::Ended(why)) => why,
        Err(Failed::Refused(error)) => {
            server.end(GRACE).await?;
            return Err(error);
        }
    };
    match why {
        // The daemon watches the process, and takes the instance out by itself.
        Why::Died(status) => Ok(code(status)),
        Why::Asked if known == Known::No => {
            say("asked to stop before it was registered: nothing to drain");
            Ok(code(server.stop().await?))
        }
        Why::Asked => leave(context, &mut server, &arguments, id).await,
    }
}

/// Whether the daemon may know the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Perhaps,
}

/// Why it did not come to serve.
enum Failed {
    Ended(Why),
    Refused(ApiError),
}

/// Waits until the server is ready, and registers it.
async fn begin(
    context: &Context,
    server: &mut Server,
    arguments: &Run,
    id: &str,
    known: &mut Known,
) -> Result<(), Failed> {
    if !arguments.no_ready {
        let limit = arguments.ready_timeout;
        let ready = server.meanwhile(timeout(limit, accepts(arguments.addr))).await;
        if ready.map_err(Failed::Ended)?.is_err() {
            let after = humantime::format_duration(limit);
            let what = format!("run: {} accepts no connection after {after}", arguments.addr);
            let error = ApiError::new(ErrorCode::Timeout, what);
            return Err(Failed::Refused(error.hint("it was stopped; --ready-timeout, --no-ready")));
        }
    }
    let request = RegisterRequest {
        service: arguments.service.clone(),
        version: arguments.version.to_string(),
        addr: arguments.addr.to_string(),
        id: Some(id.to_owned()),
        weight: arguments.weight,
        meta: by_key(arguments.meta.clone()),
        lease_s: None,
        watch_pid: Some(server.pid),
        pid_namespace: pid_namespace(),
    };
    let perhaps = Cell::new(Known::No);
    let registered = server.meanwhile(register(&context.client, &request, &perhaps)).await;
    *known = perhaps.get();
    let registered = registered.map_err(Failed::Ended)?.map_err(Failed::Refused)?;
    say(registered_text(&registered).trim_end());
    notify(&[NotifyState::Ready]);
    Ok(())
}

/// Until the server accepts a connection.
async fn accepts(addr: SocketAddr) {
    while TcpStream::connect(addr).await.is_err() {
        sleep(READY_AGAIN).await;
    }
}

/// Asks until there is an answer.
async fn register(
    client: &Client,
    request: &RegisterRequest,
    known: &Cell<Known>,
) -> Result<Registered, ApiError> {
    let mut said = false;
    loop {
        match client.register(request).await {
            Ok(mut registered) => {
                // What an earlier attempt has done, whose answer did not arrive, is this one's doing.
                registered.changed |= matches!(known.replace(Known::Perhaps), Known::Perhaps);
                return Ok(registered);
            }
            Err(ClientError::Answer(error)) => return Err(error),
            Err(error) => {
                // What was asked of a daemon that did not answer may be done.
                if matches!(error, ClientError::NoAnswer(_)) {
                    known.set(Known::Perhaps);
                }
                if !std::mem::replace(&mut said, true) {
                    say(&format!("cannot be registered yet: {error}; tried again until it works"));
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// Drains to a receipt, then stops the server.
async fn leave(context: &Context, server: &mut Server, arguments: &Run, id: String) -> Ended {
    say(&format!("asked to stop: {id} goes offline first; asked again, it stops at once"));
    notify(&[NotifyState::Stopping]);
    let request = OfflineRequest {
        service: arguments.service.clone(),
        id,
        deadline_s: arguments.drain_timeout.map(|limit| limit.as_secs_f64()),
        // Whoever asks would end it anyway.
        allow_empty: true,
    };
    let leaving = Leaving::new(context, request);
    let mut gone = pin!(leaving.insist(None));
    let mut over = pin!(async {
        match arguments.drain_timeout {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    });
    let mut late = false;
    let left = || leaving.last().map_or_else(|| "no verdict".to_owned(), |r| r.reasons.join("; "));
    loop {
        let step = async {
            tokio::select! {
                gone = &mut gone => Step::Gone(gone),
                () = &mut over, if !late => Step::Late,
                () = still_alive() => Step::Alive,
            }
        };
        match server.meanwhile(step).await {
            Ok(Step::Alive) => {}
            Ok(Step::Gone(Leave::Receipt(receipt))) => {
                say(&format!("nobody loses anything: receipt {receipt}; stopping"));
                return Ok(code(server.stop().await?));
            }
            Ok(Step::Gone(Leave::Forgotten)) => {
                say("the daemon does not know it any more; stopping");
                return Ok(code(server.stop().await?));
            }
            Ok(Step::Late) if arguments.on_timeout == OnTimeout::Hold => {
                late = true;
                say(&format!("held, still not idle: {}", left()));
            }
            Ok(Step::Late) => return forced(server, "the time is over", &left()).await,
            Err(Why::Asked) => return forced(server, "asked again", &left()).await,
            Err(Why::Died(status)) => {
                say(&format!("it ended by itself, not idle: {}", left()));
                return Ok(code(status));
            }
        }
    }
}

enum Step {
    Gone(Leave),
    Late,
    Alive,
}

/// Tells systemd now and then that there is progress: TimeoutStopSec= does not know drains.
async fn still_alive() {
    let for_us = u32::try_from(ALIVE_FOR.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(for_us)]);
    sleep(ALIVE).await;
}

/// Stops a server that is not idle.
async fn forced(server: &mut Server, why: &str, left: &str) -> Ended {
    say(&format!("{why}: stopping by force, not proven to be without loss: {left}"));
    let status = server.stop().await?;
    let as_told = status.success() || status.signal() == Some(libc::SIGTERM);
    Ok(if as_told { FORCED } else { code(status) })
}

/// Why the server, or this, is to end.
enum Why {
    /// The server has ended.
    Died(ExitStatus),
    /// SIGTERM or SIGINT.
    Asked,
}

/// The server, and the signals that are meant for it.
struct Server {
    child: Child,
    pid: u32,
    ends: [unix::Signal; 2],
    passed: [unix::Signal; 3],
}

impl Server {
    fn start(command: &[OsString]) -> Result<Self, ApiError> {
        let on = |kind| unix::signal(kind).map_err(|error| internal(format!("signal: {error}")));
        let ends = [on(SignalKind::terminate())?, on(SignalKind::interrupt())?];
        let passed = [
            on(SignalKind::hangup())?,
            on(SignalKind::user_defined1())?,
            on(SignalKind::user_defined2())?,
        ];
        let Some((program, arguments)) = command.split_first() else {
            return Err(ApiError::new(ErrorCode::Usage, "run: no command"));
        };
        // A group of its own: Ctrl-C at the terminal is for this process, which drains first.
        let child = Command::new(program).args(arguments).process_group(0).spawn();
        let child = child.map_err(|error| {
            let what = format!("run: {}: cannot be run: {error}", program.display());
            ApiError::new(ErrorCode::Usage, what)
        })?;
        let pid = child.id().ok_or_else(|| internal("it has no process id".to_owned()))?;
        Ok(Self { child, pid, ends, passed })
    }

    fn name(&self) -> String {
        format!("process {}", self.pid)
    }

    /// Works while the server runs and nobody asks to stop. Other signals are passed on.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Why> {
        let mut work = pin!(work);
        loop {
            let Self { child, ends: [first, second], passed: [hangup, one, two], .. } = self;
            let signal = tokio::select! {
                biased;
                status = child.wait() => return Err(Why::Died(status.unwrap_or_default())),
                _ = first.recv() => return Err(Why::Asked),
                _ = second.recv() => return Err(Why::Asked),
                _ = hangup.recv() => Signal::SIGHUP,
                _ = one.recv() => Signal::SIGUSR1,
                _ = two.recv() => Signal::SIGUSR2,
                done = &mut work => return Ok(done),
            };
            self.pass(signal);
        }
    }

    fn pass(&self, signal: Signal) {
        // Not waited for yet, its number is nobody else's.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// SIGTERM, and waits for the end; asked again, once more.
    async fn stop(&mut self) -> Result<ExitStatus, ApiError> {
        loop {
            self.pass(Signal::SIGTERM);
            match self.meanwhile(std::future::pending::<()>()).await {
                Err(Why::Died(status)) => return Ok(status),
                Ok(()) | Err(Why::Asked) => {}
            }
        }
    }

    /// The same, and SIGKILL when that takes too long.
    async fn end(&mut self, limit: Duration) -> Result<(), ApiError> {
        if timeout(limit, self.stop()).await.is_err() {
            self.child.kill().await.map_err(|error| internal(format!("kill: {error}")))?;
        }
        Ok(())
    }
}

/// As shells have it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

fn internal(what: String) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("run: {what}"))
}

/// stdout is the server's.
fn say(what: &str) {
    to_stderr(&format!("releasectl run: {what}\n"));
}

/// Tells systemd, if it started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        log::debug!("sd_notify: {error}");
    }
}
