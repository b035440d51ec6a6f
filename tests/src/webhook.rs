//! A webhook that keeps what is posted to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::netns::{Netns, NsHandle};

/// How long one who posts may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that was posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Where: `/alarms`.
    pub path: String,
    /// What.
    pub body: Value,
}

/// A webhook in a namespace. Dropping it ends it: nobody listens any more.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    namespace: NsHandle,
    posted: Arc<Mutex<Vec<Posted>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Listens (port 0: anywhere), and answers each post with the status that `answer` gives it.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(
        namespace: &Netns,
        address: SocketAddr,
        answer: impl Fn(&Posted) -> u16 + Send + 'static,
    ) -> Result<Self> {
        let listener = namespace.listen(address)?;
        let address = listener.local_addr()?;
        let posted = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (kept, ended) = (Arc::clone(&posted), Arc::clone(&over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever does not post, or goes before the answer, is told nothing.
                if let Ok(mut stream) = stream
                    && let Some(post) = read(&mut stream)
                {
                    let status = answer(&post);
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(post);
                    let _ = write!(stream, "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n");
                }
            }
        });
        let (namespace, thread) = (namespace.handle(), Some(thread));
        Ok(Self { address, namespace, posted, over, thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was posted so far, in turn.
    #[must_use]
    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Whatever connects wakes it.
        let (namespace, address) = (self.namespace.clone(), self.address);
        let wake = thread::spawn(move || {
            namespace.join().is_ok() && TcpStream::connect_timeout(&address, PATIENCE).is_ok()
        });
        if wake.join().unwrap_or(false)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Posted> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        text += &String::from_utf8_lossy(&buffer[..count]);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(body) = body.and_then(|body| serde_json::from_str(body).ok()) {
            let path = text.split_whitespace().nth(1)?.to_owned();
            return Some(Posted { path, body });
        }
    }
}
