//! `release-server`: the HTTP server of the tests and the demo; see `release_tests::server`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use release_tests::server::{ServerSpec, exit_when_stdin_closes, serve};

/// Small HTTP/1.1 and UDP server that stamps every answer with its version, instance and connection.
#[derive(Parser)]
#[command(disable_version_flag = true)]
struct Arguments {
    /// Address and port to listen on for HTTP; may be repeated.
    #[arg(long)]
    listen: Vec<SocketAddr>,
    /// Address and port to take datagrams on; may be repeated.
    #[arg(long)]
    udp: Vec<SocketAddr>,
    /// Version to stamp into answers.
    #[arg(long)]
    version: String,
    /// Instance name to stamp into answers.
    #[arg(long)]
    id: String,
    /// End when standard input is closed, so that a killed starter leaves nothing behind.
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> Result<()> {
    let Arguments { listen, udp, version, id, until_stdin_closes } = Arguments::parse();
    if until_stdin_closes {
        exit_when_stdin_closes();
    }
    let spec = ServerSpec { tcp: listen, udp, version, id };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(serve(spec))? {}
}
