//! `release`: from "here is the new version" to "the old one is retired".

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::args::{Release, StartArgs};
use super::format::{Paint, Side, Table, seconds};
use super::output::{Progress, to_stderr};
use super::values::Output;
use super::{Context, DONE, Ended, INTERRUPTED};
use crate::api::client::ClientError;
use crate::api::release::{
    OrderRequest, ReleaseId, ReleaseLine, ReleaseQuery, ReleaseShow, StartRelease, Started,
};
use crate::api::types::{ApiError, ErrorCode};
use crate::release::machine::Command;

/// Pause between two looks at a release that is waited for.
const EVERY: Duration = Duration::from_millis(250);
/// How long the daemon may be away meanwhile: it may be restarted or upgraded.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn release(context: &mut Context, command: Release) -> Ended {
    let order = |release: String, command| OrderRequest { release, command };
    match command {
        Release::Start(args) => start(context, args).await,
        Release::List { service } => list(context, service, false).await,
        Release::History { service } => list(context, service, true).await,
        Release::Show { release } => show(context, &release).await,
        Release::Report { release, html, file } => {
            super::report::report(context, &release, html, file).await
        }
        Release::Wait { release, timeout } => wait(context, &release, timeout).await,
        Release::Pause { release } => say(context, order(release, Command::Pause)).await,
        Release::Resume { release } => say(context, order(release, Command::Resume)).await,
        Release::Promote { release } => say(context, order(release, Command::Promote)).await,
        Release::Abort { release, reason } => {
            say(context, order(release, Command::Abort(reason))).await
        }
        Release::Rollback { release, wait: waits } => {
            let started = context.client.roll_back(&ReleaseId { release, skip: 0 }).await?;
            begun(context, started, waits).await
        }
    }
}

async fn start(context: &mut Context, args: StartArgs) -> Ended {
    let StartArgs { service, from, to, plan, instance, data, dry_run, wait: waits } = args;
    let data = data.map_or(Ok(Value::Null), |text| read_data(&text))?;
    let request = StartRelease { service, from, to, plan, instances: instance, data, dry_run };
    let started = context.client.start_release(&request).await?;
    begun(context, started, waits).await
}

async fn begun(context: &mut Context, started: Started, waits: bool) -> Ended {
    let waits = waits && !started.dry_run;
    // One document in all.
    if !waits || context.out.format == Output::Text {
        context.out.value(&started, |started, _| started_text(started))?;
    }
    if waits { wait(context, &started.release.id.to_string(), None).await } else { Ok(DONE) }
}

/// JSON, or `@FILE` with JSON in it.
fn read_data(text: &str) -> Result<Value, ApiError> {
    let usage = |why: String| ApiError::new(ErrorCode::Usage, format!("--data: {why}"));
    let read;
    let json = match text.strip_prefix('@') {
        Some(path) => {
            read =
                std::fs::read_to_string(path).map_err(|error| usage(format!("{path}: {error}")))?;
            &read
        }
        None => text,
    };
    serde_json::from_str(json).map_err(|error| {
        usage(format!("not JSON: {error}")).hint("such as --data '{\"image\": \"web:2\"}'")
    })
}

async fn list(context: &mut Context, service: Option<String>, all: bool) -> Ended {
    let releases = context.client.releases(&ReleaseQuery { service, all }).await?;
    context.out.list(&releases, |releases, colours| list_text(releases, all, colours))?;
    Ok(DONE)
}

async fn show(context: &mut Context, release: &str) -> Ended {
    let show = context.client.release(release, 0).await?;
    context.out.value(&show, |show, _| show_text(show))?;
    Ok(DONE)
}

async fn say(context: &mut Context, request: OrderRequest) -> Ended {
    let line = context.client.order_release(&request).await?;
    context.out.value(&line, |line, _| line_text(line))?;
    Ok(DONE)
}

