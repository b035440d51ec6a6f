//! Segments that stand in for one end of a connection.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use release_common::abi::{Flow, Side};
use release_common::tcp::word::{End, FlowWord};

/// Hops that a segment may take.
const TTL: u8 = 64;

/// A segment without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who seems to send it.
    pub source: SocketAddr,
    /// Who gets it; of the same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, as in the header.
    pub window: u16,
    /// Whether it ends the connection.
    pub reset: bool,
}

/// An end of a flow, and its peer as that end knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The peer, in whose name segments are sent.
    pub peer: SocketAddr,
    /// The end, which gets them.
    pub end: SocketAddr,
}

/// What one end of a flow has said so far: what a segment in its name must agree with.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// The next sequence number, its FIN counted.
    next: u32,
    /// The last acknowledgement.
    ack: u32,
    window: u16,
}

impl Said {
    fn by(flow: &Flow, end: End) -> Self {
        let word = FlowWord(flow.state);
        let Side { next, ack, edge, .. } = side(flow, end);
        let window = edge.wrapping_sub(ack) >> word.scale(end);
        Self {
            next: next.wrapping_add(u32::from(word.fin_seen(end))),
            ack,
            window: u16::try_from(window).unwrap_or(u16::MAX),
        }
    }
}

const fn side(flow: &Flow, end: End) -> Side {
    match end {
        End::Client => flow.client,
        End::Server => flow.server,
    }
}

const fn peer(end: End) -> End {
    match end {
        End::Client => End::Server,
        End::Server => End::Client,
    }
}

/// The probe of an end, in the name of its peer.
pub fn probe(flow: &Flow, of: End, leg: Leg) -> Segment {
    let said = Said::by(flow, peer(of));
    Segment {
        source: leg.peer,
        destination: leg.end,
        seq: said.next.wrapping_sub(1),
        ack: said.ack,
        window: said.window,
        reset: false,
    }
}

/// RSTs to an end, in the name of its peer. It accepts the one whose number is the next that it
/// expects (RFC 5961 §3.2): the next that the peer will send, unless something was lost between
/// here and there; then the one that it last asked for.
pub fn resets(flow: &Flow, to: End, leg: Leg) -> Vec<Segment> {
    let said = Said::by(flow, peer(to));
    let mut numbers = vec![said.next];
    let asked_for = side(flow, to).ack;
    if asked_for != said.next {
        numbers.push(asked_for);
    }
    let reset = |seq| Segment {
        source: leg.peer,
        destination: leg.end,
        seq,
        ack: said.ack,
        window: 0,
        reset: true,
    };
    numbers.into_iter().map(reset).collect()
}

impl Segment {
    /// The IP packet, checksums filled in. `None` if the two ends are of different families.
    pub fn packet(&self) -> Option<Vec<u8>> {
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), TTL)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), TTL)
            }
            _ => return None,
        };
        let tcp = ip
            .tcp(self.source.port(), self.destination.port(), self.seq, self.window)
            .ack(self.ack);
        let tcp = if self.reset { tcp.rst() } else { tcp };
        let mut packet = Vec::with_capacity(tcp.size(0));
        tcp.write(&mut packet, &[]).ok()?;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{SlicedPacket, TransportSlice};

    /// The client sent up to 1000 and acknowledged 5000; the server sent up to 5000 and has
    /// acknowledged 990.
    fn flow() -> Flow {
        Flow {
            state: FlowWord::live(1, 7, 8).0,
            client: Side { next: 1000, ack: 5000, edge: 5000 + (502 << 7), fin: 1 },
            server: Side { next: 5000, ack: 990, edge: 990 + (64 << 8), fin: 0 },
            ..Flow::default()
        }
    }

    fn leg() -> Leg {
        Leg { peer: "198.51.100.7:40000".parse().unwrap(), end: "10.0.0.1:80".parse().unwrap() }
    }

    #[test]
    fn probes_are_one_below_what_comes_next() {
        let probe = probe(&flow(), End::Server, leg());
        assert_eq!((probe.seq, probe.ack, probe.window), (999, 5000, 502));
        let probe = super::probe(&flow(), End::Client, leg());
        assert_eq!((probe.seq, probe.ack, probe.window), (4999, 990, 64));
    }

    #[test]
    fn a_fin_takes_a_number() {
        let mut flow = flow();
        flow.state = FlowWord(flow.state).with_fin_seen(End::Client).0;
        assert_eq!(probe(&flow, End::Server, leg()).seq, 1000);
        assert_eq!(resets(&flow, End::Server, leg())[0].seq, 1001);
    }

    #[test]
    fn resets_have_both_numbers_that_may_be_expected() {
        let numbers: Vec<u32> =
            resets(&flow(), End::Server, leg()).iter().map(|segment| segment.seq).collect();
        assert_eq!(numbers, [1000, 990]);
        let numbers: Vec<u32> =
            resets(&flow(), End::Client, leg()).iter().map(|segment| segment.seq).collect();
        assert_eq!(numbers, [5000]);
    }

    #[test]
    fn packets_are_whole() {
        let six = Leg {
            peer: "[2001:db8::7]:40000".parse().unwrap(),
            end: "[fd00::1]:80".parse().unwrap(),
        };
        for leg in [leg(), six] {
            for segment in [probe(&flow(), End::Server, leg), resets(&flow(), End::Server, leg)[0]]
            {
                let packet = segment.packet().unwrap();
                let sliced = SlicedPacket::from_ip(&packet).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
                assert_eq!(tcp.sequence_number(), segment.seq);
                assert_eq!(tcp.acknowledgment_number(), segment.ack);
                assert_eq!((tcp.ack(), tcp.rst(), tcp.syn()), (true, segment.reset, false));
            }
        }
        let mixed = Leg { end: six.end, ..leg() };
        assert_eq!(probe(&flow(), End::Server, mixed).packet(), None);
    }
}
