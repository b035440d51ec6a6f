//! What sockets are told of: time exceeded, host and port unreachable, of and to both ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use release_tests::error_queue::{Listening, Told};
use release_tests::netns::Netns;
use release_tests::observe::Ctl;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::topology::Family::{self, V4, V6};
use release_tests::topology::Mode::{self, Container, Dsr, Gue, Host, Ipip, Nat, Snat};
use release_tests::topology::{Protocol, Topology, TopologySpec, far_client, frontend};

use crate::common::{BOTH, spec, tests};

const USUAL_TTL: u8 = 64;
/// How long an error may take before it is asked for again.
const PATIENCE: Duration = Duration::from_millis(200);

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Exceeded,
    NoHost,
    NoPort,
}

/// An error about a packet that went to `about`.
fn told(what: What, by: IpAddr, about: SocketAddr) -> Told {
    // RFC 792; RFC 4443 §3. Linux has no "host unreachable" in IPv6 for a route that says so.
    let (errno, icmp) = match (what, about.is_ipv4()) {
        (What::Exceeded, true) => (libc::EHOSTUNREACH, (11, 0)),
        (What::Exceeded, false) => (libc::EHOSTUNREACH, (3, 0)),
        (What::NoHost, true) => (libc::EHOSTUNREACH, (3, 1)),
        (What::NoHost, false) => (libc::ENETUNREACH, (1, 0)),
        (What::NoPort, true) => (libc::ECONNREFUSED, (3, 3)),
        (What::NoPort, false) => (libc::ECONNREFUSED, (1, 4)),
    };
    Told { errno, icmp, info: 0, by, about }
}

fn set_ttl(socket: &UdpSocket, ttl: u8) {
    if socket.local_addr().unwrap().is_ipv4() {
        setsockopt(socket, sockopt::Ipv4Ttl, &ttl.into()).unwrap();
    } else {
        setsockopt(socket, sockopt::Ipv6Ttl, &ttl.into()).unwrap();
    }
}

/// A client's socket, connected to the frontend.
fn connected(client: &Netns, family: Family) -> UdpSocket {
    let any: IpAddr = match family {
        V4 => Ipv4Addr::UNSPECIFIED.into(),
        V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = client.udp((any, 0)).unwrap();
    socket.connect(frontend(family)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// What a socket is told when it sends with this TTL.
#[track_caller]
fn send(socket: &UdpSocket, ttl: u8) -> Told {
    set_ttl(socket, ttl);
    let errors = Listening::new(socket).unwrap();
    socket.send(b"is anybody there?").unwrap();
    let told = errors.next(DEADLINE).unwrap();
    set_ttl(socket, USUAL_TTL);
    told
}

/// As [`send`], again and again: a socket that has just been closed lives for a moment longer in a
/// child that another test happens to fork.
fn send_until_told(socket: &UdpSocket) -> Told {
    let errors = Listening::new(socket).unwrap();
    let mut error = None;
    eventually(DEADLINE, "an ICMP error", || {
        // An error that has come meanwhile is this one's result, and still to be read.
        let _ = socket.send(b"are you still there?");
        error = errors.next(PATIENCE).ok();
        error.is_some()
    });
    error.unwrap()
}

/// Two sockets that have talked to each other; the server's is connected, too.
struct Talk {
    client: UdpSocket,
    server: UdpSocket,
}

impl Talk {
    fn begin(topology: &Topology, client: &Netns, family: Family) -> Self {
        let backend = &topology.backends[0];
        let at = backend.serves_in(family).unwrap();
        let server = backend.namespace.udp(at).unwrap();
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        let client = connected(client, family);
        let mut buffer = [0; 16];
        client.send(b"question").unwrap();
        let (_, peer) = server.recv_from(&mut buffer).unwrap();
        server.connect(peer).unwrap();
        server.send(b"answer").unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 6);
        Self { client, server }
    }
}

/// A host's route to another that says that there is no way.
fn cut(router: &Netns, to: IpAddr) {
    let length = if to.is_ipv4() { 32 } else { 128 };
    router.ip(&format!("route add unreachable {to}/{length}")).unwrap();
}

/// As traceroute does: every hop up to the instance, where nobody listens. Whoever they are, the
/// client sees the frontend: the path behind the balancer is none of its business.
fn on_the_way_to_the_instance(mode: Mode) {
    let protocols = vec![Protocol::Tcp, Protocol::Udp];
    let mut topology =
        Topology::new(&TopologySpec { protocols, ..spec(mode, Protocol::Udp) }).unwrap();
    let router = matches!(mode, Nat | Snat).then(|| topology.move_away(0).unwrap());
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let hops = match mode {
        // The balancer, the router behind it.
        Nat | Snat => 2,
        // The balancer's own stack, which forwards.
        Container => 1,
        // Not a hop, to whoever counts.
        Dsr | Ipip | Gue | Host => 0,
    };
    for family in BOTH {
        let to = frontend(family);
        let socket = connected(&topology.client, family);
        for ttl in 1..=hops {
            assert_eq!(send(&socket, ttl), told(What::Exceeded, to.ip(), to), "hop {ttl}");
        }
        assert_eq!(send(&socket, hops + 1), told(What::NoPort, to.ip(), to));
        // And those that do not ask for details.
        let socket = connected(&topology.client, family);
        socket.send(b"is anybody there?").unwrap();
        let refused = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        if let Some(router) = &router {
            cut_off(&topology, router, family);
        }
    }
    if router.is_some() {
        tcp_traceroute(&topology);
    }
    Ctl(&topology.lb).check_maps().unwrap();
}

/// The router has no way to the instance any more.
fn cut_off(topology: &Topology, router: &Netns, family: Family) {
    let to = frontend(family);
    let talk = Talk::begin(topology, &topology.client, family);
    let instance = topology.backends[0].instance(family).ip();
    cut(router, instance);
    assert_eq!(send(&talk.client, USUAL_TTL), told(What::NoHost, to.ip(), to));
}

/// A SYN that uses up its TTL at the balancer.
fn tcp_traceroute(topology: &Topology) {
    topology.client.sysctl("ipv4/ip_default_ttl", "1").unwrap();
    topology.client.sysctl("ipv6/conf/eth0/hop_limit", "1").unwrap();
    for family in BOTH {
        let error = topology.client.connect(frontend(family), DEADLINE).unwrap_err();
        let error = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH), "{error}");
    }
}