/// Follows a release until it is over, or waits for somebody.
async fn wait(context: &mut Context, release: &str, timeout: Option<Duration>) -> Ended {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let ended = tokio::select! {
        ended = until_over(context, release, deadline) => ended?,
        _ = tokio::signal::ctrl_c() => {
            to_stderr("\nno longer waiting; the release goes on\n");
            return Ok(INTERRUPTED);
        }
    };
    let code = ended.line.exit_code;
    match context.out.format {
        Output::Text => context.out.text(&line_text(&ended.line))?,
        _ => context.out.value(&ended.line, |_, _| String::new())?,
    }
    match code {
        Some(code) => Ok(code),
        None => {
            let ReleaseLine { id, state, .. } = &ended.line;
            Err(ApiError::new(ErrorCode::Timeout, format!("release {id}: is {state}"))
                .hint("it goes on; releasectl release wait waits again"))
        }
    }
}

async fn until_over(
    context: &mut Context,
    release: &str,
    deadline: Option<Instant>,
) -> Result<ReleaseShow, ApiError> {
    let mut progress = Progress::new();
    let mut answered = None;
    let mut told = 0;
    // A service's newest may be another one later.
    let mut release = release.to_owned();
    loop {
        match context.client.release(&release, told).await {
            Ok(show) => {
                release = show.line.id.to_string();
                answered = Some(Instant::now());
                for entry in &show.history {
                    if !matches!(entry.kind.as_str(), "baseline" | "judgement") {
                        progress.clear();
                        to_stderr(&format!("{}  {}: {}\n", entry.at, entry.kind, entry.text));
                    }
                }
                told += show.history.len();
                let up = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if show.line.exit_code.is_some() || up {
                    return Ok(show);
                }
                progress.show_in_place(&doing_text(&show.line));
            }
            Err(ClientError::NotRunning(error) | ClientError::NoAnswer(error)) => {
                if answered.is_none_or(|last| last.elapsed() > PATIENCE) {
                    return Err(error);
                }
                progress.show("silent", &format!("release {release}: {error}"));
            }
            Err(ClientError::Answer(error)) => return Err(error),
        }
        sleep(EVERY).await;
    }
}

/// `web: release 3, v1 → v2, plan gray: shifting 2/4`
fn line_text(line: &ReleaseLine) -> String {
    let mut text = format!("{}: {}: {}", head(line), versions(line), state_text(line));
    if line.forced {
        text += ", by force";
    }
    if !line.receipts.is_empty() {
        let list: Vec<String> = line.receipts.iter().map(u64::to_string).collect();
        let _ = write!(text, ", {} {}", plural(list.len(), "receipt"), list.join(", "));
    }
    text.push('\n');
    for reason in &line.reasons {
        let _ = writeln!(text, "  {reason}");
    }
    text
}

