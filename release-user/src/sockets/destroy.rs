//! Ending a socket from outside (`SOCK_DESTROY`): its process gets ECONNABORTED, the other end a
//! RST.

use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::ask::{ALL_TCP, LISTEN, list};
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

/// Ends the one connection in `namespace` that has these ends; never a listener.
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
            let found = list(&target, ALL_TCP & !LISTEN, Some(remote.port()))?;
            let is_it = |end: SocketAddr| (end.ip().to_canonical(), end.port());
            let found = found.iter().find(|found| is_it(found.remote) == is_it(remote));
            let found = found.ok_or(ExchangeError::Refused(Errno::ENOENT))?;
            let request = Message::Request(Request::destroy(protocol.number(), found));
            exchange(SockProtocol::NetlinkSockDiag, request, ACKNOWLEDGE).map(drop)
        })?
        .map_err(|error| match error {
            ExchangeError::Refused(Errno::ENOENT | Errno::ESTALE) => DestroyError::NoSuchSocket,
            ExchangeError::Refused(Errno::EOPNOTSUPP) => DestroyError::Unsupported,
            ExchangeError::Refused(Errno::EPERM | Errno::EACCES) => DestroyError::NotAllowed,
            error => DestroyError::Kernel(error),
        })
}
