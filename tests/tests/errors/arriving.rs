//! What arrives at an interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use release_tests::frames::{self, ends};
use release_tests::netns::Netns;
use release_tests::packet_socket::PacketSocket;

const ETHERNET: usize = 14;
const LONGEST: usize = 65_600;

/// Frames that came in by an interface, as its XDP program let them through.
#[derive(Debug)]
pub struct Arriving(PacketSocket);

/// An ICMP error that says "too big".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooBig {
    pub from: IpAddr,
    pub to: IpAddr,
    pub mtu: u32,
    /// Ends of the packet that was.
    pub about: (SocketAddr, SocketAddr),
}

/// The TCP segments of one direction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of the largest IP packet.
    pub largest: usize,
    /// How many were as large.
    pub full: usize,
}

impl Arriving {
    pub fn at(namespace: &Netns, device: &str) -> Result<Self> {
        Ok(Self(PacketSocket::receiver(namespace, device)?))
    }

    /// All frames until now.
    pub fn take(&self) -> Result<Vec<Vec<u8>>> {
        let (mut buffer, mut all) = (vec![0; LONGEST], Vec::new());
        while let Some(frame) = self.0.receive(&mut buffer)? {
            all.push(frame.to_vec());
        }
        ensure!(self.0.lost()? == 0, "frames were not seen");
        Ok(all)
    }
}

/// The segments from one end to the other, none of which may be fragmented on the way.
pub fn segments(frames: &[Vec<u8>], from: SocketAddr, to: SocketAddr) -> Result<Segments> {
    let mut found = Segments::default();
    for frame in frames.iter().filter(|frame| ends(frame) == Some((from, to))) {
        let packet = &frame[ETHERNET..];
        // All of IPv6 is as if it had DF (RFC 791 §3.1).
        ensure!(packet[0] >> 4 == 6 || packet[6] & 0xe0 == 0x40, "not DF: {:x?}", &packet[..20]);
        match packet.len().cmp(&found.largest) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => found.full += 1,
            std::cmp::Ordering::Greater => found = Segments { largest: packet.len(), full: 1 },
        }
    }
    Ok(found)
}

/// The errors of the kind among frames; their checksums must be right.
pub fn too_big(frames: &[Vec<u8>]) -> Result<Vec<TooBig>> {
    let found = frames.iter().filter_map(|frame| Some((frame, read(frame)?)));
    found
        .map(|(frame, error)| {
            frames::verify(frame).map_err(anyhow::Error::msg)?;
            Ok(error)
        })
        .collect()
}

/// RFC 792 with RFC 1191 §4; RFC 4443 §3.2. Without options or extensions.
fn read(frame: &[u8]) -> Option<TooBig> {
    let packet = frame.get(ETHERNET..)?;
    let (from, to, icmp): (IpAddr, IpAddr, _) = if packet.first()? >> 4 == 4 {
        let address = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
        let icmp = packet.get(20..)?;
        if packet[9] != 1 || icmp.get(..2)? != [3, 4] {
            return None;
        }
        (Ipv4Addr::from(address(12)?).into(), Ipv4Addr::from(address(16)?).into(), icmp)
    } else {
        let address = |at: usize| -> Option<[u8; 16]> { packet.get(at..at + 16)?.try_into().ok() };
        let icmp = packet.get(40..)?;
        if packet[6] != 58 || icmp.get(..2)? != [2, 0] {
            return None;
        }
        (Ipv6Addr::from(address(8)?).into(), Ipv6Addr::from(address(24)?).into(), icmp)
    };
    let mtu = u32::from_be_bytes(icmp.get(4..8)?.try_into().ok()?);
    let about = ends(&[&frame[..ETHERNET], icmp.get(8..)?].concat())?;
    Some(TooBig { from, to, mtu, about })
}

/// The MTU on the way to an address that a host has learnt, or knows.
pub fn path_mtu(namespace: &Netns, to: IpAddr) -> Result<Option<usize>> {
    let route = namespace.ip(&format!("route get {to}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    match words.nth(1) {
        None => Ok(None),
        Some(mtu) => Ok(Some(mtu.parse().with_context(|| route.clone())?)),
    }
}
