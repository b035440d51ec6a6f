//! The daemon: start by adopting what is pinned, reconcile, never flush; stop by leaving the data
//! plane running.

mod alarms;
mod api;
mod checks;
mod clock;
mod core;
mod epoch;
mod events;
mod explain;
mod forced;
mod forcing;
mod health;
mod host;
mod idle;
mod made;
mod measured;
mod occupation;
mod prober;
mod rates;
mod reaper;
mod register;
mod regularly;
mod release;
mod renewals;
mod report;
mod retire;
mod selfcheck;
mod takedown;
mod ticker;
mod traffic;
mod warnings;
mod witnesses;

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify};

use self::core::{Core, Daemon};
use crate::api::server;
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, LogLevel};
use crate::control::reconcile::reconcile;
use crate::control::state::State;
use crate::kernel::{
    Capacities, KernelLog, Links, Maps, Programs, discard_unfinished, is_pinned, load,
};
use crate::net::netlink;
use crate::paths::Paths;
use crate::store::{SqliteStore, Store as _};

pub use self::idle::boot_id_text;
pub use self::measured::measured;
pub use self::takedown::detach_offline;

/// Runs the daemon in the foreground until SIGTERM, SIGINT or `detach`.
///
/// # Errors
/// What keeps it from starting; then nothing was changed.
pub async fn run(paths: Paths, verbosity: u8) -> Result<(), ApiError> {
    let config = api::load_config(paths.config.as_deref())?;
    let agents = witnesses::agents(&config)?;
    checks::host(&paths.bpffs)?;
    let lock = checks::lock(&paths.state_dir)?;
    let present = host::present().await?;
    let adopting = is_pinned(&paths.bpffs);
    let ours = if adopting { Links::open(&paths.bpffs)?.list() } else { Vec::new() };
    checks::interfaces(&config, &present, &ours, |_| adopting)?;
    let pins_lock = checks::lock_pins(&paths.bpffs)?;
    discard_unfinished(&paths.bpffs)?;
    let mut store = SqliteStore::open(&paths.state_dir)?;
    // A connection of its own: releases are written down while the core is busy.
    let journal = SqliteStore::open(&paths.state_dir)?;
    if adopting {
        checks::belongs(&Maps::open(&paths.bpffs)?.meta()?, &store, &paths)?;
    }
    let listener = server::bind(&paths.socket)?;
    let prober = prober::Prober::open()
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("raw sockets: {error}")))?;

    let state = State { services: store.load()? };
    // A configuration that the state contradicts is refused before anything is made.
    release::keeps_releases(&journal, &state, &config)?;
    reconcile(&state, &config, 0)?;
    let capacity = config.daemon().flow_capacity().get();
    let mut loaded = load(
        &paths.bpffs,
        Capacities {
            flows: capacity,
            embryos: config.daemon().embryo_capacity().get(),
            sessions: config.daemon().session_capacity().get(),
            snat: config.daemon().snat_capacity().get(),
            fragments: config.daemon().fragment_capacity().get(),
        },
        log_level(&config, verbosity),
    )?;
    let log = loaded.log.take();
    let mut maps = Maps::open(&paths.bpffs)?;
    let programs = Programs::open(&paths.bpffs)?;
    let begun = epoch::begin(&mut maps, &mut store, &programs, loaded.created, capacity)?;
    let mut core = Core {
        maps,
        loaded,
        links: Links::open(&paths.bpffs)?,
        state,
        store: Box::new(store),
        config: Arc::clone(&config),
        interfaces: present,
        found: Default::default(),
        down: false,
        _locks: [lock, pins_lock],
    };
    core.load_found()?;
    core.adopt_config(config)?;
    log_verified(&core.loaded);
    // Only now, with everything in place, may packets come.
    let attached = core.attach_all(true)?;
    core.interfaces = netlink::interfaces().await.unwrap_or_default();

    let daemon = Arc::new(Daemon {
        reader: Maps::open(&paths.bpffs)?,
        core: Mutex::new(core),
        programs,
        clock: begun.clock,
        map_ids: begun.map_ids,
        events: events::EventHub::new(),
        rates: Default::default(),
        idle: Default::default(),
        witnesses: Default::default(),
        health: Default::default(),
        warnings: Default::default(),
        prober: std::sync::Mutex::new(prober),
        recorded: Default::default(),
        declines: Default::default(),
        orphans: Default::default(),
        drifts: Default::default(),
        releases: release::Releases::new(Box::new(journal)),
        renewals: Default::default(),
        look: Notify::new(),
        stop: Notify::new(),
        paths,
    });
    daemon.witnesses.set_agents(agents);
    for line in attached {
        daemon.events.publish("interface", None, None, line);
    }
    for line in begun.notices {
        daemon.events.publish("epoch", None, None, line);
    }
    if let Err(error) = daemon.look_at_host().await {
        log::error!("{error}");
    }
    give_memory_back();
    serve(daemon, listener, log).await
}

