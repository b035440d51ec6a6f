//! The command line as types. What is wrong with it is found here, before anything is done.

mod instance;

pub(super) use instance::{Instance, Offline, OnOff, OnTimeout, Register, Run};

use super::values::{OnDeadline, Output, VersionWeight, duration, protocol, timeout};
use crate::config::Protocol;
use crate::paths::{DEFAULT_BPFFS, DEFAULT_SOCKET, DEFAULT_STATE_DIR, Paths};
use crate::sockets::agent::server::Allowed;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0 done, clean, idle     1 internal error        2 usage or configuration
  3 aborted, rolled back  4 held, busy, not idle  5 done but forced
  6 unknown               7 a hook failed         8 conflict
  9 a wait timed out";

/// Replaces a running service with a new version without breaking a connection.
#[derive(Debug, Parser)]
#[command(name = "releasectl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Format of what is printed
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Output,
    /// Say more; twice: even more; three times: what libraries say too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How long to wait for the daemon's answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub api_timeout: Duration,
    /// Configuration: a file, or a folder of *.toml [default: /etc/release]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "RELEASE_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// The daemon's API socket
    #[arg(long, global = true, value_name = "PATH", env = "RELEASE_SOCKET", hide_env_values = true, default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Folder of the daemon's store
    #[arg(long, global = true, value_name = "PATH", env = "RELEASE_STATE_DIR", hide_env_values = true, default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Folder where maps and programs are pinned
    #[arg(long, global = true, value_name = "PATH", env = "RELEASE_BPFFS", hide_env_values = true, default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}

impl Global {
    /// The four places.
    pub fn paths(&self) -> Paths {
        Paths {
            config: self.config.clone(),
            state_dir: self.state_dir.clone(),
            socket: self.socket.clone(),
            bpffs: self.bpffs.clone(),
        }
    }
}

/// Nouns read, verbs write; running a verb again is safe.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon in the foreground
    #[command(after_help = "Examples:
  releasectl daemon
  releasectl daemon -v --config ./release.toml --socket /tmp/r.sock")]
    Daemon,
    /// On an instance's host: answer the daemon which sockets remain for the instance
    #[command(
        after_help = "Read-only. Answers clients alone whose certificate the CA has signed. SIGHUP reads the
certificates again.

Examples:
  releasectl agent --listen 10.0.0.11:7443 --ca ca.pem --certificate a.pem --key a.key
  releasectl agent --listen 10.0.0.11:7443 --ca ca.pem --certificate a.pem --key a.key --netns web"
    )]
    Agent(Agent),
    /// Validate the configuration; needs no root and no daemon
    #[command(after_help = "Examples:
  releasectl check
  releasectl check examples/release.toml
  releasectl check -o json /etc/release/conf.d")]
    Check {
        /// File, or folder of *.toml; overrides --config
        path: Option<PathBuf>,
    },
    /// Have the daemon read its configuration again; weights and drains stay as they are
    #[command(after_help = "Examples:
  releasectl check && releasectl reload")]
    Reload,
    /// Take the data plane down and end the daemon; works with the daemon dead too
    #[command(after_help = "Connections through the data plane break.

Examples:
  releasectl detach")]
    Detach,
    /// Show services, versions and instances with their flows
    #[command(after_help = "Examples:
  releasectl status
  releasectl status web -w
  releasectl status -o json | jq '.services[].versions[] | {name, weight, flows}'")]
    Status {
        /// Only this service
        service: Option<String>,
        /// Show it anew every second
        #[arg(short, long)]
        watch: bool,
    },
    /// List tracked connections
    #[command(after_help = "Examples:
  releasectl flows web --version v1 --oldest 10
  releasectl flows --state half-closed
  releasectl flows -o jsonl | jq -r .client")]
    Flows(Flows),
    /// Change versions' shares of new connections; existing connections stay where they are
    #[command(
        after_help = "Returns when the new shares are in force on every CPU. Versions not named keep their weight.

