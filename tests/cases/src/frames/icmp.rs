//! ICMP errors of both families.

use std::net::IpAddr;

use super::segment::framed;
use super::{Ipv4, OWN_MAC, PEER_MAC};
use crate::checksums::{internet, transport};

/// Kinds of errors, by what they say; type and code depend on the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The TTL was used up.
    TimeExceeded,
    /// Larger than this MTU in bytes (RFC 1191 §4, RFC 4443 §3.2).
    TooBig(u16),
    /// Nothing listens on that port.
    PortUnreachable,
    /// Nothing is at that address.
    HostUnreachable,
    /// A field of the header is wrong; the pointer's value.
    ParameterProblem(u8),
    /// IPv4: a better gateway. For hosts, not for those behind them.
    Redirect,
}

impl Error {
    /// The first four bytes without the checksum, and the next four.
    fn head(self, v4: bool) -> ([u8; 2], [u8; 4]) {
        let rest = match self {
            Self::TooBig(mtu) => u32::from(mtu).to_be_bytes(),
            Self::ParameterProblem(at) if v4 => [at, 0, 0, 0],
            Self::ParameterProblem(at) => [0, 0, 0, at],
            _ => [0; 4],
        };
        let kind = match (self, v4) {
            (Self::TimeExceeded, true) => [11, 0],
            (Self::TimeExceeded, false) => [3, 0],
            (Self::TooBig(_), true) => [3, 4],
            (Self::TooBig(_), false) => [2, 0],
            (Self::PortUnreachable, true) => [3, 3],
            (Self::PortUnreachable, false) => [1, 4],
            (Self::HostUnreachable, true) => [3, 1],
            (Self::HostUnreachable, false) => [1, 3],
            (Self::ParameterProblem(_), true) => [12, 0],
            (Self::ParameterProblem(_), false) => [4, 0],
            (Self::Redirect, true) => [5, 1],
            (Self::Redirect, false) => [137, 0],
        };
        (kind, rest)
    }
}

/// A frame with an ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Destination MAC.
    pub dmac: [u8; 6],
    /// Source MAC.
    pub smac: [u8; 6],
    /// Id of the VLAN tag, if there is one.
    pub vlan: Option<u16>,
    /// Sender.
    pub source: IpAddr,
    /// Receiver; of the same family.
    pub destination: IpAddr,
    /// Time to live.
    pub ttl: u8,
    /// What it says.
    pub error: Error,
    /// The beginning of the packet that it is about.
    pub quote: Vec<u8>,
}

impl IcmpError {
    /// An error with TTL 64.
    pub const fn new(source: IpAddr, destination: IpAddr, error: Error, quote: Vec<u8>) -> Self {
        let (dmac, smac) = (OWN_MAC, PEER_MAC);
        Self { dmac, smac, vlan: None, source, destination, ttl: 64, error, quote }
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let v4 = self.source.is_ipv4();
        let (kind, rest) = self.error.head(v4);
        let mut icmp = [&kind[..], &[0; 2], &rest, &self.quote].concat();
        let check = if v4 {
            internet(&[&icmp])
        } else {
            transport(self.source, self.destination, 58, &icmp)
        };
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        let packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4::new(source, destination, 1);
                Ipv4 { fragment: 0x4000, ttl: self.ttl, ..header }.build(&icmp)
            }
            (source, destination) => {
                let mut packet = crate::packets::ip(source, destination, 58, &icmp);
                packet[7] = self.ttl;
                packet
            }
        };
        framed(self.dmac, self.smac, self.vlan, &packet)
    }
}
