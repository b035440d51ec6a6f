//! One check of one instance.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, header};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Check;
use crate::net::http::exchange;
use crate::release::hook::{self, Outcome};

/// Errors of this host's, not the instance's: out of descriptors, memory or ports.
const OURS: [i32; 5] =
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL];
/// How a hook says that there was none.
const NOT_RUN: &str = "cannot be run: ";

/// Why a check did not succeed, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The instance is not able to serve.
    Instance(String),
    /// It could not be asked, which says nothing about it.
    Ours(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Instance(why) | Self::Ours(why) => f.write_str(why),
        }
    }
}

/// Asks once.
///
/// # Errors
/// Why it is not able to serve, or could not be asked.
pub async fn probe(
    check: &Check,
    instance: &str,
    address: SocketAddr,
    limit: Duration,
) -> Result<(), Failure> {
    let asked = async {
        match check {
            Check::Tcp => connect(address).await.map(drop),
            Check::Http(path) => get(address, path).await,
            Check::Exec(argv) => run(argv, instance, address, limit).await,
        }
    };
    let after = || format!("no answer within {}", humantime::format_duration(limit));
    match check {
        // It is ended with all it started; that is its own business.
        Check::Exec(_) => asked.await,
        _ => timeout(limit, asked).await.unwrap_or_else(|_| Err(Failure::Instance(after()))),
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(address).await.map_err(|error| {
        let why = format!("connect: {error}");
        let ours = error.raw_os_error().is_some_and(|code| OURS.contains(&code));
        if ours { Failure::Ours(why) } else { Failure::Instance(why) }
    })
}

async fn get(address: SocketAddr, path: &str) -> Result<(), Failure> {
    let stream = connect(address).await?;
    let request = Request::get(path).header(header::HOST, address.to_string());
    let status = exchange(stream, request, Bytes::new()).await;
    let status = status.map_err(|error| Failure::Instance(error.to_string()))?;
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Failure::Instance(format!("HTTP status {status}")))
    }
}

async fn run(
    argv: &[String],
    instance: &str,
    address: SocketAddr,
    timeout: Duration,
) -> Result<(), Failure> {
    let address = address.to_string();
    let variables = [("RELEASE_INSTANCE", instance), ("RELEASE_ADDRESS", &address)];
    let ran = hook::run_program(argv, timeout, &variables, serde_json::Value::Null).await;
    match ran.outcome {
        Outcome::Done => Ok(()),
        Outcome::NotYet => Err(Failure::Instance("exit status: 75".to_owned())),
        Outcome::Failed(why) if why.starts_with(NOT_RUN) => Err(Failure::Ours(why)),
        Outcome::Failed(why) => Err(Failure::Instance(why)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// Why the instance is not able to serve.
    async fn ask(check: &Check, address: SocketAddr) -> Result<(), String> {
        probe(check, "a", address, LIMIT).await.map_err(|failure| match failure {
            Failure::Instance(why) => why,
            Failure::Ours(why) => panic!("not asked: {why}"),
        })
    }

    /// Answers every connection with these words; none: never.
    async fn server(words: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(words) = words {
                    let mut request = [0; 1024];
                    let count = stream.read(&mut request).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&request[..count]).into_owned();
                    assert!(text.is_empty() || text.starts_with("GET /healthz HTTP/1.1"), "{text}");
                    let _ = stream.write_all(words.as_bytes()).await;
                } else {
                    held.push(stream);
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn who_accepts_is_there() {
        let address = server(None).await;
        ask(&Check::Tcp, address).await.unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let why = ask(&Check::Tcp, closed).await.unwrap_err();
        assert!(why.starts_with("connect: Connection refused"), "{why}");
    }

    #[tokio::test]
    async fn http_says_by_its_status() {
        let check = Check::Http("/healthz".to_owned());
        for (words, why) in [
            (Some("HTTP/1.1 204 No Content\r\n\r\n"), None),
            (Some("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), None),
            (Some("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"), Some("HTTP status 503")),
            (Some(""), Some("HTTP: ")),
            (Some("SSH-2.0\r\n"), Some("HTTP: ")),
            (None, Some("no answer within 500ms")),
        ] {
            let said = ask(&check, server(words).await).await;
            match why {
                None => said.unwrap(),
                Some(why) => {
                    let said = said.unwrap_err();
                    assert!(said.starts_with(why), "{words:?}: {said}");
                }
            }
        }
    }

    #[tokio::test]
    async fn programs_say_by_their_exit_code() {
        let shell =
            |script: &str| Check::Exec(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        let address = "192.0.2.1:80".parse().unwrap();
        let right = "test \"$RELEASE_INSTANCE $RELEASE_ADDRESS\" = 'a 192.0.2.1:80'";
        ask(&shell(right), address).await.unwrap();
        assert_eq!(ask(&shell("exit 3"), address).await, Err("exit status: 3".to_owned()));
        let why = ask(&shell("sleep 60"), address).await.unwrap_err();
        assert_eq!(why, "terminated after 500ms");
        let nothing = Check::Exec(vec!["/nonexistent/check".to_owned()]);
        let why = probe(&nothing, "a", address, LIMIT).await.unwrap_err();
        assert!(matches!(&why, Failure::Ours(why) if why.starts_with(NOT_RUN)), "{why:?}");
    }
}
