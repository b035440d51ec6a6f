//! What sockets mean for somebody who wants to stop the instance that they belong to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::diag::Found;
use crate::config::Protocol;

/// Peers that a summary names at most.
pub const MOST_PEERS: usize = 32;

/// What is asked about: sockets whose local end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
}

/// A question about an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Addresses that whoever answers must have as its own: else the sockets are elsewhere.
    pub own: Vec<IpAddr>,
    /// What is asked about.
    pub targets: Vec<Target>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.protocol)
    }
}

/// State of a TCP socket (RFC 9293 §3.3.2), in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// A connection.
    Established,
    /// A connection that this end began and the other has not answered.
    SynSent,
    /// A handshake: a request that has been answered.
    SynRecv,
    /// This end has finished, and nobody has acknowledged that.
    FinWait1,
    /// This end has finished; the other may still send.
    FinWait2,
    /// Both have finished; the other end needs nothing from here but, maybe, a repetition.
    TimeWait,
    /// The other end has finished; this one may still send.
    CloseWait,
    /// Both have finished, and nobody has acknowledged this end's last words.
    LastAck,
    /// Waits for connections.
    Listen,
    /// Both have finished at once; likewise.
    Closing,
    /// One that this program does not know.
    Other,
}

impl State {
    /// By the kernel's number (net/tcp_states.h).
    pub const fn of(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Other,
        }
    }

    /// Its name, as `ss` and RFC 9293 have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Other => "other",
        }
    }
}

/// A socket that remains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Protocol.
    pub protocol: Protocol,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; of a UDP socket that serves everybody, the unspecified address.
    pub remote: SocketAddr,
    /// State; none for UDP.
    pub state: Option<State>,
    /// Bytes that the instance has not read.
    pub unread: u32,
    /// Bytes that are not sent, or not acknowledged.
    pub unsent: u32,
    /// Inode of its file, as /proc/PID/fd has it; 0 if no process has it.
    pub inode: u32,
}

/// UDP sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagrams {
    /// All.
    pub sockets: u64,
    /// For one client alone.
    pub connected: u64,
    /// Of the others: those with datagrams that nobody has read.
    pub unread: u64,
    /// Of the rest: those with datagrams that are still to be sent.
    pub unsent: u64,
}

/// Sockets of one or several targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// TCP sockets by state.
    pub states: BTreeMap<State, u64>,
    /// Of those, the ones that no process has accepted yet.
    pub unaccepted: BTreeMap<State, u64>,
    /// Of those in FIN_WAIT2: closed by their process, so that nobody is there to read any more.
    pub orphaned: u64,
    /// Connections that listeners have in their queues, of other addresses and broken ones too.
    pub accept_queue: u64,
    /// UDP sockets.
    pub udp: Datagrams,
    /// The first of those that remain, [`MOST_PEERS`] at most.
    pub peers: Vec<Peer>,
    /// SYN cookies that were sent in this network namespace since it began. A handshake that rests
    /// on one has no socket.
    pub cookies: u64,
}

impl Summary {
    /// Counts a TCP socket.
    pub fn tcp(&mut self, found: &Found) {
        let state = State::of(found.state);
        *self.states.entry(state).or_default() += 1;
        match state {
            State::Listen => self.accept_queue += u64::from(found.receive_queue),
            State::TimeWait => {}
            // A connection in an accept queue cannot have finished by itself.
            State::FinWait2 if found.inode == 0 => self.orphaned += 1,
            _ => {
                if found.inode == 0 && matches!(state, State::Established | State::CloseWait) {
                    *self.unaccepted.entry(state).or_default() += 1;
                }
                self.peer(Protocol::Tcp, Some(state), found);
            }
        }
    }

    /// Counts a UDP socket.
    pub fn udp(&mut self, found: &Found) {
        const CONNECTED: u8 = 1;
        self.udp.sockets += 1;
        let count = if found.state == CONNECTED {
            &mut self.udp.connected
        } else if found.receive_queue > 0 {
            &mut self.udp.unread
        } else if found.send_queue > 0 {
            &mut self.udp.unsent
        } else {
            return;
        };
        *count += 1;
        self.peer(Protocol::Udp, None, found);
    }

    fn peer(&mut self, protocol: Protocol, state: Option<State>, found: &Found) {
        if self.peers.len() < MOST_PEERS {
            self.peers.push(Peer {
                protocol,
                local: plain(found.local),
                remote: plain(found.remote),
                state,
                unread: found.receive_queue,
                unsent: found.send_queue,
                inode: found.inode,
            });
        }
    }

    /// Adds another one's.
    pub fn add(&mut self, other: Self) {
        for (ours, theirs) in
            [(&mut self.states, other.states), (&mut self.unaccepted, other.unaccepted)]
        {
            for (state, count) in theirs {
                *ours.entry(state).or_default() += count;
            }
        }
        self.orphaned += other.orphaned;
        self.accept_queue += other.accept_queue;
        self.udp.sockets += other.udp.sockets;
        self.udp.connected += other.udp.connected;
        self.udp.unread += other.udp.unread;
        self.udp.unsent += other.udp.unsent;
        let room = MOST_PEERS - self.peers.len().min(MOST_PEERS);
        self.peers.extend(other.peers.into_iter().take(room));
        self.cookies = self.cookies.max(other.cookies);
    }

    /// Whether somebody waits for clients.
    pub fn serves(&self) -> bool {
        self.states.contains_key(&State::Listen) || self.udp.sockets > 0
    }

