//! Versions that instances may register for.

use std::collections::HashMap;

use super::super::error::Invalid;
use super::super::raw::{DraftRegistration, DraftService};
use super::super::settings::Conversation;
use super::claims::claim;
use super::{Found, tests_for};

pub(super) fn check(service: &DraftService, found: &mut Found) {
    let Some(at) = &service.registration else { return };
    if service.conversation() == Conversation::Quic {
        let what = Invalid::new("not with conversation `quic`");
        found.error(&at.place, what.hint("an instance that registers has no server id"));
    }
    if let DraftRegistration::Versions(names) = &at.value {
        let mut seen = HashMap::new();
        for name in names {
            tests_for::version(service, &name.value, &name.place, found);
            if let Some(taken) = claim(&mut seen, name.value.clone(), &name.place) {
                found.error(&name.place, taken.of(&format!("`{}`", name.value)));
            }
        }
    }
}
