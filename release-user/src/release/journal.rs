//! What is written down of releases: where each is, what happened to it, and which hooks were run.
//! All of it before anything is done.

use serde::{Deserialize, Serialize};

use super::hook::Outcome;
use super::machine::Release;
use super::phase::Point;
use super::sample::Sample;
use crate::store::StoreError;

/// Something that happened to a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339.
    pub at: String,
    /// The release's state then.
    pub state: String,
    /// What kind of thing: `state`, `hook`, `shift`, `judgement`, `alarm`, `command`.
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// The numbers.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// One run of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    /// Its number.
    pub id: u64,
    /// Of this release.
    pub release: u64,
    /// Which hook.
    pub point: Point,
    /// Where in the release: each place runs it once.
    pub place: String,
    /// The release's round then.
    pub round: u32,
    /// For this instance.
    pub instance: Option<String>,
    /// When it began, RFC 3339.
    pub began_at: String,
    /// Process id and birth, see [`birth`](super::hook::birth).
    pub process: Option<(u32, u64)>,
    /// When it ended, RFC 3339; none: nobody knows.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// How it ended; none: nobody knows.
    pub outcome: Option<Outcome>,
    /// The end of what it wrote.
    #[serde(default)]
    pub output: String,
}

/// Why a release cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// One is under way.
    #[error("release {0} of the service is under way")]
    UnderWay(u64),
    /// The medium.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where releases are written down. Every method is one step: a crash leaves it done or not.
pub trait Journal {
    /// Begins a release and gives it its number. A service has one at a time.
    ///
    /// # Errors
    /// One is under way; as for all methods, the medium's.
    fn begin_release(&mut self, release: Release, entry: &Entry) -> Result<Release, BeginError>;
    /// Writes down where a release is, and what led there if that is worth a line.
    #[allow(missing_docs, reason = "see `begin_release`")]
    fn save_release(&mut self, release: &Release, entry: Option<&Entry>) -> Result<(), StoreError>;
    /// Writes down what happened without moving it.
    fn note_entry(&mut self, release: u64, entry: &Entry) -> Result<(), StoreError>;
    /// A release.
    fn release(&self, id: u64) -> Result<Option<Release>, StoreError>;
    /// Releases, of one service or all services, the newest first; those that are `over`, too.
    fn releases(&self, service: Option<&str>, over: bool) -> Result<Vec<Release>, StoreError>;
    /// What happened to one, the first first, without the first `skip`.
    fn timeline(&self, release: u64, skip: usize) -> Result<Vec<Entry>, StoreError>;
    /// When the first and the last of that happened.
    fn span(&self, release: u64) -> Result<Option<(String, String)>, StoreError>;
    /// The last of one kind.
    fn last_entry(&self, release: u64, kind: &str) -> Result<Option<Entry>, StoreError>;
    /// Writes down that a hook is about to be run. Returns the number of the run.
    fn begin_hook(&mut self, run: &HookRun) -> Result<u64, StoreError>;
    /// Replaces what is known of a run.
    fn save_hook(&mut self, run: &HookRun) -> Result<(), StoreError>;
    /// Runs of a release's hooks, the first first.
    fn hook_runs(&self, release: u64) -> Result<Vec<HookRun>, StoreError>;
    /// Writes down what was measured. Of more than [`MOST`](super::sample::MOST) of a release,
    /// every second one is [left out](super::sample::thin).
    fn add_sample(&mut self, release: u64, sample: &Sample) -> Result<(), StoreError>;
    /// What was measured of both versions during a release, the first first.
    fn samples(&self, release: u64) -> Result<Vec<Sample>, StoreError>;
}
