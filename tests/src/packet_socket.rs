//! Sockets that see and send whole frames (`AF_PACKET`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use crate::netns::Netns;

/// Memory for frames that nobody has read yet.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// A socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Receives every frame that comes in by an interface, as it leaves the interface's XDP
    /// program; not those that go out.
    ///
    /// # Errors
    /// No root, no such interface.
    pub fn receiver(namespace: &Netns, device: &str) -> Result<Self> {
        let socket = Self::open(namespace, device, libc::ETH_P_ALL)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
        Ok(socket)
    }

    /// Sends frames out of an interface, past its queueing discipline.
    ///
    /// # Errors
    /// No root, no such interface.
    pub fn sender(namespace: &Netns, device: &str) -> Result<Self> {
        let socket = Self::open(namespace, device, 0)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        Ok(socket)
    }

    /// A socket for frames of a protocol (0: none come in).
    fn open(namespace: &Netns, device: &str, protocol: libc::c_int) -> Result<Self> {
        let protocol = u16::try_from(protocol)?.to_be();
        let opened = namespace.enter(|| -> Result<Self> {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            // SAFETY: takes integers only. Without a protocol nothing comes in before the bind.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error().into());
            }
            // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
            let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
            socket.bind(if_nametoindex(device)?, protocol)?;
            Ok(socket)
        })?;
        opened.with_context(|| format!("packet socket on {device} in {}", namespace.name()))
    }

    fn bind(&self, index: u32, protocol: u16) -> Result<()> {
        // SAFETY: all zeros is a valid value of this plain C structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_protocol = protocol;
        address.sll_ifindex = i32::try_from(index)?;
        let length = libc::socklen_t::try_from(size_of_val(&address))?;
        // SAFETY: a valid address of the length given, alive during the call.
        let bound = unsafe { libc::bind(self.as_raw_fd(), (&raw const address).cast(), length) };
        check(bound).map(drop)
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<()> {
        let length = libc::socklen_t::try_from(size_of_val(&value))?;
        let value = &raw const value;
        // SAFETY: an integer of the length given, alive during the call.
        let set =
            unsafe { libc::setsockopt(self.as_raw_fd(), level, option, value.cast(), length) };
        check(set).map(drop)
    }

    /// The next frame that has come in, if there is one; longer ones are cut at the buffer's end.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the kernel writes at most `length` bytes into the buffer, which is ours.
        let got = unsafe { libc::recv(self.as_raw_fd(), start.cast(), length, libc::MSG_DONTWAIT) };
        match usize::try_from(got) {
            Ok(got) => Ok(Some(&buffer[..got])),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error.into()),
            },
        }
    }

    /// Frames that came in and found no room, since the last call.
    ///
    /// # Errors
    /// None that is known.
    pub fn lost(&self) -> Result<u64> {
        // SAFETY: all zeros is a valid value of this plain C structure.
        let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&statistics))?;
        // SAFETY: a structure of the length given, exclusively ours during the call.
        let got = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        check(got)?;
        Ok(statistics.tp_drops.into())
    }

    /// Sends frames and returns how many the interface took; a full queue ends the batch.
    ///
    /// # Errors
    /// The interface is gone or down.
    pub fn send(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all zeros is a valid value of this plain C structure.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = ptr::from_mut(part);
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let count = libc::c_uint::try_from(messages.len())?;
        // SAFETY: each message points to one part, each part to a frame; all live until the end of
        // the call, which only reads the frames.
        let sent = unsafe { libc::sendmmsg(self.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
                error => Err(error).context("cannot send frames"),
            },
        }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// MAC address of an interface.
///
/// # Errors
/// There is no such interface.
pub fn mac(namespace: &Netns, device: &str) -> Result<[u8; 6]> {
    let text = namespace.ip(&format!("link show {device}"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
    let parsed: Result<Vec<u8>, _> = words
        .nth(1)
        .with_context(|| format!("no MAC address in {text:?}"))?
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    parsed?.try_into().map_err(|bytes| anyhow::anyhow!("a MAC address of {bytes:?}"))
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(result) }
}
