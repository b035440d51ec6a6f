//! What a socket is told by ICMP: the error queue (`IP_RECVERR`), which unlike an errno says who
//! has sent the error and about what.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

/// An ICMP error as the kernel hands it to the socket that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What a system call would fail with.
    pub errno: i32,
    /// ICMP type and code.
    pub icmp: (u8, u8),
    /// The MTU, if it is about that.
    pub info: u32,
    /// Who has sent it.
    pub by: IpAddr,
    /// Where the packet that it is about was going.
    pub about: SocketAddr,
}

/// A UDP socket that is told of errors.
#[derive(Debug)]
pub struct Listening<'a>(&'a UdpSocket);

impl<'a> Listening<'a> {
    /// Asks the kernel to queue errors from now on.
    ///
    /// # Errors
    /// None that is known.
    pub fn new(socket: &'a UdpSocket) -> Result<Self> {
        if socket.local_addr()?.is_ipv4() {
            setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        }
        Ok(Self(socket))
    }

    /// The next error.
    ///
    /// # Errors
    /// There is none within `deadline`.
    pub fn next(&self, deadline: Duration) -> Result<Told> {
        let timeout = i32::try_from(deadline.as_millis())?;
        let fd = self.0.as_raw_fd();
        let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
        // SAFETY: one valid pollfd, alive and exclusively ours during the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
        ensure!(ready >= 0, "poll: {}", io::Error::last_os_error());
        ensure!(ready == 1, "no ICMP error within {deadline:?}");

        let (mut data, mut control) = ([0; 2048], nix::cmsg_space!([u8; 128]));
        let mut parts = [IoSliceMut::new(&mut data)];
        let flags = MsgFlags::MSG_ERRQUEUE;
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)
            .context("error queue")?;
        let about = message.address.as_ref().and_then(socket_address).context("about nothing")?;
        for control in message.cmsgs()? {
            let (error, by): (_, IpAddr) = match control {
                ControlMessageOwned::Ipv4RecvErr(error, Some(by)) => {
                    (error, Ipv4Addr::from(u32::from_be(by.sin_addr.s_addr)).into())
                }
                ControlMessageOwned::Ipv6RecvErr(error, Some(by)) => {
                    (error, Ipv6Addr::from(by.sin6_addr.s6_addr).into())
                }
                _ => continue,
            };
            let (errno, icmp) = (i32::try_from(error.ee_errno)?, (error.ee_type, error.ee_code));
            return Ok(Told { errno, icmp, info: error.ee_info, by, about });
        }
        bail!("an error that nobody has sent")
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}
