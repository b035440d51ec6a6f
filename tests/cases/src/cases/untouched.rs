//! What is not ours: passed, byte for byte as it was.

use std::net::{Ipv4Addr, SocketAddr};

use release_common::reason::Reason;

use super::script::{Case, Setting, Step, Want, Way, client, open, packets};
use crate::frames::{
    Error, IcmpError, Ipv4, Segment, arp, ethernet, flags, icmp_echo, ipv6, padded, vlan,
};
use crate::model::Scene;

const CATEGORY: &str = "not ours";

fn client_socket() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, 10), 40_001))
}

fn frontend() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 80))
}

fn instance() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 8080))
}

fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(203, 0, 113, 5), port))
}

fn syn(destination: SocketAddr) -> Segment {
    Segment::tcp(client_socket(), destination, flags::SYN)
}

fn v4(socket: SocketAddr) -> Ipv4Addr {
    match socket {
        SocketAddr::V4(socket) => *socket.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn udp(destination: SocketAddr) -> Vec<u8> {
    Segment::udp(client_socket(), destination).data(5).build()
}

/// One of three fragments.
fn fragment(segment: &Segment, index: usize) -> Vec<u8> {
    segment.fragments(&[24, 48]).swap_remove(index)
}

fn pass(frame: Vec<u8>, reason: Reason) -> Step {
    Step::Frame(frame, Want::Untouched(reason))
}

fn one(name: &str, frame: Vec<u8>, reason: Reason) -> Case {
    Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), [vec![pass(frame, reason)]])
}