    /// What remains by kind, in words; somebody loses something if the instance stops now.
    ///
    /// Not among it: listeners; TIME_WAIT, where both ends have all they will get; FIN_WAIT2 that
    /// the process has closed, where a client that sends on is refused in any case.
    fn kinds(&self) -> Vec<(u64, &'static str)> {
        let unaccepted = |state| self.unaccepted.get(&state).copied().unwrap_or(0);
        let mut kinds: Vec<_> = self
            .states
            .iter()
            .filter(|(state, _)| !matches!(state, State::Listen | State::TimeWait))
            .map(|(state, count)| match state {
                State::FinWait2 => (count.saturating_sub(self.orphaned), state.as_str()),
                state => (count.saturating_sub(unaccepted(*state)), state.as_str()),
            })
            .collect();
        // The queue may hold connections that are no sockets of ours: broken ones, those of other
        // addresses of the same listener.
        let waiting = self.unaccepted.values().sum::<u64>().max(self.accept_queue);
        kinds.extend([
            (waiting, "in accept queue"),
            (self.udp.connected, "UDP connected"),
            (self.udp.unread, "UDP with unread datagrams"),
            (self.udp.unsent, "UDP with unsent datagrams"),
        ]);
        kinds.retain(|(count, _)| *count > 0);
        kinds
    }

    /// How many remain.
    pub fn remaining(&self) -> u64 {
        self.kinds().iter().map(|(count, _)| count).sum()
    }

    /// "2 sockets remain: 1 CLOSE_WAIT, 1 in accept queue".
    pub fn in_words(&self) -> String {
        let head = match self.remaining() {
            0 => return "no socket remains".to_owned(),
            1 => "1 socket remains".to_owned(),
            count => format!("{count} sockets remain"),
        };
        let kinds: Vec<String> =
            self.kinds().iter().map(|(count, kind)| format!("{count} {kind}")).collect();
        format!("{head}: {}", kinds.join(", "))
    }
}

/// An address as packets have it: an IPv6 socket that serves IPv4 shows a mapped one.
fn plain(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: u8, inode: u32) -> Found {
        Found {
            id: Default::default(),
            state,
            local: "[::ffff:10.0.0.1]:80".parse().unwrap(),
            remote: "[::ffff:10.9.0.1]:40000".parse().unwrap(),
            receive_queue: 0,
            send_queue: 0,
            inode,
            v6only: false,
        }
    }

    fn of(sockets: &[Found]) -> Summary {
        let mut summary = Summary::default();
        sockets.iter().for_each(|found| summary.tcp(found));
        summary
    }

    /// Number of the state, whether a process has it → how many remain, and in which words.
    #[test]
    fn who_loses_something() {
        let cases = [
            (1, true, 1, "1 ESTABLISHED"),
            (1, false, 1, "1 in accept queue"),
            (2, true, 1, "1 SYN_SENT"),
            (3, false, 1, "1 SYN_RECV"),
            (12, false, 1, "1 SYN_RECV"),
            (4, false, 1, "1 FIN_WAIT1"),
            (5, true, 1, "1 FIN_WAIT2"),
            (5, false, 0, "no socket remains"),
            (6, false, 0, "no socket remains"),
            (8, true, 1, "1 CLOSE_WAIT"),
            (8, false, 1, "1 in accept queue"),
            (9, false, 1, "1 LAST_ACK"),
            (10, true, 0, "no socket remains"),
            (11, false, 1, "1 CLOSING"),
            (42, true, 1, "1 other"),
        ];
        for (state, owned, remaining, words) in cases {
            let summary = of(&[socket(state, u32::from(owned) * 7)]);
            assert_eq!(summary.remaining(), remaining, "{state} {owned}");
            assert!(summary.in_words().ends_with(words), "{state}: {}", summary.in_words());
            assert_eq!(summary.peers.len() as u64, remaining);
        }
    }

    #[test]
    fn words_and_peers() {
        let listener = Found { receive_queue: 1, ..socket(10, 7) };
        let summary = of(&[listener, socket(8, 8), socket(1, 0), socket(6, 0)]);
        assert_eq!(summary.in_words(), "2 sockets remain: 1 CLOSE_WAIT, 1 in accept queue");
        assert_eq!(summary.peers[0].remote, "10.9.0.1:40000".parse().unwrap());
        assert!(summary.serves());
        // A connection that was reset before it was accepted is no socket, but it is in the queue.
        let listener = Found { receive_queue: 3, ..socket(10, 7) };
        let summary = of(&[listener, socket(1, 0)]);
        assert_eq!(summary.in_words(), "3 sockets remain: 3 in accept queue");
    }

    #[test]
    fn datagrams() {
        let mut summary = Summary::default();
        summary.udp(&socket(7, 3));
        assert_eq!(summary.remaining(), 0);
        summary.udp(&Found { receive_queue: 768, ..socket(7, 3) });
        summary.udp(&Found { send_queue: 768, ..socket(7, 3) });
        summary.udp(&socket(1, 3));
        assert_eq!(
            summary.in_words(),
            "3 sockets remain: 1 UDP connected, 1 UDP with unread datagrams, \
             1 UDP with unsent datagrams"
        );
    }

    #[test]
    fn sums_name_some_peers_and_count_all() {
        let many = of(&[socket(1, 5); 40]);
        assert_eq!((many.peers.len(), many.remaining()), (MOST_PEERS, 40));
        let mut sum = of(&[socket(8, 5), socket(5, 0)]);
        sum.add(many);
        assert_eq!(sum.in_words(), "41 sockets remain: 40 ESTABLISHED, 1 CLOSE_WAIT");
        assert_eq!(sum.peers.len(), MOST_PEERS);
        let text = serde_json::to_string(&sum).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), sum);
    }
}
