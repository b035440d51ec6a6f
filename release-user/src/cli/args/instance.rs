//! `instance` and `run`.

use super::super::values::{KeyValue, duration, name, timeout};
use crate::config::Name;
use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(in super::super) enum Instance {
    /// List instances with their counters
    #[command(after_help = "Examples:
  releasectl instance list
  releasectl instance list -o jsonl")]
    List,
    /// Register an instance; again with the same data, renew it
    #[command(
        after_help = "It takes new connections at once, as its version's weight has it. Without a lease and a process it stays
until it is deregistered. The service must allow it: registration = \"open\", or [\"v2\"].

Examples:
  releasectl instance register web v2 10.0.0.21:8080 --id web-a --lease 30s
  releasectl instance register web v2 10.0.0.21:8080 --watch-pid 4711 --meta build=2.0.1"
    )]
    Register(Register),
    /// Take a registered instance out, and forget it once it is idle
    #[command(
        after_help = "Its connections stay where they are. With --force it is forgotten at once, exit code 5 if that was not
proven to be without loss.

Examples:
  releasectl instance deregister web web-a
  releasectl instance deregister web web-a --force"
    )]
    Deregister {
        /// The service
        service: String,
        /// Id of the instance
        id: String,
        /// Forget it at once, even if nothing proves it idle
        #[arg(long)]
        force: bool,
        /// Even if its version has weight and is left without an instance
        #[arg(long)]
        allow_empty: bool,
    },
    /// An instance asks to go offline: no new connections, then wait for the receipt
    #[command(
        after_help = "0: nobody loses anything if it stops now, by the receipt printed. 9: not so at the timeout. With --no-wait
4 (busy) or 6 (unknown) if not now; it stays out of new connections. Asked again, it goes on waiting. An instance of
the configuration stays offline until `releasectl undrain`.

Examples:
  releasectl instance offline web web-a && systemctl stop web
  releasectl instance offline web web-a --timeout 10m
  releasectl instance offline web web-a --no-wait -o json"
    )]
    Offline(Offline),
    /// Take an instance out of new connections for maintenance, or put it back
    #[command(after_help = "Examples:
  releasectl instance maint web web-a on
  releasectl instance maint web web-a off")]
    Maint {
        /// The service
        service: String,
        /// Id of the instance
        id: String,
        /// Whether it begins or ends
        #[arg(value_name = "on|off")]
        word: OnOff,
        /// Even if its version has weight and is left without an instance
        #[arg(long)]
        allow_empty: bool,
    },
}

#[derive(Debug, Args)]
pub(in super::super) struct Register {
    /// The service
    pub service: String,
    /// The version
    #[arg(value_parser = name)]
    pub version: Name,
    /// Where it listens
    #[arg(value_name = "IP:PORT")]
    pub addr: SocketAddr,
    /// What commands call it [default: its address]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub id: Option<Name>,
    /// Share of its version's new connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: u32,
    /// Free text, shown by `instance list -o json`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub meta: Vec<KeyValue>,
    /// It is lost unless it registers again within this time
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub lease: Option<Duration>,
    /// It is lost when this process of the daemon's host ends
    #[arg(long, value_name = "PID")]
    pub watch_pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(in super::super) struct Offline {
    /// The service
    pub service: String,
    /// Id of the instance
    pub id: String,
    /// Give up waiting after this time, and raise an alarm
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "no_wait")]
    pub timeout: Option<Duration>,
    /// Only say whether it may stop now
    #[arg(long)]
    pub no_wait: bool,
    /// Even if its version has weight and is left without an instance
    #[arg(long)]
    pub allow_empty: bool,
}

#[derive(Debug, Args)]
pub(in super::super) struct Run {
    /// The service
    #[arg(long)]
    pub service: String,
    /// The version
    // An id of its own: clap keeps `version` for itself.
    #[arg(id = "of_version", long = "version", value_name = "VERSION", value_parser = name)]
    pub version: Name,
    /// Where CMD listens
    #[arg(long, value_name = "IP:PORT")]
    pub addr: SocketAddr,
    /// What commands call it [default: its address]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub id: Option<Name>,
    /// Share of its version's new connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: u32,
    /// Free text, shown by `instance list -o json`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub meta: Vec<KeyValue>,
    /// How long connections may take to end after SIGTERM [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub drain_timeout: Option<Duration>,
    /// What to do then; hold: say so, and go on waiting; stop: stop CMD, exit code 5
    #[arg(long, value_name = "hold|stop", requires = "drain_timeout", default_value = "hold")]
    pub on_timeout: OnTimeout,
    /// Register CMD when its address accepts a connection (the default)
    #[arg(long, conflicts_with = "no_ready")]
    pub ready_tcp: bool,
    /// Register CMD at once
    #[arg(long)]
    pub no_ready: bool,
    /// How long it may take to accept a connection; then it is stopped, exit code 9
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "1m")]
    pub ready_timeout: Duration,
    /// The server and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum OnOff {
    /// It begins
    On,
    /// It ends
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum OnTimeout {
    /// Go on waiting
    Hold,
    /// Stop it
    Stop,
}