Examples:
  releasectl shift web v1=90 v2=10
  releasectl shift web v1=0 v2=100"
    )]
    Shift {
        /// The service
        service: String,
        /// A version and its new weight, 0 to 1000000
        #[arg(required = true, value_name = "VERSION=WEIGHT")]
        weights: Vec<VersionWeight>,
        /// Even if no serving version is left
        #[arg(long)]
        allow_empty: bool,
    },
    /// Take a version or an instance out of new connections and wait until it is idle
    #[command(
        after_help = "Existing connections stay. Ends with 0 once the target is idle; at the deadline with 4 (busy) or
6 (unknown), and the drain stays in force. With --on-deadline force connections are then ended, each with RSTs that
both ends accept and the instance's word that it is gone: 5 once the target is idle. Sockets on this host are ended by
the kernel where RSTs do not arrive; in modes dsr, ipip and gue that is the only way, and force is refused without.
UDP flows end by their timeout, not by force. Receipts list what was ended.

Examples:
  releasectl drain web v1
  releasectl drain web v1 --deadline 30m --on-deadline force
  releasectl drain web v1 --deadline 30m && systemctl stop web-v1
  releasectl drain web 10.0.0.11:8080 --no-wait"
    )]
    Drain(Drain),
    /// Put a drained version or instance back to its weight before the drain; takes back `retire`
    #[command(after_help = "Examples:
  releasectl undrain web v1")]
    Undrain {
        /// The service
        service: String,
        /// Version name or instance id
        target: String,
    },
    /// Call a drained version retired, or give up an instance that was removed; needs a receipt
    #[command(
        after_help = "By a receipt written before that still holds, or by a new one. Without an idle verdict: 4 (busy) or
6 (unknown). With --force it is done all the same, exit code 5, and what is lost is said.

Examples:
  releasectl retire web v1
  releasectl retire web 10.0.0.11:8080
  releasectl retire web v1 --force"
    )]
    Retire {
        /// The service
        service: String,
        /// Version name, or id of an instance that was removed from the configuration
        target: String,
        /// Even if nothing proves it idle
        #[arg(long)]
        force: bool,
    },
    /// Ask whether a version or an instance can be stopped without loss
    #[command(subcommand)]
    Idle(Idle),
    /// Release a new version: bring it up, shift, judge, drain, retire the old one
    #[command(subcommand)]
    Release(Release),
    /// Look at instances; register them, and take them out
    #[command(subcommand)]
    Instance(Instance),
    /// Run a server as a registered instance; SIGTERM drains it before it is stopped
    #[command(
        after_help = "CMD is registered once its address accepts connections, and taken out when it ends. SIGTERM and SIGINT
take it offline; CMD gets SIGTERM when a receipt says that nobody loses anything. A second SIGTERM stops it at once, exit
code 5. SIGHUP, SIGUSR1 and SIGUSR2 are passed on. Else the exit code is CMD's (128+n: ended by signal n).

