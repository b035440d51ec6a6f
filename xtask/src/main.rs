//! Developer commands: one module each, see [`Command`].

mod apt;
mod audit;
mod bench;
mod build;
mod command;
mod demo;
mod example;
mod fuzz;
mod libraries;
mod lint;
mod program;
mod setup;
mod soak;
mod spdx;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test and show releasectl.
///
/// Every command first installs what it needs and the machine lacks, saying what and why; on a
/// machine that has everything it says nothing.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what builds, tests and demo need, and nothing else
    ///
    /// A Rust compiler for the BPF target (a nightly with rust-src if there is one, Debian's
    /// otherwise), a bpf-linker that fits it, the network tools that tests and demo run, and a
    /// mounted BPF file system. A second run installs nothing and says nothing.
    Setup,
    /// Compile everything, the kernel programs included
    Build(build::Args),
    /// Run every test, those that need root included
    ///
    /// Needs root. Plain `cargo test` runs those tests that don't, and lists the others as ignored.
    Test(test::Args),
    /// Look for packets that the packet logic gets wrong, and minimise the corpus
    ///
    /// Needs no root, but a C++ compiler, and installs cargo-fuzz. The corpus in `fuzz/corpus` is
    /// replayed by `cargo xtask test`.
    Fuzz(fuzz::Args),
    /// Run the tests that other kernels decide, on those kernels, in a virtual machine
    ///
    /// Boots Debian's kernels in QEMU by pure software emulation: needs neither root nor
    /// virtualisation, but x86_64 and Debian's packages. They are kept in the target folder,
    /// under `vm-cache`, unpacked and not installed.
    Vm(vm::Args),
    /// Show a release under live traffic, in network namespaces of its own (needs root)
    Demo(demo::Args),
    /// Make a hundred releases in a row under load: no client may notice any (needs root)
    Soak(soak::Args),
    /// Measure what releasectl costs, side by side with what it is compared with (needs root)
    ///
    /// Prints each figure with its ratio, target and whether it is met. The full run, some twenty
    /// minutes, writes `docs/benchmarks.md`, its plots and `docs/benchmarks/last.json`; the quick
    /// one only prints. nginx, haproxy, wrk and iperf3 are Debian's packages, kept in the
    /// target folder under `bench-cache`, unpacked and not installed.
    Bench(bench::Args),
    /// Set an example of `examples/` up in network namespaces, and give you a shell there (needs root)
    Example(example::Args),
    /// Check formatting, clippy (host and BPF target), documentation and dependencies
    Lint,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::ensure(&setup::RUN).map(drop),
        Command::Build(args) => build::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Example(args) => example::run(&args),
        Command::Lint => lint::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
