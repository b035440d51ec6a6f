//! One frame for each combination of protocols: where fuzzing begins, and a test of its own.

use crate::packet::{Header, frame, icmp, right, tcp, udp};

/// New ends in front of the seeds of `rewrite`: addresses and ports that differ from those in the
/// frames in every byte, or in none.
const PREFIXES: [[u8; 36]; 2] = [
    [0x5a; 36],
    [
        10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 10, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 2, 0x1f, 0x90, 0xff, 0xff,
    ],
];

/// Options of a Linux SYN: MSS, SACK permitted, timestamps, window scale 7.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// Seeds of a fuzz target, with names.
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let prefixes: Vec<&[u8]> = match target {
        "rewrite" => PREFIXES.iter().map(|prefix| &prefix[..]).collect(),
        _ => vec![&[]],
    };
    let mut seeds = Vec::new();
    for (number, prefix) in prefixes.iter().enumerate() {
        for (name, frame) in frames() {
            seeds.push((format!("{name}-{number}"), [prefix, &frame[..]].concat()));
        }
    }
    seeds
}

/// The frames, with names.
pub fn frames() -> Vec<(String, Vec<u8>)> {
    let mut frames = Vec::new();
    for six in [false, true] {
        for (shape, header) in headers(six) {
            for (content, protocol, payload) in payloads(&header) {
                for (tagged, tag) in [("", None), ("vlan-", Some(0x2064))] {
                    let packet = header.packet(protocol, &payload);
                    let family = if six { "ipv6" } else { "ipv4" };
                    let name = format!("{tagged}{family}-{shape}-{content}");
                    frames.push((name, frame(tag, &packet)));
                }
            }
        }
    }
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    frames.push(("arp".to_owned(), arp));
    let mut padded = frame(None, &Header::new(false).packet(17, &udp((53, 9), true, b"x")));
    padded.resize(60, 0xee);
    frames.push(("ipv4-udp-padded".to_owned(), padded));
    frames
}

/// Shapes of IP headers.
fn headers(six: bool) -> Vec<(&'static str, Header)> {
    let plain = Header::new(six);
    let fragment = |offset, more| Header { fragment: Some((offset, more)), ..plain.clone() };
    let mut headers = vec![
        ("plain", plain.clone()),
        ("first", fragment(0, true)),
        ("middle", fragment(3, true)),
        ("last", fragment(3, false)),
    ];
    if six {
        let one = vec![(60, vec![1, 4, 0, 0, 0, 0])];
        let three = vec![
            (0, vec![5, 2, 0, 0, 1, 0]),
            (43, vec![0, 0, 0, 0, 0, 0]),
            (60, vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        headers.push(("options", Header { extensions: one, ..plain.clone() }));
        headers.push(("extensions", Header { extensions: three.clone(), ..plain.clone() }));
        let first = Header { extensions: three, ..fragment(0, true) };
        headers.push(("extensions-first", first));
    } else {
        let options = vec![1, 1, 1, 0];
        headers.push(("options", Header { options, ..plain.clone() }));
        let mut most = vec![7, 39, 4];
        most.resize(40, 0);
        headers.push(("most-options", Header { options: most, ttl: 1, tos: 0xb8, ..plain }));
    }
    headers
}

/// What a header carries, with name and protocol.
fn payloads(header: &Header) -> Vec<(&'static str, u8, Vec<u8>)> {
    let ports = (49152, 80);
    let quic = [0x43, 0x47, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    let mut payloads = vec![
        ("tcp-syn", 6, tcp(ports, 0x02, &SYN_OPTIONS, &[])),
        ("tcp-data", 6, tcp(ports, 0x18, &[], b"GET / HTTP/1.1\r\n\r\n")),
        ("tcp-fin", 6, tcp(ports, 0x11, &[], &[])),
        ("udp", 17, udp(ports, true, b"a datagram")),
        ("udp-unchecked", 17, udp(ports, false, b"a datagram")),
        ("udp-quic", 17, udp(ports, true, &quic)),
    ];
    let plain = Header { fragment: None, ..header.turned() };
    let quoted = |protocol, payload: &[u8]| right(&plain.packet(protocol, payload));
    let (segment, datagram) =
        (tcp((80, 49152), 0x18, &[], b"data"), udp((80, 49152), true, b"data"));
    let (whole, udp) = (quoted(6, &segment), quoted(17, &datagram));
    let cut = whole[..whole.len() - segment.len() + 8].to_vec();
    if header.six {
        payloads.extend([
            ("icmp-echo", 58, icmp(128, 0, 1, b"ping")),
            ("icmp-too-big", 58, icmp(2, 0, 1280, &whole)),
            ("icmp-unreachable", 58, icmp(1, 4, 0, &udp)),
            ("icmp-time-exceeded", 58, icmp(3, 0, 0, &cut)),
        ]);
    } else {
        payloads.extend([
            ("icmp-echo", 1, icmp(8, 0, 1, b"ping")),
            ("icmp-too-big", 1, icmp(3, 4, 1400, &whole)),
            ("icmp-unreachable", 1, icmp(3, 3, 0, &udp)),
            ("icmp-time-exceeded", 1, icmp(11, 0, 0, &cut)),
        ]);
    }
    payloads
}
