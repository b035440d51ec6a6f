//! Datagrams that travel in several packets.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use release_tests::drive::Drive;
use release_tests::frames::Segment;
use release_tests::observe::Ctl;
use release_tests::packet_socket::{PacketSocket, mac};
use release_tests::scenario::DEADLINE;
use release_tests::server::udp::{long_question, stamped};
use release_tests::topology::Family::{self, V4, V6};
use release_tests::topology::Mode::{self, Container, Dsr, Gue, Host, Ipip, Nat, Snat};
use release_tests::topology::{CLIENT_SIDE, Protocol, SERVICE, Topology, TopologySpec, frontend};

use crate::common::{BOTH, spec, tests};

const FLOWS: u32 = 100;
/// Bytes of a datagram.
const LONG: usize = 8000;
/// Fragments of that.
const FRAGMENTS: u64 = 6;
/// Where fragments are cut that are made here: into three.
const CUTS: [usize; 2] = [1440, 2880];

fn topology(mode: Mode, outer: Family) -> Topology {
    Topology::new(&TopologySpec { clients: 4, outer, ..spec(mode, Protocol::Udp) }).unwrap()
}

/// Packets that were counted under a reason.
fn counted(topology: &Topology, reason: &str) -> u64 {
    let dump = topology.lb.releasectl_json(&["maps", "dump", "REASONS"]).unwrap();
    let found = dump.as_array().unwrap().iter().find(|line| line["reason"] == reason);
    found.map_or(Some(0), |line| line["packets"].as_u64()).unwrap()
}

/// Flows of long datagrams, each answered by one server, with a shift in their middle.
fn echoed(mode: Mode, outer: Family) {
    let topology = topology(mode, outer);
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let lb = Ctl(&topology.lb);
    for family in BOTH {
        lb.shift(&["v1=100", "v2=0"]).unwrap();
        let before = counted(&topology, "fragment_forwarded");
        let drive = Drive {
            target: frontend(family),
            protocol: Protocol::Udp,
            sources: topology.client_addresses_of(family),
            flows: FLOWS,
            exchanges: 3,
            datagram: Some(LONG),
        };
        let shift = || lb.shift(&["v1=0", "v2=100"]).map(drop);
        let outcome = drive.run(&topology.client, shift).unwrap();
        println!("{} exchanges, {} asked again", outcome.exchanges, outcome.repeated);
        outcome.is_clean(FLOWS, "v1", "v2").unwrap();
        let directions = if mode.is_one_way() { 1 } else { 2 };
        let least = outcome.exchanges * (FRAGMENTS - 1) * directions;
        let forwarded = counted(&topology, "fragment_forwarded") - before;
        assert!(forwarded >= least, "{forwarded} of {least}");
    }
    lb.check_maps().unwrap();
}

/// A client whose datagrams are cut and sent by the test.
struct Sender<'a> {
    topology: &'a Topology,
    frames: PacketSocket,
    socket: UdpSocket,
    to: SocketAddr,
    idents: u16,
}

impl<'a> Sender<'a> {
    /// `idents`: how far fragments of others are identified; the kernel takes equal ones together.
    fn new(topology: &'a Topology, family: Family, idents: u16) -> Self {
        let from = SocketAddr::new(topology.client_addresses_of(family)[0], 0);
        let socket = topology.client.udp(from).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let frames = PacketSocket::sender(&topology.client, "eth0").unwrap();
        Self { topology, frames, socket, to: frontend(family), idents }
    }

    fn question(number: u32) -> String {
        long_question(1, number, 4000)
    }

    /// The fragments of a question that was not sent before, or is sent again.
    fn cut(&mut self, number: u32) -> Vec<Vec<u8>> {
        self.idents += 1;
        let segment = Segment {
            dmac: mac(&self.topology.lb.namespace, CLIENT_SIDE).unwrap(),
            smac: mac(&self.topology.client, "eth0").unwrap(),
            ident: self.idents,
            payload: Self::question(number).into_bytes(),
            ..Segment::udp(self.socket.local_addr().unwrap(), self.to)
        };
        segment.fragments(&CUTS)
    }

    fn send(&self, fragments: &[Vec<u8>], order: &[usize]) {
        let frames: Vec<Vec<u8>> = order.iter().map(|at| fragments[*at].clone()).collect();
        assert_eq!(self.frames.send(&frames).unwrap(), frames.len());
    }

    /// The next answer must be to this question; returns the version.
    fn answered(&self, number: u32) -> String {
        let mut buffer = vec![0; 9000];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, self.to);
        // None: an answer to another question.
        stamped(&buffer[..length], &Self::question(number)).unwrap().unwrap().0
    }
}

/// Later fragments in any order follow their first, also across a shift. One that comes before it
/// is nobody's: that datagram is lost, and only that.
fn in_disorder(family: Family) {
    let topology = topology(Nat, V4);
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let unknown = || counted(&topology, "fragment_unknown");
    let mut client = Sender::new(&topology, family, 100);
    for (number, order) in (1..).zip([[0, 1, 2], [0, 2, 1]]) {
        let fragments = client.cut(number);
        client.send(&fragments, &order);
        assert_eq!(client.answered(number), "v1");
    }
    assert_eq!(unknown(), 0);

    let early = client.cut(3);
    client.send(&early, &[1, 0, 2]);
    let next = client.cut(4);
    client.send(&next, &[0, 1, 2]);
    assert_eq!(client.answered(4), "v1");
    assert_eq!(unknown(), 1);
    let again = client.cut(3);
    client.send(&again, &[0, 1, 2]);
    assert_eq!(client.answered(3), "v1");

    // A new flow: its first fragment makes it.
    let mut client = Sender::new(&topology, family, 200);
    let fragments = client.cut(5);
    client.send(&fragments, &[0]);
    Ctl(&topology.lb).shift(&["v1=0", "v2=100"]).unwrap();
    client.send(&fragments, &[2, 1]);
    assert_eq!(client.answered(5), "v1");
    let mut other = Sender::new(&topology, family, 300);
    let fragments = other.cut(6);
    other.send(&fragments, &[0, 1, 2]);
    assert_eq!(other.answered(6), "v2");
    assert_eq!(unknown(), 1);
    let flows = topology.lb.releasectl_json(&["flows", SERVICE]).unwrap();
    assert_eq!(flows.as_array().map(Vec::len), Some(3));
}

/// Fragments, too, must leave room for the outer header: the client is told, and cuts anew.
fn in_a_narrow_tunnel(mode: Mode, outer: Family) {
    let topology = topology(mode, outer);
    topology.lb.namespace.ip("link set back1 mtu 1500").unwrap();
    let _servers = topology.start_servers().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    for family in BOTH {
        let client = Sender::new(&topology, family, 0);
        client.socket.connect(client.to).unwrap();
        let question = Sender::question(1);
        client.socket.send(question.as_bytes()).unwrap();
        let error: io::Error = client.socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");
        client.socket.send(question.as_bytes()).unwrap();
        assert_eq!(client.answered(1), "v1");
    }
}

tests! { echoed:
    nat(Nat, V4);
    snat(Snat, V4);
    dsr(Dsr, V4);
    ipip_in_ipv4(Ipip, V4);
    ipip_in_ipv6(Ipip, V6);
    gue_in_ipv4(Gue, V4);
    gue_in_ipv6(Gue, V6);
    host(Host, V4);
    container(Container, V4);
}

tests! { in_disorder:
    ipv4(V4);
    ipv6(V6);
}

tests! { in_a_narrow_tunnel:
    ipip(Ipip, V4);
    gue_in_ipv6(Gue, V6);
}
