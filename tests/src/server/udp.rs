//! Requests and answers over UDP: the server stamps each answer with its version and instance.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::net::UdpSocket;

use super::ServerSpec;

/// How a request begins. What begins otherwise gets no answer: such datagrams are one-way traffic.
const ASK: &str = "ask ";
/// Longest request, header of the answer included.
pub(crate) const LONGEST: usize = 9000;

/// A request.
#[must_use]
pub fn question(flow: u32, number: u32) -> String {
    format!("{ASK}{flow} {number}")
}

/// A request of at least so many bytes, no part of which is like another.
#[must_use]
pub fn long_question(flow: u32, number: u32, length: usize) -> String {
    let mut text = question(flow, number);
    let mut word = 0;
    while text.len() < length {
        word += 1;
        let _ = write!(text, " {number}.{word}");
    }
    // ASCII, so that this is no character's middle.
    text.truncate(length.max(question(flow, number).len()));
    text
}

/// The answer of a server to a request; none to other datagrams.
fn answer(spec: &ServerSpec, request: &[u8]) -> Option<Vec<u8>> {
    request.starts_with(ASK.as_bytes()).then(|| {
        let stamp = format!("{} {} ", spec.version, spec.id);
        [stamp.as_bytes(), request].concat()
    })
}

/// Version and instance of an answer to `request`; `None`: it answers another request.
///
/// # Errors
/// It is no answer of our server.
pub fn stamped(answer: &[u8], request: &str) -> Result<Option<(String, String)>> {
    let text = str::from_utf8(answer).context("an answer that is no text")?;
    let mut parts = text.splitn(3, ' ');
    let (Some(version), Some(instance), Some(echo)) = (parts.next(), parts.next(), parts.next())
    else {
        bail!("no answer of our server: {text:?}");
    };
    if !echo.starts_with(ASK) {
        bail!("no answer of our server: {text:?}");
    }
    Ok((echo == request).then(|| (version.to_owned(), instance.to_owned())))
}

/// Binds a socket.
///
/// # Errors
/// The address cannot be bound.
pub(super) async fn bind(address: SocketAddr) -> Result<UdpSocket> {
    UdpSocket::bind(address).await.with_context(|| format!("cannot bind {address}/udp"))
}

/// Answers for ever.
pub(super) async fn serve(socket: UdpSocket, spec: Arc<ServerSpec>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, peer)) => {
                if let Some(answer) = answer(&spec, &buffer[..length]) {
                    // Peers that are gone are their own business.
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
            // An ICMP error about an answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => eprintln!("{}: udp: {error}", spec.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_their_server_and_their_request() {
        let (tcp, udp) = (Vec::new(), Vec::new());
        let spec = ServerSpec { tcp, udp, version: "v1".into(), id: "v1-1".into() };
        let answer = answer(&spec, question(7, 3).as_bytes()).unwrap();
        let owner = Some(("v1".to_owned(), "v1-1".to_owned()));
        assert_eq!(stamped(&answer, &question(7, 3)).unwrap(), owner);
        assert_eq!(stamped(&answer, &question(7, 2)).unwrap(), None, "a late answer");
        assert_eq!(long_question(7, 3, 0), question(7, 3));
        let long = long_question(7, 3, 4000);
        assert!(long.len() == 4000 && long.starts_with(&question(7, 3)), "{long}");
        assert!(stamped(b"v1 v1-1 hello", &question(7, 3)).is_err());
        assert!(super::answer(&spec, b"hello").is_none());
    }
}
