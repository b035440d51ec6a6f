//! The command line: one file for each group of commands.
//!
//! `args` says what can be typed, `values` checks single values; each command prints its result
//! through `output` and returns its exit code, or an error that carries one.

mod agent;
mod args;
mod check;
mod daemon;
mod drain;
mod events;
mod explain;
mod flows;
mod format;
mod idle;
mod instance;
mod leave;
mod maps;
mod output;
mod release;
mod report;
mod retire;
mod run;
mod shift;
mod status;
mod values;
mod wait;

#[cfg(test)]
mod tests;

use crate::api::client::Client;
use crate::api::types::{ApiError, ErrorCode, ReceiptQuery, RetireRequest};
use crate::paths::Paths;
use args::{Cli, Command};
use clap::Parser as _;
use clap::error::ErrorKind;
use log::LevelFilter;
use output::{Out, error_text, to_stderr};
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use tokio::runtime;
use values::Output;

/// Exit code of a command that did what it was asked to.
const DONE: u8 = 0;
/// Exit code after Ctrl-C in a wait, as shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;
/// Exit code: done, but connections were ended.
const FORCED: u8 = 5;

/// What a command ends with: its exit code, or an error that carries one.
type Ended = Result<u8, ApiError>;

/// What commands work with.
struct Context {
    paths: Paths,
    client: Client,
    out: Out,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(not_parsed(&error, &arguments)),
    };
    start_logging(cli.global.verbose, matches!(cli.command, Command::Daemon | Command::Agent(_)));
    let format = cli.global.output;
    let code = run(cli).unwrap_or_else(|error| {
        to_stderr(&error_text(&error, format));
        error.code.exit_code()
    });
    ExitCode::from(code)
}

fn run(cli: Cli) -> Ended {
    let Cli { global, command } = cli;
    let mut context = Context {
        paths: global.paths(),
        client: Client::new(&global.socket, global.api_timeout),
        out: Out::stdout(global.output),
    };
    let mut builder = match command {
        Command::Daemon => runtime::Builder::new_multi_thread(),
        _ => runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|error| {
        ApiError::new(ErrorCode::Internal, format!("start: no runtime: {error}"))
    })?;
    runtime.block_on(context.carry_out(command, global.verbose))
}

impl Context {
    async fn carry_out(&mut self, command: Command, verbosity: u8) -> Ended {
        match command {
            Command::Daemon => daemon::run(self.paths.clone(), verbosity).await,
            Command::Agent(arguments) => agent::run(arguments).await,
            Command::Check { path } => check::check(self, path.as_deref()),
            Command::Reload => daemon::reload(self).await,
            Command::Detach => daemon::detach(self).await,
            Command::Status { service, watch } => {
                if watch {
                    status::watch(self, service.as_deref()).await
                } else {
                    status::status(self, service.as_deref()).await
                }
            }
            Command::Flows(args) => flows::flows(self, args).await,
            Command::Shift { service, weights, allow_empty } => {
                shift::shift(self, service, &weights, allow_empty).await
            }
            Command::Drain(args) => drain::drain(self, args).await,
            Command::Undrain { service, target } => drain::undrain(self, service, target).await,
            Command::Retire { service, target, force } => {
                retire::retire(self, RetireRequest { service, target, force }).await
            }
            Command::Idle(args::Idle::Check(target)) => idle::check(self, target).await,
            Command::Idle(args::Idle::Wait { target, timeout }) => {
                idle::wait(self, target, timeout).await
            }
            Command::Idle(args::Idle::Receipt(target)) => idle::receipt(self, target).await,
            Command::Idle(args::Idle::Receipts { service, target, id }) => {
                idle::receipts(self, ReceiptQuery { service, target, id }).await
            }
            Command::Release(command) => release::release(self, command).await,
            Command::Instance(command) => instance::carry_out(self, command).await,
            Command::Run(arguments) => run::run(self, arguments).await,
            Command::Maps(args::Maps::List) => maps::list(self),
            Command::Maps(args::Maps::Dump { map }) => maps::dump(self, &map),
            Command::Maps(args::Maps::Check) => maps::check(self),
            Command::Explain { proto, src, dst } => explain::explain(self, proto, src, dst).await,
            Command::Events { follow } => events::events(self, follow).await,
        }
    }
}

/// Log lines go to stderr: those of this program at a level chosen by `-v`, those of libraries
/// from `warn` on. What the kernel programs log (as `release`) is chosen by the configuration.
fn start_logging(verbosity: u8, daemon: bool) {
    let level = match verbosity {
        0 if daemon => LevelFilter::Info,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut builder = env_logger::Builder::new();
    // Libraries warn of what only their authors can act on, e.g. newer netlink attributes.
    let libraries = if verbosity > 2 { LevelFilter::Trace } else { LevelFilter::Error };
    builder
        .filter_level(libraries)
        .filter_module("release_user", level)
        .filter_module("releasectl", level)
        .filter_module("release", LevelFilter::Trace)
        .target(env_logger::Target::Stderr);
    if !daemon {
        builder.format_timestamp(None);
    }
    // Fails only if there is a logger already, which is as good.
    let _ = builder.try_init();
}

/// Prints what clap has to say, help and version included; the exit code.
fn not_parsed(error: &clap::Error, arguments: &[OsString]) -> u8 {
    let told = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if told || !wants_json(arguments) {
        // Somebody who does not read it does not need it.
        let _ = error.print();
    } else {
        to_stderr(&error_text(&usage_error(error), Output::Json));
    }
    u8::try_from(error.exit_code()).unwrap_or(ErrorCode::Usage.exit_code())
}

/// What clap prints, as an error of ours: its first paragraph on one line.
fn usage_error(error: &clap::Error) -> ApiError {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = line.strip_prefix("error: ").unwrap_or(&line);
    ApiError::new(ErrorCode::Usage, message).hint("see --help")
}

/// Whether arguments that could not be parsed ask for JSON.
fn wants_json(arguments: &[OsString]) -> bool {
    let is_json = |value: &OsStr| value == "json" || value == "jsonl";
    let options = arguments.iter().take_while(|argument| *argument != "--");
    let mut options = options.peekable();
    while let Some(argument) = options.next() {
        let Some(text) = argument.to_str() else { continue };
        let joined = text.strip_prefix("--output=").or_else(|| text.strip_prefix("-o"));
        let value = match (text, joined) {
            ("-o" | "--output", _) => options.peek().map(|next| next.as_os_str()),
            (_, Some(joined)) => Some(OsStr::new(joined.trim_start_matches('='))),
            _ => None,
        };
        if value.is_some_and(is_json) {
            return true;
        }
    }
    false
}
