//! Checks the checksums of every packet that comes in somewhere, while a test runs.
//!
//! Two kinds of sources: a packet socket, which sees what the interface's XDP program lets through
//! (with GRO off, so that nothing is merged), and a [`Wire`], which hands over packets that had
//! outer headers, whole, before these are stripped. Neither is of use on `lo`, where checksums are
//! never filled in.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::{MapData, RingBuf};

use crate::checksums::{self, Seen};
use crate::netns::Netns;
use crate::packet_socket::PacketSocket;
use crate::topology::Topology;
use crate::wire::{Wire, packet_of};

/// Longest frame.
const LONGEST: usize = 65_600;
/// How many wrong packets are told of.
const TOLD: usize = 5;

/// What one source saw.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Packets with anything wrong.
    pub wrong: u64,
    /// The first of them, in words.
    pub first_wrong: Vec<String>,
    /// Packets that were not seen, since this machine was too slow.
    pub lost: u64,
    /// What was in them.
    pub seen: Seen,
}

impl Tally {
    fn note(&mut self, frame: &[u8]) {
        self.packets += 1;
        if let Err(what) = checksums::frame(frame, &mut self.seen) {
            self.wrong += 1;
            if self.first_wrong.len() < TOLD {
                self.first_wrong.push(what);
            }
        }
    }

    /// Demands that all was seen, that there was something, and that nothing was wrong.
    ///
    /// # Errors
    /// What was wrong.
    pub fn is_right(&self) -> Result<()> {
        ensure!(self.wrong == 0, "{} of {}: {:?}", self.wrong, self.packets, self.first_wrong);
        ensure!(self.lost == 0, "{} packets were not seen", self.lost);
        ensure!(self.seen.tcp + self.seen.udp + self.seen.udp_without > 0, "saw {:?}", self.seen);
        Ok(())
    }
}

#[derive(Debug)]
enum Kind {
    Socket(PacketSocket),
    Ring(Ring),
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

/// Where packets are taken from.
#[derive(Debug)]
pub struct Source {
    name: String,
    kind: Kind,
}

impl Source {
    /// What comes in by an interface.
    ///
    /// # Errors
    /// As [`PacketSocket::receiver`].
    pub fn interface(name: &str, namespace: &Netns, device: &str) -> Result<Self> {
        let kind = Kind::Socket(PacketSocket::receiver(namespace, device)?);
        Ok(Self { name: name.to_owned(), kind })
    }

    /// What comes along a wire with outer headers. Only one capture can have it.
    ///
    /// # Errors
    /// Another capture has it.
    pub fn tunnels(name: &str, wire: &Wire) -> Result<Self> {
        let ring = wire.take_tunnelled().context("another capture has the packets of this wire")?;
        Ok(Self { name: name.to_owned(), kind: Kind::Ring(Ring(ring)) })
    }

    fn fd(&self) -> RawFd {
        match &self.kind {
            Kind::Socket(socket) => socket.as_raw_fd(),
            Kind::Ring(Ring(ring)) => ring.as_raw_fd(),
        }
    }

    /// Takes all that is there.
    fn drain(&mut self, buffer: &mut [u8], tally: &mut Tally) -> Result<()> {
        match &mut self.kind {
            Kind::Socket(socket) => {
                while let Some(frame) = socket.receive(buffer)? {
                    tally.note(frame);
                }
            }
            Kind::Ring(Ring(ring)) => {
                while let Some(record) = ring.next() {
                    match packet_of(&record) {
                        Some(frame) => tally.note(frame),
                        None => tally.lost += 1,
                    }
                }
            }
        }
        Ok(())
    }

    fn lost(&self) -> Result<u64> {
        match &self.kind {
            Kind::Socket(socket) => socket.lost(),
            // Its wire counts them.
            Kind::Ring(_) => Ok(0),
        }
    }
}

/// A running capture; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<Result<BTreeMap<String, Tally>>>>,
}

impl Capture {
    /// Begins.
    ///
    /// # Errors
    /// No thread, no socket.
    pub fn start(sources: Vec<Source>) -> Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let thread =
            thread::Builder::new().name("capture".into()).spawn(move || run(sources, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Begins wherever packets of a wired topology arrive from another host: at each backend
    /// (outer headers included) or, if instances are on the balancer's host, at that; and at the
    /// client, unless replies are none of the balancer's business.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn everywhere(topology: &Topology) -> Result<Self> {
        ensure!(topology.spec.wired, "packets would be merged before they are seen");
        let mut sources = Vec::new();
        for backend in &topology.backends {
            let Some(wire) = &backend.wire else { continue };
            sources.push(Source::interface(&backend.id, &backend.namespace, "eth0")?);
            if topology.spec.mode.is_tunnel() {
                sources.push(Source::tunnels(&format!("{} outside", backend.id), wire)?);
            }
        }
        if sources.is_empty() {
            let lb = &topology.lb.namespace;
            sources.push(Source::interface("host", lb, crate::topology::CLIENT_SIDE)?);
        }
        if !topology.spec.mode.is_one_way() {
            sources.push(Source::interface("client", &topology.client, "eth0")?);
        }
        Self::start(sources)
    }

    /// Ends, and returns what each source saw, by its name.
    ///
    /// # Errors
    /// An interface vanished meanwhile.
    pub fn finish(mut self) -> Result<BTreeMap<String, Tally>> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(tallies)) => tallies,
            _ => Err(anyhow!("the capture panicked")),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // The thread sees that our end is closed.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut sources: Vec<Source>, stopped: &UnixStream) -> Result<BTreeMap<String, Tally>> {
    let mut tallies = vec![Tally::default(); sources.len()];
    let mut buffer = vec![0; LONGEST];
    loop {
        let wait = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut all: Vec<libc::pollfd> = sources.iter().map(|source| wait(source.fd())).collect();
        all.push(wait(stopped.as_raw_fd()));
        let count = libc::nfds_t::try_from(all.len())?;
        // SAFETY: as many valid elements as said, alive and exclusively ours during the call.
        if unsafe { libc::poll(all.as_mut_ptr(), count, -1) } < 0 {
            match std::io::Error::last_os_error() {
                error if error.kind() == std::io::ErrorKind::Interrupted => continue,
                error => bail!("poll: {error}"),
            }
        }
        // Looked at before the last draining: what came before the stop is taken.
        let over = all.last().is_some_and(|last| last.revents != 0);
        for (source, tally) in sources.iter_mut().zip(&mut tallies) {
            source.drain(&mut buffer, tally)?;
        }
        if over {
            break;
        }
    }
    for (source, tally) in sources.iter().zip(&mut tallies) {
        tally.lost += source.lost()?;
    }
    Ok(sources.into_iter().map(|source| source.name).zip(tallies).collect())
}
