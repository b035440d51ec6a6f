//! What is known of the ends of a silent connection, and what to ask next. Pure.

use std::time::{Duration, Instant};

use release_common::tcp::word::{End, FlowWord, Marks};

/// How silent connections are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Silence after which a connection is asked, and asked again.
    pub after: Duration,
    /// Time for an answer.
    pub every: Duration,
    /// Questions without an answer until an end is unreachable.
    pub tries: u32,
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It answered, or sent something.
    Alive,
    /// It answered none of the probes.
    Unreachable,
}

impl Liveness {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A connection being watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    tag: u32,
    asked: Option<Instant>,
    tries: u32,
    /// When both ends were last settled.
    settled: Option<Instant>,
    ends: [Liveness; 2],
}

impl Watch {
    /// Begins to watch a connection.
    pub const fn new(word: FlowWord) -> Self {
        let ends = [Liveness::Unknown; 2];
        Self { tag: word.tag(), asked: None, tries: 0, settled: None, ends }
    }

    /// What is known of an end.
    pub const fn end(&self, end: End) -> Liveness {
        self.ends[end as usize]
    }

    /// Whether it is about this incarnation of the connection.
    pub fn is_about(&self, word: FlowWord) -> bool {
        self.tag == word.tag()
    }

    /// Whether an answer is waited for.
    pub const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether both ends have been settled, and no question is under way.
    pub fn is_resting(&self) -> bool {
        self.asked.is_none() && self.settled.is_some()
    }

    /// Whether both ends have been settled within `age`.
    pub fn settled_within(&self, age: Duration, now: Instant) -> bool {
        self.settled.is_some_and(|settled| now.saturating_duration_since(settled) <= age)
    }

    /// Takes in what the packet path noted, and says what to ask now: the marks to put on the flow,
    /// if there is something. `silence`: time since its last packet.
    pub fn look(
        &mut self,
        word: FlowWord,
        silence: Duration,
        rhythm: &Rhythm,
        now: Instant,
    ) -> Option<Marks> {
        let marks = word.marks();
        let Some(asked) = self.asked else {
            let again = self
                .settled
                .is_none_or(|settled| now.saturating_duration_since(settled) >= rhythm.after);
            return (silence >= rhythm.after && again).then(|| self.ask(marks, now, 0));
        };
        let since = now.saturating_duration_since(asked);
        for (end, answered) in
            [(End::Client, Marks::ANSWERED_CLIENT), (End::Server, Marks::ANSWERED_SERVER)]
        {
            if marks.has(answered) {
                self.ends[end as usize] = Liveness::Alive;
            }
        }
        // It speaks by itself: who, does not matter. What is silent then is asked another time.
        if silence < since {
            self.rest(now);
            return Some(Marks(marks.0 & Marks::FORCED.0));
        }
        let answered = Marks::ANSWERED_CLIENT.with(Marks::ANSWERED_SERVER);
        if marks.has(answered) {
            self.rest(now);
            return None;
        }
        if since < rhythm.every {
            return None;
        }
        if self.tries >= rhythm.tries {
            for (end, bit) in
                [(End::Client, Marks::ANSWERED_CLIENT), (End::Server, Marks::ANSWERED_SERVER)]
            {
                if !marks.has(bit) {
                    self.ends[end as usize] = Liveness::Unreachable;
                }
            }
            self.rest(now);
            // Nothing is an answer any more.
            return Some(Marks(marks.0 & Marks::FORCED.0));
        }
        Some(self.ask(marks, now, self.tries))
    }

    /// Whether some end is unreachable.
    pub fn has_lost_an_end(&self) -> bool {
        self.ends.contains(&Liveness::Unreachable)
    }

    /// Asks the ends that have not answered in this round.
    fn ask(&mut self, marks: Marks, now: Instant, tries: u32) -> Marks {
        self.asked = Some(now);
        self.tries = tries + 1;
        let mut next = Marks(marks.0 & Marks::FORCED.0);
        for (asked, answered) in [
            (Marks::ASKED_CLIENT, Marks::ANSWERED_CLIENT),
            (Marks::ASKED_SERVER, Marks::ANSWERED_SERVER),
        ] {
            let done = tries > 0 && marks.has(answered);
            next = next.with(if done { answered } else { asked });
        }
        next
    }

    fn rest(&mut self, now: Instant) {
        self.asked = None;
        self.tries = 0;
        self.settled = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm =
        Rhythm { after: Duration::from_secs(10), every: Duration::from_secs(1), tries: 3 };
    const BOTH: Marks = Marks::ASKED_CLIENT.with(Marks::ASKED_SERVER);

    struct Scene {
        watch: Watch,
        word: FlowWord,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let word = FlowWord::live(7, 0, 0);
            Self { watch: Watch::new(word), word, start: Instant::now() }
        }

        /// A look `seconds` after the start; the last packet was `silence` before that.
        fn look(&mut self, seconds: u64, silence: u64) -> Option<Marks> {
            let now = self.start + Duration::from_secs(seconds);
            let asks = self.watch.look(self.word, Duration::from_secs(silence), &RHYTHM, now);
            if let Some(marks) = asks {
                self.word = self.word.with_marks(marks);
            }
            asks
        }

        fn answer(&mut self, end: End) {
            self.word = self.word.with_answer(end);
        }

        fn ends(&self) -> (Liveness, Liveness) {
            (self.watch.end(End::Client), self.watch.end(End::Server))
        }
    }

    #[test]
    fn only_silent_ones_are_asked() {
        let mut scene = Scene::new();
        assert_eq!(scene.look(0, 9), None);
        assert_eq!(scene.look(1, 10), Some(BOTH));
        assert_eq!(scene.look(1, 10), None, "an answer takes its time");
    }

    #[test]
    fn both_alive() {
        let mut scene = Scene::new();
        assert_eq!(scene.look(0, 10), Some(BOTH));
        scene.answer(End::Server);
        scene.answer(End::Client);
        assert_eq!(scene.look(1, 11), None);
        assert_eq!(scene.ends(), (Liveness::Alive, Liveness::Alive));
        assert_eq!(scene.look(2, 12), None, "it rests");
        assert_eq!(scene.look(11, 21), Some(BOTH), "and is asked again");
    }

    #[test]
    fn a_vanished_client() {
        let mut scene = Scene::new();
        scene.look(0, 10);
        scene.answer(End::Server);
        let answered = Marks::ANSWERED_SERVER.with(Marks::ASKED_CLIENT);
        assert_eq!(scene.look(1, 11), Some(answered), "only who has not answered");
        assert_eq!(scene.look(2, 12), Some(answered));
        assert_eq!(scene.look(3, 13), Some(Marks::default()), "nothing is an answer any more");
        assert_eq!(scene.ends(), (Liveness::Unreachable, Liveness::Alive));
        assert!(scene.watch.has_lost_an_end());
    }

    /// Traffic of its own, after the question: nobody is called unreachable.
    #[test]
    fn it_speaks_again() {
        let mut scene = Scene::new();
        scene.look(0, 10);
        scene.look(1, 11);
        assert_eq!(scene.look(4, 0), Some(Marks::default()));
        assert_eq!(scene.look(5, 1), None);
        assert_eq!(scene.ends(), (Liveness::Unknown, Liveness::Unknown));
        assert!(!scene.watch.has_lost_an_end());
    }

    #[test]
    fn the_order_to_end_stays() {
        let mut scene = Scene::new();
        scene.word = scene.word.with_marks(Marks::FORCED);
        assert_eq!(scene.look(0, 10), Some(BOTH.with(Marks::FORCED)));
    }
}
