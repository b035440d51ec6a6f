//! A connection with much to carry.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use release_tests::netns::Netns;
use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, eventually, send};
use release_tests::topology::{Backend, Family, Topology, frontend};

const BYTES: usize = 1 << 20;

/// A connection of which the test holds both ends, pinned to the first backend, of version `v1`:
/// new ones go to `v2`.
#[derive(Debug)]
pub struct Bulk {
    client: TcpStream,
    server: TcpStream,
}

impl Bulk {
    /// Opens it, and shifts.
    pub fn open(topology: &Topology, client: &Netns, family: Family) -> Result<Self> {
        let lb = Ctl(&topology.lb);
        lb.shift(&["v1=100", "v2=0"])?;
        let listener = listen(&topology.backends[0], family)?;
        let mut client = client.connect(frontend(family), DEADLINE)?;
        let mut accepted = Ok(None);
        eventually(DEADLINE, "a connection at v1", || {
            accepted = accept(&listener);
            !matches!(accepted, Ok(None))
        });
        let mut server = accepted?.context("no connection")?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_write_timeout(Some(DEADLINE))?;
        }
        send(&mut client, &mut server, b"question")?;
        lb.shift(&["v1=0", "v2=100"])?;
        Ok(Self { client, server })
    }

    /// Both ends as the server sees them: its own, and the client's.
    pub fn at_server(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.server.local_addr()?, self.server.peer_addr()?))
    }

    /// Both ends as the client sees them: its own, and the frontend.
    pub fn at_client(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.client.local_addr()?, self.client.peer_addr()?))
    }

    /// Carries a megabyte to the client.
    pub fn download(&mut self) -> Result<()> {
        carry(&mut self.server, &mut self.client)
    }

    /// Carries a megabyte to the server.
    pub fn upload(&mut self) -> Result<()> {
        carry(&mut self.client, &mut self.server)
    }
}

fn listen(backend: &Backend, family: Family) -> Result<TcpListener> {
    let at = backend.serves_in(family)?;
    let listener = backend.namespace.listen(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(listener: &TcpListener) -> Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn carry(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let data: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let mut got = Vec::new();
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            from.write_all(&data)?;
            from.shutdown(Shutdown::Write)
        });
        let read = to.read_to_end(&mut got);
        match sent.join() {
            Ok(sent) => sent.with_context(|| format!("cannot send, {} arrived", got.len()))?,
            Err(_) => bail!("the sender panicked"),
        }
        read.with_context(|| format!("only {} bytes arrived", got.len()))
    })?;
    ensure!(got == data, "{} bytes arrived, not those that were sent", got.len());
    Ok(())
}