/// A frame whose byte at `at` is another.
fn damaged(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        one("ARP", arp(v4(client_socket()), v4(frontend())), Reason::NotIp),
        one("ARP, padded", padded(arp(v4(client_socket()), v4(frontend()))), Reason::NotIp),
        one("802.1Q to elsewhere", vlan(&syn(elsewhere(443)).build(), 12), Reason::NotOurPort),
        one("802.1Q twice", vlan(&vlan(&syn(frontend()).build(), 12), 13), Reason::NotIp),
        one(
            "802.1Q around ARP",
            vlan(&arp(v4(client_socket()), v4(frontend())), 12),
            Reason::NotIp,
        ),
        one("unknown EtherType", ethernet([1; 6], [2; 6], 0x88cc, &[7; 60]), Reason::NotIp),
        one("UDP to a frontend's port", udp(frontend()), Reason::NotOurAddress),
        one("UDP to elsewhere", udp(elsewhere(53)), Reason::NotOurPort),
        one(
            "UDP from an instance's port",
            Segment::udp(elsewhere(8080), client_socket()).build(),
            Reason::NotOurAddress,
        ),
        one(
            "ICMP echo to a frontend",
            icmp_echo(client_socket().ip(), frontend().ip()),
            Reason::NotOurProtocol,
        ),
        one(
            "ICMP echo to elsewhere",
            icmp_echo(client_socket().ip(), elsewhere(0).ip()),
            Reason::NotOurProtocol,
        ),
        one("TCP to another port", syn(elsewhere(443)).build(), Reason::NotOurPort),
        one(
            "TCP to a frontend's address, another port",
            syn(SocketAddr::new(frontend().ip(), 81)).build(),
            Reason::NotOurPort,
        ),
        one(
            "TCP from an instance's port, not from an instance",
            Segment::tcp(elsewhere(8080), client_socket(), flags::ACK).build(),
            Reason::NotOurAddress,
        ),
        one("TCP to an instance", syn(instance()).build(), Reason::NotOurPort),
        one(
            "IP options to elsewhere",
            Segment { ip_options: vec![1; 40], ..syn(elsewhere(80)) }.build(),
            Reason::NotOurAddress,
        ),
        one(
            "later fragment to a frontend",
            fragment(&syn(frontend()).data(40), 1),
            Reason::FragmentUnknown,
        ),
        one(
            "last fragment to a frontend",
            fragment(&syn(frontend()).data(40), 2),
            Reason::FragmentUnknown,
        ),
        one(
            "first fragment to elsewhere",
            fragment(&syn(elsewhere(80)).data(40), 0),
            Reason::NotOurAddress,
        ),
        one(
            "last fragment to elsewhere",
            fragment(&syn(elsewhere(443)).data(40), 2),
            Reason::FragmentUnknown,
        ),
        one("IP version 5", damaged(syn(frontend()).build(), 14, 0x55), Reason::BadLength),
        one(
            "IP version 6 under IPv4's EtherType",
            damaged(syn(frontend()).build(), 14, 0x65),
            Reason::BadLength,
        ),
        one("IP header of 16 bytes", damaged(syn(frontend()).build(), 14, 0x44), Reason::BadLength),
        one("IP header of 0 bytes", damaged(syn(frontend()).build(), 14, 0x40), Reason::BadLength),
        one(
            "IP length below the header",
            damaged(syn(frontend()).build(), 17, 19),
            Reason::BadLength,
        ),
        one(
            "IP length without a TCP header",
            damaged(syn(frontend()).build(), 17, 39),
            Reason::BadLength,
        ),
        one("IP length 0", damaged(syn(frontend()).build(), 17, 0), Reason::BadLength),
        one(
            "IP length beyond the frame",
            damaged(syn(frontend()).build(), 17, 41),
            Reason::Truncated,
        ),
        one(
            "IP length far beyond the frame",
            damaged(syn(frontend()).build(), 16, 0xff),
            Reason::Truncated,
        ),
        one(
            "TCP header of 16 bytes",
            damaged(syn(frontend()).build(), 46, 0x40),
            Reason::BadLength,
        ),
        one(
            "TCP header beyond the packet",
            damaged(syn(frontend()).build(), 46, 0x60),
            Reason::BadLength,
        ),
        one(
            "from an instance, of no flow",
            Segment::tcp(instance(), client_socket(), flags::ACK).build(),
            Reason::NotOurFlow,
        ),
        one(
            "TCP on a frontend's port of another address, jumbo",
            syn(elsewhere(80)).data(8900).build(),
            Reason::NotOurAddress,
        ),
        one(
            "TCP on a frontend's port of another address",
            syn(elsewhere(80)).build(),
            Reason::NotOurAddress,
        ),
    ];
    cases.extend(udp_lengths());
    cases.extend(version_6());
    cases.extend(errors());
    for (name, protocol) in
        [("GRE", 47), ("SCTP", 132), ("ESP", 50), ("IPIP", 4), ("UDP-Lite", 136)]
    {
        let header = Ipv4::new(v4(client_socket()), v4(frontend()), protocol);
        let frame = header.frame(&[9; 40]);
        cases.push(one(&format!("{name} to a frontend"), frame, Reason::NotOurProtocol));
    }
    cases.push(truncations("SYN to a frontend", syn(frontend()).build()));
    cases.push(truncations("SYN to elsewhere", syn(elsewhere(443)).build()));
    cases.push(truncated_in_flow());
    cases.push(Case::new(
        CATEGORY,
        "a SYN of the host's other traffic while every way is unknown",
        Scene::new(&[1, 0], 2),
        [vec![
            Step::Set(Setting::Way(Way::Kernel)),
            pass(syn(elsewhere(443)).build(), Reason::NotOurPort),
        ]],
    ));
    cases
}

/// A frame cut at every length short of whole.
fn truncations(name: &str, frame: Vec<u8>) -> Case {
    let cut = |len: usize| pass(frame[..len].to_vec(), Reason::Truncated);
    let steps = (0..frame.len()).map(cut).collect();
    Case::new(
        CATEGORY,
        &format!("{name}, cut at every length 0…53"),
        Scene::new(&[1, 0], 2),
        [steps],
    )
}

