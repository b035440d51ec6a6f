//! Made packets: the first of a connection, as a client would send it. Checksums are not looked at
//! by anybody and left 0.

use std::net::{IpAddr, SocketAddr};

use release_common::abi::IPPROTO_TCP;
use release_common::packet::{ETHERNET, TCP_HEADER, UDP_HEADER, flag};

use crate::kernel::Tuple;

/// Bytes of data in a made datagram.
const DATA: usize = 16;
const TTL: u8 = 64;

/// A SYN, or a datagram, in an Ethernet frame. `None`: the ends are of different families.
pub fn first_packet(tuple: &Tuple) -> Option<Vec<u8>> {
    let transport = transport(tuple);
    let mut frame = vec![0; ETHERNET];
    let len = transport.len() as u16;
    match (tuple.client.ip(), tuple.frontend.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            let [high, low] = (len + 20).to_be_bytes();
            frame.extend([0x45, 0, high, low, 0, 0, 0x40, 0, TTL, tuple.proto, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            let [high, low] = len.to_be_bytes();
            frame.extend([0x60, 0, 0, 0, high, low, tuple.proto, TTL]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => return None,
    }
    frame.extend(transport);
    Some(frame)
}

fn transport(tuple: &Tuple) -> Vec<u8> {
    let port = |socket: SocketAddr| socket.port().to_be_bytes();
    let mut bytes = [port(tuple.client), port(tuple.frontend)].concat();
    if tuple.proto == IPPROTO_TCP {
        bytes.resize(TCP_HEADER, 0);
        bytes[12] = (TCP_HEADER as u8 / 4) << 4;
        bytes[13] = flag::SYN;
    } else {
        bytes.extend(((UDP_HEADER + DATA) as u16).to_be_bytes());
        bytes.resize(UDP_HEADER + DATA, 0);
    }
    bytes
}
