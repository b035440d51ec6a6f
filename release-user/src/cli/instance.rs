//! `instance`: registering instances and taking them out.

use super::args::{self, Register};
use super::idle::not_idle;
use super::leave::{Leave, Leaving};
use super::output::to_stderr;
use super::shift::in_force_text;
use super::values::{Output, by_key};
use super::{Context, DONE, Ended, FORCED, INTERRUPTED, flows};
use crate::api::types::{
    ApiError, DeregisterRequest, Deregistered, ErrorCode, IdleReport, MaintRequest, Offline,
    OfflineRequest, RegisterRequest, Registered,
};
use crate::net::namespace::pid_namespace;
use args::Instance;
use args::OnOff;
use serde::Serialize;

pub(super) async fn carry_out(context: &mut Context, command: Instance) -> Ended {
    match command {
        Instance::List => flows::instances(context).await,
        Instance::Register(arguments) => register(context, arguments).await,
        Instance::Deregister { service, id, force, allow_empty } => {
            deregister(context, DeregisterRequest { service, id, force, allow_empty }).await
        }
        Instance::Offline(arguments) => offline(context, arguments).await,
        Instance::Maint { service, id, word, allow_empty } => {
            let request = MaintRequest { service, id, on: word == OnOff::On, allow_empty };
            let in_force = context.client.maint(&request).await?;
            context.out.value(&in_force, |in_force, _| in_force_text(in_force))?;
            Ok(DONE)
        }
    }
}

async fn register(context: &mut Context, arguments: Register) -> Ended {
    let Register { service, version, addr, id, weight, meta, lease, watch_pid } = arguments;
    let request = RegisterRequest {
        service,
        version: version.to_string(),
        addr: addr.to_string(),
        id: id.map(|id| id.to_string()),
        weight,
        meta: by_key(meta),
        lease_s: lease.map(|lease| lease.as_secs_f64()),
        watch_pid,
        pid_namespace: watch_pid.and_then(|_| pid_namespace()),
    };
    let registered = context.client.register(&request).await?;
    context.out.value(&registered, |registered, _| registered_text(registered))?;
    Ok(DONE)
}

/// One line.
pub(super) fn registered_text(registered: &Registered) -> String {
    let Registered { service, version, id, addr, backend, state, generation, changed, .. } =
        registered;
    let what = if *changed { "registered" } else { "renewed" };
    format!(
        "{service}/{version}/{id}: {what} at {addr}, backend {backend}, {state} (generation \
         {generation})\n"
    )
}

async fn deregister(context: &mut Context, request: DeregisterRequest) -> Ended {
    let forced = request.force;
    let done = context.client.deregister(&request).await?;
    context.out.value(&done, |done, _| deregistered_text(done, forced))?;
    Ok(if forced && done.receipt.is_none() { FORCED } else { DONE })
}

/// One line; a forced one is followed by what was lost.
fn deregistered_text(done: &Deregistered, forced: bool) -> String {
    let Deregistered { service, version, id, receipt, lost, changed, .. } = done;
    let name = format!("{service}/{version}/{id}");
    let already = if *changed { "" } else { " already" };
    match receipt {
        Some(receipt) => format!("{name}: deregistered{already}, receipt {receipt}\n"),
        None if forced => {
            let lost: String = lost.iter().map(|lost| format!("  not proven: {lost}\n")).collect();
            format!("{name}: deregistered{already} by force\n{lost}")
        }
        None => format!("{name}: deregistered{already}, kept until its connections end\n"),
    }
}

/// What `offline -o json` prints.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    offline: &'a Offline,
    /// The last verdict.
    idle: Option<&'a IdleReport>,
}

async fn offline(context: &mut Context, arguments: args::Offline) -> Ended {
    let args::Offline { service, id, timeout, no_wait, allow_empty } = arguments;
    let deadline_s = timeout.map(|timeout| timeout.as_secs_f64());
    let request = OfflineRequest { service, id, deadline_s, allow_empty };
    let leaving = Leaving::new(context, request);
    let mut asked = leaving.ask().await?;
    let mut leave = leaving.look(&asked).await?;
    if leave.is_none() && !no_wait {
        let over = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            gone = leaving.insist(Some(&asked)) => leave = Some(gone),
            () = over => {}
            _ = tokio::signal::ctrl_c() => {
                to_stderr("\nno longer waiting; it stays offline\n");
                return Ok(INTERRUPTED);
            }
        }
    }
    let last = leaving.last();
    asked.receipt = match &leave {
        Some(Leave::Receipt(receipt)) => Some(*receipt),
        _ => None,
    };
    // For people, the error below says the reasons already.
    if leave.is_some() || context.out.format != Output::Text {
        let whole = Whole { offline: &asked, idle: last.as_ref() };
        context.out.value(&whole, |whole, _| offline_text(whole.offline))?;
    }
    match (leave, last) {
        (Some(_), _) => Ok(DONE),
        (None, Some(report)) => Err(held(&report, timeout.is_some())),
        // Not even one look was over.
        (None, None) => {
            let Offline { service, id, .. } = &asked;
            Err(ApiError::new(ErrorCode::Timeout, format!("{service} {id}: held: no verdict yet")))
        }
    }
}

fn offline_text(offline: &Offline) -> String {
    let Offline { service, version, id, generation, receipt, .. } = offline;
    let name = format!("{service}/{version}/{id}");
    match receipt {
        Some(receipt) => {
            format!("{name}: offline (generation {generation}), it may stop: receipt {receipt}\n")
        }
        None => format!("{name}: offline, and forgotten\n"),
    }
}

/// It stays offline, but must not end.
fn held(report: &IdleReport, timed_out: bool) -> ApiError {
    let IdleReport { service, target, .. } = report;
    let error = not_idle(report, "held").hint(format!(
        "it stays out of new connections; ask again: releasectl instance offline {service} \
         {target}, or back: releasectl undrain {service} {target}"
    ));
    if timed_out { ApiError { code: ErrorCode::Timeout, ..error } } else { error }
}
