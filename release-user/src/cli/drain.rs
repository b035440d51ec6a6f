//! `drain` and `undrain`.

use super::args::Drain;
use super::output::to_stderr;
use super::shift::in_force_text;
use super::values::{OnDeadline, Output};
use super::wait::{Waited, until_idle};
use super::{Context, DONE, Ended, FORCED, INTERRUPTED, idle};
use crate::api::types::{
    ApiError, DrainRequest, IdleCounts, IdleReport, InForce, SCHEMA, TargetQuery,
};
use serde::Serialize;
use std::time::Duration;

/// Time without an end of any connection after which a forced drain is stuck.
const STUCK: Duration = Duration::from_secs(15);

/// What `drain -o json` prints when it ends.
#[derive(Serialize)]
struct Drained<'a> {
    schema: u32,
    in_force: &'a InForce,
    /// None without a wait.
    idle: Option<&'a IdleReport>,
}

pub(super) async fn drain(context: &mut Context, args: Drain) -> Ended {
    let Drain { service, target, deadline, on_deadline, force_rate, no_wait, allow_empty } = args;
    let force = on_deadline == OnDeadline::Force;
    let request = DrainRequest {
        service: service.clone(),
        target: target.clone(),
        deadline_s: deadline.map(|deadline| deadline.as_secs_f64()),
        force_per_second: force.then_some(force_rate),
        allow_empty,
    };
    let in_force = context.client.drain(&request).await?;
    if context.out.format != Output::Json {
        context.out.value(&in_force, |in_force, _| in_force_text(in_force))?;
    }
    if no_wait {
        print_whole(context, &in_force, None)?;
        return Ok(DONE);
    }
    let query = TargetQuery { service, target };
    let before = context.client.idle(&query).await?.counts.ended();
    let mut waited = until_idle(context, &query, deadline, "draining").await?;
    if force {
        // As long as it gets on.
        while let Waited::TimeUp(report) = &waited {
            let then = report.counts;
            waited = until_idle(context, &query, Some(STUCK), "forcing").await?;
            if matches!(&waited, Waited::TimeUp(report) if !gets_on(&then, &report.counts)) {
                break;
            }
        }
    }
    match waited {
        Waited::Idle(report) => {
            print_end(context, &in_force, &report)?;
            Ok(if report.counts.ended() > before { FORCED } else { DONE })
        }
        Waited::TimeUp(report) => {
            if context.out.format != Output::Text {
                print_end(context, &in_force, &report)?;
            }
            Err(at_deadline(&report, deadline.unwrap_or_default()))
        }
        Waited::Interrupted => {
            let TargetQuery { service, target } = &query;
            to_stderr(&format!(
                "\nno longer waiting; the drain stays in force \
                 (back: releasectl undrain {service} {target})\n"
            ));
            Ok(INTERRUPTED)
        }
    }
}

/// Whether fewer connections are left than there were.
const fn gets_on(then: &IdleCounts, now: &IdleCounts) -> bool {
    now.active < then.active || now.ended() > then.ended()
}

/// The verdict; with `json`, together with the generation in one document.
fn print_end(
    context: &mut Context,
    in_force: &InForce,
    report: &IdleReport,
) -> Result<(), ApiError> {
    match context.out.format {
        Output::Json => print_whole(context, in_force, Some(report)),
        _ => context.out.value(report, |report, colours| idle::report_text(report, false, colours)),
    }
}

fn print_whole(
    context: &mut Context,
    in_force: &InForce,
    idle: Option<&IdleReport>,
) -> Result<(), ApiError> {
    if context.out.format != Output::Json {
        return Ok(());
    }
    context.out.value(&Drained { schema: SCHEMA, in_force, idle }, |_, _| String::new())
}

/// The error of a drain that was not done in time.
fn at_deadline(report: &IdleReport, deadline: Duration) -> ApiError {
    let IdleReport { service, target, .. } = report;
    let after = humantime::format_duration(deadline);
    idle::not_idle(report, &format!("not idle at the deadline of {after}")).hint(format!(
        "held: the drain stays in force; releasectl idle wait {service} {target}, \
         or back: releasectl undrain {service} {target}"
    ))
}

pub(super) async fn undrain(context: &mut Context, service: String, target: String) -> Ended {
    let request = DrainRequest {
        service,
        target,
        deadline_s: None,
        force_per_second: None,
        allow_empty: false,
    };
    let in_force = context.client.undrain(&request).await?;
    context.out.value(&in_force, |in_force, _| in_force_text(in_force))?;
    Ok(DONE)
}
