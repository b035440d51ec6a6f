//! The daemon's life: `daemon`, `reload`, `detach`.

use super::{Context, DONE, Ended};
use crate::api::client::ClientError;
use crate::paths::Paths;
use serde::Serialize;
use std::fmt::Write as _;

/// Runs the daemon until it is told to stop.
pub(super) async fn run(paths: Paths, verbosity: u8) -> Ended {
    crate::daemon::run(paths, verbosity).await.map(|()| DONE)
}

pub(super) async fn reload(context: &mut Context) -> Ended {
    let reloaded = context.client.reload().await?;
    context.out.value(&reloaded, |reloaded, _| {
        if reloaded.changes.is_empty() {
            return "reloaded: nothing changed\n".to_owned();
        }
        reloaded.changes.iter().fold(String::new(), |mut text, change| {
            let _ = writeln!(text, "{change}");
            text
        })
    })?;
    Ok(DONE)
}

/// What `detach` prints with `-o json`.
#[derive(Serialize)]
struct Detached {
    /// Whether the daemon did it.
    by_daemon: bool,
    /// What was taken down without it.
    removed: Vec<String>,
}

/// Has the daemon take the data plane down. Only if none is there, does it itself: a daemon that
/// is merely slow must not have its maps taken away.
pub(super) async fn detach(context: &mut Context) -> Ended {
    let detached = match context.client.detach().await {
        Ok(()) => Detached { by_daemon: true, removed: Vec::new() },
        Err(ClientError::NotRunning(error)) => {
            log::info!("{error}; going on without the daemon");
            let removed = crate::daemon::detach_offline(&context.paths)?;
            Detached { by_daemon: false, removed }
        }
        Err(error) => return Err(error.into()),
    };
    context.out.value(&detached, |detached, _| {
        match (detached.by_daemon, &detached.removed[..]) {
            (true, _) => "detached: the data plane is down, the daemon ends\n".to_owned(),
            (false, []) => "nothing to detach\n".to_owned(),
            (false, removed) => removed.iter().fold(String::new(), |mut text, what| {
                let _ = writeln!(text, "removed: {what}");
                text
            }),
        }
    })?;
    Ok(DONE)
}