/// A live flow's data packet cut at every length changes nothing.
fn truncated_in_flow() -> Case {
    let data = Segment::tcp(client_socket(), frontend(), flags::ACK | flags::PSH).data(10).build();
    let cut = (0..data.len()).map(|len| pass(data[..len].to_vec(), Reason::Truncated)).collect();
    let still = packets([client(flags::ACK, super::script::C + 1, super::script::S + 1)]);
    Case::new(
        CATEGORY,
        "a flow's packet cut at every length",
        Scene::new(&[1, 0], 2),
        [open(), cut, still],
    )
}

/// UDP lengths that contradict those of IP, to a port in use.
fn udp_lengths() -> Vec<Case> {
    vec![
        one("UDP length below its header", damaged(udp(frontend()), 39, 7), Reason::BadLength),
        one("UDP length 0", damaged(udp(frontend()), 39, 0), Reason::BadLength),
        one("UDP length beyond the packet", damaged(udp(frontend()), 39, 14), Reason::BadLength),
        one("IP length without a UDP header", damaged(udp(frontend()), 17, 27), Reason::BadLength),
    ]
}

/// IPv6 of others. What is ours with extension headers is a variant of all cases.
fn version_6() -> Vec<Case> {
    const SYN: usize = 14 + 40;
    let routed = [6, 0, 0, 1, 0, 0, 0, 0];
    let chain = |count: usize| -> Vec<u8> {
        let mut chain = [60_u8, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        chain[count * 8 - 8] = 6;
        chain
    };
    let long = [&[6, 31, 1, 252][..], &[0; 252]].concat();
    let mut cases = vec![
        one("IPv6 TCP SYN", ipv6(6, &[], 80), Reason::NotOurAddress),
        one("IPv6 TCP SYN to another port", ipv6(6, &[], 443), Reason::NotOurPort),
        one(
            "IPv6 with a hop-by-hop header",
            ipv6(0, &[6, 0, 5, 2, 0, 0, 1, 0], 80),
            Reason::NotOurAddress,
        ),
        one(
            "IPv6 with a routing header at its destination",
            ipv6(43, &[6, 0, 0, 0, 0, 0, 0, 0], 80),
            Reason::NotOurAddress,
        ),
        one(
            "IPv6 with a routing header on its way",
            ipv6(43, &routed, 80),
            Reason::ExtensionHeaders,
        ),
        one("IPv6 with four extension headers", ipv6(60, &chain(4), 80), Reason::NotOurAddress),
        one("IPv6 with five extension headers", ipv6(60, &chain(5), 80), Reason::ExtensionHeaders),
        one(
            "IPv6 with an extension header of 256 bytes",
            ipv6(60, &long, 80),
            Reason::ExtensionHeaders,
        ),
        one(
            "IPv6 with an authentication header",
            ipv6(51, &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 80),
            Reason::NotOurProtocol,
        ),
        one("IPv6 without a next header", ipv6(59, &[], 80), Reason::NotOurProtocol),
        one("IPv6 first fragment", ipv6(44, &[6, 0, 0, 1, 0, 0, 0, 9], 80), Reason::NotOurAddress),
        one(
            "IPv6 later fragment",
            ipv6(44, &[6, 0, 0, 8, 0, 0, 0, 9], 80),
            Reason::FragmentUnknown,
        ),
        one("IPv6 atomic fragment", ipv6(44, &[6, 0, 0, 0, 0, 0, 0, 9], 80), Reason::NotOurAddress),
        one("IPv6 length beyond the frame", damaged(ipv6(6, &[], 80), 19, 21), Reason::Truncated),
        one(
            "IPv6 length without a TCP header",
            damaged(ipv6(6, &[], 80), 19, 19),
            Reason::BadLength,
        ),
        one("IPv6 length 0", damaged(ipv6(6, &[], 80), 19, 0), Reason::BadLength),
        one(
            "IP version 4 under IPv6's EtherType",
            damaged(ipv6(6, &[], 80), 14, 0x40),
            Reason::BadLength,
        ),
        one(
            "an extension header beyond the packet",
            damaged(ipv6(60, &chain(1), 80), SYN + 1, 9),
            Reason::BadLength,
        ),
        one(
            "IPv6 echo",
            icmp_echo(
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into(),
            ),
            Reason::NotOurProtocol,
        ),
    ];
    let frame = ipv6(0, &[6, 0, 5, 2, 0, 0, 1, 0], 80);
    let cut = (0..frame.len()).map(|len| pass(frame[..len].to_vec(), Reason::Truncated)).collect();
    let name = "IPv6 with a hop-by-hop header, cut at every length";
    cases.push(Case::new(CATEGORY, name, Scene::new(&[1, 0], 2), [cut]));
    // Neighbour discovery: whatever the ports of a flow, never ours.
    for kind in 133..=137_u8 {
        let packet = crate::packets::ip(
            [0xfe80, 0, 0, 0, 0, 0, 0, 1].into(),
            [0xff02, 0, 0, 0, 0, 0, 0, 1].into(),
            58,
            &[kind, 0, 0, 0, 0, 0, 0, 0],
        );
        let frame = ethernet([0x33, 0x33, 0, 0, 0, 1], [2; 6], 0x86dd, &packet);
        cases.push(one(
            &format!("neighbour discovery, type {kind}"),
            frame,
            Reason::NotOurProtocol,
        ));
    }
    cases
}

/// ICMP errors about what is none of ours.
fn errors() -> Vec<Case> {
    let error = |source: SocketAddr, destination: SocketAddr, kind, quoted: &Segment| {
        let quote = quoted.packet()[..28].to_vec();
        IcmpError::new(source.ip(), destination.ip(), kind, quote).build()
    };
    let reply = Segment::tcp(frontend(), client_socket(), flags::ACK);
    let sent = Segment::tcp(client_socket(), instance(), flags::ACK);
    let others = Segment::tcp(elsewhere(443), client_socket(), flags::ACK);
    let router = elsewhere(0);
    let gre = {
        let quote = Ipv4::new(v4(frontend()), v4(client_socket()), 47).build(&[0; 8]);
        IcmpError::new(router.ip(), frontend().ip(), Error::HostUnreachable, quote).build()
    };
    let unreachable = Error::HostUnreachable;
    let whole = error(router, frontend(), unreachable, &reply);
    let quoting = |bytes: usize| {
        let quote = reply.packet()[..bytes].to_vec();
        IcmpError::new(router.ip(), frontend().ip(), unreachable, quote).build()
    };
    let late = {
        let quote = reply.clone().data(40).fragments(&[24]).swap_remove(1)[14..].to_vec();
        IcmpError::new(router.ip(), frontend().ip(), unreachable, quote).build()
    };
    let mut cases = vec![
        one("an error about no flow, to a frontend", whole.clone(), Reason::NotOurFlow),
        one(
            "an error about no flow, to a client",
            error(router, client_socket(), unreachable, &sent),
            Reason::NotOurFlow,
        ),
        one(
            "an error about others",
            error(router, elsewhere(443), unreachable, &others),
            Reason::NotOurFlow,
        ),
        one("an error about GRE", gre, Reason::NotOurProtocol),
        one("an error that quotes 7 bytes of TCP", quoting(27), Reason::Truncated),
        one("an error that quotes an IP header", quoting(20), Reason::Truncated),
        one("an error that quotes nothing", quoting(0), Reason::Truncated),
        one("an error about a later fragment", late, Reason::FragmentUnknown),
        one(
            "a redirect",
            error(router, frontend(), Error::Redirect, &reply),
            Reason::NotOurProtocol,
        ),
    ];
    let steps =
        (0..whole.len()).map(|len| pass(whole[..len].to_vec(), Reason::Truncated)).collect();
    cases.push(Case::new(
        CATEGORY,
        "an error cut at every length",
        Scene::new(&[1, 0], 2),
        [steps],
    ));
    cases
}
