//! What a person sees: one line per step, and on a terminal a block below that is redrawn.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{self, MissedTickBehavior};

use super::ctl::{Ctl, Status, Version};
use super::{NEW, OLD};
use crate::load::{Load, Snapshot};

/// Time between two drawings of the live block.
const REFRESH: Duration = Duration::from_millis(500);

/// The terminal, or what stands in for it.
#[derive(Debug)]
pub struct Screen {
    started: Instant,
    terminal: bool,
    /// Lines of the live block on the screen now.
    live: Mutex<usize>,
}

impl Screen {
    pub fn new() -> Self {
        Self { started: Instant::now(), terminal: stdout().is_terminal(), live: Mutex::new(0) }
    }

    /// A line that stays.
    pub fn step(&self, text: &str) {
        self.write(&format!("{:5.1} s  {text}\n", self.started.elapsed().as_secs_f64()), 0);
    }

    /// A heading that stays.
    pub fn heading(&self, text: &str) {
        let text = if self.terminal { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
        self.write(&format!("\n{text}\n"), 0);
    }

    /// Lines that stay.
    pub fn print(&self, text: &str) {
        self.write(&format!("{text}\n"), 0);
    }

    /// Redraws the live block until it is dropped; does nothing where there is no terminal.
    pub async fn watch(&self, ctl: Option<Ctl<'_>>, load: &Load) -> Infallible {
        if !self.terminal {
            return std::future::pending().await;
        }
        let _clear = ClearAtEnd(self);
        let mut ticks = time::interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut at) = (load.snapshot(), Instant::now());
        loop {
            ticks.tick().await;
            let status = match ctl {
                Some(ctl) => ctl.json::<Status>(&["status"]).await.ok(),
                None => None,
            };
            let (now, seconds) = (load.snapshot(), at.elapsed().as_secs_f64().max(0.001));
            at = Instant::now();
            let block = block(&before, &now, seconds, ctl.is_some(), status.as_ref());
            self.write(&block, block.lines().count());
            before = now;
        }
    }

    /// Removes the live block and writes text, whose last `live` lines are the next live block.
    fn write(&self, text: &str, live: usize) {
        let mut drawn = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        if *drawn > 0 {
            let _ = write!(out, "\x1b[{}A\x1b[J", *drawn);
        }
        out.push_str(text);
        *drawn = live;
        // A closed terminal must not keep us from cleaning up.
        let mut stdout = stdout().lock();
        let _ = stdout.write_all(out.as_bytes());
        let _ = stdout.flush();
    }
}

/// Takes the live block off the screen, however the watch ends.
struct ClearAtEnd<'a>(&'a Screen);

impl Drop for ClearAtEnd<'_> {
    fn drop(&mut self) {
        self.0.write("", 0);
    }
}

fn block(
    before: &Snapshot,
    now: &Snapshot,
    seconds: f64,
    balanced: bool,
    status: Option<&Status>,
) -> String {
    let mut text = format!(
        "         requests {}   errors {}   moved {}\n         {:8} {:>8} {:>8}",
        now.requests, now.errors, now.moved, "clients", "new/s", "open"
    );
    if balanced {
        let _ = write!(text, "   {:>8} {:>8}  state", "weight", "flows");
    }
    for name in [OLD, NEW] {
        let new = now.connections_to(name).saturating_sub(before.connections_to(name));
        let rate = f64::from(u32::try_from(new).unwrap_or(u32::MAX)) / seconds;
        let _ = write!(text, "\n         {name:8} {rate:>8.0} {:>8}", now.active(name));
        let version = status.and_then(|status| version(status, name));
        match version {
            Some(Version { weight, state, flows, .. }) => {
                let _ = write!(text, "   {weight:>8} {:>8}  {state}", flows.active);
            }
            None if balanced => text.push_str("   (no answer from the daemon)"),
            None => {}
        }
    }
    text.push('\n');
    text
}

fn version<'a>(status: &'a Status, name: &str) -> Option<&'a Version> {
    let mut versions = status.services.iter().flat_map(|service| &service.versions);
    versions.find(|version| version.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::VersionSnapshot;

    #[test]
    fn the_block_has_four_lines_and_rates() {
        let mut now = Snapshot::default();
        let figures = VersionSnapshot { connections: 50, active: 7, ..Default::default() };
        now.versions.insert(OLD.into(), figures);
        let text = block(&Snapshot::default(), &now, 0.5, true, None);
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().nth(2).unwrap().contains(" 100        7"), "{text}");
        assert!(text.contains("no answer from the daemon"));
        assert!(!block(&now, &now, 0.5, false, None).contains("daemon"));
    }
}
