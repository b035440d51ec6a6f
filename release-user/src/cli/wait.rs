//! Waiting for `idle`.

use super::Context;
use super::format::{millis, seconds};
use super::output::Progress;
use super::shift::counts_text;
use crate::api::client::ClientError;
use crate::api::types::{ApiError, IdleReport, TargetQuery, Verdict};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Pause between two looks at a target that is busy.
const EVERY: Duration = Duration::from_millis(500);
/// Pause between two looks at one that only has to settle.
const SETTLING: Duration = Duration::from_millis(100);
/// How long the daemon may be away meanwhile: it may be restarted or upgraded, and the data plane
/// goes on recording.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a wait ended.
pub(super) enum Waited {
    /// The verdict is `idle`.
    Idle(IdleReport),
    /// Time is up; the last report.
    TimeUp(IdleReport),
    /// Ctrl-C.
    Interrupted,
}

/// Asks until the verdict is `idle` or `limit` has passed; the first look is always taken.
/// `doing` stands in front of the progress line.
///
/// # Errors
/// What the daemon says; or that it does not answer, at first or for 30 s.
pub(super) async fn until_idle(
    context: &Context,
    target: &TargetQuery,
    limit: Option<Duration>,
    doing: &str,
) -> Result<Waited, ApiError> {
    // Where the sum is beyond the clock, there is no limit.
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    tokio::select! {
        waited = look_until(context, target, deadline, doing) => waited,
        _ = tokio::signal::ctrl_c() => Ok(Waited::Interrupted),
    }
}

async fn look_until(
    context: &Context,
    target: &TargetQuery,
    deadline: Option<Instant>,
    doing: &str,
) -> Result<Waited, ApiError> {
    let mut progress = Progress::new();
    let mut last: Option<IdleReport> = None;
    let mut answered = Instant::now();
    let is_up = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    loop {
        match context.client.idle(target).await {
            Ok(report) if report.verdict == Verdict::Idle => return Ok(Waited::Idle(report)),
            Ok(report) => {
                progress.show(&report.verdict.to_string(), &progress_text(doing, &report));
                answered = Instant::now();
                if is_up() {
                    return Ok(Waited::TimeUp(report));
                }
                last = Some(report);
            }
            Err(ClientError::NotRunning(error) | ClientError::NoAnswer(error)) => {
                match last.take() {
                    Some(report) if is_up() => return Ok(Waited::TimeUp(stale(report, &error))),
                    Some(report) if answered.elapsed() < PATIENCE => last = Some(report),
                    _ => return Err(error),
                }
                progress.show("silent", &format!("{doing}: {error}"));
            }
            Err(ClientError::Answer(error)) => return Err(error),
        }
        let pause = last.as_ref().map_or(EVERY, pause_after);
        match deadline {
            // One more look at the deadline itself.
            Some(deadline) => sleep_until(deadline.min(Instant::now() + pause)).await,
            None => sleep(pause).await,
        }
    }
}

/// How soon another look may say something else.
pub(super) fn pause_after(report: &IdleReport) -> Duration {
    let counts = report.counts;
    if counts.active + counts.embryonic == 0 { SETTLING } else { EVERY }
}

/// A report that could not be renewed is no longer evidence.
fn stale(mut report: IdleReport, error: &ApiError) -> IdleReport {
    report.verdict = Verdict::Unknown;
    report.reasons.insert(0, error.message.clone());
    report
}

/// `draining: 12 active, 1 half-closed, oldest 4 m 2 s`
pub(super) fn progress_text(doing: &str, report: &IdleReport) -> String {
    if report.verdict == Verdict::Unknown {
        return format!("{doing}: unknown: {}", report.reasons.join("; "));
    }
    let counts = report.counts;
    let mut text =
        format!("{doing}: {}", counts_text(counts.active, counts.half_closed, counts.embryonic));
    if let Some(age) = report.oldest_flow_s {
        text += &format!(", oldest {}", seconds(age));
    } else if let (0, Some(age)) = (counts.active, report.last_packet_age_ms) {
        text += &format!(", last packet {} ago", millis(age));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{progress_text, stale};
    use crate::api::fake::report;
    use crate::api::types::{ApiError, ErrorCode, Verdict};

    #[test]
    fn what_cannot_be_renewed_is_unknown() {
        let gone = ApiError::new(ErrorCode::Internal, "daemon: gone");
        let report = stale(report(Verdict::Busy), &gone);
        assert_eq!(report.verdict, Verdict::Unknown);
        assert_eq!(report.reasons, ["daemon: gone", "12 active flows"]);
    }

    #[test]
    fn progress() {
        let text = |verdict| progress_text("draining", &report(verdict));
        assert_eq!(text(Verdict::Busy), "draining: 12 active, 1 half-closed, oldest 4 m 2 s");
        assert_eq!(text(Verdict::Unknown), "draining: unknown: 3 flows expired; 1 flow untracked");
        assert_eq!(text(Verdict::Idle), "draining: no live flows, last packet 412 ms ago");
    }
}
