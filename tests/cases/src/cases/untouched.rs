//! What is not ours: passed, byte for byte as it was.

use std::net::{Ipv4Addr, SocketAddrV4};

use release_common::reason::Reason;

use super::script::{Case, Setting, Step, Want, Way, client, open, packets};
use crate::frames::{
    Ipv4, Tcp, arp, ethernet, flags, fragment, icmp_echo, ipv6, padded, udp, vlan, with_ip_options,
};
use crate::model::Scene;

const CATEGORY: &str = "not ours";

fn client_socket() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 40_001)
}

fn frontend() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 80)
}

fn elsewhere(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), port)
}

fn syn(destination: SocketAddrV4) -> Tcp {
    Tcp::new(client_socket(), destination, flags::SYN)
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
        one("ARP", arp(*client_socket().ip(), *frontend().ip()), Reason::NotIpv4),
        one("ARP, padded", padded(arp(*client_socket().ip(), *frontend().ip())), Reason::NotIpv4),
        one("IPv6 TCP SYN", ipv6(6, &[], 80), Reason::NotIpv4),
        one(
            "IPv6 with a hop-by-hop header",
            ipv6(0, &[6, 0, 5, 2, 0, 0, 1, 0], 80),
            Reason::NotIpv4,
        ),
        one("IPv6 fragment", ipv6(44, &[6, 0, 0, 1, 0, 0, 0, 9], 80), Reason::NotIpv4),
        one("802.1Q to a frontend", vlan(&syn(frontend()).build(), 12), Reason::NotIpv4),
        one("802.1Q to elsewhere", vlan(&syn(elsewhere(80)).build(), 12), Reason::NotIpv4),
        one("802.1Q twice", vlan(&vlan(&syn(frontend()).build(), 12), 13), Reason::NotIpv4),
        one("unknown EtherType", ethernet([1; 6], [2; 6], 0x88cc, &[7; 60]), Reason::NotIpv4),
        one("UDP to a frontend's port", udp(client_socket(), frontend(), b"x"), Reason::NotTcp),
        one("UDP to elsewhere", udp(client_socket(), elsewhere(53), b"x"), Reason::NotTcp),
        one(
            "ICMP echo to a frontend",
            icmp_echo(*client_socket().ip(), *frontend().ip()),
            Reason::NotTcp,
        ),
        one(
            "ICMP echo to elsewhere",
            icmp_echo(*client_socket().ip(), *elsewhere(0).ip()),
            Reason::NotTcp,
        ),
        one("TCP to another port", syn(elsewhere(443)).build(), Reason::NotOurPort),
        one(
            "TCP to a frontend's address, another port",
            syn(SocketAddrV4::new(*frontend().ip(), 81)).build(),
            Reason::NotOurPort,
        ),
        one(
            "TCP from an instance's port, not from an instance",
            Tcp::new(elsewhere(8080), client_socket(), flags::ACK).build(),
            Reason::NotOurAddress,
        ),
        one(
            "TCP to an instance",
            syn(SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 1), 8080)).build(),
            Reason::NotOurPort,
        ),
        one(
            "IP options to a frontend",
            with_ip_options(&syn(frontend()), &[1; 4]),
            Reason::IpOptions,
        ),
        one(
            "IP options to elsewhere",
            with_ip_options(&syn(elsewhere(80)), &[1; 40]),
            Reason::IpOptions,
        ),
        one("first fragment to a frontend", fragment(&syn(frontend()), 0x2000), Reason::Fragment),
        one("later fragment to a frontend", fragment(&syn(frontend()), 0x2003), Reason::Fragment),
        one("last fragment to elsewhere", fragment(&syn(elsewhere(80)), 0x0003), Reason::Fragment),
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
            Tcp::new(
                SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 1), 8080),
                client_socket(),
                flags::ACK,
            )
            .build(),
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
    for (name, protocol) in
        [("GRE", 47), ("SCTP", 132), ("ESP", 50), ("IPIP", 4), ("UDP-Lite", 136)]
    {
        let header = Ipv4::new(*client_socket().ip(), *frontend().ip(), protocol);
        cases.push(one(&format!("{name} to a frontend"), header.frame(&[9; 40]), Reason::NotTcp));
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
    let data = Tcp::new(client_socket(), frontend(), flags::ACK | flags::PSH).data(10).build();
    let cut = (0..data.len()).map(|len| pass(data[..len].to_vec(), Reason::Truncated)).collect();
    let still = packets([client(flags::ACK, super::script::C + 1, super::script::S + 1)]);
    Case::new(
        CATEGORY,
        "a flow's packet cut at every length",
        Scene::new(&[1, 0], 2),
        [open(), cut, still],
    )
}
