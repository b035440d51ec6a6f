//! The smallest HTTP client for tests that need one request on a connection they hold themselves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::netns::Netns;

/// An answer of our test server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// Header `x-version`.
    pub version: String,
    /// Header `x-instance`.
    pub instance: String,
    /// Header `x-connection`: number of the connection in its server process.
    pub connection: u64,
    /// The body.
    pub body: String,
}

/// One GET on a connection of its own, closed by us afterwards.
///
/// # Errors
/// No connection, no answer within `deadline`, or no answer of our server.
pub fn get(from: &Netns, to: SocketAddr, path: &str, deadline: Duration) -> Result<Reply> {
    let mut stream = from.connect(to, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    request(&mut stream, path)
}

/// One GET on a connection that stays open. Only for answers with a `content-length`, so not for
/// streams. The stream's own read timeout applies.
///
/// # Errors
/// The connection breaks, or the answer is none of our server's.
pub fn request(stream: &mut TcpStream, path: &str) -> Result<Reply> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").context("cannot send")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).context("cannot receive")? == 0 {
            bail!("connection closed after {} bytes of the answer", head.len());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).context("head is not text")?;
    let length: usize = header(&head, "content-length")?.parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).context("body is cut")?;
    parse(&head, String::from_utf8(body)?)
}

fn parse(head: &str, body: String) -> Result<Reply> {
    let status = head.split_whitespace().nth(1).ok_or_else(|| anyhow!("no status in {head:?}"))?;
    Ok(Reply {
        status: status.parse()?,
        version: header(head, "x-version")?.to_owned(),
        instance: header(head, "x-instance")?.to_owned(),
        connection: header(head, "x-connection")?.parse()?,
        body,
    })
}

fn header<'a>(head: &'a str, name: &str) -> Result<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .ok_or_else(|| anyhow!("no header {name} in {head:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let head = "HTTP/1.1 200 OK\r\nX-Version: v1\r\nx-instance: a\r\nx-connection: 7\r\n\r\n";
        let reply = parse(head, String::new()).unwrap();
        assert_eq!((reply.status, reply.connection), (200, 7));
        assert_eq!((reply.version.as_str(), reply.instance.as_str()), ("v1", "a"));
        assert!(header(head, "content-length").is_err());
    }
}