fn head(line: &ReleaseLine) -> String {
    match line.id {
        0 => line.service.clone(),
        id => format!("{}: release {id}", line.service),
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn versions(line: &ReleaseLine) -> String {
    if line.from == line.to {
        format!("{} in place", line.from)
    } else {
        format!("{} → {}", line.from, line.to)
    }
}

fn state_text(line: &ReleaseLine) -> String {
    match line.step {
        Some(step) => format!("{} {}/{}", line.state, step.number, step.of),
        None => line.state.clone(),
    }
}

/// What it does, on one line.
pub(super) fn doing_text(line: &ReleaseLine) -> String {
    let mut text = format!("{}: {}", head(line), state_text(line));
    if let Some(doing) = &line.doing {
        let _ = write!(text, ": {doing}");
    }
    if let Some(deadline) = &line.deadline {
        let _ = write!(text, ", {} left", seconds(deadline.remaining_s as u64));
    }
    if !line.reasons.is_empty() {
        let _ = write!(text, " ({})", line.reasons.join("; "));
    }
    text
}

fn started_text(started: &Started) -> String {
    let line = &started.release;
    let what = if started.dry_run { "would be released" } else { "begun" };
    let mut text = format!("{}: {}, plan {}: {what}\n", head(line), versions(line), line.plan);
    for stage in &started.outline {
        if stage.does.is_empty() {
            let _ = writeln!(text, "  {:<12}  -", stage.state);
        }
        for (index, line) in stage.does.iter().enumerate() {
            let state = if index == 0 { stage.state.as_str() } else { "" };
            let _ = writeln!(text, "  {state:<12}  {line}");
        }
    }
    text
}

fn list_text(releases: &[ReleaseLine], all: bool, colours: bool) -> String {
    if releases.is_empty() {
        return if all { "no releases yet\n" } else { "no release is under way\n" }.to_owned();
    }
    let mut table = Table::new(&[
        ("ID", Side::Right),
        ("SERVICE", Side::Left),
        ("VERSIONS", Side::Left),
        ("PLAN", Side::Left),
        ("STATE", Side::Left),
        ("STARTED AT", Side::Left),
        ("ENDED AT", Side::Left),
    ]);
    for line in releases {
        let ended = line.ended_at.clone().unwrap_or_else(|| "-".to_owned());
        let cells = vec![
            line.id.to_string(),
            line.service.clone(),
            versions(line),
            line.plan.clone(),
            state_text(line),
            line.started_at.clone(),
            ended,
        ];
        table.row(Paint::of_state(&line.state), cells);
    }
    table.render(colours)
}

fn show_text(show: &ReleaseShow) -> String {
    let line = &show.line;
    let mut text = line_text(line);
    let _ = writeln!(text, "  plan       {} ({})", line.plan, line.strategy);
    let live = line.live.map(|live| format!(", {live} live")).unwrap_or_default();
    let _ = writeln!(text, "  instances  {}{live}", line.instances.join(", "));
    if let Some(doing) = &line.doing {
        let _ = writeln!(text, "  now        {doing}");
    }
    if let Some(deadline) = &line.deadline {
        let left = seconds(deadline.remaining_s as u64);
        let _ = writeln!(text, "  deadline   {} ({left} left)", deadline.at);
    }
    let _ = writeln!(text, "  began      {}", line.started_at);
    if let Some(ended) = &line.ended_at {
        let _ = writeln!(text, "  ended      {ended}");
    }
    text.push('\n');
    for entry in &show.history {
        let _ = writeln!(text, "{}  {:<10}  {}", entry.at, entry.kind, entry.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake;
    use crate::api::release::DeadlineLine;

    #[test]
    fn one_line_says_where_it_is() {
        let line = fake::release();
        assert_eq!(line_text(&line), "web: release 3: v1 → v2: shifting 2/4\n");
        let ended = ReleaseLine {
            state: "succeeded".into(),
            step: None,
            receipts: vec![7],
            forced: true,
            reasons: vec!["why".into()],
            ..line
        };
        let text = "web: release 3: v1 → v2: succeeded, by force, receipt 7\n  why\n";
        assert_eq!(line_text(&ended), text);
    }

    #[test]
    fn what_it_does_is_one_line() {
        let mut line = fake::release();
        let deadline = DeadlineLine { at: "2026-01-01T00:10:00Z".into(), remaining_s: 61.0 };
        line.deadline = Some(deadline);
        line.reasons = vec!["1 active flow".into()];
        let text = "web: release 3: shifting 2/4: v2 gets 10 % of new flows, 1 m 1 s left \
                    (1 active flow)";
        assert_eq!(doing_text(&line), text);
    }

    #[test]
    fn data_is_json_or_a_file() {
        assert_eq!(read_data("{\"a\": 1}").unwrap()["a"], 1);
        assert!(read_data("image").unwrap_err().message.starts_with("--data: not JSON"));
        assert!(read_data("@/nowhere").unwrap_err().message.contains("/nowhere"));
    }
}
