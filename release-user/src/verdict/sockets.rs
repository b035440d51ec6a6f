//! What the instances' sockets say, over all samples. The argument is in
//! `docs/adr/0010-socket-evidence.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::sockets::{State, Summary};

/// A SYN cookie is accepted for two minutes at most (net/ipv4/syncookies.c). Until then a handshake
/// can come to its end that no socket shows.
pub const COOKIE_LIFE: Duration = Duration::from_secs(130);

/// What this place has shown so far, now or when it was asked before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// Nothing: it may be the wrong one.
    #[default]
    Nothing,
    /// Somebody listens.
    Listener,
    /// Connections, or what is left of them.
    Connections,
}

impl Proof {
    /// What a summary shows.
    pub fn of(summary: &Summary) -> Self {
        if summary.states.keys().any(|state| *state != State::Listen) {
            Self::Connections
        } else if summary.serves() {
            Self::Listener
        } else {
            Self::Nothing
        }
    }
}

/// What is known of the sockets in one place, from one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The whole truth.
    Known {
        /// The sockets.
        summary: Summary,
        /// How certain it is that the instance's sockets are in this place.
        proof: Proof,
        /// Time since the question was sent: the answer is no older.
        age: Duration,
    },
    /// Nothing.
    Unknown(String),
    /// That nobody is to be asked after all: the sockets of this address are elsewhere, and nobody
    /// has said where.
    Elsewhere(String),
}

/// What all looks at all places came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Instances that nobody is asked about.
    not_asked: BTreeSet<String>,
    /// Why something is not known.
    unknown: BTreeSet<String>,
    /// What each place has shown.
    proofs: BTreeMap<String, Proof>,
    /// The look that found most.
    worst: Option<Summary>,
    /// Looks.
    samples: usize,
    /// Age of the oldest answer of the last look.
    age: Duration,
    /// Most SYN cookies sent in a place.
    cookies: u64,
}

impl Sockets {
    /// Nothing asked yet; `not_asked` are the instances that will not be.
    pub fn new(not_asked: Vec<String>) -> Self {
        Self { not_asked: not_asked.into_iter().collect(), ..Self::default() }
    }

    /// Takes one look's answers, each with the place that it is from.
    pub fn look(&mut self, answers: Vec<(String, Answer)>) {
        self.samples += 1;
        self.age = Duration::ZERO;
        let mut sum: Option<Summary> = None;
        for (place, answer) in answers {
            match answer {
                Answer::Unknown(why) => drop(self.unknown.insert(why)),
                Answer::Elsewhere(address) => drop(self.not_asked.insert(address)),
                Answer::Known { summary, proof, age } => {
                    self.age = self.age.max(age);
                    self.cookies = self.cookies.max(summary.cookies);
                    // Of several questions to a place, each must be proven.
                    let known = self.proofs.entry(place).or_insert(proof);
                    *known = proof.min(*known);
                    sum.get_or_insert_default().add(summary);
                }
            }
        }
        let Some(sum) = sum else { return };
        if self.worst.as_ref().is_none_or(|worst| worst.remaining() < sum.remaining()) {
            self.worst = Some(sum);
        }
    }

    /// Whether anybody was asked.
    pub fn asked(&self) -> bool {
        self.worst.is_some() || !self.unknown.is_empty()
    }

    /// The look that found most.
    pub fn worst(&self) -> Option<&Summary> {
        self.worst.as_ref()
    }

    /// Most sockets that were found to remain.
    pub fn remaining(&self) -> u64 {
        self.worst.as_ref().map_or(0, Summary::remaining)
    }

    /// Why less than everything is known; none if nothing is missing.
    pub fn unknown(&self) -> Option<String> {
        let reasons: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    /// What was found, in words.
    pub fn in_words(&self) -> String {
        let mut parts = Vec::new();
        if let Some(worst) = &self.worst {
            let (samples, age) = (self.samples, self.age.as_millis());
            let looks = if samples == 1 { "sample" } else { "samples" };
            parts.push(format!("{} ({samples} {looks}, the last {age} ms old)", worst.in_words()));
        }
        parts.extend(self.unknown().map(|why| format!("not known: {why}")));
        parts.extend(self.not_asked_in_words());
        parts.join("; ")
    }

    fn not_asked_in_words(&self) -> Option<String> {
        let names: Vec<&str> = self.not_asked.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("nobody is asked for those of {}", names.join(", ")))
    }

    /// Whether no TCP connection to the target exists at its end, whatever the tables say or have
    /// lost: doubts about connections that they do not know are then answered.
    ///
    /// # Errors
    /// Why not.
    pub fn answer_doubts(&self, tcp_only: bool, quiet: Option<Duration>) -> Result<(), String> {
        if let Some(unknown) = self.unknown() {
            return Err(unknown);
        }
        if let Some(words) = self.not_asked_in_words() {
            return Err(words);
        }
        if self.worst.is_none() || self.remaining() > 0 {
            return Err("some remain".to_owned());
        }
        if !tcp_only {
            return Err("UDP sockets do not say whom they still send to".to_owned());
        }
        let unproven = self.proofs.iter().find(|(_, proof)| **proof == Proof::Nothing);
        if let Some((place, _)) = unproven {
            return Err(format!("nobody was seen listening at {place}"));
        }
        if self.cookies > 0 && quiet.is_some_and(|quiet| quiet < COOKIE_LIFE) {
            return Err(format!(
                "its host sends SYN cookies, so a handshake may be hidden until nothing has \
                 passed for {} s",
                COOKIE_LIFE.as_secs()
            ));
        }
        Ok(())
    }

