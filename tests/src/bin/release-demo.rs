//! `release-demo`: a release under live traffic in network namespaces, and the usual way for
//! contrast. Needs root; leaves nothing behind.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use release_tests::demo::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after an interruption: 128 + SIGINT, as shells do.
const INTERRUPTED: u8 = 130;

/// Shows a release from v1 to v2 under live traffic, and the usual way for contrast.
#[derive(Parser)]
struct Arguments {
    /// Folder for plots, receipt and figures.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// Run only one of the two parts.
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Release,
    Contrast,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(Ended::Shown) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted(signal)) => {
            eprintln!("{signal}: stopped, everything is taken down");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Ended {
    Shown,
    Interrupted(&'static str),
}

/// Runs the demo until it ends or a signal comes; then its future is dropped, and all it owns.
fn run(Arguments { out, only }: Arguments) -> Result<Ended> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    let options = Options {
        out,
        release: only != Some(Part::Contrast),
        contrast: only != Some(Part::Release),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Installed first, and for good: a second Ctrl-C must not cut the cleaning up.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::select! {
            shown = demo::run(&options) => shown.map(|()| Ended::Shown),
            _ = interrupt.recv() => Ok(Ended::Interrupted("SIGINT")),
            _ = terminate.recv() => Ok(Ended::Interrupted("SIGTERM")),
            _ = hang_up.recv() => Ok(Ended::Interrupted("SIGHUP")),
        }
    })
}
