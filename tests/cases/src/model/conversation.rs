//! A TCP connection through the packet path, between two ends that lose nothing for good: segments
//! are lost, repeated and overtaken on the way, and retransmitted until they are acknowledged.

use std::net::{Ipv4Addr, SocketAddr};

use release_common::pipeline::Action;
use release_common::tcp::after;

use super::ModelTables;
use crate::frames::{Segment, destination, flags, verify};

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// An end (client: true) sends that many bytes, at most 1460.
    Send(bool, u16),
    /// An end sends its FIN.
    Close(bool),
    /// An end sends its oldest unacknowledged segment again.
    Retransmit(bool),
    /// One of the packets on a link (0…3) arrives, whichever.
    Arrive(u8, u8),
    /// One of the packets on a link is lost.
    Lose(u8, u8),
    /// One of the packets on a link arrives, and will arrive again.
    Repeat(u8, u8),
    /// New weights of the two versions.
    Shift(u8, u8),
}

/// One end.
struct End {
    me: SocketAddr,
    peer: SocketAddr,
    next: u32,
    acked: u32,
    /// Sent and not acknowledged: number, bytes, FIN.
    unacked: Vec<(u32, u32, bool)>,
    received: u32,
    /// Arrived out of order: first number, number after the last.
    held: Vec<(u32, u32)>,
    closed: bool,
}

/// Most bytes in flight: below any window without scaling.
const IN_FLIGHT: u32 = 60_000;

impl End {
    fn new(me: SocketAddr, peer: SocketAddr, next: u32, received: u32) -> Self {
        let (unacked, held) = (Vec::new(), Vec::new());
        Self { me, peer, next, acked: next, unacked, received, held, closed: false }
    }

    fn frame(&self, seq: u32, len: u32, fin: bool) -> Vec<u8> {
        let bits = flags::ACK | if fin { flags::FIN } else { 0 };
        let segment = Segment { window: 0xffff, ..Segment::tcp(self.me, self.peer, bits) };
        segment.numbers(seq, self.received).data(len as usize).build()
    }

    fn send(&mut self, len: u32, fin: bool) -> Option<Vec<u8>> {
        let size = len + u32::from(fin);
        if self.closed || size == 0 || self.next.wrapping_sub(self.acked) + size > IN_FLIGHT {
            return None;
        }
        let seq = self.next;
        self.next = seq.wrapping_add(size);
        self.closed = fin;
        self.unacked.push((seq, len, fin));
        Some(self.frame(seq, len, fin))
    }

    fn again(&self) -> Option<Vec<u8>> {
        self.unacked.first().map(|&(seq, len, fin)| self.frame(seq, len, fin))
    }

    /// Takes a segment in; returns the acknowledgement if it asks for one.
    fn receive(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let header = if self.me.is_ipv4() { 20 } else { 40 };
        let tcp = &frame[14 + header..];
        let number =
            |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let (seq, ack, bits) = (number(4), number(8), tcp[13]);
        let size = tcp.len() as u32 - 20 + u32::from(bits & flags::FIN);
        if after(ack, self.acked) {
            self.acked = ack;
            self.unacked
                .retain(|&(seq, len, fin)| after(seq.wrapping_add(len + u32::from(fin)), ack));
        }
        if size == 0 {
            return None;
        }
        self.held.push((seq, seq.wrapping_add(size)));
        while let Some(at) = self
            .held
            .iter()
            .position(|&(seq, end)| !after(seq, self.received) && after(end, self.received))
        {
            self.received = self.held.swap_remove(at).1;
        }
        Some(self.frame(self.next, 0, false))
    }

    fn done(&self) -> bool {
        self.closed && self.unacked.is_empty()
    }
}

/// A connection through [`ModelTables`].
pub struct Conversation<'a> {
    tables: &'a ModelTables,
    client: End,
    server: End,
    /// Client to balancer, on to the server, server to balancer, on to the client.
    links: [Vec<Vec<u8>>; 4],
    /// The instance the first packet went to.
    pub instance: SocketAddr,
}

