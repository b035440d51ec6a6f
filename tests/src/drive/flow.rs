//! One flow: a TCP connection with HTTP on it, or datagrams from one port to another.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http;
use crate::server::udp::{LONGEST, long_question, stamped};
use crate::sockets::connect_from;
use crate::topology::Protocol;

/// How long a connection or an answer over TCP may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a datagram is sent again, and how often that is done.
const REPEAT: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;
/// First source port of UDP flows. No port is used twice from one address: a balancer would take
/// that for the same flow, rightly.
const FIRST_PORT: u32 = 10_000;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub version: String,
    pub instance: String,
    /// The server's number of the connection (TCP).
    connection: u64,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// A flow, and whose it turned out to be.
#[derive(Debug)]
pub struct Flow {
    wire: Wire,
    number: u32,
    asked: u32,
    repeated: u64,
    /// Length of UDP questions, at least.
    length: usize,
    owner: Option<Owner>,
}

impl Flow {
    /// Opens flow `number` from an address, for which it is number `of_source`.
    pub fn open(
        protocol: Protocol,
        target: SocketAddr,
        source: Option<IpAddr>,
        number: u32,
        of_source: u32,
    ) -> Result<Self> {
        let any = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = source.unwrap_or(any);
        let wire = match protocol {
            Protocol::Tcp => {
                let stream = connect_from(SocketAddr::new(source, 0), target, PATIENCE)
                    .with_context(|| format!("connection {number} from {source} to {target}"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Wire::Tcp(stream)
            }
            Protocol::Udp => {
                let port = u16::try_from(FIRST_PORT + of_source).context("out of ports")?;
                let socket = UdpSocket::bind((source, port))
                    .with_context(|| format!("flow {number}: {source} port {port}"))?;
                socket.connect(target)?;
                socket.set_read_timeout(Some(REPEAT))?;
                Wire::Udp(socket)
            }
        };
        Ok(Self { wire, number, asked: 0, repeated: 0, length: 0, owner: None })
    }

    /// Makes UDP questions from now on as long as this, in bytes.
    pub fn pad(&mut self, length: usize) {
        self.length = length;
    }

    /// Who answered first.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Questions asked again since the last call.
    pub fn take_repeated(&mut self) -> u64 {
        std::mem::take(&mut self.repeated)
    }

    /// Asks, and returns who answered.
    pub fn ask(&mut self) -> Result<&Owner> {
        self.asked += 1;
        let owner = match &mut self.wire {
            Wire::Tcp(stream) => {
                let local = stream.local_addr()?;
                let reply = http::request(stream, "/")
                    .with_context(|| format!("connection {} from {local}", self.number))?;
                let http::Reply { version, instance, connection, .. } = reply;
                Owner { version, instance, connection }
            }
            Wire::Udp(socket) => {
                let question = long_question(self.number, self.asked, self.length);
                let local = socket.local_addr()?;
                let (version, instance) = exchange(socket, &question, &mut self.repeated)
                    .with_context(|| format!("flow {} from {local}", self.number))?;
                Owner { version, instance, connection: 0 }
            }
        };
        Ok(self.owner.insert(owner))
    }
}

/// Sends a question until its answer comes.
fn exchange(socket: &UdpSocket, question: &str, repeated: &mut u64) -> Result<(String, String)> {
    let mut buffer = [0; LONGEST];
    for attempt in 0..TRIES {
        *repeated += u64::from(attempt > 0);
        socket.send(question.as_bytes()).context("cannot send")?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    // A late answer to an earlier question is no news.
                    if let Some(owner) = stamped(&buffer[..length], question)? {
                        return Ok(owner);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }
    bail!("no answer to {question:?}, sent {TRIES} times")
}
