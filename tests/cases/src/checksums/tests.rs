//! Every byte counts: a frame with any byte of it flipped is wrong, unless the byte is one that no
//! checksum covers.

use std::net::SocketAddr;

use super::*;
use crate::packets;

const PAIRS: [(&str, &str); 2] =
    [("10.1.0.2:4000", "10.1.0.100:80"), ("[fd00:1::2]:4000", "[fd00:1::100]:80")];

fn pair(at: usize) -> (SocketAddr, SocketAddr) {
    (PAIRS[at].0.parse().unwrap(), PAIRS[at].1.parse().unwrap())
}

fn checked(packet: &[u8]) -> Result<Seen, String> {
    let mut seen = Seen::default();
    frame(&packets::frame([2; 6], [4; 6], packet), &mut seen).map(|()| seen)
}

/// Packets of both families with TCP and UDP, alone and in tunnels of both.
fn packets_of_all_kinds() -> Vec<Vec<u8>> {
    let mut plain = Vec::new();
    for (from, to) in [pair(0), pair(1)] {
        plain.push(packets::tcp(from, to, 0x18, 77, b"odd"));
        plain.push(packets::udp(from, to, b"even"));
    }
    let mut all = plain.clone();
    for (from, to) in [pair(0), pair(1)] {
        all.extend(plain.iter().map(|inner| packets::ip_in_ip(from.ip(), to.ip(), inner)));
        all.extend(plain.iter().map(|inner| packets::gue(from.ip(), to.ip(), inner)));
    }
    all
}

#[test]
fn right_ones_are_right() {
    for packet in packets_of_all_kinds() {
        let seen = checked(&packet).unwrap();
        assert!(seen.tcp + seen.udp > 0 && seen.others == 0, "{seen:?}");
    }
    assert_eq!(
        packets_of_all_kinds().iter().filter(|p| checked(p).unwrap().tunnelled == 1).count(),
        16
    );
}

/// RFC 1071's own example of a sum.
#[test]
fn the_sum_is_that_of_the_rfc() {
    assert_eq!(internet(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
}

#[test]
fn a_flipped_bit_is_found() {
    for packet in packets_of_all_kinds() {
        // The transport's payload is covered in every kind.
        let last = packet.len() - 1;
        let mut broken = packet.clone();
        broken[last] ^= 0x10;
        checked(&broken).unwrap_err();
        if packet[0] >> 4 == 4 {
            for at in 1..20 {
                let mut broken = packet.clone();
                broken[at] ^= 0x04;
                checked(&broken).unwrap_err();
            }
        } else {
            // Source and destination are in the pseudo-header, unless it is IP in IP.
            let covered = !matches!(packet[6], protocol::IPV4 | protocol::IPV6);
            for at in 8..40 {
                let mut broken = packet.clone();
                broken[at] ^= 0x04;
                assert_eq!(checked(&broken).is_err(), covered, "byte {at}");
            }
        }
    }
}

#[test]
fn no_udp_checksum_over_ipv4_only() {
    let without = |mut packet: Vec<u8>, at: usize| {
        packet[at..at + 2].fill(0);
        checked(&packet)
    };
    let (from, to) = pair(0);
    assert_eq!(without(packets::udp(from, to, b"x"), 26).unwrap().udp_without, 1);
    let inner = packets::udp(from, to, b"x");
    let (from, to) = pair(1);
    without(packets::udp(from, to, b"x"), 46).unwrap_err();
    // RFC 6935: but in a tunnel's outer header.
    let seen = without(packets::gue(from.ip(), to.ip(), &inner), 46).unwrap();
    assert_eq!((seen.udp_without, seen.udp, seen.tunnelled), (1, 1, 1));
}

#[test]
fn padding_is_no_part_of_a_packet() {
    let (from, to) = pair(0);
    let mut packet = packets::udp(from, to, b"x");
    packet.extend([0x55; 17]);
    assert_eq!(checked(&packet).unwrap().udp, 1);
}

#[test]
fn cut_frames_are_wrong() {
    for packet in packets_of_all_kinds() {
        for length in 1..packet.len() {
            checked(&packet[..length]).unwrap_err();
        }
    }
}
