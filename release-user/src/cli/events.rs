//! `events`: what happened, and what happens.

use super::output::to_stderr;
use super::{Context, DONE, Ended};
use crate::api::types::{ApiError, ErrorCode, EventLine};
use crate::cli::values::Output;

pub(super) async fn events(context: &mut Context, follow: bool) -> Ended {
    if follow {
        return tokio::select! {
            ended = stream(context) => ended,
            _ = tokio::signal::ctrl_c() => Ok(DONE),
        };
    }
    let mut events = context.client.events(false).await?;
    let mut all = Vec::new();
    while let Some(event) = events.next().await? {
        all.push(event);
    }
    context.out.list(&all, |events, _| events.iter().map(line_text).collect())?;
    Ok(DONE)
}

async fn stream(context: &mut Context) -> Ended {
    let mut events = context.client.events(true).await?;
    if context.out.format == Output::Json {
        // A list without an end is no document.
        context.out.format = Output::Jsonl;
    }
    let mut last = None;
    while let Some(event) = events.next().await? {
        if let Some(missed) = missed(last, event.seq) {
            to_stderr(&format!("warning: {missed} events missed (too many at once)\n"));
        }
        last = Some(event.seq);
        context.out.value(&event, |event, _| line_text(event))?;
        if context.out.is_closed() {
            return Ok(DONE);
        }
    }
    Err(ApiError::new(ErrorCode::Internal, "daemon: ended the list of events")
        .hint("it was stopped or restarted"))
}

/// How many are missing between two numbers.
fn missed(last: Option<u64>, next: u64) -> Option<u64> {
    let missed = next.checked_sub(last?)?.checked_sub(1)?;
    (missed > 0).then_some(missed)
}

fn line_text(event: &EventLine) -> String {
    let EventLine { at, kind, service, target, message, .. } = event;
    let place: Vec<&str> = [service, target].into_iter().flatten().map(|s| &**s).collect();
    if place.is_empty() {
        format!("{at}  {kind}: {message}\n")
    } else {
        format!("{at}  {kind}  {}: {message}\n", place.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::{line_text, missed};
    use crate::api::fake::event;

    #[test]
    fn lines() {
        assert_eq!(line_text(&event(7)), "2026-01-01T00:00:00Z  shift  web: event 7\n");
    }

    #[test]
    fn gaps() {
        assert_eq!(missed(None, 17), None);
        assert_eq!(missed(Some(17), 18), None);
        assert_eq!(missed(Some(17), 20), Some(2));
        assert_eq!(missed(Some(17), 3), None);
    }
}