Examples:
  releasectl run --service web --version v2 --addr 10.0.0.21:8080 -- /usr/bin/web --port 8080
  releasectl run --service web --version v2 --addr 10.0.0.21:8080 --drain-timeout 10m --on-timeout stop -- web"
    )]
    Run(Run),
    /// Look at the pinned maps; works with the daemon dead
    #[command(subcommand)]
    Maps(Maps),
    /// Say where a packet would go, and why; changes nothing
    #[command(after_help = "Examples:
  releasectl explain tcp 198.51.100.7:40000 192.0.2.10:80
  releasectl explain udp [2001:db8:1::7]:40000 [2001:db8::10]:53")]
    Explain {
        /// tcp or udp
        #[arg(value_parser = protocol)]
        proto: Protocol,
        /// Address and port of the client
        #[arg(value_name = "SRC:PORT")]
        src: SocketAddr,
        /// Address and port of the frontend
        #[arg(value_name = "DST:PORT")]
        dst: SocketAddr,
    },
    /// Show what happened
    #[command(after_help = "Examples:
  releasectl events
  releasectl events -f -o jsonl")]
    Events {
        /// Go on with what happens from now on
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Address and port to listen on
    #[arg(long, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// CA that clients' certificates must be signed by, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// Own certificate, for the IP address that it is asked at, PEM
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// What may be asked about: IP:PORT, or a prefix; may be repeated [default: everything]
    #[arg(long, value_name = "IP:PORT|PREFIX", value_parser = Allowed::parse)]
    pub allow: Vec<Allowed>,
    /// Look in this network namespace of /run/netns instead of the agent's own
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Flows {
    /// Only of this service
    pub service: Option<String>,
    /// Only on this version
    // An id of its own: clap keeps `version` for itself.
    #[arg(id = "of_version", long = "version", value_name = "VERSION")]
    pub version: Option<String>,
    /// Only on this instance
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// Only in this state
    #[arg(long, value_parser = ["embryonic", "trial", "established", "half-closed", "closed"])]
    pub state: Option<String>,
    /// Only the N oldest
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub oldest: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// The service
    pub service: String,
    /// Version name or instance id
    pub target: String,
    /// Give up waiting after this time, and raise an alarm
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub deadline: Option<Duration>,
    /// What to do at the deadline; hold: leave connections alone; force: end them, those first that
    /// have been without data for longest
    #[arg(long, value_name = "hold|force", requires = "deadline", default_value = "hold")]
    pub on_deadline: OnDeadline,
    /// Connections that are ended a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub force_rate: u32,
    /// Return as soon as the drain is in force
    #[arg(long)]
    pub no_wait: bool,
    /// Even if no serving version is left
    #[arg(long)]
    pub allow_empty: bool,
}

/// A version or an instance.
#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// The service
    pub service: String,
    /// Version name or instance id
    pub target: String,
    /// Show all that was looked at
    #[arg(long)]
    pub explain: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Idle {
    /// Say idle (exit code 0), busy (4) or unknown (6)
    #[command(after_help = "Examples:
  releasectl idle check web v1
  releasectl idle check web v1 --explain")]
    Check(Target),
    /// Wait until idle; exit code 9 if it takes too long
    #[command(after_help = "Examples:
  releasectl idle wait web v1 --timeout 10m && systemctl stop web-v1")]
    Wait {
        #[command(flatten)]
        target: Target,
        /// Give up after this time
        #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
        timeout: Option<Duration>,
    },
    /// Write an idle verdict down with its evidence; refused if not idle
    #[command(
        after_help = "It lists the connections that were ended on order; --explain prints them.

Examples:
  releasectl idle receipt web v1 -o json > receipt.json"
    )]
    Receipt(Target),
    /// List the receipts written so far, newest first, or print one
    #[command(after_help = "A receipt is intact if its hash is that of what it says.