impl<'a> Conversation<'a> {
    /// Shakes hands. New weights are put in force after the SYN and after the SYN-ACK, and the SYN
    /// is repeated in between.
    ///
    /// # Errors
    /// What the packet path did wrong.
    pub fn open(
        tables: &'a ModelTables,
        port: u16,
        numbers: (u32, u32),
        shifts: [[u32; 2]; 2],
    ) -> Result<Self, String> {
        let me = (tables.scene().family.ip(Ipv4Addr::new(192, 0, 2, 7)), port).into();
        let frontend = tables.scene().frontends[0].socket;
        let (c, s) = numbers;
        let syn = Segment::tcp(me, frontend, flags::SYN).numbers(c, 0).build();
        let instance = destination(&sent(tables, &syn)?);
        tables.shift(&shifts[0]);
        if destination(&sent(tables, &syn)?) != instance {
            return Err("the handshake was split".into());
        }
        let answer = Segment::tcp(instance, me, flags::SYN | flags::ACK);
        sent(tables, &answer.numbers(s, c.wrapping_add(1)).build())?;
        tables.shift(&shifts[1]);
        let (c, s) = (c.wrapping_add(1), s.wrapping_add(1));
        let client = End::new(me, frontend, c, s);
        let mut this = Self {
            tables,
            server: End::new(instance, me, s, c),
            links: Default::default(),
            instance,
            client,
        };
        let ack = this.client.frame(c, 0, false);
        this.through(0, &ack)?;
        Ok(this)
    }

    /// Lets something happen.
    ///
    /// # Errors
    /// What the packet path did wrong.
    pub fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Send(client, len) => {
                let frame = self.end(client).send(u32::from(len.min(1460)), false);
                self.put(client, frame);
            }
            Event::Close(client) => {
                let frame = self.end(client).send(0, true);
                self.put(client, frame);
            }
            Event::Retransmit(client) => {
                let frame = self.end(client).again();
                self.put(client, frame);
            }
            Event::Arrive(link, which) => return self.arrive(link, which, true, true),
            Event::Lose(link, which) => return self.arrive(link, which, true, false),
            Event::Repeat(link, which) => return self.arrive(link, which, false, true),
            Event::Shift(a, b) => self.tables.shift(&[a.into(), b.into()]),
        }
        Ok(())
    }

    /// Closes both ends and lets everything arrive at last.
    ///
    /// # Errors
    /// What the packet path did wrong, or that the connection does not come to its end.
    pub fn finish(&mut self) -> Result<(), String> {
        for _ in 0..500 {
            for client in [true, false] {
                self.event(Event::Close(client))?;
                self.event(Event::Retransmit(client))?;
            }
            for link in 0..4 {
                while !self.links[usize::from(link)].is_empty() {
                    self.arrive(link, 0, true, true)?;
                }
            }
            if self.client.done() && self.server.done() {
                return Ok(());
            }
        }
        Err("the connection does not end".into())
    }

    fn end(&mut self, client: bool) -> &mut End {
        if client { &mut self.client } else { &mut self.server }
    }

    fn put(&mut self, client: bool, frame: Option<Vec<u8>>) {
        self.links[if client { 0 } else { 2 }].extend(frame);
    }

    fn arrive(&mut self, link: u8, which: u8, remove: bool, arrives: bool) -> Result<(), String> {
        let link = usize::from(link % 4);
        let Some(at) = usize::from(which).checked_rem(self.links[link].len()) else {
            return Ok(());
        };
        let frame = self.links[link][at].clone();
        if remove {
            self.links[link].remove(at);
        }
        if !arrives {
            return Ok(());
        }
        match link {
            1 => {
                let answer = self.server.receive(&frame);
                self.put(false, answer);
            }
            3 => {
                let answer = self.client.receive(&frame);
                self.put(true, answer);
            }
            _ => self.through(link, &frame)?,
        }
        Ok(())
    }

    fn through(&mut self, link: usize, frame: &[u8]) -> Result<(), String> {
        let out = sent(self.tables, frame)?;
        let to = destination(&out);
        if to != if link == 0 { self.instance } else { self.client.me } {
            return Err(format!("sent to {to}"));
        }
        self.links[link + 1].push(out);
        Ok(())
    }
}

/// Sends a frame through the packet path; it must be sent on, with correct checksums.
fn sent(tables: &ModelTables, frame: &[u8]) -> Result<Vec<u8>, String> {
    let (outcome, out) = tables.run(frame);
    if outcome.action != Action::Send {
        return Err(format!("not sent: {outcome:?}"));
    }
    verify(&out)?;
    Ok(out)
}
