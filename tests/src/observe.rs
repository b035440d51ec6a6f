//! What end-to-end tests share: the answers of `releasectl` as types, checks of the whole, and
//! random numbers that a failure can be repeated with.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::topology::{Balancer, SERVICE};

/// Random numbers (splitmix64), the same ones for the same seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Begins a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (at least 1).
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.roll() % u64::from(bound.max(1))).unwrap_or(0)
    }

    /// A duration below `bound`, in microseconds.
    pub fn within(&mut self, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.roll() % micros)
    }
}

/// The part of `status -o json` about one service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Generation in force.
    pub generation: u32,
    /// In configuration order.
    pub versions: Vec<Version>,
}

/// A version in [`Service`].
#[derive(Debug, Clone, Deserialize)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its weight in force.
    pub weight: u32,
    /// `active`, `standby`, `draining`, `idle`.
    pub state: String,
    /// Its flows.
    pub flows: Flows,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// An instance in [`Version`].
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// `active`, `draining`, `idle`.
    pub state: String,
    /// Its flows.
    pub flows: Flows,
    /// Its counters.
    pub counters: Counters,
}

/// Flows by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Flows {
    /// Handshakes in progress.
    pub embryonic: u64,
    /// Live flows, half-closed ones included.
    pub active: u64,
    /// Live flows of which one end has finished.
    pub half_closed: u64,
    /// Closed entries that linger.
    pub closing: u64,
}

/// Counters of an instance or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the contract")]
pub struct Counters {
    pub placed: u64,
    pub opened: u64,
    pub adopted: u64,
    pub closed_fin: u64,
    pub closed_rst: u64,
    pub superseded: u64,
    pub expired: u64,
    pub forced: u64,
    pub refused: u64,
    pub untracked: u64,
    pub unverified: u64,
    pub evicted: u64,
    pub packets: u64,
    pub bytes: u64,
}

impl Counters {
    /// Flows that must be live if every step was counted once.
    #[must_use]
    pub fn live(&self) -> i128 {
        let sum = |numbers: &[u64]| numbers.iter().map(|n| i128::from(*n)).sum::<i128>();
        sum(&[self.opened, self.adopted])
            - sum(&[self.closed_fin, self.closed_rst, self.superseded, self.expired, self.forced])
    }

    /// The counters that only ever grow. (`closed_rst` is net of flows that proved alive after
    /// their RST, `evicted` is computed from what is present.)
    fn growing(&self) -> [u64; 10] {
        [
            self.placed,
            self.opened,
            self.adopted,
            self.closed_fin,
            self.superseded,
            self.expired,
            self.refused,
            self.untracked,
            self.packets,
            self.bytes,
        ]
    }

    /// Whether none of them is smaller than it was.
    #[must_use]
    pub fn grown_from(&self, before: &Self) -> bool {
        self.growing().iter().zip(before.growing()).all(|(now, then)| *now >= then)
    }
}

impl Service {
    /// A version by name.
    ///
    /// # Errors
    /// There is none.
    pub fn version(&self, name: &str) -> Result<&Version> {
        self.versions
            .iter()
            .find(|version| version.name == name)
            .with_context(|| format!("no version {name} in status"))
    }

    /// All instances, by id.
    #[must_use]
    pub fn instances(&self) -> BTreeMap<&str, &Instance> {
        let all = self.versions.iter().flat_map(|version| &version.instances);
        all.map(|instance| (instance.id.as_str(), instance)).collect()
    }

    /// Weights by version.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<String, u32> {
        self.versions.iter().map(|version| (version.name.clone(), version.weight)).collect()
    }

    /// Live flows of all versions.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.versions.iter().map(|version| version.flows.active).sum()
    }
}

impl Version {
    /// Counters of all its instances, added up.
    #[must_use]
    pub fn placed(&self) -> u64 {
        self.instances.iter().map(|instance| instance.counters.placed).sum()
    }

    /// Handshakes completed on all its instances.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.instances.iter().map(|instance| instance.counters.opened).sum()
    }
}

/// Answer of `shift`, `undrain`, and of `drain --no-wait` (there inside `in_force`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InForce {
    /// Generation in force.
    pub generation: u32,
    /// Weights in force.
    pub weights: BTreeMap<String, u32>,
    /// Whether anything had to change.
    pub changed: bool,
}

/// A line of `maps check`.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// The values.
    pub detail: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.ok { "ok" } else { "BAD" };
        write!(f, "{word} {}: {}", self.name, self.detail)
    }
}

/// `releasectl` of one balancer, with answers as types.
#[derive(Debug, Clone, Copy)]
pub struct Ctl<'a>(pub &'a Balancer);

