//! Judging an instance by what the packet path counted of it. Pure: whoever counts is somebody
//! else's matter.

use super::plan::Passive;

/// What was seen of an instance in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Handshakes that it completed.
    pub answered: u64,
    /// SYNs that it answered with a RST.
    pub refused: u64,
    /// Handshakes that it did not answer at all.
    pub unanswered: u64,
    /// Connections that ended in order.
    pub finished: u64,
    /// Connections that a RST ended.
    pub reset: u64,
}

/// Why it is to be called down; none: nothing speaks against it, or too little was seen.
pub fn judge(plan: &Passive, window: &Window) -> Option<String> {
    let enough = |whole: u64| whole > 0 && whole >= u64::from(plan.min);
    let failed = window.refused + window.unanswered;
    let begun = window.answered + failed;
    if plan.syn_failures.is_some_and(|most| enough(begun) && most.is_reached(failed, begun)) {
        return Some(format!(
            "{failed} of {begun} handshakes failed within {}: {} refused, {} unanswered",
            humantime::format_duration(plan.every),
            window.refused,
            window.unanswered
        ));
    }
    let ended = window.finished + window.reset;
    if plan.resets.is_some_and(|most| enough(ended) && most.is_reached(window.reset, ended)) {
        return Some(format!(
            "{} of {ended} connections reset within {}",
            window.reset,
            humantime::format_duration(plan.every)
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::plan::Share;
    use super::*;

    fn plan(syn_failures: f64, resets: f64) -> Passive {
        Passive {
            syn_failures: Share::new(syn_failures),
            resets: Share::new(resets),
            min: 20,
            every: Duration::from_secs(10),
            back_after: Duration::from_secs(30),
        }
    }

    #[test]
    fn handshakes_that_fail() {
        let plan = plan(0.5, 0.0);
        let window = |answered, refused, unanswered| Window {
            answered,
            refused,
            unanswered,
            reset: 1000,
            ..Window::default()
        };
        assert_eq!(
            judge(&plan, &window(10, 7, 3)).unwrap(),
            "10 of 20 handshakes failed within 10s: 7 refused, 3 unanswered"
        );
        assert_eq!(judge(&plan, &window(11, 7, 3)), None, "less than half");
        assert_eq!(judge(&plan, &window(0, 19, 0)), None, "too few to say");
        assert!(judge(&plan, &window(0, 0, 20)).is_some());
    }

    #[test]
    fn connections_that_are_reset() {
        let plan = plan(0.0, 0.3);
        let window = |finished, reset| Window { finished, reset, refused: 99, ..Window::default() };
        assert_eq!(judge(&plan, &window(14, 6)).unwrap(), "6 of 20 connections reset within 10s");
        assert_eq!(judge(&plan, &window(15, 6)), None);
        assert_eq!(judge(&plan, &window(0, 19)), None);
        let whenever = Passive { min: 0, ..plan };
        assert_eq!(judge(&whenever, &window(0, 0)), None, "nothing is no reason");
    }
}