    /// Whether TCP flows that the table has live are over: for modes in which it cannot see that.
    /// More than an answer to a doubt, so the places must have shown connections before.
    pub fn end_flows(&self, tcp_only: bool, quiet: Option<Duration>) -> bool {
        let shown = |proof: &Proof| *proof == Proof::Connections;
        self.answer_doubts(tcp_only, quiet).is_ok() && self.proofs.values().all(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn found(remaining: u64) -> Answer {
        let mut summary = Summary::default();
        summary.states.insert(State::Listen, 1);
        summary.states.insert(State::CloseWait, remaining);
        Answer::Known { summary, proof: Proof::Listener, age: Duration::from_millis(3) }
    }

    fn looks(looks: impl IntoIterator<Item = Vec<Answer>>) -> Sockets {
        let mut sockets = Sockets::new(Vec::new());
        for answers in looks {
            sockets.look(answers.into_iter().map(|answer| ("here".to_owned(), answer)).collect());
        }
        sockets
    }

    #[test]
    fn nothing_in_every_look_answers_doubts() {
        let sockets = looks([vec![found(0), found(0)], vec![found(0), found(0)]]);
        assert_eq!(sockets.answer_doubts(true, None), Ok(()));
        assert_eq!(sockets.in_words(), "no socket remains (2 samples, the last 3 ms old)");
        assert!(sockets.answer_doubts(false, None).unwrap_err().contains("UDP"));
    }

    #[test]
    fn one_look_that_found_something_counts() {
        let sockets = looks([vec![found(0)], vec![found(1), found(1)], vec![found(0)]]);
        assert_eq!(sockets.remaining(), 2);
        assert!(sockets.in_words().starts_with("2 sockets remain: 2 CLOSE_WAIT (3 samples"));
        assert!(sockets.answer_doubts(true, None).is_err());
    }

    #[test]
    fn what_is_not_known_answers_nothing() {
        let gone = Answer::Unknown("agent 10.0.0.1:7443: refused".to_owned());
        let sockets = looks([vec![found(0)], vec![found(0), gone.clone()], vec![gone]]);
        assert_eq!(sockets.unknown().unwrap(), "agent 10.0.0.1:7443: refused");
        assert!(sockets.answer_doubts(true, None).unwrap_err().contains("refused"));
        let mut sockets = Sockets::new(vec!["web-2".to_owned()]);
        sockets.look(vec![("here".to_owned(), found(0))]);
        assert!(sockets.answer_doubts(true, None).unwrap_err().contains("web-2"));
        assert!(Sockets::new(Vec::new()).answer_doubts(true, None).is_err(), "no look");
    }

    #[test]
    fn a_place_where_nobody_listens_may_be_the_wrong_one() {
        let summary = Summary::default();
        let answer = Answer::Known { summary, proof: Proof::Nothing, age: Duration::ZERO };
        let sockets = looks([vec![answer]]);
        assert!(sockets.answer_doubts(true, None).unwrap_err().contains("listening at here"));
    }

    /// A place proves itself by what it shows; one that showed nothing but a listener ends no flow.
    #[test]
    fn flows_end_where_connections_were_seen() {
        let mut summary = Summary::default();
        assert_eq!(Proof::of(&summary), Proof::Nothing);
        summary.states.insert(State::Listen, 1);
        assert_eq!(Proof::of(&summary), Proof::Listener);
        summary.states.insert(State::TimeWait, 1);
        assert_eq!(Proof::of(&summary), Proof::Connections);
        let with = |proof| {
            let summary = summary.clone();
            looks([vec![found(0), Answer::Known { summary, proof, age: Duration::ZERO }]])
        };
        assert!(!with(Proof::Connections).end_flows(true, None), "the other has not");
        let answer = Answer::Known { summary, proof: Proof::Connections, age: Duration::ZERO };
        let sockets = looks([vec![answer]]);
        assert!(sockets.end_flows(true, None));
        assert!(!sockets.end_flows(false, None));
    }

    #[test]
    fn sockets_elsewhere_are_not_asked_for() {
        let elsewhere = Answer::Elsewhere("10.2.1.2".to_owned());
        let sockets = looks([vec![elsewhere.clone()]]);
        assert!(!sockets.asked());
        let sockets = looks([vec![found(0), elsewhere]]);
        assert!(sockets.asked());
        assert!(sockets.answer_doubts(true, None).unwrap_err().contains("10.2.1.2"));
        assert!(sockets.in_words().ends_with("nobody is asked for those of 10.2.1.2"));
    }

    #[test]
    fn cookies_hide_handshakes_for_a_while() {
        let summary = Summary { cookies: 1, ..Summary::default() };
        let answer = Answer::Known { summary, proof: Proof::Listener, age: Duration::ZERO };
        let sockets = looks([vec![answer]]);
        let quiet = |seconds| sockets.answer_doubts(true, Some(Duration::from_secs(seconds)));
        assert!(quiet(129).unwrap_err().contains("SYN cookies"));
        assert_eq!(quiet(130), Ok(()));
        assert_eq!(sockets.answer_doubts(true, None), Ok(()), "never a packet");
    }
}
