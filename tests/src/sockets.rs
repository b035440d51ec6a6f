//! What the standard library does not offer for TCP sockets: a chosen source address, a close by
//! RST or without a word, and the numbers of a connection.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, bind,
    connect, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Opens a connection from a given address (port 0: any). Runs in the calling thread's namespace.
///
/// # Errors
/// The address is not ours, the connection is refused or not there within `deadline`.
pub fn connect_from(
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
    deadline: Duration,
) -> io::Result<TcpStream> {
    let (from, to) = (from.into(), to.into());
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if from.port() == 0 {
        choose_port_late(&fd)?;
    } else {
        // The port may be in use towards other destinations.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
    // A blocking connect obeys the timeout for sending; EINPROGRESS then means that it ran out.
    let seconds = i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX);
    set_send_timeout(&fd, TimeVal::new(seconds, i64::from(deadline.subsec_micros())))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    set_send_timeout(&fd, TimeVal::new(0, 0))?;
    Ok(TcpStream::from(fd))
}

/// Lets the kernel choose the port at connect time, when it knows the whole 4-tuple: a port is then
/// free for each destination apart (`IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// None that is known on supported kernels.
pub fn choose_port_late(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?)
}

/// Closes by RST instead of FIN, whatever has been sent or received.
///
/// # Errors
/// The socket refuses the option.
pub fn abort(stream: TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger)?;
    drop(stream);
    Ok(())
}

/// Sends FIN and keeps receiving: a half-closed connection.
///
/// # Errors
/// The connection is gone.
pub fn half_close(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)
}

/// What one end of a connection counts by (RFC 9293 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Of the next byte that it will send.
    pub next: u32,
    /// Of the next byte that it expects.
    pub expected: u32,
}

/// The numbers of a connection's end, as its kernel has them (`TCP_REPAIR`).
///
/// # Errors
/// No root, or no connection.
pub fn numbers(stream: &TcpStream) -> io::Result<Numbers> {
    // linux/tcp.h: the queues that can be asked about, and the way back that sends nothing.
    const RECEIVED: libc::c_int = 1;
    const SENT: libc::c_int = 2;
    const OFF: libc::c_int = -1;
    let of = |queue: libc::c_int| -> io::Result<u32> {
        option(stream, libc::TCP_REPAIR_QUEUE, queue)?;
        let mut number = 0_u32;
        let mut length: libc::socklen_t = 4;
        // SAFETY: the kernel writes at most the four bytes that are ours.
        let got = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_QUEUE_SEQ,
                (&raw mut number).cast(),
                &raw mut length,
            )
        };
        if got == 0 { Ok(number) } else { Err(io::Error::last_os_error()) }
    };
    option(stream, libc::TCP_REPAIR, 1)?;
    let numbers = of(SENT).and_then(|next| Ok(Numbers { next, expected: of(RECEIVED)? }));
    option(stream, libc::TCP_REPAIR, OFF)?;
    numbers
}

/// Forgets a connection without a word to its other end, as a host does that lost its power.
///
/// # Errors
/// No root.
pub fn forget(stream: TcpStream) -> io::Result<()> {
    option(&stream, libc::TCP_REPAIR, 1)?;
    drop(stream);
    Ok(())
}

fn option(stream: &TcpStream, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: an integer of the length given, alive during the call.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_send_timeout(fd: &OwnedFd, timeout: TimeVal) -> io::Result<()> {
    Ok(setsockopt(fd, sockopt::SendTimeout, &timeout)?)
}

/// Sends an IPv4 packet as it is, header included. Runs in the calling thread's namespace.
///
/// # Errors
/// No root, no route.
pub fn send_packet(packet: &[u8], to: Ipv4Addr) -> io::Result<()> {
    let raw = SockProtocol::Raw;
    let fd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, raw)?;
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    sendto(fd.as_raw_fd(), packet, &to, MsgFlags::empty())?;
    Ok(())
}

/// Sends an ICMP echo request with `data` and returns the data of the reply; what is larger than
/// the MTU travels in fragments. Runs in the calling thread's namespace, whose
/// `net.ipv4.ping_group_range` must let us.
///
/// # Errors
/// No permission, no route, no reply within `deadline`.
pub fn echo(to: SocketAddr, data: &[u8], deadline: Duration) -> io::Result<Vec<u8>> {
    // RFC 792 and RFC 4443 §4.1: type, code, checksum, identifier, sequence number. The kernel
    // fills in checksum and identifier.
    const HEADER: usize = 8;
    let (family, protocol, request, reply) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(deadline))?;
    socket.connect(to)?;
    let mut packet = vec![request, 0, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(data);
    socket.send(&packet)?;
    let mut buffer = vec![0; packet.len() + 1];
    let length = socket.recv(&mut buffer)?;
    if length < HEADER || buffer[0] != reply {
        return Err(io::Error::other(format!("{length} bytes of type {}", buffer[0])));
    }
    Ok(buffer[HEADER..length].to_vec())
}
