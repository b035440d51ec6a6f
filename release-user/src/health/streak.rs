//! From single checks to up and down. Pure.

/// What the last checks of an instance said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Up or down; `None`: not known yet.
    state: Option<bool>,
    /// Checks in a row that said the other.
    against: u32,
}

impl Streak {
    /// Whether it is up; `None` before anything is known.
    #[must_use]
    pub const fn is_up(&self) -> Option<bool> {
        self.state
    }

    /// Takes a check in. Returns the new state if it changed. The first check decides at once: a
    /// start is no time to wait, and nothing is known to hold on to.
    pub fn take(&mut self, ok: bool, fall: u32, rise: u32) -> Option<bool> {
        let needed = match self.state {
            None => 1,
            Some(up) if up == ok => {
                self.against = 0;
                return None;
            }
            Some(true) => fall,
            Some(false) => rise,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        *self = Self { state: Some(ok), against: 0 };
        Some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_in_a_row() {
        let mut streak = Streak::default();
        let mut said = |checks: &[bool]| -> Vec<bool> {
            checks.iter().filter_map(|ok| streak.take(*ok, 3, 2)).collect()
        };
        assert_eq!(said(&[true]), [true], "the first decides");
        assert!(said(&[false, false, true, false, false]).is_empty(), "never three in a row");
        assert_eq!(said(&[false]), [false]);
        assert!(said(&[true, false, true]).is_empty());
        assert_eq!(said(&[true]), [true]);
        assert_eq!(streak.is_up(), Some(true));
        let mut down = Streak::default();
        assert_eq!(down.take(false, 3, 2), Some(false));
    }
}
