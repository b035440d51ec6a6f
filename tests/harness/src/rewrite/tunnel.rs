//! Packets in packets: the inner one untouched, the outer one byte for byte as expected.

use release_common::packet::Ip;
use release_common::packet::tunnel::{Tunnel, encapsulate};

use super::{Case, address, ethernet, fresh};
use crate::buffer::{self, HEAD_ROOM};

/// MAC addresses of next hop and interface.
const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]);

pub(super) fn check<A: Ip, B: Ip>(case: &Case<'_, A>, prefix: &[u8]) {
    let destination_port = u16::from_be_bytes([prefix[34], prefix[35]]);
    for source_port in [0, 0xc000 | u16::from_be_bytes([prefix[32], prefix[33]])] {
        let tunnel = Tunnel::<B> {
            source: address(&prefix[..16]),
            destination: address(&prefix[16..32]),
            source_port,
            destination_port,
        };
        let run = |room| {
            buffer::with(case.frame, room, |packet| {
                encapsulate(packet, &case.headers, &tunnel, MACS)
            })
        };
        let (done, after) = run(HEAD_ROOM);
        assert_eq!(done, Some(()), "there is room");
        assert_eq!(after, expected(case, &tunnel), "tunnel {tunnel:?}");
        assert_eq!(after.len(), case.frame.len() + tunnel.overhead(), "overhead");
        let (done, after) = run(tunnel.overhead() - 1);
        assert_eq!((done, &after[..]), (None, case.frame), "without room nothing happens");
    }
}

fn expected<A: Ip, B: Ip>(case: &Case<'_, A>, tunnel: &Tunnel<B>) -> Vec<u8> {
    let ethertype = if B::VERSION == 4 { 0x0800 } else { 0x86dd };
    let ethernet = ethernet(case, [&MACS.0, &MACS.1], ethertype);
    let ends = (tunnel.source, tunnel.destination);
    let (inner, len) = (&case.frame[case.ip.at..], case.ip.len);
    if tunnel.source_port == 0 {
        let protocol = if A::VERSION == 4 { 4 } else { 41 };
        return [&ethernet, &fresh(ends, protocol, case.ip.tos, len), inner].concat();
    }
    let words = [tunnel.source_port, tunnel.destination_port, len as u16 + 8, 0];
    let udp: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    [&ethernet, &fresh(ends, 17, case.ip.tos, len + 8), &udp, inner].concat()
}
