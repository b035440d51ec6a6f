//! Stopping half-way: by error, so that everything that was made is taken down on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{process, thread};

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after an interruption: 128 + SIGINT, as shells do.
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Waits for SIGINT and SIGTERM from now on. Asked again, the process ends at once.
///
/// # Errors
/// Signals cannot be waited for.
pub fn expect() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if ASKED.swap(true, Ordering::Relaxed) {
                    process::exit(i32::from(EXIT_CODE));
                }
                crate::say("asked to stop: after this round; asked again, at once, and what was made stays");
            }
        });
    });
    Ok(())
}

/// Whether the run was asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// For the beginning of each round.
///
/// # Errors
/// The run was asked to stop.
pub fn check() -> Result<()> {
    ensure!(!asked(), "asked to stop");
    Ok(())
}
