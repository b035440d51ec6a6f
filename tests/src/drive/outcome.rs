//! What flows saw.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

/// How many errors are kept in words.
const KEPT: usize = 5;

/// Figures of a whole run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Flows that got a first answer.
    pub flows: u32,
    /// Answers.
    pub exchanges: u64,
    /// Flows that could not begin, and questions without an answer.
    pub errors: u64,
    /// The first of them, in words.
    pub first_errors: Vec<String>,
    /// Answers from another server than the flow's first one.
    pub moved: u64,
    /// The first of them, in words.
    pub first_moved: Vec<String>,
    /// UDP questions that were asked again because no answer came in time.
    pub repeated: u64,
    /// Flows that began, and were answered, before the change, by version.
    pub before: BTreeMap<String, u32>,
    /// Flows that began while it was made.
    pub during: BTreeMap<String, u32>,
    /// Flows that began after it had returned.
    pub after: BTreeMap<String, u32>,
    /// All flows by instance.
    pub instances: BTreeMap<String, u32>,
}

impl Outcome {
    pub(super) fn error(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        if self.first_errors.len() < KEPT {
            self.first_errors.push(format!("{error:#}"));
        }
    }

    pub(super) fn moved(&mut self, how: Option<String>) {
        if let Some(how) = how {
            self.moved += 1;
            if self.first_moved.len() < KEPT {
                self.first_moved.push(how);
            }
        }
    }

    /// Demands that all flows began, none failed or moved, and that those before and after the
    /// change all went to these versions.
    ///
    /// # Errors
    /// What was otherwise.
    pub fn is_clean(&self, flows: u32, before: &str, after: &str) -> Result<()> {
        ensure!(self.errors == 0, "{} errors: {:?}", self.errors, self.first_errors);
        ensure!(self.moved == 0, "{} moved: {:?}", self.moved, self.first_moved);
        ensure!(self.flows == flows, "{} of {flows} flows", self.flows);
        ensure!(self.before.keys().eq([before]), "before the shift: {:?}", self.before);
        ensure!(self.after.keys().eq([after]), "after the shift: {:?}", self.after);
        Ok(())
    }
}
