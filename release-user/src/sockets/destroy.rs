//! Ending a socket from outside (`SOCK_DESTROY`): its process gets ECONNABORTED, the other end a
//! RST.

use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::ask::{ALL_TCP, LISTEN, TIME_WAIT, list};
use super::diag::{Message, Request};
use super::summary::Target;
use crate::config::Protocol;
use crate::net::exchange::{ACKNOWLEDGE, ExchangeError, exchange};
use crate::net::namespace::{Namespace, NamespaceError};

/// Why a socket lives on.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// The namespace is gone, or closed to us.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is none.
    #[error("no such socket")]
    NoSuchSocket,
    /// This kernel cannot do it.
    #[error("this kernel cannot end sockets (it was built without CONFIG_INET_DIAG_DESTROY)")]
    Unsupported,
    /// This process may not.
    #[error("not allowed to end sockets (CAP_NET_ADMIN)")]
    NotAllowed,
    /// The kernel's word.
    #[error("sock_diag: {0}")]
    Kernel(ExchangeError),
}

/// Ends the one connection in `namespace` that has these ends; never a listener, nor what is left of
/// a connection that has ended.
///
/// # Errors
/// There is none, or the kernel does not do it.
pub fn destroy(
    namespace: &Namespace,
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<(), DestroyError> {
    let target = Target { address: local, protocol };
    namespace
        .run(|| {
            let found = list(&target, ALL_TCP & !LISTEN & !TIME_WAIT, Some(remote.port()))?;
            let is_it = |end: SocketAddr| (end.ip().to_canonical(), end.port());
            let found = found.iter().find(|found| is_it(found.remote) == is_it(remote));
            let found = found.ok_or(ExchangeError::Refused(Errno::ENOENT))?;
            request(Request::destroy(protocol.number(), found))
        })?
        .map_err(DestroyError::from)
}

/// Whether this kernel ends TCP sockets.
///
/// # Errors
/// Why not.
pub fn is_supported() -> Result<(), DestroyError> {
    match request(Request::destroy_nothing(Protocol::Tcp.number())).map_err(DestroyError::from) {
        Ok(()) | Err(DestroyError::NoSuchSocket) => Ok(()),
        Err(error) => Err(error),
    }
}

fn request(request: Request) -> Result<(), ExchangeError> {
    exchange(SockProtocol::NetlinkSockDiag, Message::Request(request), ACKNOWLEDGE).map(drop)
}

impl From<ExchangeError> for DestroyError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(Errno::ENOENT | Errno::ESTALE) => Self::NoSuchSocket,
            ExchangeError::Refused(Errno::EOPNOTSUPP) => Self::Unsupported,
            ExchangeError::Refused(Errno::EPERM | Errno::EACCES) => Self::NotAllowed,
            error => Self::Kernel(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that knows the request looks for the socket first; both answers say what they are.
    #[test]
    fn asking_whether_it_can_ends_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        match is_supported() {
            Ok(()) | Err(DestroyError::Unsupported) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(listener.accept().is_ok());
        assert!(client.take_error().unwrap().is_none());
    }
}
