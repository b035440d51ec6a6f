//! A small HTTP client: one request, one connection.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Port of `http` addresses that name none (RFC 9110, section 4.2.1).
const PORT: u16 = 80;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Something in the address cannot be.
    #[error("{0}: not an http address")]
    Address(String),
    /// No connection.
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
    /// The other end does not speak HTTP, or ended before it had answered.
    #[error("HTTP: {0}")]
    Protocol(String),
    /// It took too long.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Late(Duration),
}

/// Posts a JSON document, and returns what the answer's status is.
///
/// # Errors
/// No answer within `limit`.
pub async fn post_json(
    address: &str,
    token: Option<&str>,
    document: &serde_json::Value,
    limit: Duration,
) -> Result<StatusCode, HttpError> {
    let work = post(address, token, document);
    timeout(limit, work).await.unwrap_or(Err(HttpError::Late(limit)))
}

async fn post(
    address: &str,
    token: Option<&str>,
    document: &serde_json::Value,
) -> Result<StatusCode, HttpError> {
    let wrong = || HttpError::Address(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or(PORT))).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    exchange(stream, request, document.to_string().into()).await
}

/// Sends a request on a connection of its own, and returns the answer's status.
///
/// # Errors
/// [`HttpError::Protocol`].
pub async fn exchange(
    stream: TcpStream,
    request: Builder,
    body: Bytes,
) -> Result<StatusCode, HttpError> {
    let failed = |error: hyper::Error| HttpError::Protocol(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = request
        .header(header::USER_AGENT, concat!("releasectl/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| HttpError::Protocol(error.to_string()))?;
    let response = sender.send_request(request);
    tokio::pin!(response);
    // An answer may come together with the end of the connection: that end is no failure.
    let answered = tokio::select! {
        response = &mut response => response,
        _ = connection => response.await,
    };
    Ok(answered.map_err(failed)?.status())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with these words, and returns what it was sent.
    async fn exchange(words: &'static str, token: Option<&str>) -> (String, Result<u16, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = String::new();
            let mut buffer = [0; 1024];
            while !seen.ends_with('}') {
                let count = stream.read(&mut buffer).await.unwrap();
                seen += std::str::from_utf8(&buffer[..count]).unwrap();
            }
            stream.write_all(words.as_bytes()).await.unwrap();
            seen
        });
        let document = serde_json::json!({ "id": 3 });
        let said = post_json(&address, token, &document, Duration::from_secs(10)).await;
        let said = said.map(|status| status.as_u16()).map_err(|error| error.to_string());
        (server.await.unwrap(), said)
    }

    #[tokio::test]
    async fn what_is_sent_and_what_comes_back() {
        let (seen, said) = exchange("HTTP/1.1 202 Accepted\r\n\r\n", Some("s3cret")).await;
        assert_eq!(said, Ok(202));
        assert!(seen.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("authorization: Bearer s3cret\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n{\"id\":3}"), "{seen}");
        let (seen, said) = exchange("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy", None).await;
        assert_eq!(said, Ok(503));
        assert!(!seen.contains("authorization"), "{seen}");
        let (_, said) = exchange("SSH-2.0\r\n\r\n", None).await;
        assert!(said.unwrap_err().starts_with("HTTP: "));
    }

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let null = serde_json::Value::Null;
        let ask = |address: String| {
            let null = &null;
            async move { post_json(&address, None, null, Duration::from_secs(10)).await }
        };
        let error = ask(format!("http://{closed}")).await.unwrap_err();
        assert!(matches!(error, HttpError::Connect(_)), "{error}");
        let error = ask("https://[::1]/x".to_owned()).await.unwrap_err();
        assert!(matches!(error, HttpError::Address(_)), "{error}");
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let limit = Duration::from_millis(50);
        let late = post_json(&address, None, &null, limit).await.unwrap_err();
        assert_eq!(late.to_string(), "no answer within 50ms");
    }
}
