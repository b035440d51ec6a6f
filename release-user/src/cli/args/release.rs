//! `release` and what follows it.

use super::super::values::duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
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
pub(in crate::cli) enum Release {
    /// Begin a release by a plan of the configuration
    #[command(after_help = "It goes on by itself, also over a restart of the daemon.

Examples:
  releasectl release start web --to v2 --dry-run
  releasectl release start web --from v1 --to v2 --plan gray --wait
  releasectl release start web --plan rolling --data @image.json")]
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
  releasectl release abort web --reason wrong-image")]
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
