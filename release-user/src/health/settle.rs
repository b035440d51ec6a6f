//! From what checks say to what is to become of an instance. Pure.

use std::time::Duration;

use crate::control::health::{Down, Finder};

/// What speaks for and against an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs<'a> {
    /// What active checks say; none: nothing yet, or there are none.
    pub active: Option<bool>,
    /// Why they say no.
    pub why: &'a str,
    /// What traffic says against it.
    pub passive: Option<&'a str>,
    /// How long it is left alone because of that.
    pub back_after: Duration,
}

/// What is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Nothing else than now.
    AsItIs,
    /// It is to get no new flows, for this reason.
    Down(Finder, &'a str),
    /// It is to get new flows again.
    Up,
}

/// `now`: time since boot. Who was called down by traffic gets none, so only time can tell; active
/// checks that fail keep it down for longer, and those that succeed say nothing new: they did not
/// find what traffic did.
pub fn settle<'a>(down: Option<&Down>, signs: Signs<'a>, now: Duration) -> Wanted<'a> {
    match (down, signs.active) {
        (None, Some(false)) => Wanted::Down(Finder::Check, signs.why),
        (None, _) => match signs.passive {
            Some(why) => Wanted::Down(Finder::Traffic, why),
            None => Wanted::AsItIs,
        },
        (Some(_), Some(false)) => Wanted::AsItIs,
        (Some(down), active) => {
            let up = match down.by {
                Finder::Check => active == Some(true),
                Finder::Traffic => down.lasted(now) >= signs.back_after,
            };
            if up { Wanted::Up } else { Wanted::AsItIs }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn signs(active: Option<bool>, passive: Option<&str>) -> Signs<'_> {
        Signs { active, why: "connect", passive, back_after: Duration::from_secs(30) }
    }

    fn down(by: Finder, for_seconds: u64) -> Down {
        let since_boot_ms = 1000 * (1000 - for_seconds);
        Down { by, why: String::new(), since: String::new(), since_boot_ms }
    }

    #[test]
    fn an_instance_that_is_up() {
        let of = |active, passive| settle(None, signs(active, passive), NOW);
        assert_eq!(of(None, None), Wanted::AsItIs);
        assert_eq!(of(Some(true), None), Wanted::AsItIs);
        assert_eq!(of(Some(false), None), Wanted::Down(Finder::Check, "connect"));
        for active in [None, Some(true)] {
            assert_eq!(of(active, Some("resets")), Wanted::Down(Finder::Traffic, "resets"));
        }
    }

    #[test]
    fn whom_checks_found_down_they_bring_back() {
        let of = |active| settle(Some(&down(Finder::Check, 900)), signs(active, None), NOW);
        assert_eq!(of(None), Wanted::AsItIs, "after a restart nothing is known yet");
        assert_eq!(of(Some(false)), Wanted::AsItIs);
        assert_eq!(of(Some(true)), Wanted::Up);
    }

    #[test]
    fn whom_traffic_found_down_time_brings_back() {
        let of = |active, seconds| {
            settle(Some(&down(Finder::Traffic, seconds)), signs(active, None), NOW)
        };
        assert_eq!(of(Some(true), 29), Wanted::AsItIs);
        assert_eq!(of(Some(true), 30), Wanted::Up);
        assert_eq!(of(None, 30), Wanted::Up);
        assert_eq!(of(Some(false), 900), Wanted::AsItIs);
    }
}