Examples:
  releasectl idle receipts web
  releasectl idle receipts web v1 -o jsonl
  releasectl idle receipts web --id 3")]
    Receipts {
        /// The service
        service: String,
        /// Only of this version or instance
        target: Option<String>,
        /// Print the one of this number
        #[arg(long, value_name = "N")]
        id: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// The service
    pub service: String,
    /// The version that serves; a conflict if it does not [default: the one with all the weight]
    #[arg(long, value_name = "VERSION")]
    pub from: Option<String>,
    /// The version that is to serve; not for plans in place
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Name of the plan [default: the service's]
    #[arg(long, value_name = "NAME")]
    pub plan: Option<String>,
    /// In place: only this instance; may be repeated [default: all]
    #[arg(long, value_name = "ID")]
    pub instance: Vec<String>,
    /// JSON that hooks get, as it is, on stdin as `data`
    #[arg(long, value_name = "JSON|@FILE")]
    pub data: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Wait as `release wait` does
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Release {
    /// Begin a release by a plan of the configuration
    #[command(after_help = "It goes on by itself, also over a restart of the daemon.

Examples:
  releasectl release start web --to v2 --dry-run
  releasectl release start web --from v1 --to v2 --plan gray --wait
  releasectl release start web --plan rolling --data '{\"image\": \"web:2\"}'")]
    Start(StartArgs),
    /// List the releases under way
    #[command(after_help = "Examples:
  releasectl release list -o jsonl")]
    List {
        /// Only of this service
        service: Option<String>,
    },
    /// List all releases, the newest first
    #[command(after_help = "Examples:
  releasectl release history web")]
    History {
        /// Only of this service
        service: Option<String>,
    },
    /// Show a release with its whole timeline
    #[command(after_help = "Examples:
  releasectl release show web
  releasectl release show 3 -o json | jq '.history[] | select(.kind == \"judgement\")'")]
    Show {
        /// Number of the release, or a service: its newest one
        release: String,
    },
    /// Write all that is known of a release as a page for people, or as data
    #[command(
        after_help = "The page needs nothing but a browser: weights, connections, latency and resets of both versions over
time, the steps with their judgements, hooks, receipts, and the whole timeline. It can be asked for while the release
is under way, too.

Examples:
  releasectl release report web --html -O release.html
  releasectl release report 3 --html > release-3.html
  releasectl release report 3 -o json | jq '.samples[-1]'"
    )]
    Report {
        /// Number of the release, or a service: its newest one
        release: String,
        /// One HTML page without scripts; -o json: the data
        #[arg(long)]
        html: bool,
        /// Write to this file [default: stdout]
        #[arg(short = 'O', long = "out", value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Wait until a release is over or needs somebody
    #[command(
        after_help = "Ends with 0 (succeeded), 5 (succeeded, connections were ended by force), 3 (rolled back),
4 (held at its deadline, or paused since nothing can be said), 7 (paused: a hook failed), 9 (timeout).
A pause of the plan or of an operator is waited through.

Examples:
  releasectl release wait web --timeout 1h"
    )]
    Wait {
        /// Number of the release, or a service: its newest one
        release: String,
        /// Give up after this time
        #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
        timeout: Option<Duration>,
    },
    /// Have a release stay where it is
    #[command(after_help = "Examples:
  releasectl release pause web")]
    Pause {
        /// Number of the release, or a service: the one under way
        release: String,
    },
    /// Have a release go on that is paused or held
    #[command(
        after_help = "A step begins anew, with its whole hold. A hook that failed is run again.

Examples:
  releasectl release resume web"
    )]
    Resume {
        /// Number of the release, or a service: the one under way
        release: String,
    },
    /// Skip the steps that are left: the new version takes all new flows
    #[command(after_help = "Examples:
  releasectl release promote web")]
    Promote {
        /// Number of the release, or a service: the one under way
        release: String,
    },
    /// Give a release up: new flows go to the old version again; none that exists is moved
    #[command(after_help = "Before the new version has all new flows; after that: rollback.

Examples:
  releasectl release abort web --reason 'wrong image'")]
    Abort {
        /// Number of the release, or a service: the one under way
        release: String,
        /// Why, for the journal
        #[arg(long, value_name = "TEXT", default_value = "an operator said so")]
        reason: String,
    },
    /// After the promotion: go back to the old version, by a release in the other direction
    #[command(after_help = "As long as the old version runs: until its rollback_window is over.

Examples:
  releasectl release rollback web --wait")]
    Rollback {
        /// Number of the release, or a service: its newest one
        release: String,
        /// Wait as `release wait` does
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Maps {
    /// List the maps with their sizes
    #[command(after_help = "Examples:
  releasectl maps list")]
    List,
    /// Print a map's entries by field names
    #[command(after_help = "Examples:
  releasectl maps dump BACKENDS
  releasectl maps dump FLOWS4 -o jsonl")]
    Dump {
        /// Name of the map, as `maps list` has it
        map: String,
    },
    /// Check that the pins are there and fit this program; exit code 6 if not
    #[command(after_help = "Examples:
  releasectl maps check")]
    Check,
}
