//! Ring buffers the kernel programs write to, as asynchronous streams.

use std::io;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use release_common::abi::Event;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// Events that come so soon after others are read together with them. The kernel wakes the reader of a
/// ring buffer for each event that finds it read to its end: under load that costs more than the events.
const TOGETHER: Duration = Duration::from_millis(20);

/// Events of the packet path. One reader at a time.
pub struct EventRing(pub(super) RingBuf<MapData>);

impl EventRing {
    /// Calls `each` for every event, for as long as the ring buffer can be awaited.
    ///
    /// # Errors
    /// If it no longer can.
    pub async fn follow(self, each: impl Fn(&Event) + Send) -> io::Result<()> {
        // SAFETY: the ring buffer owns its descriptor for as long as it lives.
        let mut ring = unsafe { AsyncFd::register(self.0) }?;
        loop {
            let mut guard = ring.readable_mut().await?;
            let inner = guard.get_inner_mut();
            while let Some(record) = inner.next() {
                let bytes = record.get(..size_of::<Event>()).unwrap_or_default();
                if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(bytes) {
                    each(&event);
                }
            }
            guard.clear_ready();
            sleep(TOGETHER).await;
        }
    }
}

/// Log records of the kernel programs.
pub struct KernelLog(pub(super) EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    /// Hands the records to `log`, for as long as the ring buffer can be awaited.
    ///
    /// # Errors
    /// If it no longer can.
    pub async fn follow(self) -> io::Result<()> {
        // SAFETY: the logger owns its ring buffer's descriptor for as long as it lives.
        let mut logger = unsafe { AsyncFd::register(self.0) }?;
        loop {
            let mut guard = logger.readable_mut().await?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
