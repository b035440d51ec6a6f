//! `release-lab`: an example of `examples/`, set up on hosts that are network namespaces, and a shell
//! on its balancer. Needs root; leaves nothing behind.

use std::io::IsTerminal as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use release_tests::lab::Lab;
use release_tests::load::{Group, Load, LoadPlan};
use release_tests::topology::FRONTEND;
use tokio::signal::unix::{SignalKind, signal};

/// Sets an example up and gives you a shell on its balancer.
#[derive(Parser)]
struct Arguments {
    /// Letter of the example: a to e.
    example: String,
    /// A program to run in place of the shell, with its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("examples make network namespaces and load BPF programs: run them as root");
    }
    let lab = Lab::new(&arguments.example)?;
    let _daemon = lab.up()?;
    // E has a limit that clients of ours would use up.
    let load = if arguments.example == "e" { None } else { Some(clients(&lab)?) };
    let command = match arguments.command.split_first() {
        Some((program, rest)) => on_balancer(&lab, program, rest),
        None => on_balancer(&lab, "bash", &["--norc".to_owned(), "-i".to_owned()]),
    };
    if arguments.command.is_empty() && std::io::stdin().is_terminal() {
        println!("On the balancer. README.md says what to type; `exit` takes all this down.");
    }
    let status = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(to_its_end(command))?;
    if let Some(load) = load {
        let report = load.finish()?;
        println!(
            "clients: {} connections, errors: {}, moved: {}",
            report.totals.connections,
            report.errors_in_words(),
            report.totals.moved
        );
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Runs it. Ctrl-C is its own business; another signal ends it, and us with all that we have made.
async fn to_its_end(command: Command) -> Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut child = tokio::process::Command::from(command);
    let mut child = child.kill_on_drop(true).spawn().context("cannot run that")?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => bail!("SIGTERM: everything is taken down"),
            _ = hang_up.recv() => bail!("SIGHUP: everything is taken down"),
        }
    }
}

/// A program on the balancer, in the lab's folder.
fn on_balancer(lab: &Lab, program: &str, arguments: &[String]) -> Command {
    let mut command = lab.on_balancer(program);
    command.args(arguments).env("PS1", "balancer# ");
    command
}

/// Connections that come and go all the time.
fn clients(lab: &Lab) -> Result<Load> {
    let (pause, life) = (Duration::from_millis(200), Some(Duration::from_secs(2)));
    let plan = LoadPlan {
        target: FRONTEND,
        sources: lab.topology.client_addresses()[..1].to_vec(),
        groups: vec![
            Group::Short { per_second: 20, limit: None, path: "/".into() },
            Group::KeepAlive { connections: 5, pause, life },
        ],
        threads: 1,
    };
    Load::start(&lab.topology.client, plan)
}
