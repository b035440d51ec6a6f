//! A connection through the programs, opened by packets.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use release_tests::frames::{Segment, flags, syn_options};

use super::case::REDIRECT;
use super::rig::Rig;

/// A window scale that leaves room for all that one side sends in a benchmark.
pub const SCALE: u8 = 14;
/// Bytes of data in a segment: the frame is then of 64 bytes.
pub const DATA: usize = 10;

/// A connection through the programs: what its client and its instance send.
pub struct Connection {
    client: SocketAddr,
    /// What the client sees.
    pub frontend: SocketAddr,
    /// What it reaches.
    pub instance: SocketAddr,
    /// Next numbers of client and server.
    next: [u32; 2],
}

impl Connection {
    /// Opens it, by packets.
    pub fn open(rig: &mut Rig, client: SocketAddr) -> Result<Self> {
        let frontend = rig.scene.frontends[0].socket;
        let options = syn_options(Some(SCALE));
        let syn =
            Segment { options: options.clone(), ..Segment::tcp(client, frontend, flags::SYN) };
        let (_, out) = rig.packet(&syn.numbers(999, 0).build())?;
        let instance = release_tests::frames::destination(&out);
        let mut this = Self { client, frontend, instance, next: [1000, 5000] };
        let both = flags::SYN | flags::ACK;
        let answer = Segment { options, ..Segment::tcp(instance, client, both) };
        for frame in [
            answer.numbers(4999, 1000).build(),
            this.by_client(0),
            this.by_client(DATA),
            this.by_server(DATA),
        ] {
            let (action, _) = rig.packet(&frame)?;
            ensure!(action == REDIRECT, "no connection: action {action}");
        }
        this.next = [this.next[0] + DATA as u32, this.next[1] + DATA as u32];
        Ok(this)
    }

    /// What its client sends next, with so much data.
    pub fn by_client(&self, data: usize) -> Vec<u8> {
        let [seq, ack] = self.next;
        Segment::tcp(self.client, self.frontend, flags::ACK).numbers(seq, ack).data(data).build()
    }

    /// What its instance sends next, with so much data.
    pub fn by_server(&self, data: usize) -> Vec<u8> {
        let [ack, seq] = self.next;
        Segment::tcp(self.instance, self.client, flags::ACK).numbers(seq, ack).data(data).build()
    }
}
