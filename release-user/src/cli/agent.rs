//! `agent`: answers, on an instance's host, what sockets remain there.

use super::args::Agent;
use super::{DONE, Ended};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::Credentials;
use crate::net::namespace::Namespace;
use crate::sockets::agent::server::{Scope, serve};
use crate::sockets::agent::tls;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Serves until it is told to stop.
pub(super) async fn run(arguments: Agent) -> Ended {
    let files = Credentials::new(arguments.ca, arguments.certificate, arguments.key);
    let (sender, certificates) = watch::channel(load(&files)?);
    let namespace = arguments.netns.map_or(Namespace::Own, Namespace::Named);
    // What could never be answered is said at once.
    namespace
        .run(|| ())
        .map_err(|error| ApiError::new(ErrorCode::Usage, format!("agent: {namespace}: {error}")))?;
    let internal = |what: String| ApiError::new(ErrorCode::Internal, what);
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        internal(format!("agent: cannot listen on {}: {error}", arguments.listen))
    })?;
    let on = |kind| signal(kind).map_err(|error| internal(format!("agent: signal: {error}")));
    let mut hangup = on(SignalKind::hangup())?;
    let ends = [on(SignalKind::terminate())?, on(SignalKind::interrupt())?];
    let reloader = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match load(&files) {
                Ok(new) => {
                    sender.send_replace(new);
                    log::info!("certificates read again");
                }
                Err(error) => log::error!("{error}; the certificates stay as they were"),
            }
        }
    });
    notify(sd_notify::NotifyState::Ready);
    let address = listener.local_addr().unwrap_or(arguments.listen);
    log::info!("answering on {address} for {namespace}");
    let scope = Scope { namespace, allowed: arguments.allow };
    serve(listener, certificates, scope, any(ends)).await;
    reloader.abort();
    log::info!("stopped");
    Ok(DONE)
}

fn load(files: &Credentials) -> Result<std::sync::Arc<rustls::ServerConfig>, ApiError> {
    tls::server(files).map_err(|error| ApiError::new(ErrorCode::Usage, format!("agent: {error}")))
}

async fn any([mut first, mut second]: [Signal; 2]) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
    notify(sd_notify::NotifyState::Stopping);
}

/// Tells systemd, if it started us.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        log::debug!("sd_notify: {error}");
    }
}
