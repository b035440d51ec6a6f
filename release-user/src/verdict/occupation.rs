//! What a busy target is busy with, and how long that may take. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Live flows of a target by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupation {
    /// Carried data lately.
    pub with_data: u64,
    /// Nothing but keep-alives, or nothing at all, since `keepalive_only.after`.
    pub keepalive_only: u64,
    /// Of all: one end has finished.
    pub half_closed: u64,
    /// Of all: no probe reaches the client.
    pub client_unreachable: u64,
}

/// When the last flow will be gone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outlook")]
pub enum Outlook {
    /// Too early to say.
    Unknown,
    /// Between these seconds from now, in nine cases of ten.
    Converging {
        /// Seconds at least.
        from_s: u64,
        /// Seconds at most.
        to_s: u64,
    },
    /// None has ended for that many seconds.
    NotConverging {
        /// Seconds.
        for_s: u64,
    },
}

/// How the number of live flows fell, looked at about once a second.
#[derive(Clone, Debug, Default)]
pub struct Decline {
    looks: VecDeque<(Duration, u64)>,
}

/// Time that the rate of ends is taken from: what ended long ago was of another kind.
const WINDOW: Duration = Duration::from_secs(300);
/// Time without an end after which it is not converging.
const STALLED: Duration = Duration::from_secs(60);
/// Ends that a rate needs.
const FEWEST: f64 = 3.0;

impl Decline {
    /// Notes how many flows live. `at`: on a clock that only goes forward.
    pub fn note(&mut self, at: Duration, live: u64) {
        self.looks.push_back((at, live));
        while self.looks.front().is_some_and(|(then, _)| *then + WINDOW < at) {
            self.looks.pop_front();
        }
    }

    /// What that says of the last flow's end.
    ///
    /// Flows are taken to end independently, each at the rate seen: ends over flow-seconds. The last
    /// of n then ends by t with probability (1 - exp(-rt))^n. The rate itself is known as well as
    /// the number of ends allows.
    pub fn outlook(&self) -> Outlook {
        let (Some(&(first, _)), Some(&(now, live))) = (self.looks.front(), self.looks.back())
        else {
            return Outlook::Unknown;
        };
        let pairs = || self.looks.iter().zip(self.looks.iter().skip(1));
        let (mut ends, mut exposure, mut last_end) = (0.0, 0.0, first);
        for ((then, before), (at, after)) in pairs() {
            exposure += *before as f64 * (*at - *then).as_secs_f64();
            if after < before {
                ends += (before - after) as f64;
                last_end = *at;
            }
        }
        if live == 0 {
            return Outlook::Converging { from_s: 0, to_s: 0 };
        }
        if now - last_end >= STALLED {
            return Outlook::NotConverging { for_s: (now - last_end).as_secs() };
        }
        if ends < FEWEST || exposure <= 0.0 {
            return Outlook::Unknown;
        }
        // 1.645 standard deviations of a Poisson count either way.
        let (rate, error) = (ends / exposure, 1.645 / ends.sqrt());
        let by =
            |probability: f64, rate: f64| -(-probability.powf(1.0 / live as f64)).ln_1p() / rate;
        let from = by(0.05, rate * (1.0 + error));
        let to = by(0.95, rate * (1.0 - error).max(0.1));
        Outlook::Converging { from_s: whole(from), to_s: whole(to).max(1) }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole seconds are shown; the cast saturates"
)]
fn whole(seconds: f64) -> u64 {
    seconds.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decline(looks: impl IntoIterator<Item = (u64, u64)>) -> Outlook {
        let mut decline = Decline::default();
        for (second, live) in looks {
            decline.note(Duration::from_secs(second), live);
        }
        decline.outlook()
    }

    #[test]
    fn too_early() {
        assert_eq!(decline([]), Outlook::Unknown);
        assert_eq!(decline([(0, 10), (1, 9)]), Outlook::Unknown);
    }

    #[test]
    fn stalled() {
        let looks = (0..100).map(|second| (second, if second < 10 { 20 - second } else { 11 }));
        assert_eq!(decline(looks), Outlook::NotConverging { for_s: 90 });
    }

    #[test]
    fn done() {
        assert_eq!(decline([(0, 3), (1, 0)]), Outlook::Converging { from_s: 0, to_s: 0 });
    }

    /// Of 1,000 flows that last 20 s on average 6 are left after 100 s: the last goes some 50 s later
    /// (the harmonic number of 6, times 20).
    #[test]
    fn exponential() {
        let live = |second: u64| (1000.0 * (-(second as f64) / 20.0).exp()).floor() as u64;
        let Outlook::Converging { from_s, to_s } = decline((0..100).map(|s| (s, live(s)))) else {
            panic!("not converging")
        };
        assert!((10..49).contains(&from_s) && (49..150).contains(&to_s), "{from_s} to {to_s}");
    }

    /// Old looks are forgotten: what is left is slower than what went first.
    #[test]
    fn the_window_moves() {
        let live =
            |second: u64| if second < 300 { 1300 - 4 * second } else { 100 - (second - 300) / 10 };
        let early = decline((0..300).map(|s| (s, live(s))));
        let late = decline((0..900).map(|s| (s, live(s))));
        let to = |outlook| match outlook {
            Outlook::Converging { to_s, .. } => to_s,
            other => panic!("{other:?}"),
        };
        assert!(to(late) > 2 * to(early), "{early:?} {late:?}");
    }
}