/// Every hop on the way back, then a client that is gone, then a network that is. What the server is
/// told is about the client as it knows it, although the flow's version takes no new ones.
fn on_the_way_to_the_client(mode: Mode, outer: Family) {
    let topology = Topology::new(&TopologySpec { outer, ..spec(mode, Protocol::Udp) }).unwrap();
    let far = topology.far_client().unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let lb = Ctl(&topology.lb);
    let begin = |family| {
        lb.shift(&["v1=100", "v2=0"]).unwrap();
        let talk = Talk::begin(&topology, &far, family);
        lb.shift(&["v1=0", "v2=100"]).unwrap();
        talk
    };
    for family in BOTH {
        let talk = begin(family);
        let client = talk.server.peer_addr().unwrap();
        let router = match family {
            // IPv6 speaks from where the packet came in, IPv4 from where the error goes out.
            V6 if mode.is_one_way() => "fd00:4:1::1".parse().unwrap(),
            _ => topology.client_addresses_of(family)[0],
        };
        let gateway = gateway(&topology, family);
        // In mode snat it is always the client's stand-in who speaks.
        let speaks = |hop| if mode == Snat { client.ip() } else { hop };
        let hops = if matches!(mode, Nat | Snat | Container) {
            vec![gateway, router]
        } else {
            vec![router]
        };
        for (ttl, hop) in (1..).zip(hops) {
            let expected = told(What::Exceeded, speaks(hop), client);
            assert_eq!(send(&talk.server, ttl), expected, "hop {ttl}");
        }
        let Talk { client: socket, server } = talk;
        drop(socket);
        let expected = told(What::NoPort, client.ip(), client);
        assert_eq!(send_until_told(&server), expected);
        drop(server);

        let talk = begin(family);
        let client = talk.server.peer_addr().unwrap();
        cut(&topology.client, far_client(family));
        let expected = told(What::NoHost, speaks(router), client);
        assert_eq!(send(&talk.server, USUAL_TTL), expected);
    }
    lb.check_maps().unwrap();
}

/// The balancer's address towards the first backend.
fn gateway(topology: &Topology, family: Family) -> IpAddr {
    match topology.backends[0].instance(family).ip() {
        IpAddr::V4(instance) => {
            let [a, b, c, _] = instance.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(instance) => Ipv6Addr::from_bits(instance.to_bits() & !0xffff | 1).into(),
    }
}

/// Nobody answers for the instance's address any more: the balancer's kernel says so, about a packet
/// that it has got translated.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_instances_host_is_gone() {
    let topology = Topology::new(&spec(Nat, Protocol::Udp)).unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let begin = |family| Talk::begin(&topology, &topology.client, family);
    let talks = BOTH.map(begin);
    let backend = &topology.backends[0];
    backend.namespace.ip("addr flush dev eth0").unwrap();
    topology.lb.namespace.ip(&format!("neigh flush dev {}", backend.balancer_side)).unwrap();
    let errors = talks.each_ref().map(|talk| Listening::new(&talk.client).unwrap());
    for talk in &talks {
        talk.client.send(b"is anybody there?").unwrap();
    }
    for (family, errors) in BOTH.into_iter().zip(errors) {
        let to = frontend(family);
        // RFC 4443 §3.1: "address unreachable".
        let icmp = if family == V4 { (3, 1) } else { (1, 3) };
        let expected = Told { icmp, errno: libc::EHOSTUNREACH, info: 0, by: to.ip(), about: to };
        assert_eq!(errors.next(DEADLINE).unwrap(), expected);
    }
}

tests! { on_the_way_to_the_instance:
    nat(Nat);
    snat(Snat);
    dsr(Dsr);
    ipip(Ipip);
    host(Host);
    container(Container);
}

tests! { on_the_way_to_the_client:
    nat(Nat, V4);
    snat(Snat, V4);
    dsr(Dsr, V4);
    ipip_in_ipv6(Ipip, V6);
    gue(Gue, V4);
    host(Host, V4);
    container(Container, V4);
}
