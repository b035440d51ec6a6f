//! A release's alarm: raised once when somebody has to look, and cleared when it goes on.

use serde_json::Value;

use super::super::core::lock;
use super::hands::Hands;
use crate::release::journal::Entry;
use crate::release::machine::Release;
use crate::release::phase::{Cause, Phase};

/// The alarm of one release.
#[derive(Debug, Default)]
pub struct Alarm {
    raised: Option<String>,
    /// Raised, but not to be found in the journal.
    unwritten: bool,
}

impl Alarm {
    /// As the last lines about it left it.
    pub fn left(raised: Option<Entry>, cleared: Option<Entry>) -> Self {
        let cleared = cleared.map(|entry| entry.at).unwrap_or_default();
        let raised = raised.filter(|entry| entry.at > cleared).map(|entry| entry.text);
        Self { raised, unwritten: false }
    }

    /// Raises or clears it, if the release's state says so.
    pub fn follow(&mut self, hands: &Hands, release: &Release) {
        let wanted = wanted(release);
        // What is told of it may say more than the state does.
        let same = |raised: &String| wanted.as_ref().is_some_and(|text| raised.starts_with(text));
        if let Some(before) = self.raised.take_if(|raised| self.unwritten || !same(raised)) {
            self.unwritten = false;
            hands.note(release, "alarm-cleared", before, Value::Null);
        }
        if self.raised.is_some() {
            return;
        }
        let Some(mut text) = wanted else { return };
        let reasons = hands.reasons();
        if !reasons.is_empty() && matches!(release.phase, Phase::Held(_) | Phase::Forcing(_)) {
            text = format!("{text}: {}", reasons.join("; "));
        }
        hands.note(release, "alarm", text.clone(), Value::Null);
        self.raised = Some(text);
    }

    /// Raises it where nothing can be written down.
    pub fn raise_unwritten(&mut self, hands: &Hands, text: &str) {
        if !self.unwritten {
            self.unwritten = true;
            self.raised = Some(text.to_owned());
            hands.publish("alarm", text);
        }
    }
}

/// What the state of a release is an alarm for.
fn wanted(release: &Release) -> Option<String> {
    let (id, service) = (release.id, &release.service);
    Some(match &release.phase {
        Phase::Paused { cause: Cause::Asked | Cause::Planned, .. } => return None,
        Phase::Paused { why, .. } => format!("release {id} of {service} is paused: {why}"),
        Phase::Held(_) => format!("release {id} of {service} is held: not idle at its deadline"),
        Phase::Forcing(_) => format!("release {id} of {service} ends connections by force"),
        Phase::Aborting { why, .. } => format!("release {id} of {service} is given up: {why}"),
        _ => return None,
    })
}

impl Hands {
    /// Why the part that is drained is not idle.
    pub(super) fn reasons(&self) -> Vec<String> {
        let running = lock(&self.daemon.releases.running);
        running.get(&self.id).map(|one| one.reasons.clone()).unwrap_or_default()
    }
}
