//! Whether a packet came out as it should.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use release_tests::checksums::internet;
use release_tests::frames::ends;
use release_tests::way::MACS;

/// Offsets in a frame without options: the IP header, its TTL and checksum, the ends.
const IP: usize = 14;
const TTL: usize = IP + 8;
const IP_CHECK: usize = IP + 10;
const PROTOCOL: usize = IP + 9;
const ADDRESSES: usize = IP + 12;
const TRANSPORT: usize = IP + 20;

/// Whether `out` is `frame` sent on between other ends: MACs of the way, TTL one lower, and
/// checksums that are as right, or as wrong, as they were.
///
/// # Errors
/// What is not as it should be.
pub fn sent_on(frame: &[u8], out: &[u8], between: (SocketAddr, SocketAddr)) -> Result<()> {
    ensure!(frame.len() == out.len(), "{} bytes became {}", frame.len(), out.len());
    ensure!(ends(out) == Some(between), "it goes {:?} instead of {between:?}", ends(out));
    let mut expected = frame.to_vec();
    expected[..6].copy_from_slice(&MACS.0);
    expected[6..12].copy_from_slice(&MACS.1);
    expected[TTL] -= 1;
    // Told apart already.
    let check = TRANSPORT + if frame[PROTOCOL] == 6 { 16 } else { 6 };
    for range in [IP_CHECK..IP_CHECK + 2, ADDRESSES..TRANSPORT + 4, check..check + 2] {
        expected[range.clone()].copy_from_slice(&out[range]);
    }
    if let Some(at) = expected.iter().zip(out).position(|(expected, out)| expected != out) {
        bail!("byte {at} of the frame is {:#04x} instead of {:#04x}", out[at], expected[at]);
    }
    ensure!(sums(frame) == sums(out), "checksums went wrong: {:?}", (sums(frame), sums(out)));
    Ok(())
}

/// What the checksums of the IP header and of the transport add up to: 0 if they are right.
fn sums(frame: &[u8]) -> [u16; 2] {
    let length = u16::try_from(frame.len() - TRANSPORT).unwrap_or(u16::MAX);
    let pseudo = [[0, frame[PROTOCOL]], length.to_be_bytes()].concat();
    let sum = |parts: &[&[u8]]| match internet(parts) {
        // The other zero of ones' complement.
        0xffff => 0,
        sum => sum,
    };
    [
        sum(&[&frame[IP..TRANSPORT]]),
        sum(&[&frame[ADDRESSES..TRANSPORT], &pseudo, &frame[TRANSPORT..]]),
    ]
}

#[cfg(test)]
mod tests {
    use release_tests::frames::{Segment, flags};

    use super::*;

    #[test]
    fn what_goes_on_is_told_from_what_does_not() -> Result<()> {
        let [client, frontend, instance]: [SocketAddr; 3] =
            ["192.0.2.1:40000", "198.51.100.1:80", "10.0.0.1:8080"]
                .map(|at| at.parse().unwrap_or_else(|_| unreachable!()));
        let frame = Segment::tcp(client, frontend, flags::ACK).data(10).build();
        let to = Segment {
            ttl: 63,
            dmac: MACS.0,
            smac: MACS.1,
            ..Segment::tcp(client, instance, flags::ACK)
        };
        let out = to.data(10).build();
        assert_eq!(sums(&frame), [0, 0]);
        sent_on(&frame, &out, (client, instance))?;
        assert!(sent_on(&frame, &out, (client, frontend)).is_err());
        for at in 0..out.len() {
            let mut wrong = out.clone();
            wrong[at] ^= 1;
            assert!(sent_on(&frame, &wrong, (client, instance)).is_err(), "byte {at}");
        }
        Ok(())
    }
}
