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
    /// Of one that is known to be down.
    #[must_use]
    pub const fn down() -> Self {
        Self { state: Some(false), against: 0 }
    }

    /// Whether it is up; `None` before anything is known.
    #[must_use]
    pub const fn is_up(&self) -> Option<bool> {
        self.state
    }

    /// Takes a check in. One that succeeds is enough where nothing was known: there is nothing to
    /// take back then. To be down takes several in any case: what is not known may be serving, and
    /// a start is when all is checked at once.
    pub fn take(&mut self, ok: bool, fall: u32, rise: u32) {
        let needed = match (self.state, ok) {
            (Some(true), true) | (Some(false), false) => {
                self.against = 0;
                return;
            }
            (None, true) => 1,
            (Some(false), true) => rise,
            (None | Some(true), false) => fall,
        };
        self.against += 1;
        if self.against >= needed {
            *self = Self { state: Some(ok), against: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known after each of some checks, three to fall and two to rise.
    fn known(mut streak: Streak, checks: &[bool]) -> Vec<Option<bool>> {
        let mut after = |ok: &bool| {
            streak.take(*ok, 3, 2);
            streak.is_up()
        };
        checks.iter().map(&mut after).collect()
    }

    const UP: Option<bool> = Some(true);
    const DOWN: Option<bool> = Some(false);

    #[test]
    fn it_takes_several_in_a_row() {
        let checks = [true, false, false, true, false, false, false, true, false, true, true];
        let after = [UP, UP, UP, UP, UP, UP, DOWN, DOWN, DOWN, DOWN, UP];
        assert_eq!(known(Streak::default(), &checks), after);
    }

    #[test]
    fn the_first_success_is_believed_and_the_first_failure_is_not() {
        assert_eq!(known(Streak::default(), &[false, false, true]), [None, None, UP]);
        assert_eq!(known(Streak::default(), &[false, false, false]), [None, None, DOWN]);
        assert_eq!(known(Streak::down(), &[true, true]), [DOWN, UP]);
    }
}