/// Lets the system have the memory that loading the programs took: the allocator would keep most of
/// it for as long as the daemon runs.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer only, and is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the kernel's verifier made of the programs.
fn log_verified(loaded: &crate::kernel::Loaded) {
    for program in &loaded.verified {
        log::debug!(
            "{}: {} instructions verified, {} bytes of machine code, {} ms",
            program.name,
            program.instructions,
            program.jited,
            program.time.as_millis()
        );
    }
}

/// Level of the kernel programs' log: the configuration's, or `debug` if -v asks for detail.
fn log_level(config: &Config, verbosity: u8) -> u8 {
    let configured = match config.daemon().log() {
        LogLevel::Off => 0,
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    };
    if configured == 0 && verbosity > 0 { 4 } else { configured }
}

async fn serve(
    daemon: Arc<Daemon>,
    listener: tokio::net::UnixListener,
    log: Option<KernelLog>,
) -> Result<(), ApiError> {
    let releases = tokio::spawn(Arc::clone(&daemon).carry_releases());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&daemon).follow_host());
    tasks.spawn(Arc::clone(&daemon).tick());
    tasks.spawn(Arc::clone(&daemon).tell_alarms());
    tasks.spawn(Arc::clone(&daemon).reap_regularly());
    tasks.spawn(Arc::clone(&daemon).probe_regularly());
    tasks.spawn(Arc::clone(&daemon).check_regularly());
    tasks.spawn(Arc::clone(&daemon).watch_health());
    tasks.spawn(Arc::clone(&daemon).retire_stages());
    tasks.spawn(Arc::clone(&daemon).watch_registered());
    let follower = Arc::clone(&daemon);
    let ring = daemon.reader.events()?;
    tasks.spawn(async move {
        if let Err(error) = ring.follow(|event| follower.kernel_event(event)).await {
            log::error!("events: {error}");
        }
    });
    if let Some(log) = log {
        tasks.spawn(async move {
            if let Err(error) = log.follow().await {
                log::error!("kernel log: {error}");
            }
        });
    }
    let failed =
        |error: std::io::Error| ApiError::new(ErrorCode::Internal, format!("signal: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let reloader = Arc::clone(&daemon);
    tasks.spawn(async move {
        while hangup.recv().await.is_some() {
            notify(&[sd_notify::NotifyState::Reloading, reload_began()]);
            if let Err(error) = reloader.reload_config().await {
                log::error!("reload: {error}");
            }
            notify(&[sd_notify::NotifyState::Ready]);
        }
    });
    let stopper = Arc::clone(&daemon);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stopper.stop.notified() => {}
        }
        notify(&[sd_notify::NotifyState::Stopping]);
    };
    notify(&[sd_notify::NotifyState::Ready]);
    log::info!("ready on {}", daemon.paths.socket.display());
    let result = server::serve(listener, Arc::clone(&daemon), shutdown).await;
    daemon.releases.stop();
    if let Err(error) = releases.await {
        log::error!("releases: {error}");
    }
    tasks.shutdown().await;
    log::info!("stopped; the data plane goes on as it is");
    result.map_err(|error| ApiError::new(ErrorCode::Internal, format!("api: {error:#}")))
}

/// Tells systemd, if it started us.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        log::debug!("sd_notify: {error}");
    }
}

/// When a reload began, as systemd wants it (Type=notify-reload).
fn reload_began() -> sd_notify::NotifyState<'static> {
    let now = clock::monotonic().as_micros();
    sd_notify::NotifyState::MonotonicUsec(i128::try_from(now).unwrap_or(0))
}
