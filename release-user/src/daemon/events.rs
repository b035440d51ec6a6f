//! Events: what the daemon did and what the packet path reports, for `events` and for people.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use release_common::abi::event_kind;
use tokio::sync::broadcast;

use super::core::lock;
use crate::api::types::EventLine;

/// Events kept for those who ask later.
const KEPT: usize = 1000;

/// Collects and distributes events.
pub struct EventHub {
    kept: Mutex<(u64, VecDeque<EventLine>)>,
    live: broadcast::Sender<EventLine>,
}

impl EventHub {
    /// Without events yet.
    pub fn new() -> Self {
        Self { kept: Mutex::default(), live: broadcast::channel(1024).0 }
    }

    /// Publishes an event.
    pub fn publish(
        &self,
        kind: &str,
        service: Option<&str>,
        target: Option<&str>,
        message: String,
    ) {
        let mut kept = lock(&self.kept);
        kept.0 += 1;
        let line = EventLine {
            seq: kept.0,
            at: now(),
            kind: kind.to_owned(),
            service: service.map(ToOwned::to_owned),
            target: target.map(ToOwned::to_owned),
            message,
        };
        if kind == "warning" {
            let of = service.map(|service| format!("{service}: ")).unwrap_or_default();
            log::warn!("{of}{}", line.message);
        } else if !kind.starts_with("flow-") {
            let place: Vec<&str> = [service, target].into_iter().flatten().collect();
            let of = if place.is_empty() { String::new() } else { format!(" {}", place.join(" ")) };
            log::info!("{kind}{of}: {}", line.message);
        }
        if kept.1.len() == KEPT {
            kept.1.pop_front();
        }
        kept.1.push_back(line.clone());
        // Nobody listening is no error.
        let _ = self.live.send(line);
    }

    /// The last events, and a channel for those to come.
    pub fn subscribe(&self) -> (Vec<EventLine>, broadcast::Receiver<EventLine>) {
        let kept = lock(&self.kept);
        (kept.1.iter().cloned().collect(), self.live.subscribe())
    }
}

impl Default for EventHub {
    fn default() -> Self {
        Self::new()
    }
}

/// Now, as RFC 3339 with milliseconds.
pub fn now() -> String {
    at(SystemTime::now())
}

/// A time, likewise.
pub fn at(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Name of an event of the packet path.
pub const fn kind_name(kind: u32) -> &'static str {
    match kind {
        event_kind::OPENED => "flow-opened",
        event_kind::CLOSED => "flow-closed",
        event_kind::ADOPTED => "flow-adopted",
        event_kind::REOPENED => "flow-reopened",
        event_kind::TABLE_FULL => "table-full",
        _ => "flow-event",
    }
}
