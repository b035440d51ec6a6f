//! How instances are checked, as configured.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether `GET` of this path is answered with 2xx or 3xx.
    Http(String),
    /// Whether this program ends with 0; it gets `RELEASE_INSTANCE` and `RELEASE_ADDRESS`.
    Exec(Vec<String>),
}

/// How an instance is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is asked.
    pub check: Check,
    /// Where it is asked, if not at the instance's own port.
    pub port: Option<u16>,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take; no longer than the interval.
    pub timeout: Duration,
    /// Failures in a row after which it is down.
    pub fall: u32,
    /// Successes in a row after which it is up again.
    pub rise: u32,
}

impl Plan {
    /// How often, unless something else is given.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// How long an answer may take, likewise; the interval, if that is shorter.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// Failures in a row, likewise.
    pub const FALL: u32 = 3;
    /// Successes in a row, likewise.
    pub const RISE: u32 = 2;
}

/// When an instance is called down by what the packet path has seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Share of handshakes that it refused or did not answer, from which it is.
    pub syn_failures: Option<Share>,
    /// Share of connections that ended by RST, of either end, likewise.
    pub resets: Option<Share>,
    /// Handshakes, or ends, in a window without which nothing is said.
    pub min: u32,
    /// Length of a window.
    pub every: Duration,
    /// How long it is left alone then.
    pub back_after: Duration,
}

impl Passive {
    /// What stands for `min` if nothing else is given.
    pub const MIN: u32 = 20;
    /// Length of a window, likewise.
    pub const EVERY: Duration = Duration::from_secs(10);
    /// How long it is left alone, likewise.
    pub const BACK_AFTER: Duration = Duration::from_secs(30);
}

/// A part of a whole, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    const WHOLE: f64 = 1e6;

    /// More than 0, up to 1; in millionths, of which it is one at least.
    pub fn new(part: f64) -> Option<Self> {
        let fits = part > 0.0 && part <= 1.0;
        fits.then(|| Self((part * Self::WHOLE).round().max(1.0) as u32))
    }

    /// As a part of 1.
    pub fn get(self) -> f64 {
        f64::from(self.0) / Self::WHOLE
    }

    /// Whether `part` of `whole` are at least so much.
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 1_000_000 >= u128::from(whole) * u128::from(self.0)
    }
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// As it is written.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.check {
            Check::Tcp => map.serialize_entry("tcp", &true)?,
            Check::Http(path) => map.serialize_entry("http", path)?,
            Check::Exec(argv) => map.serialize_entry("exec", argv)?,
        }
        if let Some(port) = self.port {
            map.serialize_entry("port", &port)?;
        }
        map.serialize_entry("interval", &text(self.interval))?;
        map.serialize_entry("timeout", &text(self.timeout))?;
        map.serialize_entry("fall", &self.fall)?;
        map.serialize_entry("rise", &self.rise)?;
        map.end()
    }
}

/// Likewise.
impl Serialize for Passive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, share) in [("syn_failures", self.syn_failures), ("resets", self.resets)] {
            if let Some(share) = share {
                map.serialize_entry(key, &share.get())?;
            }
        }
        map.serialize_entry("min", &self.min)?;
        map.serialize_entry("every", &text(self.every))?;
        map.serialize_entry("back_after", &text(self.back_after))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_reached_exactly() {
        let half = Share::new(0.5).unwrap();
        assert!(half.is_reached(10, 20) && !half.is_reached(9, 19) && half.is_reached(0, 0));
        assert!(Share::new(1.0).unwrap().is_reached(u64::MAX, u64::MAX));
        assert!(!Share::new(1e-9).unwrap().is_reached(0, 1), "never nothing of something");
        for wrong in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(wrong), None, "{wrong}");
        }
    }
}
