//! Floods: packets from random sources, as fast as one core can send them, for a bounded time.
//!
//! The sources are all of 198.18.0.0/15 (RFC 2544, for tests of devices). Nobody answers there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::netns::Netns;
use crate::observe::Dice;
use crate::packet_socket::{PacketSocket, mac};
use crate::packets;

/// Where the packets seem to come from.
pub const SOURCES: &str = "198.18.0.0/15";
const FIRST_SOURCE: u32 = 0xc612_0000;
const SOURCE_BITS: u32 = 17;

/// Packets handed to the kernel at once.
const BATCH: usize = 64;

/// Places in a frame with an IPv4 header without options.
const IP_CHECK: usize = 14 + 10;
const SOURCE: usize = 14 + 12;
const SOURCE_PORT: usize = 34;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// TCP SYN: the begin of a connection that goes on nowhere.
    Syn,
    /// TCP ACK of connections that there are none.
    Ack,
    /// UDP datagrams that no server answers.
    Udp,
}

impl Packet {
    fn build(self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        match self {
            Self::Syn => packets::tcp(from.into(), to.into(), 0x02, 0, &[]),
            Self::Ack => packets::tcp(from.into(), to.into(), 0x10, 0, &[]),
            Self::Udp => packets::udp(from.into(), to.into(), &[0; 12]),
        }
    }

    /// Places of the checksum, and of four more bytes that may be anything: the sequence number, or
    /// data.
    fn places(self) -> (usize, usize) {
        match self {
            Self::Syn | Self::Ack => (34 + 16, 34 + 4),
            Self::Udp => (34 + 6, 34 + 8),
        }
    }
}

/// Makes frames that differ in source address, source port and a few bytes more, at little cost:
/// the rest of the checksums is known.
#[derive(Debug)]
struct Template {
    frame: Vec<u8>,
    /// Sums over what does not change.
    ip_sum: u32,
    sum: u32,
    check: usize,
    free: usize,
}

impl Template {
    fn new(packet: Packet, to: SocketAddrV4, macs: ([u8; 6], [u8; 6])) -> Self {
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let bytes = packet.build(from, to);
        let (check, free) = packet.places();
        let frame = packets::frame(macs.0, macs.1, &bytes);
        let sum_of = |at: usize| u32::from(!u16::from_be_bytes([frame[at], frame[at + 1]]));
        // With zeros in all that changes, a checksum is the complement of the sum of the rest.
        let (ip_sum, sum) = (sum_of(IP_CHECK), sum_of(check));
        Self { ip_sum, sum, check, free, frame }
    }

    /// The `number`-th packet: its source differs from those of all others, in no order that shows
    /// (an odd factor permutes the numbers). A source used twice would begin a conversation.
    fn write(&self, frame: &mut [u8], number: u32, dice: &mut Dice) {
        let (roll, free) = (number.wrapping_mul(0x9e37_79b1), dice.roll() as u32);
        let source = FIRST_SOURCE | (roll >> (32 - SOURCE_BITS));
        // Not one of the well-known ports.
        let port = roll as u16 | 0x8000;
        let source_words = (source >> 16) + (source & 0xffff);
        let words = source_words + u32::from(port) + (free >> 16) + (free & 0xffff);
        for (at, sum) in [(IP_CHECK, self.ip_sum + source_words), (self.check, self.sum + words)] {
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            // 0 and all ones are the same to the arithmetic, but 0 means "none" in UDP.
            let check = match !(sum as u16) {
                0 => 0xffff,
                check => check,
            };
            frame[at..at + 2].copy_from_slice(&check.to_be_bytes());
        }
        frame[SOURCE..SOURCE + 4].copy_from_slice(&source.to_be_bytes());
        frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
        frame[self.free..self.free + 4].copy_from_slice(&free.to_be_bytes());
    }
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Packets that the interface took.
    pub packets: u64,
    /// In this time.
    pub time: Duration,
}

/// A running flood; ends when dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
}

impl Flood {
    /// Begins to send from an interface to a target behind the neighbour with MAC address
    /// `gateway`, and ends by itself after `time`.
    ///
    /// # Errors
    /// No root, no such interface.
    pub fn start(
        packet: Packet,
        (namespace, device): (&Netns, &str),
        gateway: [u8; 6],
        target: SocketAddrV4,
        time: Duration,
    ) -> Result<Self> {
        let socket = PacketSocket::sender(namespace, device)?;
        let template = Template::new(packet, target, (gateway, mac(namespace, device)?));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("flood".into())
            .spawn(move || run(&socket, &template, time, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it still sends.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It could not send, or the interface took nothing.
    pub fn finish(mut self) -> Result<Sent> {
        let thread = self.thread.take().context("no flood")?;
        let sent = thread.join().map_err(|_| anyhow!("the flood panicked"))??;
        ensure!(sent.packets > 0, "nothing was sent");
        Ok(sent)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    socket: &PacketSocket,
    template: &Template,
    time: Duration,
    stopped: &AtomicBool,
) -> Result<Sent> {
    let mut frames = vec![template.frame.clone(); BATCH];
    let mut dice = Dice::new(0xf100d);
    let (mut packets, mut number) = (0, 0_u32);
    let begun = Instant::now();
    while begun.elapsed() < time && !stopped.load(Ordering::Relaxed) {
        for frame in &mut frames {
            number = number.wrapping_add(1);
            template.write(frame, number, &mut dice);
        }
        packets += u64::try_from(socket.send(&frames)?)?;
    }
    Ok(Sent { packets, time: begun.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksums::{self, Seen};

    #[test]
    fn packets_are_right_and_all_different() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 100), 80);
        let mut dice = Dice::new(1);
        for packet in [Packet::Syn, Packet::Ack, Packet::Udp] {
            let template = Template::new(packet, to, ([2; 6], [4; 6]));
            let mut seen = Seen::default();
            let mut frames = std::collections::BTreeSet::new();
            for number in 0..20_000 {
                let mut frame = template.frame.clone();
                template.write(&mut frame, number, &mut dice);
                checksums::frame(&frame, &mut seen).unwrap();
                assert_eq!(frame[SOURCE..SOURCE + 2], [198, 18 | (frame[SOURCE + 1] & 1)]);
                frames.insert(frame[SOURCE..SOURCE_PORT + 2].to_vec());
            }
            assert_eq!(seen.tcp + seen.udp, 20_000);
            assert_eq!(frames.len(), 20_000, "sources");
        }
    }
}