impl Ctl<'_> {
    /// `releasectl status` of the service [`SERVICE`].
    ///
    /// # Errors
    /// The command fails or its answer is not as the contract says.
    pub fn service(&self) -> Result<Service> {
        #[derive(Deserialize)]
        struct Status {
            services: Vec<Service>,
        }
        let status: Status = self.answer(&["status", SERVICE])?;
        status.services.into_iter().next().context("no service in status")
    }

    /// `releasectl shift` of the service, such as `&["v1=0", "v2=100"]`.
    ///
    /// # Errors
    /// The command fails.
    pub fn shift(&self, weights: &[&str]) -> Result<InForce> {
        self.answer(&[&["shift", SERVICE], weights].concat())
    }

    /// `releasectl drain TARGET --no-wait`.
    ///
    /// # Errors
    /// The command fails.
    pub fn drain(&self, target: &str) -> Result<InForce> {
        #[derive(Deserialize)]
        struct Drained {
            in_force: InForce,
        }
        let drained: Drained = self.answer(&["drain", SERVICE, target, "--no-wait"])?;
        Ok(drained.in_force)
    }

    /// `releasectl undrain TARGET`.
    ///
    /// # Errors
    /// The command fails.
    pub fn undrain(&self, target: &str) -> Result<InForce> {
        self.answer(&["undrain", SERVICE, target])
    }

    /// `releasectl maps check`: demands that every line is ok. Works with the daemon dead.
    ///
    /// # Errors
    /// A line is not ok; the error has all lines that are not.
    pub fn check_maps(&self) -> Result<Vec<Check>> {
        let output = self.0.releasectl(&["maps", "check", "-o", "json"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<Check> = serde_json::from_str(&text).with_context(|| {
            format!("maps check: {text:?} {}", String::from_utf8_lossy(&output.stderr))
        })?;
        let bad: Vec<String> =
            lines.iter().filter(|line| !line.ok).map(ToString::to_string).collect();
        if !bad.is_empty() {
            bail!("{}", bad.join("; "));
        }
        ensure!(output.status.success(), "maps check: all ok, but {}", output.status);
        ensure!(!lines.is_empty(), "maps check looked at nothing");
        Ok(lines)
    }

    /// Generation of the split that the kernel has for the one service. Works with the daemon dead.
    ///
    /// # Errors
    /// There is not exactly one split.
    pub fn kernel_generation(&self) -> Result<u32> {
        #[derive(Deserialize)]
        struct Split {
            generation: u32,
        }
        let splits: Vec<Split> = self.answer(&["maps", "dump", "SPLITS"])?;
        ensure!(splits.len() == 1, "{} splits in the kernel", splits.len());
        Ok(splits[0].generation)
    }

    /// Ids of the instances in the kernel, by address. Works with the daemon dead.
    ///
    /// # Errors
    /// The command fails.
    pub fn backends(&self) -> Result<BTreeMap<String, u32>> {
        #[derive(Deserialize)]
        struct Backend {
            backend: u32,
            addr: String,
        }
        let backends: Vec<Backend> = self.answer(&["maps", "dump", "BACKENDS"])?;
        Ok(backends.into_iter().map(|b| (b.addr, b.backend)).collect())
    }

    /// Handshakes begun on each instance, by its id in the kernel: cheaper than `status`, which
    /// walks the flows.
    ///
    /// # Errors
    /// The command fails.
    pub fn placed(&self) -> Result<BTreeMap<u32, u64>> {
        #[derive(Deserialize)]
        struct Line {
            backend: u32,
            placed: u64,
        }
        let counters: Vec<Line> = self.answer(&["maps", "dump", "COUNTERS"])?;
        Ok(counters.into_iter().map(|line| (line.backend, line.placed)).collect())
    }

    /// Demands exit code 0 and parses the output of `-o json`.
    ///
    /// # Errors
    /// Any other exit code, or an answer of another shape.
    pub fn answer<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let value = self.0.releasectl_json(arguments)?;
        serde_json::from_value(value.clone())
            .with_context(|| format!("`releasectl {} -o json`: {value}", arguments.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_repeat_themselves() {
        let (mut a, mut b) = (Dice::new(7), Dice::new(7));
        assert_eq!(a.roll(), b.roll());
        assert!((0..1000).all(|_| a.below(3) < 3));
        let bound = Duration::from_millis(5);
        assert!((0..1000).all(|_| a.within(bound) < bound));
    }

    #[test]
    fn live_may_be_negative() {
        let counters = Counters { opened: 3, adopted: 1, closed_fin: 5, ..Counters::default() };
        assert_eq!(counters.live(), -1);
        assert!(!Counters::default().grown_from(&counters));
        assert!(counters.grown_from(&Counters::default()));
    }
}
